//! Whether the kernel's labelling modules are there.
#![allow(clippy::disallowed_methods, reason = "a fixed place of the host")]

/// SELinux shows itself by its filesystem.
pub(crate) fn selinux_enabled() -> bool {
    const SELINUX_MAGIC: i64 = 0xf97c_ff8c;
    rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|fs| fs.f_type == SELINUX_MAGIC)
}
