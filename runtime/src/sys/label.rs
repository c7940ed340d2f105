//! Whether the kernel's labelling modules are there, and SELinux labels on files.
#![allow(clippy::disallowed_methods, reason = "a fixed place of the host; a handle's own link")]

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::StatVfsMountFlags;

use super::mount::fd_path;

/// SELinux shows itself by its filesystem. Compat: where that cannot be written to, as in a container, it
/// is another's.
pub(crate) fn selinux_enabled() -> bool {
    const SELINUX_MAGIC: i64 = 0xf97c_ff8c;
    let place = "/sys/fs/selinux";
    rustix::fs::statfs(place).is_ok_and(|fs| fs.f_type == SELINUX_MAGIC)
        && rustix::fs::statvfs(place).is_ok_and(|fs| !fs.f_flag.contains(StatVfsMountFlags::RDONLY))
}

pub(crate) fn set_file_label(file: BorrowedFd<'_>, label: &str) -> io::Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    Ok(rustix::fs::setxattr(fd_path(file), "security.selinux", label.as_bytes(), flags)?)
}
