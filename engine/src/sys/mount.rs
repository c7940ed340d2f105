//! mount(2) from containerd's descriptions.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags};
use proto::containerd::types::Mount;

/// Makes one mount on `target`. Blocking.
pub(crate) fn apply(mount: &Mount, target: &Path) -> nix::Result<()> {
    let mut flags = MsFlags::empty();
    let mut data: Vec<&str> = Vec::new();
    for option in &mount.options {
        match option.as_str() {
            "bind" => flags |= MsFlags::MS_BIND,
            "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            "ro" => flags |= MsFlags::MS_RDONLY,
            "rw" | "defaults" | "async" | "atime" => {}
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            other => data.push(other),
        }
    }
    let data = data.join(",");
    let source = Path::new(&mount.source);
    let kind = if flags.contains(MsFlags::MS_BIND) { None } else { Some(mount.r#type.as_str()) };
    let data = (!data.is_empty()).then_some(data.as_str());
    nix::mount::mount(Some(source), target, kind, flags, data)?;
    if flags.contains(MsFlags::MS_BIND | MsFlags::MS_RDONLY) {
        nix::mount::mount(
            None::<&str>,
            target,
            None::<&str>,
            flags | MsFlags::MS_REMOUNT,
            None::<&str>,
        )?;
    }
    Ok(())
}

/// Mounts a tmpfs for a container's shared memory. Blocking.
pub(crate) fn shm(target: &Path, size: i64) -> nix::Result<()> {
    let data = format!("mode=1777,size={size}");
    nix::mount::mount(
        Some("shm"),
        target,
        Some("tmpfs"),
        MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(data.as_str()),
    )
}

/// Unmounts; not being mounted is fine. Blocking.
pub(crate) fn unmount(target: &Path) -> nix::Result<()> {
    match nix::mount::umount2(target, MntFlags::MNT_DETACH) {
        Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        other => other,
    }
}

/// Whether something is mounted exactly there.
pub(crate) fn is_mounted(target: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Some(parent) = target.parent() else { return false };
    match (std::fs::metadata(target), std::fs::metadata(parent)) {
        (Ok(own), Ok(above)) => own.dev() != above.dev(),
        _ => false,
    }
}
