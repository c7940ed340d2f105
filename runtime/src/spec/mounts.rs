//! One mount of the specification: what it is, and for a bind its source as a tree of its own.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use super::oci::{self, IdMapping};
use super::options::MountOptions;
use super::plan::PlanError;
use crate::sys::host::Host;
use crate::sys::{self, mount};

#[derive(Debug)]
pub(crate) enum MountAction {
    /// A detached copy of the source. Made by the runtime only where init could not make it
    /// itself (a user namespace that keeps it from the source, an id-mapped mount): else init
    /// does, so that the mounts of the container are numbered in the order of the specification.
    Bind {
        tree: Option<Tree>,
        source: PathBuf,
        /// The user namespace whose mappings it takes.
        ids: Option<OwnedFd>,
    },
    /// A filesystem made where it is mounted.
    Filesystem,
    Cgroup,
}

#[derive(Debug)]
pub(crate) struct PlannedMount {
    pub(crate) destination: String,
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) options: MountOptions,
    pub(crate) action: MountAction,
}

/// What a mount depends on besides itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) bundle: &'a Path,
    pub(crate) rootfs: &'a Path,
    /// The container's user namespace, where it is one that exists.
    pub(crate) joined: Option<BorrowedFd<'a>>,
    pub(crate) propagation: Option<u64>,
    pub(crate) user_namespace: bool,
    /// Only init has rights, in its user namespace.
    pub(crate) unprivileged: bool,
    /// Of the container.
    pub(crate) mappings: (&'a [IdMapping], &'a [IdMapping]),
    /// SELinux context of filesystems that can carry one, or "".
    pub(crate) label: &'a str,
}

impl PlannedMount {
    pub(crate) fn new(mount: &oci::Mount, around: Surroundings<'_>) -> Result<Self, PlanError> {
        if mount.destination.is_empty() {
            return Err(PlanError::NoDestination);
        }
        let mut options = MountOptions::parse(&mount.options);
        if mount.kind == "bind" {
            options.flags |= libc::MS_BIND;
        }
        let action = if options.is_bind() {
            bind(mount, &options, around)?
        } else if options.idmap || !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty()
        {
            return Err(PlanError::IdMapNotBind(mount.destination.clone()));
        } else if mount.kind == "cgroup" || mount.kind == "cgroup2" {
            MountAction::Cgroup
        } else {
            MountAction::Filesystem
        };
        if matches!(action, MountAction::Filesystem) {
            add_label(&mut options.data, &mount.kind, around.label);
        }
        // Compat: a relative destination is below the root, and so is one that names the root's own
        // place on the host.
        let destination = match Path::new(&mount.destination).strip_prefix(around.rootfs) {
            Ok(below) => format!("/{}", below.display()),
            Err(_) if mount.destination.starts_with('/') => mount.destination.clone(),
            Err(_) => format!("/{}", mount.destination),
        };
        Ok(Self {
            destination,
            kind: mount.kind.clone(),
            source: mount.source.clone(),
            options,
            action,
        })
    }
}

impl PlannedMount {
    /// A bind that the configuration does not name.
    pub(super) fn own(
        source: &Path,
        destination: &str,
        options: &[&str],
        open: impl Fn(&MountOptions) -> io::Result<Option<Tree>>,
    ) -> Result<Self, PlanError> {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let options = MountOptions::parse(&options);
        let tree = open(&options).map_err(|cause| PlanError::MountSource {
            from: source.display().to_string(),
            to: destination.to_owned(),
            call: "bind mount",
            cause,
        })?;
        Ok(Self {
            destination: destination.to_owned(),
            kind: String::new(),
            source: source.display().to_string(),
            options,
            action: MountAction::Bind { tree, source: source.to_owned(), ids: None },
        })
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let (tree, ids) = match &self.action {
            MountAction::Bind { tree, ids, .. } => (tree.as_ref(), ids.as_ref()),
            MountAction::Filesystem | MountAction::Cgroup => (None, None),
        };
        tree.map(|tree| tree.fd.as_raw_fd()).into_iter().chain(ids.map(|ids| ids.as_raw_fd()))
    }
}

/// SELinux cannot label procfs and sysfs; a message queue takes no option, its directory is labelled.
pub(crate) fn add_label(data: &mut String, kind: &str, label: &str) {
    if label.is_empty() || matches!(kind, "proc" | "sysfs" | "mqueue") {
        return;
    }
    if !data.is_empty() {
        data.push(',');
    }
    data.push_str(&context(label));
}

/// The mount option of an SELinux label; "" without one.
pub(crate) fn context(label: &str) -> String {
    if label.is_empty() { String::new() } else { format!("context=\"{label}\"") }
}

fn bind(
    mount: &oci::Mount,
    options: &MountOptions,
    around: Surroundings<'_>,
) -> Result<MountAction, PlanError> {
    let source = around.bundle.join(&mount.source);
    let failed = |call: &'static str, cause: io::Error| PlanError::MountSource {
        from: source.display().to_string(),
        to: mount.destination.clone(),
        call,
        cause,
    };
    let ids = match id_map(mount, options, around)? {
        IdMap::None => None,
        IdMap::Mappings(uids, gids) => {
            let made = sys::clone::user_namespace(&map_text(uids), &map_text(gids));
            Some(made.map_err(|cause| failed("id-mapped mount", cause))?)
        }
        IdMap::Of(namespace) => {
            let own = namespace.try_clone_to_owned();
            Some(own.map_err(|cause| failed("id-mapped mount", cause))?)
        }
    };
    // An earlier mount of the container may bring it.
    if source.starts_with(around.rootfs) {
        return Ok(MountAction::Bind { tree: None, source, ids });
    }
    if let Err(cause) = std::fs::metadata(&source) {
        return Err(failed("stat", cause));
    }
    let tree = if !around.unprivileged && (around.user_namespace || ids.is_some()) {
        let host = Host::of_the_runtime();
        let tree = Tree::open(&host, &source, options, around.propagation, around.user_namespace);
        Some(tree.map_err(|cause| failed("bind mount", cause))?)
    } else {
        None
    };
    if let (Some(tree), Some(ids)) = (&tree, &ids) {
        tree.map_ids(options.recursive_idmap, ids.as_fd())
            .map_err(|cause| failed("id-mapped mount", cause))?;
    }
    Ok(MountAction::Bind { tree, source, ids })
}

/// Whose mappings a mount takes.
enum IdMap<'a> {
    None,
    Mappings(&'a [IdMapping], &'a [IdMapping]),
    Of(BorrowedFd<'a>),
}

/// Its own, or the container's where it has none.
fn id_map<'a>(
    mount: &'a oci::Mount,
    options: &MountOptions,
    around: Surroundings<'a>,
) -> Result<IdMap<'a>, PlanError> {
    let (uids, gids) = (mount.uid_mappings.as_slice(), mount.gid_mappings.as_slice());
    match (uids.is_empty(), gids.is_empty()) {
        (true, true) if !options.idmap => return Ok(IdMap::None),
        (false, false) => return Ok(IdMap::Mappings(uids, gids)),
        (true, true) => {}
        _ => return Err(PlanError::IdMapIncomplete(mount.destination.clone())),
    }
    let (uids, gids) = around.mappings;
    match around.joined {
        Some(namespace) => Ok(IdMap::Of(namespace)),
        None if !uids.is_empty() && !gids.is_empty() => Ok(IdMap::Mappings(uids, gids)),
        None => Err(PlanError::IdMapIncomplete(mount.destination.clone())),
    }
}

/// A detached copy of a bind mount's source.
#[derive(Debug)]
pub(crate) struct Tree {
    fd: OwnedFd,
    /// Kernels before 5.12 change attributes and propagation only of what is attached.
    finished: bool,
    /// Attributes that stay, though no option names them.
    kept: u64,
}

impl Tree {
    /// The source as a mount of its own, where the kernel can finished before anything sees it.
    pub(crate) fn open(
        host: &Host,
        source: &Path,
        options: &MountOptions,
        propagation: Option<u64>,
        user_namespace: bool,
    ) -> io::Result<Self> {
        let fd = host.tree(source, options.is_recursive())?;
        let kept = if user_namespace { locked(fd.as_fd(), options)? } else { 0 };
        let finished = match adjust(fd.as_fd(), options, propagation, kept, mount::Target::Detached)
        {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => false,
            result => result.map(|()| true)?,
        };
        Ok(Self { fd, finished, kept })
    }

    /// One that another process has opened and finished.
    pub(crate) fn finished(fd: OwnedFd) -> Self {
        Self { fd, finished: true, kept: 0 }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Mounts it on what is behind `target`.
    pub(crate) fn attach(
        &self,
        target: BorrowedFd<'_>,
        options: &MountOptions,
        propagation: Option<u64>,
    ) -> io::Result<()> {
        mount::attach(self.as_fd(), target)?;
        if self.finished {
            return Ok(());
        }
        adjust(self.as_fd(), options, propagation, self.kept, mount::Target::Attached)
    }

    /// Before it is attached.
    pub(crate) fn map_ids(&self, recursive: bool, namespace: BorrowedFd<'_>) -> io::Result<()> {
        mount::set_id_map(self.as_fd(), recursive, namespace)
    }
}

/// As `/proc/<pid>/uid_map` takes it.
pub(crate) fn map_text(mappings: &[IdMapping]) -> String {
    let line = |m: &IdMapping| format!("{} {} {}\n", m.container_id, m.host_id, m.size);
    mappings.iter().map(line).collect()
}

/// What a mount of the host has and its copy in a user namespace must keep, as if the container had
/// made the copy itself. Compat: to ask for the opposite is an error.
fn locked(tree: BorrowedFd<'_>, options: &MountOptions) -> io::Result<u64> {
    use rustix::fs::StatVfsMountFlags as Flags;
    let Some(attributes) = options.bind_attributes() else { return Ok(0) };
    let now = rustix::fs::fstatvfs(tree)?.f_flag;
    let has = [
        (Flags::RDONLY, mount::ATTR_RDONLY),
        (Flags::NOSUID, mount::ATTR_NOSUID),
        (Flags::NODEV, mount::ATTR_NODEV),
        (Flags::NOEXEC, mount::ATTR_NOEXEC),
    ]
    .into_iter()
    .filter(|(flag, _)| now.contains(*flag))
    .fold(0, |set, (_, attribute)| set | attribute);
    let times_differ = options.access_times().is_some_and(|wanted| wanted != access_times(now));
    if attributes.forced & has != 0 || times_differ {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(has)
}

fn access_times(flags: rustix::fs::StatVfsMountFlags) -> u64 {
    use rustix::fs::StatVfsMountFlags as Flags;
    let kind = if flags.contains(Flags::NOATIME) {
        mount::ATTR_NOATIME
    } else if flags.contains(Flags::RELATIME) {
        0
    } else {
        mount::ATTR_STRICTATIME
    };
    kind | if flags.contains(Flags::NODIRATIME) { mount::ATTR_NODIRATIME } else { 0 }
}

fn adjust(
    tree: BorrowedFd<'_>,
    options: &MountOptions,
    propagation: Option<u64>,
    kept: u64,
    target: mount::Target,
) -> io::Result<()> {
    // A copy is a peer of its source. In the container it would have followed what "/" is made:
    // a slave, unless the specification says otherwise.
    let inherited = propagation.unwrap_or(libc::MS_SLAVE | libc::MS_REC) & !libc::MS_REC;
    if inherited != libc::MS_SHARED {
        mount::set_propagation(tree, true, inherited, target)?;
    }
    if let Some(attributes) = options.bind_attributes() {
        let set = |clear| mount::set_attributes(tree, attributes.set, clear, target);
        if let Err(error) = set(attributes.clear & !kept) {
            if error.raw_os_error() != Some(libc::EPERM) {
                return Err(error);
            }
            // Flags locked by an outer user namespace stay, unless they were named.
            set(attributes.forced)?;
        }
    }
    if options.recursive_set | options.recursive_clear != 0 {
        mount::set_recursive_attributes(tree, options.recursive_set, options.recursive_clear)?;
    }
    for flags in &options.propagation {
        let recursive = flags & libc::MS_REC != 0;
        mount::set_propagation(tree, recursive, flags & !libc::MS_REC, target)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_becomes_an_option_where_the_filesystem_takes_one() {
        let labelled = |kind: &str, data: &str| {
            let mut data = data.to_owned();
            add_label(&mut data, kind, "u:r:t:s0");
            data
        };
        assert_eq!(labelled("tmpfs", ""), "context=\"u:r:t:s0\"");
        assert_eq!(labelled("tmpfs", "size=1k"), "size=1k,context=\"u:r:t:s0\"");
        assert_eq!(labelled("proc", ""), "");
    }

    #[test]
    fn half_a_mapping_is_an_error() {
        let around = Surroundings {
            bundle: Path::new("/"),
            rootfs: Path::new("/rootfs"),
            joined: None,
            propagation: None,
            user_namespace: false,
            unprivileged: false,
            mappings: (&[], &[]),
            label: "",
        };
        let one = vec![IdMapping { container_id: 0, host_id: 1, size: 1 }];
        let mount = oci::Mount {
            kind: "bind".into(),
            source: "tmp".into(),
            destination: "/m".into(),
            uid_mappings: one,
            ..Default::default()
        };
        let error = PlannedMount::new(&mount, around).unwrap_err();
        assert!(matches!(error, PlanError::IdMapIncomplete(_)), "{error}");
        let mount = oci::Mount { kind: "tmpfs".into(), ..mount };
        let error = PlannedMount::new(&mount, around).unwrap_err();
        assert!(matches!(error, PlanError::IdMapNotBind(_)), "{error}");
    }
}
