//! What has no safe call.
#![allow(unsafe_code)]

use std::io;

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
