//! The container's file tree, from propagation to pivot; see `mounts` for what goes into it.
//!
//! Until [`enter`] the host's root is still ours, and [`Host`] names what is of it. All that is in the
//! container is reached through [`RootFd`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, OFlags, ResolveFlags};

use super::handshake::{Context as _, Failure, Step};
use crate::spec::mounts::context;
use crate::spec::oci::Device;
use crate::spec::plan::Plan;
use crate::spec::sysctl;
use crate::sys::host::{Host, Inside};
use crate::sys::mount;
use crate::sys::path::{
    Name, RootFd, create_beneath, is_char_device, is_dir, link_beneath, mknod_beneath,
    unlink_beneath,
};

/// Cuts the tie to the host's mounts and makes the root a mount of its own.
pub(super) fn prepare(plan: &Plan, host: &Host) -> Result<RootFd, Failure> {
    let open = || host.directory(&plan.rootfs).step(Step::Rootfs, "open rootfs");
    if !plan.has_mount_namespace() {
        return Ok(RootFd::new(open()?));
    }
    let propagation = plan.propagation.unwrap_or(libc::MS_SLAVE | libc::MS_REC);
    host.propagate(propagation).step(Step::Rootfs, "propagation of /")?;
    if propagation & libc::MS_SHARED != 0 {
        host.make_parent_private(&plan.rootfs)
            .step(Step::Rootfs, "make the parent mount private")?;
    }
    let target = open()?;
    let tree = mount::copy_of(target.as_fd(), true).step(Step::Rootfs, "bind rootfs")?;
    mount::attach(tree.as_fd(), target.as_fd()).step(Step::Rootfs, "attach rootfs")?;
    Ok(RootFd::new(tree))
}

/// Device nodes and links of `/dev`.
pub(super) fn devices(plan: &Plan, root: &RootFd, host: &Host) -> Result<(), Failure> {
    if !plan.setup_dev {
        return Ok(());
    }
    root.mkdir_all("/dev", 0o755).step(Step::Device, "/dev")?;
    // An image may not send our device nodes elsewhere.
    let dev = root.resolve_no_links("/dev").step(Step::Device, "/dev")?;
    for device in &plan.devices {
        make_device(plan, root, host, device).step(Step::Device, &device.path)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("core", "/proc/kcore"),
    ] {
        if name == "core" && !host.has_kcore() {
            continue;
        }
        Name::new(name)
            .and_then(|name| link_beneath(dev.as_fd(), name, target))
            .step(Step::Device, name)?;
    }
    Name::new("ptmx")
        .and_then(|ptmx| {
            unlink_beneath(dev.as_fd(), ptmx)?;
            link_beneath(dev.as_fd(), ptmx, "pts/ptmx")
        })
        .step(Step::Device, "/dev/ptmx")
}

fn make_device(plan: &Plan, root: &RootFd, host: &Host, device: &Device) -> io::Result<()> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let path = Path::new(&device.path);
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(invalid)?;
    let parent = path.parent().and_then(|parent| parent.to_str()).ok_or_else(invalid)?;
    // Compat: always the link into the container's own devpts.
    if device.path == "/dev/ptmx" {
        return Ok(());
    }
    let parent = root.mkdir_all(parent, 0o755)?;
    let name = Name::new(name)?;
    if plan.has_user_namespace() {
        return bind_device(host, path, parent.as_fd(), name);
    }
    let kind = match device.kind.as_str() {
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    let number = |value: i64| u32::try_from(value).map_err(|_| invalid());
    let id = rustix::fs::makedev(number(device.major)?, number(device.minor)?);
    let mode = device.file_mode.unwrap_or(0o666) & 0o7777;
    let owner = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
    match mknod_beneath(parent.as_fd(), name, kind, mode, id, owner) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            bind_device(host, path, parent.as_fd(), name)
        }
        // Compat: what the image or a mount put there stays.
        made => made.map(drop),
    }
}

/// Where nodes may not be made: the host's own, bound.
fn bind_device(
    host: &Host,
    device: &Path,
    parent: BorrowedFd<'_>,
    name: Name<'_>,
) -> io::Result<()> {
    let tree = host.tree(device, false)?;
    let target = create_beneath(parent, name)?;
    mount::attach(tree.as_fd(), target.as_fd())
}

/// Hides paths: a file under the null device, a directory under an empty read-only tmpfs.
pub(super) fn mask(plan: &Plan, root: &RootFd, host: &Host) -> Result<(), Failure> {
    if plan.masked_paths.is_empty() || !plan.has_mount_namespace() {
        return Ok(());
    }
    let null = null_device(root, host)?;
    let label = context(&plan.mount_label);
    let mut empty: Option<OwnedFd> = None;
    for path in &plan.masked_paths {
        let target = match root.resolve(path) {
            Ok(target) => target,
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(Failure::new(Step::MaskedPath, &error, path.as_str())),
        };
        let done = if is_dir(target.as_fd()).step(Step::MaskedPath, path)? {
            mask_directory(root, path, target.as_fd(), &mut empty, &label)
        } else {
            mount::copy_of(null.as_fd(), false)
                .and_then(|tree| mount::attach(tree.as_fd(), target.as_fd()))
        };
        done.step(Step::MaskedPath, path)?;
    }
    Ok(())
}

/// The container's own, so that nothing of the host's /dev shows; the host's where it has none.
fn null_device(root: &RootFd, host: &Host) -> Result<OwnedFd, Failure> {
    // What counts is the opened node, whatever the name leads to a moment later.
    if let Ok(own) = root.resolve("/dev/null")
        && is_char_device(own.as_fd(), 1, 3).unwrap_or(false)
    {
        return Ok(own);
    }
    host.null().step(Step::MaskedPath, "/dev/null")
}

/// One tmpfs serves all directories.
fn mask_directory(
    root: &RootFd,
    path: &str,
    target: BorrowedFd<'_>,
    empty: &mut Option<OwnedFd>,
    label: &str,
) -> io::Result<()> {
    if let Some(empty) = empty {
        let tree = mount::copy_of(empty.as_fd(), false)?;
        return mount::attach(tree.as_fd(), target);
    }
    mount::mount_on("tmpfs", target, "tmpfs", libc::MS_RDONLY, label)?;
    *empty = Some(root.resolve(path)?);
    Ok(())
}

pub(super) fn readonly_paths(plan: &Plan, root: &RootFd) -> Result<(), Failure> {
    if !plan.has_mount_namespace() {
        return Ok(());
    }
    for path in &plan.readonly_paths {
        let target = match root.resolve(path) {
            Ok(target) => target,
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(Failure::new(Step::ReadonlyPath, &error, path.as_str())),
        };
        mount::copy_of(target.as_fd(), true)
            .and_then(|tree| mount::attach_with(tree.as_fd(), target.as_fd(), mount::ATTR_RDONLY))
            .step(Step::ReadonlyPath, path)?;
    }
    Ok(())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

/// The working directory is made where the image lacks it, as runc does.
pub(super) fn working_directory(plan: &Plan, root: &RootFd) -> Result<(), Failure> {
    match root.resolve(&plan.process.cwd) {
        Ok(_) => Ok(()),
        Err(_) => {
            root.mkdir_all(&plan.process.cwd, 0o755).map(drop).step(Step::Cwd, &plan.process.cwd)
        }
    }
}

/// Kernel parameters, through a procfs that nothing in the container could have prepared.
pub(super) fn sysctl(plan: &Plan, host: &Host) -> Result<(), Failure> {
    if plan.sysctl.is_empty() {
        return Ok(());
    }
    let proc = mount::private_proc().or_else(|_| host.proc()).step(Step::Sysctl, "procfs")?;
    for (key, value) in &plan.sysctl {
        let file = sysctl::path(key).ok_or(io::Error::from(io::ErrorKind::InvalidInput));
        let path = file.map(|file| format!("sys/{file}")).step(Step::Sysctl, key)?;
        crate::sys::path::open_proc(proc.as_fd(), &path, OFlags::WRONLY)
            .and_then(|fd| Ok(rustix::io::write(&fd, value.as_bytes())?))
            .step(Step::Sysctl, key)?;
    }
    Ok(())
}

/// Standard streams that are the null device become the container's own, where that is one: a checkpoint
/// finds no other.
pub(super) fn null_streams(plan: &Plan, root: &RootFd) {
    use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};
    fn is_null(fd: BorrowedFd<'_>) -> bool {
        is_char_device(fd, 1, 3).unwrap_or(false)
    }
    let [input, output, errors] = [is_null(stdin()), is_null(stdout()), is_null(stderr())];
    if !plan.setup_dev || !plan.has_mount_namespace() || !(input || output || errors) {
        return;
    }
    // Before it is opened: some devices act upon that.
    let own = root.resolve("/dev/null").is_ok_and(|own| is_null(own.as_fd()));
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let Some(own) = own.then(|| root.open("/dev/null", flags, ResolveFlags::IN_ROOT)) else {
        return;
    };
    let Some(own) = own.ok().filter(|own| is_null(own.as_fd())) else { return };
    // Onto descriptors that are open: these cannot fail.
    if input {
        dup2_stdin(&own).ok();
    }
    if output {
        dup2_stdout(&own).ok();
    }
    if errors {
        dup2_stderr(&own).ok();
    }
}

/// Makes the container's root ours. After this nothing of the host is in reach by name.
pub(super) fn enter(plan: &Plan, root: &RootFd, host: Host) -> Result<Inside, Failure> {
    let fd = root.as_fd();
    if !plan.has_mount_namespace() {
        return host.chroot(fd).step(Step::Pivot, "chroot");
    }
    if plan.rootfs_readonly {
        mount::set_attributes(fd, mount::ATTR_RDONLY, 0, mount::Target::Attached)
            .step(Step::Rootfs, "make rootfs read-only")?;
    }
    let inside = if plan.no_pivot {
        host.hide_outer_filesystems(&plan.rootfs)
            .step(Step::Pivot, "hide the host's procfs and sysfs")?;
        host.move_to_root(fd).step(Step::Pivot, "move mount")?
    } else {
        host.pivot(fd).step(Step::Pivot, "pivot_root")?
    };
    if let Some(propagation) = plan.propagation {
        inside.propagate(propagation).step(Step::Pivot, "propagation of /")?;
    }
    Ok(inside)
}

/// A file of the container for reading, at most `limit` bytes; `None` where there is none.
pub(super) fn read_file(root: &RootFd, path: &str, limit: u64) -> Option<String> {
    use std::io::Read as _;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let fd = root.open(path, flags, ResolveFlags::IN_ROOT).ok()?;
    let mut text = Vec::new();
    std::fs::File::from(fd).take(limit).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
