//! Installing a compiled filter: seccomp(2).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::check;
use crate::seccomp::Program;

const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;
const SECCOMP_FILTER_FLAG_NEW_LISTENER: u32 = 8;

/// Installs the filter on this thread; the listener where the profile asks for one.
pub(crate) fn install(program: &Program) -> io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.instructions.len())
        .map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let filter = libc::sock_fprog { len: length, filter: program.instructions.as_ptr().cast_mut() };
    let mut flags = program.flags;
    if program.needs_listener {
        flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER;
    }
    // SAFETY: `filter` points into `program`, which outlives the call; the kernel copies it and
    // does not write through the pointer.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const filter)
    };
    let fd = check(result)?;
    if !program.needs_listener {
        return Ok(None);
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: with NEW_LISTENER the kernel returns a descriptor only we know.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether the kernel takes this flag: without a filter it complains of the pointer only if so.
pub(crate) fn knows_flag(flag: u32) -> bool {
    // Some flags are only taken beside a listener.
    [flag, flag | SECCOMP_FILTER_FLAG_NEW_LISTENER].iter().any(|flags| {
        let none = std::ptr::null::<libc::sock_fprog>();
        // SAFETY: the kernel refuses a null filter with EFAULT and installs nothing.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, *flags, none) };
        check(result).is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT))
    })
}
