//! The host by name, and until when.
//!
//! A [`Host`] is the right to name something of the host by a path. It goes with a process from the clone
//! to the moment when its root becomes the container's, and that takes it away: what comes back is
//! [`Inside`], which knows the container as its own programs will. Everything of a container is reached by
//! handles (see `path`) before that. clippy.toml holds `init` to it.
#![allow(clippy::disallowed_methods, reason = "the door itself")]

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::path::{is_char_device, mount_id, open_proc};
use super::{mount, mountinfo};

#[derive(Debug)]
pub(crate) struct Host(());

impl Host {
    /// For the runtime, which never enters a container.
    pub(crate) fn of_the_runtime() -> Self {
        Self(())
    }

    pub(crate) fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(path, flags, Mode::empty())?)
    }

    pub(crate) fn proc(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open("/proc", flags, Mode::empty())?)
    }

    /// Writes to a file of the process itself, as `attr/keycreate`.
    pub(crate) fn write_own(&self, name: &str, text: &str) -> io::Result<()> {
        let file = open_proc(self.proc()?.as_fd(), &format!("self/{name}"), OFlags::WRONLY)?;
        rustix::io::write(&file, text.as_bytes())?;
        Ok(())
    }

    /// The null device, and nothing that only bears its name.
    pub(crate) fn null(&self) -> io::Result<OwnedFd> {
        let null = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        if is_char_device(null.as_fd(), 1, 3)? {
            return Ok(null);
        }
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }

    pub(crate) fn has_kcore(&self) -> bool {
        Path::new("/proc/kcore").exists()
    }

    /// A detached copy of what is mounted at a path.
    pub(crate) fn tree(&self, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
        mount::clone_tree(rustix::fs::CWD, path, recursive)
    }

    /// What `/` and all below it hand on.
    pub(crate) fn propagate(&self, propagation: libc::c_ulong) -> io::Result<()> {
        mount::mount_path("", Path::new("/"), "", propagation, "")
    }

    /// The mount that holds `path`, found by its id: pivot_root(2) refuses one that is shared.
    pub(crate) fn make_parent_private(&self, path: &Path) -> io::Result<()> {
        let id_of = |path: &Path| mount_id(self.directory(path)?.as_fd());
        let id = id_of(path)?;
        let mut top = path;
        while let Some(parent) = top.parent() {
            if id_of(parent)? != id {
                break;
            }
            top = parent;
        }
        mount::mount_path("", top, "", libc::MS_PRIVATE, "")
    }

    /// Without a pivot the host's mounts stay, out of reach but there: a whole procfs among them would
    /// let a user namespace in the container mount one without our masks.
    pub(crate) fn hide_outer_filesystems(&self, rootfs: &Path) -> io::Result<()> {
        let mounts = std::fs::read("/proc/self/mountinfo")?;
        let mut outer: Vec<PathBuf> = mountinfo::parse(&mounts)
            .filter(|mounted| matches!(mounted.kind.as_str(), "proc" | "sysfs"))
            .map(|mounted| mounted.point)
            .filter(|point| !point.starts_with(rootfs))
            .collect();
        // What is mounted later may stand on what was before.
        outer.reverse();
        for point in outer {
            mount::mount_path("", &point, "", libc::MS_SLAVE | libc::MS_REC, "").ok();
            match mount::unmount(&point, libc::MNT_DETACH) {
                // A locked mount of an outer user namespace can only be covered.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EPERM)) => {
                    mount::mount_path("tmpfs", &point, "tmpfs", 0, "")?;
                }
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn pivot(self, root: BorrowedFd<'_>) -> io::Result<Inside> {
        mount::pivot_to(root).map(|()| Inside(()))
    }

    /// For hosts whose root is an initramfs, where pivot_root(2) cannot work.
    pub(crate) fn move_to_root(self, root: BorrowedFd<'_>) -> io::Result<Inside> {
        mount::move_to_root(root).map(|()| Inside(()))
    }

    pub(crate) fn chroot(self, root: BorrowedFd<'_>) -> io::Result<Inside> {
        mount::chroot_to(root).map(|()| Inside(()))
    }

    /// Into the namespaces of another process; with its mount namespace comes its root.
    pub(crate) fn follow(self, pidfd: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<Inside> {
        if flags != 0 {
            super::clone::setns(pidfd, flags)?;
        }
        Ok(Inside(()))
    }
}

/// The container is the process's own world: `/` is the container's, and what a path finds is found
/// with the rights that are left.
#[derive(Debug)]
pub(crate) struct Inside(());

impl Inside {
    pub(crate) fn root(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open("/", flags, Mode::empty())?)
    }

    pub(crate) fn propagate(&self, propagation: libc::c_ulong) -> io::Result<()> {
        mount::mount_path("", Path::new("/"), "", propagation, "")
    }

    /// Only once no descriptor of the host is left: a path may lead through them.
    pub(crate) fn enter_directory(&self, path: &str) -> io::Result<()> {
        Ok(rustix::process::chdir(path)?)
    }

    /// Whether what `path` names can be executed.
    pub(crate) fn is_program(&self, path: &str) -> io::Result<bool> {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = std::fs::metadata(path)?;
        Ok(!metadata.is_dir() && metadata.permissions().mode() & 0o111 != 0)
    }

    #[cfg(test)]
    pub(crate) fn of_the_test() -> Self {
        Self(())
    }
}
