//! `restore`: a container from the files of a checkpoint, by criu.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use rustix::fs::{Mode, OFlags};

use super::checkpoint::{self, Given};
use super::create::{self, Bundle, Made, Options};
use super::run::or_destroy;
use super::{Globals, delete, parse_one, write_pid_file};
use crate::args::{Flag, Parsed};
use crate::cgroup::Cgroup;
use crate::container::{Container, process_stat};
use crate::criu::options as field;
use crate::criu::wire::Message;
use crate::criu::{Child, Criu, Notice, Task};
use crate::foreground::Foreground;
use crate::hooks;
use crate::spec::mounts::MountAction;
use crate::spec::oci::LinuxResources;
use crate::spec::plan::{Plan, device_paths};
use crate::sys::host::Host;
use crate::sys::path::is_dir;
use crate::sys::{self, errno_of, errno_text, mount};

pub(super) const FLAGS: &[Flag] = &[
    ("console-socket", "", true),
    ("image-path", "", true),
    ("work-path", "", true),
    ("tcp-established", "", false),
    ("ext-unix-sk", "", false),
    ("shell-job", "", false),
    ("file-locks", "", false),
    ("manage-cgroups-mode", "", true),
    ("bundle", "b", true),
    ("detach", "d", false),
    ("pid-file", "", true),
    ("no-subreaper", "", false),
    ("no-pivot", "", false),
    ("empty-ns", "", true),
    ("auto-dedup", "", false),
    ("lazy-pages", "", false),
    ("lsm-profile", "", true),
    ("lsm-mount-context", "", true),
];

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let (parsed, id) = parse_one("restore", arguments, FLAGS)?;
    // Before the bundle becomes the current directory.
    let given = Given::new(&parsed)?;
    let options = Options::new(globals, &parsed)?;
    let bundle = options.load()?;
    let terminal = bundle.wants_terminal();
    let detach = parsed.is_set("detach");
    options.check_terminal(terminal, detach)?;
    let wanted = Wanted { id: &id, bundle: &bundle, options: &options, parsed: &parsed, given };
    if detach {
        let console = options.connect_console()?;
        wanted.make(globals, console)?;
        return Ok(0);
    }
    if !parsed.is_set("no-subreaper") {
        sys::identity::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).context("set subreaper")?;
    }
    let mut foreground = Foreground::new(terminal)?;
    let made = wanted.make(globals, foreground.console())?;
    or_destroy(globals, &made, foreground.take_terminal())?;
    let Made { container, lock } = made;
    // Others may kill and delete it while we wait.
    drop(lock);
    let code = foreground.wait(container.record.pid)?;
    if container.dir_exists() {
        let _lock = container.lock()?;
        delete::destroy(globals, &container)?;
    }
    Ok(code)
}

struct Wanted<'a> {
    id: &'a str,
    bundle: &'a Bundle,
    options: &'a Options,
    parsed: &'a Parsed,
    given: Given,
}

impl Wanted<'_> {
    /// On failure nothing is left.
    fn make(&self, globals: &Globals, console: Option<OwnedFd>) -> anyhow::Result<Made> {
        crate::container::check_id(self.id)?;
        let plan = self.bundle.plan(self.id, self.options.choices())?;
        if plan.process.landlock.is_some() {
            bail!(checkpoint::NO_LANDLOCK);
        }
        let record = create::record(globals, self.bundle, &plan, self.id);
        let mut cgroup = create::planned_cgroup(globals, self.bundle, self.id)?;
        let (mut container, lock) = Container::create(&globals.root, record)?;
        // Not ours to remove when it is in use.
        if let Err(error) = cgroup.check_unused() {
            container.remove()?;
            return Err(error.into());
        }
        container.record.cgroup_paths = cgroup.paths().clone();
        match self.restore(globals, &mut container, &plan, &mut cgroup, console) {
            Ok(()) => Ok(Made { container, lock }),
            Err(error) => {
                // What criu had made already, and is in nobody's record.
                drop(cgroup.kill_all(libc::SIGKILL));
                create::undo(globals, &container);
                Err(error)
            }
        }
    }

    fn restore(
        &self,
        globals: &Globals,
        container: &mut Container,
        plan: &Plan,
        cgroup: &mut Cgroup,
        console: Option<OwnedFd>,
    ) -> anyhow::Result<()> {
        let spec = self.bundle.spec();
        // Known before anything exists, so that `delete --force` finds what a kill leaves behind.
        container.save()?;
        if let Some(program) = &plan.seccomp {
            container.save_filter(program)?;
        }
        let criu = Criu::find(&globals.log)?;
        let open = self.given.open("restore.log")?;
        let place = container.make_directory("criu-root")?;
        let mut options = self.given.options(self.parsed, &open);
        options
            .text(field::ROOT, &place.to_string_lossy())
            .flag(field::EVASIVE_DEVICES, true)
            .flag(field::SIBLING, true);
        for (name, number) in
            [("lsm-profile", field::PROFILE), ("lsm-mount-context", field::MOUNT_CONTEXT)]
        {
            if let Some(value) = self.parsed.get(name).filter(|value| !value.is_empty()) {
                if criu.version < OTHER_LABELS {
                    bail!("--{name} requires at least CRIU 3.16");
                }
                options.text(number, value);
            }
        }
        checkpoint::add_configuration(&mut options, spec);
        let descriptors = self.namespaces(&mut options)?;
        self.external_mounts(&mut options, container, plan)?;
        self.pipes(&mut options)?;
        container.record.descriptors = checkpoint::descriptors("self");
        cgroup.create()?;
        let prepare = || prepare(plan, &place, self.given.place_of_work());
        let child = Child { descriptors, streams: true, prepare: &prepare };
        let mut running = criu.spawn(child)?;
        let work = running.handed()?;
        options.directory(field::WORK, work.as_fd());
        let none = LinuxResources::default();
        let resources = spec.linux.as_ref().map_or(&none, |linux| &linux.resources);
        let taken = cgroup.take(running.pid, resources);
        container.record.unit = cgroup.unit().cloned();
        container.record.cgroup_paths = cgroup.paths().clone();
        taken?;
        cgroup.apply(resources)?;
        add_cgroups(&mut options, running.pid)?;
        let mut each = |notice: Notice| noticed(container, plan, console.as_ref(), notice);
        let restored = criu.perform(Task::Restore, &options, running, &mut each);
        fs::remove_dir(&place).with_context(|| format!("remove {}", place.display()))?;
        restored.map_err(|error| open.explain(globals, error))?;
        if container.record.pid == 0 {
            bail!("criu did not tell of the first process");
        }
        if let Some(path) = self.options.pid_file() {
            write_pid_file(path, container.record.pid)?;
        }
        Ok(())
    }

    /// Those given by path; the descriptors that stand for some of them, in criu from 4 on.
    fn namespaces(&self, options: &mut Message) -> anyhow::Result<Vec<OwnedFd>> {
        let mut descriptors = Vec::new();
        for namespace in self.bundle.spec().linux.iter().flat_map(|linux| &linux.namespaces) {
            let path = namespace.path.as_str();
            match namespace.kind.as_str() {
                _ if path.is_empty() => {}
                kind @ ("network" | "pid") => {
                    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|_| {
                        anyhow!("Requested network namespace {path} does not exist")
                    })?;
                    if let Some((_, key)) = checkpoint::namespace_key(kind) {
                        options.inherited(key, 4 + descriptors.len() as u64);
                    }
                    descriptors.push(fd);
                }
                kind @ ("ipc" | "uts" | "user") => drop(options.joined(kind, path)),
                "mount" => drop(options.joined("mnt", path)),
                other => bail!("criu cannot restore into the {other} namespace {path}"),
            }
        }
        Ok(descriptors)
    }

    /// What the host brings, under the names that the dump gave it.
    fn external_mounts(
        &self,
        options: &mut Message,
        container: &Container,
        plan: &Plan,
    ) -> anyhow::Result<()> {
        let root = checkpoint::root(&plan.rootfs)?;
        let spec = self.bundle.spec();
        for planned in &plan.mounts {
            if let MountAction::Bind { source, .. } = &planned.action {
                let key = checkpoint::place(&root, &plan.rootfs, &planned.destination)?;
                options.external_mount(&key, &source.to_string_lossy());
            }
        }
        for (host, key) in checkpoint::cgroup_binds(container, spec)? {
            options.external_mount(&key, &host);
        }
        if !plan.masked_paths.is_empty() {
            options.external_mount("/dev/null", "/dev/null");
        }
        let devices = spec.linux.as_ref().map(|linux| linux.devices.clone()).unwrap_or_default();
        for path in device_paths(devices) {
            let key = checkpoint::place(&root, &plan.rootfs, &path)?;
            options.external_mount(&key, &path);
        }
        Ok(())
    }

    /// Standard streams that were pipes become ours.
    fn pipes(&self, options: &mut Message) -> anyhow::Result<()> {
        let path = self.given.images.join(checkpoint::DESCRIPTORS);
        let bytes = fs::read(&path).map_err(|error| {
            anyhow!("open {}: {}", path.display(), errno_text(errno_of(&error)))
        })?;
        let names: Vec<String> =
            serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))?;
        for (number, name) in (0..).zip(&names).filter(|(_, name)| name.contains("pipe:")) {
            options.inherited(name, number);
        }
        Ok(())
    }
}

fn noticed(
    container: &mut Container,
    plan: &Plan,
    console: Option<&OwnedFd>,
    notice: Notice,
) -> anyhow::Result<()> {
    match notice.script.as_str() {
        "setup-namespaces" => {
            let state = container.record.hook_state("created", notice.pid);
            hooks::run_all(&plan.hooks.prestart, "prestart", &state)?;
            hooks::run_all(&plan.hooks.create_runtime, "createRuntime", &state)?;
        }
        "post-restore" => {
            let record = &mut container.record;
            record.pid = notice.pid;
            record.start_time = process_stat(notice.pid).map_or(0, |stat| stat.start_time);
            record.complete = true;
            container.save()?;
        }
        "orphan-pts-master" => {
            let master = notice.descriptor.context("a terminal without a descriptor")?;
            let console = console.context("a terminal that nobody takes")?;
            sys::socket::send_fds(console.as_fd(), b"orphan-pts-master", &[master.as_fd()])
                .context("hand over the terminal")?;
        }
        _ => {}
    }
    Ok(())
}

/// In the child that becomes criu: a mount namespace of its own, so that nothing of this outlives it.
/// criu wants a root that is a mount, and the places to mount on. Hands back where it works, opened in that
/// namespace: on cgroup2 it mounts there, too.
fn prepare(plan: &Plan, place: &Path, work: &Path) -> Result<Option<OwnedFd>, String> {
    let told = |what: String| {
        move |error: std::io::Error| format!("{what}: {}", errno_text(errno_of(&error)))
    };
    sys::clone::unshare(libc::CLONE_NEWNS).map_err(told("unshare mounts".to_owned()))?;
    let host = Host::of_the_runtime();
    host.propagate(libc::MS_SLAVE | libc::MS_REC).map_err(told("propagation of /".to_owned()))?;
    let root = checkpoint::root(&plan.rootfs).map_err(|error| error.to_string())?;
    let on_tmpfs = |destination: &str| {
        plan.mounts.iter().filter(|mount| mount.kind == "tmpfs").any(|mount| {
            Path::new(destination) != Path::new(&mount.destination)
                && Path::new(destination).starts_with(&mount.destination)
        })
    };
    let bind = |from: &Path, to: &OwnedFd| {
        let tree = host.tree(from, true)?;
        mount::attach(tree.as_fd(), to.as_fd())
    };
    let target = host.directory(place).map_err(told(format!("open {}", place.display())))?;
    bind(&plan.rootfs, &target).map_err(told("bind rootfs".to_owned()))?;
    for mount in plan.mounts.iter().filter(|mount| !on_tmpfs(&mount.destination)) {
        let destination = mount.destination.as_str();
        let made = match &mount.action {
            MountAction::Cgroup => continue,
            MountAction::Filesystem => root.mkdir_all(destination, 0o755).map(drop),
            MountAction::Bind { source, .. } => {
                is_directory(source)
                    .and_then(|directory| match directory {
                        true => root.mkdir_all(destination, 0o755),
                        false => root.create_file(destination),
                    })
                    // What is mounted below it is mounted in what it brings.
                    .and_then(|target| bind(source, &target))
            }
        };
        made.map_err(told(format!("create criu restore mountpoint for {destination} mount")))?;
    }
    checkpoint::directory(work).map(Some).map_err(|error| error.to_string())
}

/// Whether it is a directory.
fn is_directory(source: &Path) -> std::io::Result<bool> {
    let fd = rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    is_dir(fd.as_fd())
}

/// The cgroups that criu is in stand for those of the image.
fn add_cgroups(options: &mut Message, pid: i32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(place)) = (parts.next(), parts.next()) else { continue };
        for controller in controllers.split(',') {
            options.cgroup_root(controller, place);
        }
    }
    Ok(())
}

const OTHER_LABELS: u32 = 31_600;
