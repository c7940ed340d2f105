//! `checkpoint`: a running container into files, by criu; and what `restore` shares with it.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use rustix::fs::{Mode, OFlags};

use super::{Globals, delete, parse_one};
use crate::args::{Flag, Parsed};
use crate::cgroup::{self, CgroupMount};
use crate::container::{Container, Status};
use crate::criu::options as field;
use crate::criu::wire::Message;
use crate::criu::{self, Child, Criu, Notice, Task};
use crate::spec::landlock;
use crate::spec::oci::{Mount, Spec};
use crate::spec::plan::device_paths;
use crate::sys::path::{RootFd, is_dir};
use crate::sys::{errno_of, errno_text};

pub(super) const FLAGS: &[Flag] = &[
    ("image-path", "", true),
    ("work-path", "", true),
    ("parent-path", "", true),
    ("leave-running", "", false),
    ("tcp-established", "", false),
    ("tcp-skip-in-flight", "", false),
    ("link-remap", "", false),
    ("ext-unix-sk", "", false),
    ("shell-job", "", false),
    ("lazy-pages", "", false),
    ("status-fd", "", true),
    ("page-server", "", true),
    ("file-locks", "", false),
    ("pre-dump", "", false),
    ("manage-cgroups-mode", "", true),
    ("empty-ns", "", true),
    ("auto-dedup", "", false),
];

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let (parsed, id) = parse_one("checkpoint", arguments, FLAGS)?;
    let (container, _lock) = Container::load_locked(&globals.root, &id)?;
    let status = container.status();
    if matches!(status, Status::Created | Status::Creating | Status::Stopped) {
        // Compat: with a capital letter, as runc has it.
        bail!("Container cannot be checkpointed in {} state", status.name());
    }
    if container.record.annotations.contains_key(landlock::ANNOTATION) {
        bail!(NO_LANDLOCK);
    }
    let given = Given::new(&parsed)?;
    dump(globals, &container, &parsed, given)?;
    if !parsed.is_set("leave-running") && !parsed.is_set("pre-dump") {
        // What is in the files is whole; what is left here is not worth a failure.
        if let Err(error) = delete::destroy(globals, &container) {
            globals.log.warn(&error.to_string());
        }
    }
    Ok(0)
}

/// criu brings processes back without their rules.
pub(super) const NO_LANDLOCK: &str =
    "not supported: checkpoint and restore of a container with Landlock rules";

/// What both commands take.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) images: PathBuf,
    parent: Option<String>,
    work: Option<PathBuf>,
    page_server: Option<(String, u16)>,
    cgroups_mode: u64,
}

impl Given {
    pub(super) fn new(parsed: &Parsed) -> anyhow::Result<Self> {
        let given = |name: &str| parsed.get(name).filter(|value| !value.is_empty());
        let images = std::path::absolute(given("image-path").unwrap_or("checkpoint"))?;
        let parent =
            given("parent-path").map(|parent| check_parent(&images, parent)).transpose()?;
        let page_server = given("page-server").map(split_address).transpose()?;
        // Compat: the network is nobody's but the caller's; its name is all that can be named.
        if let Some(other) = parsed.all("empty-ns").iter().find(|kind| *kind != "network") {
            bail!("namespace {other:?} is not supported");
        }
        let mode = parsed.get("manage-cgroups-mode").unwrap_or_default();
        let cgroups_mode =
            field::cgroups_mode(mode).context("invalid manage-cgroups-mode value")?;
        let work = given("work-path").map(std::path::absolute).transpose()?;
        Ok(Self { images, parent, work, page_server, cgroups_mode })
    }

    /// Opened for as long as criu works, with the options that name them.
    pub(super) fn open(&self, log: &str) -> anyhow::Result<Directories> {
        let images = directory(&self.images)?;
        let work = self.work.as_deref().map(make_directory).transpose()?;
        let log = self.place_of_work().join(log);
        Ok(Directories { images, work, log })
    }

    pub(super) fn options(&self, parsed: &Parsed, open: &Directories) -> Message {
        let mut options = field::common(self.cgroups_mode);
        options
            .directory(field::IMAGES, open.images.as_fd())
            .text(field::LOG_FILE, &file_name(&open.log))
            .number(field::EMPTY_NAMESPACES, u64::from(libc::CLONE_NEWNET.unsigned_abs()))
            .flag(field::EXTERNAL_SOCKETS, parsed.is_set("ext-unix-sk"))
            .flag(field::TCP_ESTABLISHED, parsed.is_set("tcp-established"))
            .flag(field::SHELL_JOB, parsed.is_set("shell-job"))
            .flag(field::FILE_LOCKS, parsed.is_set("file-locks"))
            .flag(field::AUTO_DEDUP, parsed.is_set("auto-dedup"))
            .flag(field::LAZY, parsed.is_set("lazy-pages"));
        options
    }

    /// Where criu works, and leaves its log.
    pub(super) fn place_of_work(&self) -> &Path {
        self.work.as_ref().unwrap_or(&self.images)
    }
}

#[derive(Debug)]
pub(super) struct Directories {
    images: OwnedFd,
    work: Option<OwnedFd>,
    log: PathBuf,
}

impl Directories {
    /// The failure with the place of criu's own log, whose errors are quoted.
    pub(super) fn explain(&self, globals: &Globals, error: anyhow::Error) -> anyhow::Error {
        criu::quote_errors(&globals.log, &self.log);
        // Compat: runc 1.1's line; callers show the first one.
        anyhow!("{error:#}\nlog file: {}", self.log.display())
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Relative to the directory of the images, and there. Compat: runc's sentences.
fn check_parent(images: &Path, parent: &str) -> anyhow::Result<String> {
    if parent.starts_with('/') {
        bail!("--parent-path must be relative");
    }
    make_directory(images)?;
    let path = images.join(parent);
    match fs::metadata(&path) {
        Ok(found) if found.is_dir() => Ok(parent.to_owned()),
        Ok(_) => bail!("invalid --parent-path: {}: {}", path.display(), errno_text(libc::ENOTDIR)),
        Err(error) => bail!(
            "invalid --parent-path: stat {}: {}",
            path.display(),
            errno_text(errno_of(&error))
        ),
    }
}

fn split_address(text: &str) -> anyhow::Result<(String, u16)> {
    let wanted = "Use --page-server ADDRESS:PORT to specify page server";
    let (address, port) = text.rsplit_once(':').context(wanted)?;
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if address.is_empty() || port.is_empty() {
        bail!("{wanted}");
    }
    Ok((address.to_owned(), port.parse().context("Invalid port number")?))
}

fn make_directory(path: &Path) -> anyhow::Result<OwnedFd> {
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path)
        .map_err(|error| anyhow!("mkdir {}: {}", path.display(), errno_text(errno_of(&error))))?;
    directory(path)
}

pub(super) fn directory(path: &Path) -> anyhow::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| anyhow!("open {}: {}", path.display(), errno_text(error.raw_os_error())))
}

fn dump(
    globals: &Globals,
    container: &Container,
    parsed: &Parsed,
    given: Given,
) -> anyhow::Result<()> {
    let criu = Criu::find(&globals.log)?;
    make_directory(&given.images)?;
    let open = given.open("dump.log")?;
    let record = &container.record;
    let spec = crate::spec::load(&record.config_path())?;
    let mut options = given.options(parsed, &open);
    if let Some(work) = &open.work {
        options.directory(field::WORK, work.as_fd());
    }
    options
        .text(field::ROOT, &record.rootfs.to_string_lossy())
        .number(field::PID, u64::from(record.pid.unsigned_abs()))
        .flag(field::LEAVE_RUNNING, parsed.is_set("leave-running"))
        .flag(field::SKIP_IN_FLIGHT, parsed.is_set("tcp-skip-in-flight"))
        .flag(field::LINK_REMAP, parsed.is_set("link-remap"));
    add_configuration(&mut options, &spec);
    external_namespaces(&mut options, &spec)?;
    if let Some(freezer) = freezer(container, criu.version) {
        options.text(field::FREEZER, &freezer);
    }
    if let Some((address, port)) = &given.page_server {
        options.page_server(address, *port);
    }
    if let Some(parent) = &given.parent {
        options.text(field::PARENT, parent).flag(field::TRACK_MEMORY, true);
    }
    let task = if parsed.is_set("pre-dump") {
        criu.require(criu::MEMORY_TRACKING)?;
        Task::PreDump
    } else {
        external_mounts(&mut options, container, &spec)?;
        save_descriptors(container, &given.images)?;
        Task::Dump
    };
    let mut ready = None;
    if parsed.is_set("lazy-pages") {
        criu.require(criu::LAZY_PAGES)?;
        if let Some(fd) = parsed.get("status-fd").filter(|fd| *fd != "-1") {
            let fd = status_descriptor(fd)?;
            if criu.version < STATUS_BY_NOTICE {
                options.directory(field::STATUS, fd.as_fd());
            }
            ready = Some(fd);
        }
    }
    let mut each = |notice: Notice| -> anyhow::Result<()> {
        if notice.script == "status-ready"
            && let Some(fd) = ready.take()
            && let Err(error) = rustix::io::write(&fd, &[0])
        {
            globals.log.warn(&format!("can't write \\0 to status fd: {error}"));
        }
        Ok(())
    };
    let running = criu.spawn(Child::quiet())?;
    criu.perform(task, &options, running, &mut each).map_err(|error| open.explain(globals, error))
}

/// The caller's own, which it must have left open for writing. Compat: runc wants it for that alone.
fn status_descriptor(text: &str) -> anyhow::Result<OwnedFd> {
    let wrong = |why: &str| anyhow!("invalid --status-fd argument {text}: {why}");
    let number = text.parse().ok().filter(|number| *number > 2);
    let number: i32 = number.ok_or_else(|| wrong("invalid argument"))?;
    let fd = crate::sys::process::duplicate(number)
        .map_err(|error| wrong(&errno_text(errno_of(&error))))?;
    let mode = rustix::fs::fcntl_getfl(&fd).map_err(|error| wrong(&error.to_string()))?;
    if !mode.contains(OFlags::WRONLY) {
        return Err(wrong("not writable"));
    }
    // Whoever waits at its other end waits for the last copy.
    crate::sys::process::close(number);
    Ok(fd)
}

/// A file with more options of the caller's, and the usual one where it names none.
pub(super) fn add_configuration(options: &mut Message, spec: &Spec) {
    match spec.annotations.get("org.criu.config").map(String::as_str) {
        Some("") => {}
        Some(file) => drop(options.text(field::CONFIGURATION, file)),
        None => drop(options.text(field::CONFIGURATION, "/etc/criu/runc.conf")),
    }
}

/// What criu calls a namespace that is not the container's own.
pub(super) fn namespace_key(kind: &str) -> Option<(&'static str, &'static str)> {
    match kind {
        "network" => Some(("net", "extRootNetNS")),
        "pid" => Some(("pid", "extRootPidNS")),
        _ => None,
    }
}

/// Network and pid namespaces given by path are not dumped: they have to be there again.
fn external_namespaces(options: &mut Message, spec: &Spec) -> anyhow::Result<()> {
    for namespace in spec.linux.iter().flat_map(|linux| &linux.namespaces) {
        let Some((kind, key)) = namespace_key(&namespace.kind) else { continue };
        if namespace.path.is_empty() {
            continue;
        }
        let found = fs::metadata(&namespace.path).map_err(|error| {
            anyhow!("stat {}: {}", namespace.path, errno_text(errno_of(&error)))
        })?;
        options.text(field::EXTERNAL, &format!("{kind}[{}]:{key}", found.ino()));
    }
    Ok(())
}

fn freezer(container: &Container, version: u32) -> Option<String> {
    let paths = &container.record.cgroup_paths;
    let path = match paths.get("freezer") {
        Some(v1) => v1,
        None if version >= FREEZER_OF_V2 => paths.get("")?,
        None => return None,
    };
    Some(path.to_string_lossy().into_owned())
}

/// Whatever the host brought into the container is not dumped: it has to be there again.
fn external_mounts(
    options: &mut Message,
    container: &Container,
    spec: &Spec,
) -> anyhow::Result<()> {
    let record = &container.record;
    let root = root(&record.rootfs)?;
    for mount in spec.mounts.iter().filter(|mount| is_bind(mount)) {
        let place = place(&root, &record.rootfs, &mount.destination)?;
        options.external_mount(&place, &place);
    }
    for (_, place) in cgroup_binds(container, spec)? {
        options.external_mount(&place, &place);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = rustix::fs::open(format!("/proc/{}/root", record.pid), flags, Mode::empty())
        .map(RootFd::new)
        .context("open the root of the container")?;
    let linux = spec.linux.as_ref();
    for path in linux.iter().flat_map(|linux| &linux.masked_paths) {
        match inside.resolve(path) {
            Ok(found) if is_dir(found.as_fd())? => {}
            Ok(_) => drop(options.external_mount(path, "/dev/null")),
            Err(error) if matches!(errno_of(&error), libc::ENOENT | libc::ENOTDIR) => {}
            Err(error) => return Err(error).context("look for masked paths"),
        }
    }
    for path in device_paths(linux.map(|linux| linux.devices.clone()).unwrap_or_default()) {
        let place = place(&root, &record.rootfs, &path)?;
        options.external_mount(&place, &place);
    }
    Ok(())
}

pub(super) fn is_bind(mount: &Mount) -> bool {
    mount.kind == "bind" || mount.options.iter().any(|option| option == "bind" || option == "rbind")
}

pub(super) fn root(rootfs: &Path) -> anyhow::Result<RootFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(rootfs, flags, Mode::empty()).map(RootFd::new).context("open rootfs")
}

/// Where a destination is in the container, links resolved.
pub(super) fn place(root: &RootFd, rootfs: &Path, destination: &str) -> anyhow::Result<String> {
    let below = Path::new(destination).strip_prefix(rootfs).unwrap_or(Path::new(destination));
    let below = below.to_str().context("a destination that is no text")?;
    root.place(below).with_context(|| format!("resolve {destination}"))
}

/// The hierarchies of cgroup v1 that the container sees as binds: host directory and place. In a
/// namespace of its own they are its own mounts, and so is cgroup v2.
pub(super) fn cgroup_binds(
    container: &Container,
    spec: &Spec,
) -> anyhow::Result<Vec<(String, String)>> {
    let mut namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    if namespaces.any(|namespace| namespace.kind == "cgroup") || cgroup::is_unified() {
        return Ok(Vec::new());
    }
    let wanted = spec.mounts.iter().filter(|mount| mount.kind == "cgroup" && !is_bind(mount));
    let mut found = Vec::new();
    for mount in wanted {
        let CgroupMount::V1 { binds, unified, .. } = container.cgroup().mounts(false)? else {
            continue;
        };
        for (host, name) in binds.into_iter().chain(unified) {
            let place = format!("{}/{name}", mount.destination.trim_end_matches('/'));
            found.push((host.to_string_lossy().into_owned(), place));
        }
    }
    Ok(found)
}

/// Which pipes the standard streams were, for whoever restores with others.
fn save_descriptors(container: &Container, images: &Path) -> anyhow::Result<()> {
    let path = images.join(DESCRIPTORS);
    let text = serde_json::to_vec(&container.record.descriptors)?;
    Ok(crate::container::write_by_rename(&path, &text, 0o600)?)
}

/// What the standard streams of a process are.
pub(super) fn descriptors(pid: &str) -> Vec<String> {
    let link = |number: i32| {
        let path = format!("/proc/{pid}/fd/{number}");
        let link = rustix::fs::readlink(path, Vec::new());
        link.map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
    };
    (0..3).map(link).collect()
}

/// Compat: runc's name; an image of one can be restored by the other.
pub(super) const DESCRIPTORS: &str = "descriptors.json";
const STATUS_BY_NOTICE: u32 = 31_500;
const FREEZER_OF_V2: u32 = 31_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        assert_eq!(split_address("10.0.0.1:27").unwrap(), ("10.0.0.1".to_owned(), 27));
        assert_eq!(split_address("[::1]:27").unwrap(), ("::1".to_owned(), 27));
        for wrong in ["", "host", ":27", "host:"] {
            let text = split_address(wrong).unwrap_err().to_string();
            assert!(text.starts_with("Use --page-server ADDRESS:PORT"), "{wrong}: {text}");
        }
        assert_eq!(split_address("host:x").unwrap_err().to_string(), "Invalid port number");
    }
}
