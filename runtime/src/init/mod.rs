//! The birth of a process in a container, on the child's side of the clone.
//!
//! One straight list of steps. Everything was checked and opened by the runtime before; what
//! fails here is told to it as step, errno and detail (see [`handshake`]), and the process ends.

mod console;
mod copy_up;
mod finish;
pub(crate) mod handshake;
mod landlock;
mod mounts;
mod namespaces;
mod rootfs;
pub(crate) mod visit;

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};

use crate::cgroup::CgroupMount;
use crate::hooks;
use crate::seccomp;
use crate::spec::plan::Plan;
use crate::spec::process::ProcessPlan;
use crate::sys;
use crate::sys::clone::{Flags, Side};
use crate::sys::host::{Host, Inside};
use crate::sys::identity::Finder;
use crate::sys::landlock::Ruleset;
use crate::sys::path::RootFd;
pub(crate) use finish::LIMITS_FAILED;
use finish::Last;
use handshake::{Context as _, Failure, FromInit, InitEnd, Step};

/// The state that hooks read, for a status and a pid.
pub(crate) type HookState<'a> = &'a dyn Fn(&str, i32) -> Vec<u8>;

/// What a container's first process is given besides the plan.
pub(crate) struct Birth<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) host: Host,
    pub(crate) channel: InitEnd,
    /// Opened for reading and writing, so that a read blocks until `start` writes.
    pub(crate) exec_fifo: OwnedFd,
    /// Where the terminal's master goes.
    pub(crate) console: Option<OwnedFd>,
    pub(crate) cgroup_mount: Option<CgroupMount>,
    /// The state for the hooks that run in here.
    pub(crate) hook_state: HookState<'a>,
    /// Whether the log is told of the steps.
    pub(crate) debug: bool,
}

impl Birth<'_> {
    /// Lets go of all that is the runtime's, its lock above all, and the caller's.
    pub(crate) fn keep_only_own(&self) -> Result<(), Failure> {
        let mut kept = vec![self.channel.as_fd().as_raw_fd(), self.exec_fifo.as_raw_fd()];
        kept.extend(self.console.as_ref().map(|console| console.as_raw_fd()));
        kept.extend(self.plan.descriptors());
        keep_only(&self.plan.process, &mut kept)
    }
}

fn keep_only(process: &ProcessPlan, kept: &mut [RawFd]) -> Result<(), Failure> {
    sys::process::close_all_but(3 + process.preserve_fds, kept)
        .step(Step::Descriptors, "close descriptors")
}

/// The first process of a container; never returns.
pub(crate) fn container(birth: Birth<'_>) -> ! {
    if !birth.plan.needs_stage()
        && let Err(failure) = birth.keep_only_own()
    {
        give_up(Some(birth.channel), failure);
    }
    let channel_fd = birth.channel.as_fd().try_clone_to_owned();
    if let Err(failure) = born(birth) {
        report(channel_fd.ok().map(InitEnd), failure);
    }
    sys::clone::exit_now(1)
}

/// The stage between the runtime and a process that is born into joined namespaces. Returns in
/// the process to be; the stage itself ends in here.
pub(crate) fn stage(birth: &Birth<'_>) {
    let (plan, channel) = (birth.plan, &birth.channel);
    let made = plan.stage_creates();
    let mapped = || {
        if made == 0 {
            return Ok(());
        }
        channel.wait()?;
        namespaces::become_root()
    };
    let rest = plan.create & !plan.late() & !sys::clone::NEWTIME & !made;
    let result = birth
        .keep_only_own()
        .and_then(|()| mapped())
        .and_then(|()| namespaces::join(plan, true))
        .and_then(|()| namespaces::time(plan, &birth.host))
        .and_then(|()| clone_sibling(rest));
    end_stage(channel, result);
}

fn clone_sibling(flags: Flags) -> Result<Side, Failure> {
    sys::clone::clone(flags, true).step(Step::Namespace, "clone init")
}

fn end_stage(channel: &InitEnd, result: Result<Side, Failure>) {
    match result {
        Ok(Side::Child) => {}
        Ok(Side::Parent(pid)) => {
            let told = channel.send(&FromInit::Born(pid));
            sys::clone::exit_now(i32::from(told.is_err()));
        }
        Err(failure) => {
            drop(channel.send(&FromInit::Failed(failure)));
            sys::clone::exit_now(1);
        }
    }
}

fn report(channel: Option<InitEnd>, failure: Failure) {
    let told =
        channel.is_some_and(|channel| channel.send(&FromInit::Failed(failure.clone())).is_ok());
    // Who took the runtime away, or what it stumbled over, is for it to tell.
    if !told && failure.step != Step::Handshake {
        // After Ready nobody listens; the container's own stderr is what is left.
        // Compat: `exec /x: exec format error`, as runc writes it there.
        let text = format!("{}\n", failure.sentence());
        rustix::io::write(rustix::stdio::stderr(), text.as_bytes()).ok();
    }
}

fn born(birth: Birth<'_>) -> Result<(), Failure> {
    let Birth { plan, host, channel, exec_fifo, console, cgroup_mount, hook_state, debug } = birth;
    sys::identity::set_umask(0);
    let note = |text: &str| note(&channel, debug, text);
    note("nsexec container setup")?;
    // What needs no id maps is done while the runtime sees to the limits; no device, no mount of the
    // container's.
    let early = if plan.has_user_namespace() { None } else { Some(surroundings(plan, &host)?) };
    channel.wait()?;
    if plan.unprivileged {
        // Until now the user had to reach our id maps.
        sys::identity::prctl(libc::PR_SET_DUMPABLE, 0).step(Step::Namespace, "set dumpable")?;
    }
    note("child process in init()")?;
    let root = match early {
        Some(root) => root,
        None => surroundings(plan, &host)?,
    };
    if plan.new_cgroup_namespace {
        // After the runtime has put us into the cgroup that shall be its root.
        sys::clone::unshare(libc::CLONE_NEWCGROUP).step(Step::Namespace, "unshare cgroup")?;
    }
    mounts::mount_all(plan, &root, &host, cgroup_mount.as_ref(), &channel)?;
    rootfs::devices(plan, &root, &host)?;
    // As late as the hooks allow: the kernel has one lock for this, and whoever takes down the
    // network of a container that has just ended holds it for milliseconds.
    let network_now = plan.pauses_when_mounted() || !plan.hooks.create_container.is_empty();
    if network_now {
        network(plan)?;
    }

    channel.send(&FromInit::Mounted)?;
    if plan.pauses_when_mounted() {
        channel.wait()?;
    }
    if !plan.hooks.create_container.is_empty() {
        // Compat: these hooks find themselves in the root, which is not yet `/`.
        rustix::process::fchdir(root.as_fd()).step(Step::Hook, "chdir to rootfs")?;
        let state = hook_state("created", own_pid());
        run_hooks(&plan.hooks.create_container, "createContainer", &state)?;
    }

    rootfs::sysctl(plan, &host)?;
    if !plan.hostname.is_empty() {
        sys::identity::set_hostname(&plan.hostname).step(Step::Hostname, "hostname")?;
    }
    if !plan.domainname.is_empty() {
        sys::identity::set_domainname(&plan.domainname).step(Step::Hostname, "domainname")?;
    }
    if plan.process.terminal {
        let terminal = console::open(&root, &plan.process, console.as_ref())?;
        if plan.setup_dev && plan.has_mount_namespace() {
            mounts::bind_console(&root, terminal.as_fd())
                .step(Step::Console, "mount /dev/console")?;
        }
        console::take(terminal)?;
    }
    rootfs::working_directory(plan, &root)?;
    rootfs::readonly_paths(plan, &root)?;
    rootfs::mask(plan, &root, &host)?;
    mounts::finish_read_only(plan, &root)?;
    note("init: closing the pipe to signal completion")?;
    let home = finish::home(&root, &plan.process);
    let labels = finish::prepare_labels(&plan.process, &host, finish::OF_INIT)?;
    rootfs::null_streams(plan, &root);
    let inside = rootfs::enter(plan, &root, host)?;
    if !network_now {
        network(plan)?;
    }
    finish::settle(&plan.process)?;
    finish::apply_labels(labels)?;
    // From here on owners of closed descriptors may not be dropped: nothing returns.
    drop(root);
    let (channel, exec_fifo) = finish::shed_descriptors(&plan.process, channel, Some(exec_fifo))?;
    let landlock = match limited(&inside, &plan.process, plan.limits_from_outside(), &channel) {
        Ok(landlock) => landlock,
        Err(failure) => give_up(Some(channel), failure),
    };
    let last = Last { landlock, seccomp: plan.seccomp.as_ref() };
    let command = match finish::become_process(&inside, &plan.process, last, home, &channel) {
        Ok(command) => command,
        Err(failure) => give_up(Some(channel), failure),
    };
    if plan.unprivileged {
        // A user's exec enters only what shows itself; all that is left here is the container's.
        sys::identity::prctl(libc::PR_SET_DUMPABLE, 1).ok();
    }
    // A filter of the container's may have the last word here.
    sys::process::end_when_asked().ok();
    if let Err(failure) = channel.send(&FromInit::Ready) {
        give_up(None, failure);
    }
    drop(channel);
    let started = match exec_fifo {
        Some(exec_fifo) => wait_for_start(exec_fifo),
        None => Ok(()),
    };
    let failure = started
        .and_then(|()| {
            let state = hook_state("created", own_pid());
            // Compat: these stand where the process is about to, in its environment.
            hooks::run_all_with(
                &plan.hooks.start_container,
                "startContainer",
                &state,
                &command.environment(),
            )
            .map_err(hook_failure)
        })
        .map_or_else(|failure| failure, |()| command.exec());
    give_up(None, failure)
}

/// Namespaces, session, keyring, and the root as a mount of its own.
fn surroundings(plan: &Plan, host: &Host) -> Result<RootFd, Failure> {
    if plan.new_keyring {
        finish::label_keys(&plan.process, host)?;
    }
    if !plan.needs_stage() {
        namespaces::join(plan, false)?;
    }
    if plan.has_user_namespace() {
        namespaces::become_root()?;
    }
    if plan.late() != 0 {
        sys::clone::unshare(libc::CLONE_NEWIPC).step(Step::Namespace, "unshare ipc")?;
    }
    sys::process::setsid().step(Step::Session, "setsid")?;
    if plan.new_keyring
        && let Some(keyring) = keyring(&plan.id)?
    {
        let finder = if plan.has_user_namespace() { Finder::Anyone } else { Finder::Owner };
        sys::identity::let_find_keyring(keyring, finder)
            .step(Step::Keyring, "unable to mod keyring permissions")?;
    }
    rootfs::prepare(plan, host)
}

fn network(plan: &Plan) -> Result<(), Failure> {
    if plan.creates(libc::CLONE_NEWNET) {
        sys::process::loopback_up().step(Step::Network, "loopback up")?;
    }
    Ok(())
}

/// Compat: tools that read runc's debug log know these texts.
fn note(channel: &InitEnd, wanted: bool, text: &str) -> Result<(), Failure> {
    if wanted { channel.send(&FromInit::Note(text.to_owned())) } else { Ok(()) }
}

fn give_up(channel: Option<InitEnd>, failure: Failure) -> ! {
    report(channel, failure);
    sys::clone::exit_now(1)
}

/// Holds what the rules name, then limits the process. Not before: it may be allowed fewer files than that
/// takes, or than the mounts did.
fn limited(
    inside: &Inside,
    process: &ProcessPlan,
    from_outside: bool,
    channel: &InitEnd,
) -> Result<Option<Ruleset>, Failure> {
    let landlock = landlock::prepare(inside, process)?;
    if from_outside {
        channel.send(&FromInit::Shed)?;
        channel.wait()?;
    } else {
        finish::limit(process)?;
    }
    Ok(landlock)
}

/// Blocks until `start` has written its byte.
fn wait_for_start(exec_fifo: OwnedFd) -> Result<(), Failure> {
    let mut byte = [0_u8];
    File::from(exec_fifo).read_exact(&mut byte).step(Step::Exec, "wait for start")
}

/// The container's, which init makes and whoever enters finds by its name.
fn keyring(id: &str) -> Result<Option<libc::c_long>, Failure> {
    match sys::identity::join_session_keyring(&format!("_ses.{id}")) {
        // Kernels without keyrings, and outer sandboxes that forbid them.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(None),
        result => result.map(Some).step(Step::Keyring, "join session keyring"),
    }
}

/// As the container counts.
fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}

fn run_hooks(list: &[crate::spec::oci::Hook], kind: &str, state: &[u8]) -> Result<(), Failure> {
    hooks::run_all(list, kind, state).map_err(hook_failure)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn hook_failure(error: hooks::HookError) -> Failure {
    Failure { step: Step::Hook, errno: 0, detail: error.to_string() }
}

/// What a process that enters a running container is given.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) host: Host,
    pub(crate) process: &'a ProcessPlan,
    pub(crate) seccomp: Option<&'a seccomp::Program>,
    pub(crate) channel: InitEnd,
    pub(crate) console: Option<OwnedFd>,
    /// Of the container's first process.
    pub(crate) pidfd: OwnedFd,
    /// `CLONE_NEW*` of the namespaces that differ from ours, the pid namespace excepted.
    pub(crate) namespaces: libc::c_int,
    pub(crate) keyring: Option<&'a str>,
    /// Root of a user namespace may not raise them.
    pub(crate) limits_from_outside: bool,
    pub(crate) debug: bool,
}

impl Entry<'_> {
    fn keep_only_own(&self, also: Option<&InitEnd>) -> Result<(), Failure> {
        let mut kept = vec![self.channel.as_fd().as_raw_fd(), self.pidfd.as_raw_fd()];
        kept.extend(self.console.as_ref().map(|console| console.as_raw_fd()));
        kept.extend(also.map(|channel| channel.as_fd().as_raw_fd()));
        keep_only(self.process, &mut kept)
    }
}

/// The stage of an ordinary user's exec, who may enter a pid namespace only from the user namespace
/// that owns it. Returns in the process to be; the stage itself ends in here.
pub(crate) fn enter_stage(entry: &mut Entry<'_>) {
    let Ok(channel) = entry.channel.as_fd().try_clone_to_owned().map(InitEnd) else {
        sys::clone::exit_now(255)
    };
    let first = libc::CLONE_NEWUSER | libc::CLONE_NEWPID;
    let join = || {
        sys::clone::setns(entry.pidfd.as_fd(), entry.namespaces & first)
            .step(Step::Namespace, "join the container's namespaces")
    };
    let result = entry
        .keep_only_own(Some(&channel))
        .and_then(|()| join())
        .and_then(|()| namespaces::become_root())
        .and_then(|()| clone_sibling(0));
    entry.namespaces &= !first;
    end_stage(&channel, result);
}

/// A process that enters a running container; never returns.
pub(crate) fn enter(entry: Entry<'_>) -> ! {
    if let Err(failure) = entry.keep_only_own(None) {
        give_up(Some(entry.channel), failure);
    }
    let channel_fd = entry.channel.as_fd().try_clone_to_owned();
    if let Err(failure) = entered(entry) {
        report(channel_fd.ok().map(InitEnd), failure);
    }
    sys::clone::exit_now(255)
}

fn entered(entry: Entry<'_>) -> Result<(), Failure> {
    let Entry { host, process, seccomp, channel, console, pidfd, namespaces, keyring: id, .. } =
        entry;
    let Entry { limits_from_outside, debug, .. } = entry;
    channel.wait()?;
    note(&channel, debug, "nsexec container setup")?;
    note(&channel, debug, "child process in init()")?;
    // Labels are written through a procfs that was opened out here.
    let labels = finish::prepare_labels(process, &host, finish::OF_EXEC)?;
    if id.is_some() {
        finish::label_keys(process, &host)?;
    }
    let inside = host
        .follow(pidfd.as_fd(), namespaces)
        .step(Step::Namespace, "join the container's namespaces")?;
    if namespaces & libc::CLONE_NEWUSER != 0 {
        namespaces::become_root()?;
    }
    sys::process::setsid().step(Step::Session, "setsid")?;
    if let Some(id) = id {
        keyring(id)?;
    }
    let root = inside.root().map(RootFd::new).step(Step::Rootfs, "open /")?;
    if process.terminal {
        let terminal = console::open(&root, process, console.as_ref())?;
        console::take(terminal)?;
    }
    let home = finish::home(&root, process);
    drop(root);
    finish::settle(process)?;
    finish::apply_labels(labels)?;
    let (channel, _) = finish::shed_descriptors(process, channel, None)?;
    let landlock = match limited(&inside, process, limits_from_outside, &channel) {
        Ok(landlock) => landlock,
        Err(failure) => give_up(Some(channel), failure),
    };
    let last = Last { landlock, seccomp };
    let command = match finish::become_process(&inside, process, last, home, &channel) {
        Ok(command) => command,
        Err(failure) => give_up(Some(channel), failure),
    };
    if let Err(failure) = channel.send(&FromInit::Ready) {
        give_up(None, failure);
    }
    if debug && let Err(failure) = channel.send(&FromInit::Note("setns_init: about to exec".into()))
    {
        give_up(None, failure);
    }
    // Compat: the caller is told of a failed exec too; the socket closes with a good one.
    let failure = command.exec();
    report(Some(channel), failure);
    sys::clone::exit_now(255)
}
