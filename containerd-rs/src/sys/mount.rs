//! Mounts a snapshot on a private directory, for the rare work that cannot use its upper directory.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::snapshot::Mount;

/// A mounted directory; unmounted and removed when dropped.
pub(crate) struct Mounted {
    path: PathBuf,
    mounted: usize,
}

impl Mounted {
    pub(crate) fn new(mounts: &[Mount], path: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&path)?;
        let mut mounted = Self { path, mounted: 0 };
        for mount in mounts {
            attach(mount, &mounted.path)?;
            mounted.mounted += 1;
        }
        Ok(mounted)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for _ in 0..self.mounted {
            if let Err(error) = rustix::mount::unmount(&self.path, UnmountFlags::DETACH) {
                tracing::warn!(path = %self.path.display(), %error, "unmount");
                return;
            }
        }
        if let Err(error) = std::fs::remove_dir(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "remove mount point");
        }
    }
}

fn attach(mount: &Mount, target: &Path) -> io::Result<()> {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in &mount.options {
        match option.as_str() {
            "ro" => flags |= MountFlags::RDONLY,
            "bind" => flags |= MountFlags::BIND,
            "rbind" => flags |= MountFlags::BIND | MountFlags::REC,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "rw" => {}
            other => data.push(other),
        }
    }
    if flags.contains(MountFlags::BIND) {
        rustix::mount::mount_bind_recursive(mount.source.as_str(), target)?;
        if flags.contains(MountFlags::RDONLY) {
            rustix::mount::mount_remount(target, flags, c"")?;
        }
        return Ok(());
    }
    let data = CString::new(data.join(","))?;
    rustix::mount::mount(
        mount.source.as_str(),
        target,
        mount.kind.as_str(),
        flags,
        data.as_c_str(),
    )?;
    Ok(())
}
