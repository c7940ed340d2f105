//! The mount API: mount(2), open_tree(2), move_mount(2), mount_setattr(2), pivot_root(2).
//!
//! Targets are descriptors. Where only mount(2) will do, the target is named through
//! `/proc/self/fd`, which is the host's procfs until the root is exchanged.

#![allow(clippy::disallowed_methods, reason = "a door: by handle for all but `sys`")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr;

use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::path::Name;
use super::{c_string, check, check_int};

/// `MOUNT_ATTR_*`.
pub(crate) const ATTR_RDONLY: u64 = 0x1;
pub(crate) const ATTR_NOSUID: u64 = 0x2;
pub(crate) const ATTR_NODEV: u64 = 0x4;
pub(crate) const ATTR_NOEXEC: u64 = 0x8;
pub(crate) const ATTR_ATIME_MASK: u64 = 0x70;
pub(crate) const ATTR_NOATIME: u64 = 0x10;
pub(crate) const ATTR_STRICTATIME: u64 = 0x20;
pub(crate) const ATTR_NODIRATIME: u64 = 0x80;
pub(crate) const ATTR_NOSYMFOLLOW: u64 = 0x0020_0000;
const ATTR_IDMAP: u64 = 0x0010_0000;

pub(super) fn fd_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A new filesystem on the directory or file behind `target`.
pub(crate) fn mount_on(
    source: &str,
    target: BorrowedFd<'_>,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    mount_path(source, Path::new(&fd_path(target)), kind, flags, data)
}

/// mount(2) with a path of the host's own.
pub(super) fn mount_path(
    source: &str,
    target: &Path,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let source = c_string(source.as_bytes())?;
    let target = c_string(target.as_os_str().as_encoded_bytes())?;
    let kind = c_string(kind.as_bytes())?;
    let data = c_string(data.as_bytes())?;
    let data_pointer = if data.is_empty() { ptr::null() } else { data.as_ptr() };
    // SAFETY: all four are NUL-terminated strings that live until the call returns.
    let result = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data_pointer.cast())
    };
    check_int(result).map(drop)
}

/// A detached copy of the mount at `path` (below `dir`; empty = `dir` itself).
pub(super) fn clone_tree(dir: BorrowedFd<'_>, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    Ok(rustix::mount::open_tree(dir, path, flags)?)
}

/// A detached copy of the mount behind a handle.
pub(crate) fn copy_of(fd: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    clone_tree(fd, Path::new(""), recursive)
}

/// Attaches a detached tree on the directory or file behind `target`.
pub(crate) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    match rustix::mount::move_mount(tree, c"", target, c"", flags) {
        // Compat: mount(2) says so where one of both is a directory and the other is none; engines
        // look for these words.
        Err(Errno::INVAL) if is_directory(tree)? != is_directory(target)? => {
            Err(Errno::NOTDIR.into())
        }
        outcome => Ok(outcome?),
    }
}

fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mode = rustix::fs::fstat(fd)?.st_mode;
    Ok(rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::Directory)
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn mount_setattr(fd: BorrowedFd<'_>, recursive: bool, attr: MountAttr) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let empty: &CStr = c"";
    // SAFETY: the path is a static string, `attr` lives until the call returns and its size is
    // passed along; the kernel only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    check(result).map(drop)
}

/// Whether a mount is part of the caller's mount namespace. Only then mount(2) can change it,
/// which is all that kernels before 5.12 have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Attached,
    Detached,
}

/// Sets and clears attributes of one mount.
pub(crate) fn set_attributes(
    fd: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    target: Target,
) -> io::Result<()> {
    match set_tree_attributes(fd, false, set, clear) {
        Err(error) if is_missing(&error, target) => remount(fd, set, clear),
        result => result,
    }
}

/// The same for a mount and all below it; only mount_setattr(2) can.
pub(crate) fn set_recursive_attributes(fd: BorrowedFd<'_>, set: u64, clear: u64) -> io::Result<()> {
    set_tree_attributes(fd, true, set, clear)
}

/// Clearing any of the access-time bits clears them all, as the kernel wants it.
fn set_tree_attributes(
    fd: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    mut clear: u64,
) -> io::Result<()> {
    if (set | clear) & ATTR_ATIME_MASK != 0 {
        clear |= ATTR_ATIME_MASK;
    }
    mount_setattr(fd, recursive, MountAttr { attr_set: set, attr_clr: clear, ..Default::default() })
}

pub(crate) fn set_propagation(
    fd: BorrowedFd<'_>,
    recursive: bool,
    propagation: libc::c_ulong,
    target: Target,
) -> io::Result<()> {
    match mount_setattr(fd, recursive, MountAttr { propagation, ..Default::default() }) {
        Err(error) if is_missing(&error, target) => {
            let flags = propagation | if recursive { libc::MS_REC } else { 0 };
            mount_on("", fd, "", flags, "")
        }
        result => result,
    }
}

/// Maps the owners of a detached tree as `namespace` does.
pub(crate) fn set_id_map(
    fd: BorrowedFd<'_>,
    recursive: bool,
    namespace: BorrowedFd<'_>,
) -> io::Result<()> {
    let userns_fd = u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
    mount_setattr(
        fd,
        recursive,
        MountAttr { attr_set: ATTR_IDMAP, userns_fd, ..Default::default() },
    )
}

fn is_missing(error: &io::Error, target: Target) -> bool {
    error.raw_os_error() == Some(libc::ENOSYS) && target == Target::Attached
}

/// The change by mount(2), which takes the whole set of flags: those that stay are read first.
fn remount(fd: BorrowedFd<'_>, set: u64, clear: u64) -> io::Result<()> {
    let now = rustix::fs::fstatvfs(fd)?.f_flag.bits();
    let mut flags = libc::MS_REMOUNT | libc::MS_BIND;
    for (attribute, status, flag) in REMOUNT {
        let stays = now & status != 0 && clear & attribute == 0;
        if stays || set & attribute != 0 {
            flags |= flag;
        }
    }
    if set & ATTR_STRICTATIME != 0 {
        flags |= libc::MS_STRICTATIME;
    } else if clear & ATTR_ATIME_MASK != 0 && set & ATTR_NOATIME == 0 {
        flags = flags & !libc::MS_NOATIME | libc::MS_RELATIME;
    }
    mount_on("", fd, "", flags, "")
}

/// (`MOUNT_ATTR_*`, `ST_*`, `MS_*`)
const REMOUNT: [(u64, u64, u64); 7] = [
    (ATTR_RDONLY, 1, libc::MS_RDONLY),
    (ATTR_NOSUID, 2, libc::MS_NOSUID),
    (ATTR_NODEV, 4, libc::MS_NODEV),
    (ATTR_NOEXEC, 8, libc::MS_NOEXEC),
    (ATTR_NOATIME, 1024, libc::MS_NOATIME),
    (ATTR_NODIRATIME, 2048, libc::MS_NODIRATIME),
    (ATTR_NOSYMFOLLOW, 0x2000, 256),
];

/// Attaches a detached tree with attributes that hold before anyone can reach it, or on old
/// kernels from right after.
pub(crate) fn attach_with(
    tree: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    set: u64,
) -> io::Result<()> {
    match set_attributes(tree, set, 0, Target::Detached) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            attach(tree, target)?;
            remount(tree, set, 0)
        }
        result => result.and_then(|()| attach(tree, target)),
    }
}

/// Makes the current directory the root and drops the old one; `.` is the new root after it.
pub(super) fn pivot_to(root: BorrowedFd<'_>) -> io::Result<()> {
    let old = rustix::fs::open("/", DIR_FLAGS, rustix::fs::Mode::empty())?;
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(c".", c".")?;
    // The old root is now stacked on top of the new one at ".": make sure that its unmounting
    // does not propagate back to the host, then drop it.
    rustix::process::fchdir(&old)?;
    mount_path("", Path::new("."), "", libc::MS_SLAVE | libc::MS_REC, "")?;
    unmount(Path::new("."), libc::MNT_DETACH)?;
    rustix::process::chdir(c"/")?;
    Ok(())
}

/// For hosts whose root is an initramfs, where pivot_root(2) cannot work.
pub(super) fn move_to_root(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    mount_path(".", Path::new("/"), "", libc::MS_MOVE, "")?;
    rustix::process::chroot(c".")?;
    rustix::process::chdir(c"/")?;
    Ok(())
}

pub(super) fn chroot_to(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::chroot(c".")?;
    rustix::process::chdir(c"/")?;
    Ok(())
}

pub(super) fn unmount(target: &Path, flags: libc::c_int) -> io::Result<()> {
    let target = c_string(target.as_os_str().as_encoded_bytes())?;
    // SAFETY: a NUL-terminated string that outlives the call.
    check_int(unsafe { libc::umount2(target.as_ptr(), flags) }).map(drop)
}

/// Takes away what is mounted on a directory; the working directory is there from now on.
pub(crate) fn detach(target: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(target)?;
    unmount(Path::new("."), libc::MNT_DETACH)
}

/// Takes away what is mounted on `name` in `dir`, where the working directory is from now on.
pub(crate) fn detach_beneath(dir: BorrowedFd<'_>, name: Name<'_>) -> io::Result<()> {
    rustix::process::fchdir(dir)?;
    unmount(Path::new(name.as_str()), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW)
}

/// A procfs of our own that is attached nowhere.
pub(crate) fn private_proc() -> io::Result<OwnedFd> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let context = rustix::mount::fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    Ok(rustix::mount::fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )?)
}

/// A new filesystem that is attached nowhere; `words` are its options, with or without a value.
pub(crate) fn filesystem(kind: &str, source: &str, words: &[&str]) -> io::Result<OwnedFd> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", source)?;
    for word in words {
        match word.split_once('=') {
            Some((key, value)) => {
                rustix::mount::fsconfig_set_string(context.as_fd(), key, value)?;
            }
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), *word)?,
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    Ok(rustix::mount::fsmount(context.as_fd(), flags, MountAttrFlags::empty())?)
}

const DIR_FLAGS: rustix::fs::OFlags =
    rustix::fs::OFlags::DIRECTORY.union(rustix::fs::OFlags::CLOEXEC);
