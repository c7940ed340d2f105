//! A process's end as an event.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Readable when the process ends. `None` where there is no such process.
pub(crate) fn open(pid: i32) -> Option<AsyncFd<OwnedFd>> {
    let fd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?;
    // SAFETY: the result owns the descriptor, which stays open under its number until dropped.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.ok()
}
