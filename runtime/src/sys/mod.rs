//! Every system call that std and rustix do not offer; the only place with `unsafe`.
//!
//! All functions return `io::Result` with the errno as it came; sentences are made above.
#![allow(unsafe_code)]

pub(crate) mod clone;
pub(crate) mod file;
pub(crate) mod host;
pub(crate) mod identity;
pub(crate) mod label;
pub(crate) mod landlock;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod mountinfo;
pub(crate) mod netlink;
pub(crate) mod path;
pub(crate) mod process;
pub(crate) mod regex;
pub(crate) mod schedule;
pub(crate) mod seccomp;
pub(crate) mod socket;
pub(crate) mod terminal;

use std::ffi::CString;
use std::io;

/// Turns a libc return value into a result.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_int(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(crate) fn c_string(text: &[u8]) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// The errno of an error, `EIO` when it did not come from the kernel.
pub(crate) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Compat: Go's texts for errno values; callers match on several of them.
pub(crate) fn errno_text(errno: i32) -> String {
    let known = match errno {
        libc::EPERM => "operation not permitted",
        libc::ENOENT => "no such file or directory",
        libc::ESRCH => "no such process",
        libc::EINTR => "interrupted system call",
        libc::EIO => "input/output error",
        libc::ENXIO => "no such device or address",
        libc::E2BIG => "argument list too long",
        libc::ENOEXEC => "exec format error",
        libc::EBADF => "bad file descriptor",
        libc::ECHILD => "no child processes",
        libc::EAGAIN => "resource temporarily unavailable",
        libc::ENOMEM => "cannot allocate memory",
        libc::EACCES => "permission denied",
        libc::EFAULT => "bad address",
        libc::EBUSY => "device or resource busy",
        libc::EEXIST => "file exists",
        libc::EXDEV => "invalid cross-device link",
        libc::ENODEV => "no such device",
        libc::ENOTDIR => "not a directory",
        libc::EISDIR => "is a directory",
        libc::EINVAL => "invalid argument",
        libc::EMFILE => "too many open files",
        libc::ENOTTY => "inappropriate ioctl for device",
        libc::ETXTBSY => "text file busy",
        libc::ENOSPC => "no space left on device",
        libc::EROFS => "read-only file system",
        libc::EPIPE => "broken pipe",
        libc::ERANGE => "numerical result out of range",
        libc::ENAMETOOLONG => "file name too long",
        libc::ENOSYS => "function not implemented",
        libc::ENOTEMPTY => "directory not empty",
        libc::ELOOP => "too many levels of symbolic links",
        libc::EOPNOTSUPP => "operation not supported",
        libc::ECONNREFUSED => "connection refused",
        libc::EDQUOT => "disk quota exceeded",
        libc::EFBIG => "file too large",
        libc::EOVERFLOW => "value too large for defined data type",
        libc::ENODATA => "no data available",
        libc::EADDRINUSE => "address already in use",
        libc::EADDRNOTAVAIL => "cannot assign requested address",
        libc::EAFNOSUPPORT => "address family not supported by protocol",
        libc::ECONNRESET => "connection reset by peer",
        libc::ENOTCONN => "transport endpoint is not connected",
        libc::ENOTSOCK => "socket operation on non-socket",
        libc::EMSGSIZE => "message too long",
        libc::ENFILE => "too many open files in system",
        libc::EMLINK => "too many links",
        libc::ESPIPE => "illegal seek",
        libc::EDEADLK => "resource deadlock avoided",
        libc::ESTALE => "stale NFS file handle",
        libc::EPROTO => "protocol error",
        libc::ETIMEDOUT => "connection timed out",
        libc::EUSERS => "too many users",
        _ => return format!("errno {errno}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_callers_match_are_as_go_spells_them() {
        assert_eq!(errno_text(libc::ENOENT), "no such file or directory");
        assert_eq!(errno_text(libc::EACCES), "permission denied");
        assert_eq!(errno_text(libc::ENOEXEC), "exec format error");
        assert_eq!(errno_text(4095), "errno 4095");
    }
}
