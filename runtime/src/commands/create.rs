//! `create`, and the making of a container for `run`: the runtime's side of the handshake.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use rustix::fs::{FileType, Mode, OFlags};

use super::admission::{Inside, born_of_stage, clone_inside, enter_cgroups};
use super::outside::{self, apply_limits, apply_schedule, reset_affinity};
use super::{Globals, listen_fds, parse_one, write_pid_file};
use super::{caches, checkpoint, devices, mount_source};
use crate::args::{Flag, Parsed};
use crate::cgroup::{Cgroup, Doors, Driver, Wish};
use crate::container::{Container, Lock, Record, process_stat};
use crate::hooks;
use crate::init::handshake::{FromInit, InitEnd, RuntimeEnd};
use crate::init::{self, Birth};
use crate::notify;
use crate::rootless;
use crate::spec::landlock::LandlockPlan;
use crate::spec::mounts::MountAction;
use crate::spec::oci::{LinuxResources, Process, Spec};
use crate::spec::plan::{Choices, Plan, PlanError};
use crate::spec::process::{Inherited, ProcessPlan, unavailable};
use crate::sys::clone::Side;
use crate::sys::host::Host;
use crate::sys::{self, errno_of, errno_text};
use crate::trace::Laps;

pub(super) const FLAGS: &[Flag] = &[
    ("bundle", "b", true),
    ("config", "f", true),
    ("console-socket", "", true),
    ("pidfd-socket", "", true),
    ("pid-file", "", true),
    ("no-pivot", "", false),
    ("no-new-keyring", "", false),
    ("preserve-fds", "", true),
];

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let (parsed, id) = parse_one("create", arguments, FLAGS)?;
    let making = || -> anyhow::Result<()> {
        let options = Options::new(globals, &parsed)?;
        let bundle = options.load()?;
        let terminal = bundle.wants_terminal();
        // Compat: a detached terminal needs someone to take it, and only a terminal does.
        if terminal && options.console_socket.is_none() {
            bail!("cannot allocate tty if runc will detach without setting console socket");
        }
        if !terminal && options.console_socket.is_some() {
            bail!("cannot use console socket if runc will not detach or allocate tty");
        }
        let console = options.connect_console()?;
        make(globals, &id, &bundle, &options, console).map(drop)
    };
    making().context("runc create failed")?;
    Ok(0)
}

/// What `create` and `run` share on the command line.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) bundle: PathBuf,
    /// Instead of the bundle's `config.json`.
    pub(crate) config: Option<PathBuf>,
    pub(crate) console_socket: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    choices: Choices,
}

impl Options {
    pub(crate) fn new(globals: &Globals, parsed: &Parsed) -> anyhow::Result<Self> {
        let path = |name: &str| -> anyhow::Result<Option<PathBuf>> {
            parsed.get(name).map(|path| Ok(std::path::absolute(path)?)).transpose()
        };
        Ok(Self {
            bundle: path("bundle")?.map_or_else(std::env::current_dir, Ok)?,
            config: path("config")?,
            console_socket: path("console-socket")?,
            pidfd_socket: path("pidfd-socket")?,
            pid_file: path("pid-file")?,
            choices: Choices {
                no_pivot: parsed.is_set("no-pivot"),
                new_keyring: !parsed.is_set("no-new-keyring"),
                preserve_fds: globals.preserved(parsed)?,
                unprivileged: rootless::unprivileged(),
            },
        })
    }

    pub(super) fn choices(&self) -> Choices {
        self.choices
    }

    pub(super) fn pid_file(&self) -> Option<&Path> {
        self.pid_file.as_deref()
    }

    pub(crate) fn load(&self) -> anyhow::Result<Bundle> {
        Bundle::load(&self.bundle, self.config.as_deref())
    }

    /// Whether a command that goes on as `detach` says has a place for the terminal.
    pub(super) fn check_terminal(&self, terminal: bool, detach: bool) -> anyhow::Result<()> {
        if detach && terminal && self.console_socket.is_none() {
            bail!("cannot allocate tty if runc will detach without setting console socket");
        }
        if self.console_socket.is_some() && !(detach && terminal) {
            bail!("cannot use console socket if runc will not detach or allocate tty");
        }
        Ok(())
    }

    pub(crate) fn connect_console(&self) -> anyhow::Result<Option<OwnedFd>> {
        self.console_socket.as_deref().map(connect_console).transpose()
    }
}

pub(crate) fn connect_console(path: &Path) -> anyhow::Result<OwnedFd> {
    sys::socket::connect(path).map_err(|error| {
        anyhow!("dial unix {}: connect: {}", path.display(), errno_text(errno_of(&error)))
    })
}

/// Hands a pidfd of the process to whoever listens. Compat: the payload names its kind.
pub(super) fn send_pidfd(path: &Path, pid: i32, kind: &[u8]) -> anyhow::Result<()> {
    let socket = connect_console(path)?;
    let pidfd = sys::clone::pidfd_open(pid).context("pidfd_open")?;
    sys::socket::send_fds(socket.as_fd(), kind, &[pidfd.as_fd()]).context("send pidfd")
}

/// A bundle directory and its configuration.
#[derive(Debug)]
pub(crate) struct Bundle {
    path: PathBuf,
    config: PathBuf,
    spec: Spec,
}

impl Bundle {
    pub(crate) fn load(path: &Path, config: Option<&Path>) -> anyhow::Result<Self> {
        let path = path.canonicalize().map_err(|error| {
            anyhow!("chdir {}: {}", path.display(), errno_text(errno_of(&error)))
        })?;
        // Compat: hooks start in the bundle.
        std::env::set_current_dir(&path).map_err(|error| {
            anyhow!("chdir {}: {}", path.display(), errno_text(errno_of(&error)))
        })?;
        let config = config.map_or_else(|| path.join("config.json"), Path::to_owned);
        let spec = crate::spec::load(&config)?;
        Ok(Self { path, config, spec })
    }

    pub(super) fn plan(&self, id: &str, choices: Choices) -> Result<Plan, PlanError> {
        Plan::new(&self.spec, id, &self.path, choices)
    }

    pub(super) fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(crate) fn wants_terminal(&self) -> bool {
        self.spec.process.as_ref().is_some_and(|process| process.terminal)
    }
}

/// A container that waits on its fifo.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) container: Container,
    pub(crate) lock: Lock,
}

/// Makes a container up to the point where `start` lets it go; on failure nothing is left.
pub(crate) fn make(
    globals: &Globals,
    id: &str,
    bundle: &Bundle,
    options: &Options,
    console: Option<OwnedFd>,
) -> anyhow::Result<Made> {
    let mut laps = Laps::new("create", globals.started, &bundle.spec.annotations, &globals.timings);
    laps.lap("parse");
    crate::container::check_id(id)?;
    let mut plan = bundle.plan(id, options.choices)?;
    let listen = listen_fds();
    if listen > 0 {
        plan.process.env.push(format!("LISTEN_FDS={listen}"));
        plan.process.env.push("LISTEN_PID=1".to_owned());
    }
    warn(globals, bundle);
    warn_of_landlock(globals, &plan.process);
    let mut record = record(globals, bundle, &plan, id);
    record.descriptors = checkpoint::descriptors("self");
    let mut cgroup = planned_cgroup(globals, bundle, id)?;
    let (mut container, lock) = Container::create(&globals.root, record)?;
    // Not ours to remove when it is in use.
    if let Err(error) = cgroup.check_unused() {
        container.remove()?;
        return Err(error.into());
    }
    container.record.cgroup_paths = cgroup.paths().clone();
    container.record.unit = cgroup.unit().cloned();
    if let Err(error) = notify::prepare(&mut plan, &container) {
        container.remove()?;
        return Err(error);
    }
    laps.lap("plan");
    let given = Given { plan: &plan, bundle, options };
    let built = build(globals, &mut container, &given, &mut cgroup, console, &mut laps);
    if let Err(error) = built {
        undo(globals, &container);
        return Err(error);
    }
    Ok(Made { container, lock })
}

/// What is known of a container before it is made.
pub(super) fn record(globals: &Globals, bundle: &Bundle, plan: &Plan, id: &str) -> Record {
    Record {
        id: id.to_owned(),
        created: jiff::Timestamp::now().to_string(),
        bundle: bundle.path.clone(),
        config: bundle.config.clone(),
        rootfs: plan.rootfs.clone(),
        annotations: bundle.spec.annotations.clone(),
        hooks: plan.hooks.clone(),
        new_keyring: plan.new_keyring,
        inherited: Inherited::of(&bundle.spec, &plan.process),
        resources: bundle.spec.linux.as_ref().map_or_else(LinuxResources::default, |linux| {
            LinuxResources { devices: Vec::new(), ..linux.resources.clone() }
        }),
        private_pids: plan.private_pids(),
        optional_cgroups: rootless::cgroups_are_optional(globals.rootless),
        seccomp_flags: plan.seccomp.as_ref().map_or(0, |program| program.flags),
        seccomp_notifies: plan.seccomp.as_ref().is_some_and(|program| program.needs_listener),
        ..Default::default()
    }
}

/// What a container is made from.
struct Given<'a> {
    plan: &'a Plan,
    bundle: &'a Bundle,
    options: &'a Options,
}

fn build(
    globals: &Globals,
    container: &mut Container,
    given: &Given<'_>,
    cgroup: &mut Cgroup,
    console: Option<OwnedFd>,
    laps: &mut Laps<'_>,
) -> anyhow::Result<()> {
    let Given { plan, bundle, options } = *given;
    let none = LinuxResources::default();
    let linux = bundle.spec.linux.as_ref();
    let resources = linux.map_or(&none, |linux| &linux.resources);
    // Known before anything exists, so that `delete --force` finds what a kill leaves behind.
    container.save()?;
    if let Some(program) = &plan.seccomp {
        // Compat: tools that read runc's debug log know this text.
        globals.log.debug(&format!("seccomp filter flags: {}", program.all_flags()));
    }
    let exec_fifo = make_fifo(&container.unannounced_fifo_path())?;
    cgroup.create().map_err(not_admitted)?;
    if cgroup.is_disabled() && container.record.optional_cgroups && !plan.private_pids() {
        // Compat: runc's warning.
        globals.log.warn(
            "Creating a rootless container with no cgroup and no private pid namespace. Such \
             configuration is strongly discouraged (as it is impossible to properly kill all \
             container's processes) and will result in an error in a future runc version.",
        );
    }
    laps.lap("cgroup");

    let wants_cgroup = plan.mounts.iter().any(|mount| matches!(mount.action, MountAction::Cgroup));
    let cgroup_mount =
        if wants_cgroup { Some(cgroup.mounts(plan.new_cgroup_namespace)?) } else { None };
    let doors = if cgroup.unit().is_some() { None } else { cgroup.doors() };
    let (ours, theirs) = sys::socket::message_pair().context("handshake socket")?;
    let record = container.record.clone();
    let birth = Birth {
        plan,
        host: Host::of_the_runtime(),
        channel: InitEnd(theirs),
        exec_fifo,
        console,
        cgroup_mount,
        hook_state: &|status, pid| record.hook_state(status, pid),
        debug: globals.log.tells_debug(),
    };
    let Born { pid, channel, inside } = give_birth(globals, plan, birth, doors, RuntimeEnd(ours))?;
    container.record.pid = pid;
    container.record.start_time = process_stat(pid).map_or(0, |stat| stat.start_time);
    container.record.complete = true;
    laps.lap("clone");

    outside::prepare(plan, pid)?;
    if !inside.told(&channel)? {
        let taken = cgroup.take(pid, resources);
        container.record.unit = cgroup.unit().cloned();
        container.record.cgroup_paths = cgroup.paths().clone();
        taken.map_err(not_admitted)?;
    }
    cgroup.apply(resources).map_err(not_limited)?;
    container.record.cgroup_paths = cgroup.paths().clone();
    caches::enter(container, linux.and_then(|linux| linux.intel_rdt.as_ref()))?;
    reset_affinity(globals, pid);
    laps.lap("limits");
    proceed(&channel)?;
    // While init mounts. Should we be killed before, it ends by itself, and its cgroups are known.
    container.save()?;
    if let Some(program) = &plan.seccomp {
        container.save_filter(program)?;
    }
    expect(globals, &channel, pid, given, &FromInit::Mounted)?;
    laps.lap("rootfs");
    if plan.pauses_when_mounted() {
        devices::move_all(plan, pid)?;
        // Compat: runc tells prestart hooks `creating`; the specification wants `created`.
        let state = container.record.hook_state("created", pid);
        hooks::run_all(&plan.hooks.prestart, "prestart", &state).map_err(init_error)?;
        hooks::run_all(&plan.hooks.create_runtime, "createRuntime", &state).map_err(init_error)?;
        apply_schedule(&plan.process, resources, pid)?;
        proceed(&channel)?;
    }
    if plan.limits_from_outside() {
        expect(globals, &channel, pid, given, &FromInit::Shed)?;
        let what = format!("error during container init: {}", init::LIMITS_FAILED);
        apply_limits(&plan.process, pid, &what)?;
        proceed(&channel)?;
    }
    expect(globals, &channel, pid, given, &FromInit::Ready)?;
    laps.lap("process");

    if let Some(path) = &options.pidfd_socket {
        send_pidfd(path, pid, b"standard")?;
    }
    container.announce()?;
    if let Some(path) = &options.pid_file {
        write_pid_file(path, pid)?;
    }
    Ok(())
}

pub(super) fn planned_cgroup(
    globals: &Globals,
    bundle: &Bundle,
    id: &str,
) -> anyhow::Result<Cgroup> {
    let none = LinuxResources::default();
    let linux = bundle.spec.linux.as_ref();
    let path = linux.and_then(|linux| linux.cgroups_path.as_deref());
    let resources = linux.map_or(&none, |linux| &linux.resources);
    let annotations = &bundle.spec.annotations;
    let user = globals.cgroup_driver == Driver::Systemd && rootless::has_manager(globals.rootless);
    let wish = Wish { path, id, resources, annotations, user };
    let cgroup = Cgroup::plan(wish, globals.cgroup_driver)?;
    // What systemd makes is to be had, or not.
    if globals.cgroup_driver == Driver::Cgroupfs && rootless::cgroups_are_optional(globals.rootless)
    {
        return Ok(cgroup.without_root(path.is_some_and(|path| !path.is_empty())));
    }
    Ok(cgroup)
}

fn init_error(error: hooks::HookError) -> anyhow::Error {
    anyhow!("unable to start container process: {error}")
}

/// Compat: runc's sentence.
fn not_admitted(error: crate::cgroup::Error) -> anyhow::Error {
    anyhow!("unable to start container process: unable to apply cgroup configuration: {error}")
}

fn not_limited(error: crate::cgroup::Error) -> anyhow::Error {
    // Compat: where there is no cgroup to limit, runc notices when it makes one.
    if let crate::cgroup::Error::LimitsWithoutRights(_) = error {
        return not_admitted(error);
    }
    anyhow!(
        "unable to start container process: error during container init: error setting cgroup \
         config for procHooks process: {error}"
    )
}

fn make_fifo(path: &Path) -> anyhow::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, mode, 0)
        .with_context(|| format!("mkfifo {}", path.display()))?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).context("open exec fifo")
}

/// A process that waits for the runtime.
struct Born {
    pid: i32,
    channel: RuntimeEnd,
    inside: Inside,
}

/// Clones, through a stage where namespaces are to be entered first.
fn give_birth(
    globals: &Globals,
    plan: &Plan,
    birth: Birth<'_>,
    doors: Option<Doors>,
    channel: RuntimeEnd,
) -> anyhow::Result<Born> {
    let oom_score = rootless::OomScore::set(plan.process.oom_score_adj)?;
    // Nobody in the container may look into us through its procfs before the exec. Of a user's new
    // user namespace nobody else is part, and its first process must show its id maps.
    if !(plan.unprivileged && plan.creates(libc::CLONE_NEWUSER)) {
        sys::identity::prctl(libc::PR_SET_DUMPABLE, 0).context("prctl PR_SET_DUMPABLE")?;
    }
    let staged = plan.needs_stage();
    let flags = match staged {
        true => plan.stage_creates(),
        false => plan.create & !plan.late(),
    };
    let (side, mut inside) = clone_inside(flags, doors.as_ref())?;
    match side {
        Side::Child => {
            // A copy of the runtime's end in here would hide its death from us.
            drop(channel);
            enter_cgroups(doors, &birth.channel);
            if staged {
                init::stage(&birth);
            }
            init::container(birth)
        }
        Side::Parent(pid) => {
            // Our copy of init's end must go, or its death would go unnoticed.
            drop((birth, doors, oom_score));
            if !staged {
                return Ok(Born { pid, channel, inside });
            }
            inside = Inside::Known(inside.told(&channel)?);
            if plan.stage_creates() != 0 {
                rootless::write_maps(pid, &plan.uid_mappings, &plan.gid_mappings)?;
                proceed(&channel)?;
            }
            let pid = born_of_stage(globals, &channel, pid)?;
            Ok(Born { pid, channel, inside })
        }
    }
}

fn proceed(channel: &RuntimeEnd) -> anyhow::Result<()> {
    match channel.proceed() {
        // It is dead; why comes out of the next receive.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("handshake"),
    }
}

fn expect(
    globals: &Globals,
    channel: &RuntimeEnd,
    pid: i32,
    given: &Given<'_>,
    wanted: &FromInit,
) -> anyhow::Result<()> {
    let Given { plan, bundle, .. } = *given;
    loop {
        let message = channel.receive().context("handshake")?;
        match message {
            Some(message) if message == *wanted => return Ok(()),
            Some(FromInit::Note(text)) => globals.log.debug(&text),
            Some(FromInit::Wanted(index)) => {
                let planned = usize::try_from(index).ok().and_then(|index| plan.mounts.get(index));
                let planned = planned.context("init wants a mount that is not planned")?;
                let tree = mount_source::open_inside(planned, plan, pid)?;
                channel.send_tree(tree.as_fd()).context("send the source of a mount")?;
            }
            Some(FromInit::Listener(number)) if plan.seccomp.is_some() => {
                let listener = channel.take_listener(pid, number).context("seccomp listener")?;
                hand_over_listener(bundle, &listener)?;
                proceed(channel)?;
            }
            Some(FromInit::Failed(failure)) => {
                bail!("unable to start container process: {}", failure.sentence())
            }
            Some(message) => bail!("unable to start container process: unexpected {message:?}"),
            // Compat: what runc says when init was killed, as by the OOM killer.
            None => bail!(
                "unable to start container process: container init was OOM-killed (memory limit \
                 too low?) or ended without a word"
            ),
        }
    }
}

/// The agent at `listenerPath` gets the listener with the state of the container process.
pub(super) fn hand_over_listener(bundle: &Bundle, listener: &OwnedFd) -> anyhow::Result<()> {
    let profile = bundle
        .spec
        .linux
        .as_ref()
        .and_then(|linux| linux.seccomp.as_ref())
        .context("seccomp listener without a profile")?;
    // Compat: runc's words.
    let socket = connect_console(Path::new(&profile.listener_path))
        .context("failed to connect with seccomp agent specified in the seccomp profile")?;
    let state = serde_json::json!({
        "ociVersion": crate::container::OCI_VERSION,
        "fds": ["seccompFd"],
        "metadata": profile.listener_metadata,
        "state": {
            "ociVersion": crate::container::OCI_VERSION,
            "status": "creating",
            "bundle": bundle.path,
        },
    });
    sys::socket::send_fds(socket.as_fd(), state.to_string().as_bytes(), &[listener.as_fd()])
        .context("send seccomp listener")
}

/// Takes back what a failed create has made. Errors here would hide the one that matters.
pub(super) fn undo(globals: &Globals, container: &Container) {
    if container.record.pid > 0 {
        drop(sys::process::kill(container.record.pid, libc::SIGKILL));
        drop(sys::clone::wait(container.record.pid, true));
    }
    if let Some(group) = &container.record.resctrl
        && let Err(error) = group.remove()
    {
        globals.log.warn(&error.to_string());
    }
    let cgroup = container.cgroup();
    if !container.record.cgroup_paths.is_empty()
        && let Err(error) = cgroup.destroy()
    {
        globals.log.warn(&format!("remove cgroup: {error}"));
    }
    if let Err(error) = container.remove() {
        globals.log.warn(&error.to_string());
    }
    let state = container.record.hook_state("stopped", 0);
    if let Err(error) = hooks::run_all(&container.record.hooks.poststop, "poststop", &state) {
        globals.log.warn(&error.to_string());
    }
}

/// What will not be as the specification says, and yet is no error.
fn warn(globals: &Globals, bundle: &Bundle) {
    if let Some(process) = &bundle.spec.process {
        warn_of_capabilities(globals, process);
    }
    let Some(linux) = &bundle.spec.linux else { return };
    if !linux.mount_label.is_empty() && !sys::label::selinux_enabled() {
        globals.log.warn("ignoring linux.mountLabel: SELinux is disabled");
    }
    if let Some(personality) = linux.personality.as_ref().filter(|one| !one.flags.is_empty()) {
        // Compat: no runtime knows any; runc passes over them with words that start so.
        let flags = personality.flags.join(" ");
        globals.log.warn(&format!("ignoring unsupported personality flags: [{flags}]"));
    }
    if globals.cgroup_driver == Driver::Disabled {
        let limits = LinuxResources { devices: Vec::new(), ..linux.resources.clone() };
        if limits != LinuxResources::default() {
            globals.log.warn("ignoring linux.resources: the container gets no cgroup of its own");
        }
    }
    for field in Cgroup::ignored(&linux.resources) {
        globals.log.warn(&format!("ignoring linux.resources.{field}: cgroups here have none"));
    }
}

pub(super) fn warn_of_landlock(globals: &Globals, process: &ProcessPlan) {
    if let Some(text) = process.landlock.as_ref().and_then(LandlockPlan::warning) {
        globals.log.warn(&text);
    }
}

pub(super) fn warn_of_capabilities(globals: &Globals, process: &Process) {
    let Some(sets) = &process.capabilities else { return };
    for name in &sets.ambient {
        if !sets.inheritable.contains(name) || !sets.permitted.contains(name) {
            // Compat: runc's sentence.
            let cause = errno_text(libc::EPERM);
            globals.log.warn(&format!("can't raise ambient capability {name}: {cause}"));
        }
    }
    let missing = unavailable(sets, rootless::capabilities_to_give());
    if !missing.is_empty() {
        globals.log.warn(&format!("ignoring unknown or unavailable capabilities: {missing:?}"));
    }
}
