//! What has no safe call.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;

use nix::libc;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// A child in new namespaces that runs `work` on a copy of this process's memory.
pub(crate) fn clone(
    namespaces: CloneFlags,
    signal: Signal,
    work: impl FnMut() -> isize,
) -> io::Result<Pid> {
    let mut stack = vec![0_u8; 256 << 10];
    let (work, signal) = (Box::new(work), Some(signal as i32));
    // SAFETY: guest has one thread, so no lock is held by another; without CLONE_VM the child writes to
    // its own copy of the stack, which therefore may end with this call.
    let child = unsafe { nix::sched::clone(work, &mut stack, namespaces, signal) };
    Ok(child?)
}

/// Of the file itself, not of what a link names.
pub(crate) fn file_label(path: &str) -> io::Result<Vec<u8>> {
    let path = CString::new(path)?;
    let mut label = vec![0_u8; 4096];
    // SAFETY: both strings end with a NUL, and the length is the buffer's.
    let length = unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            c"security.selinux".as_ptr(),
            label.as_mut_ptr().cast(),
            label.len(),
        )
    };
    filled(label, length)
}

pub(crate) fn session_keyring_label() -> io::Result<Vec<u8>> {
    const GET_SECURITY: libc::c_long = 17;
    const SESSION: libc::c_long = -3;
    let mut label = vec![0_u8; 4096];
    // SAFETY: the length is the buffer's.
    let length = unsafe {
        libc::syscall(libc::SYS_keyctl, GET_SECURITY, SESSION, label.as_mut_ptr(), label.len())
    };
    filled(label, length.try_into().unwrap_or(-1))
}

/// The part of the buffer that a call says it has written.
fn filled(mut buffer: Vec<u8>, length: isize) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    buffer.truncate(length);
    Ok(buffer)
}
