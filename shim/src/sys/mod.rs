//! The few system calls that no safe wrapper covers.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags};
use nix::sys::signal::SigmaskHow;
use nix::unistd::{ForkResult, Pid};

/// Continues in a child and, if `in_child` returns, ends it with that status. Must run while the process
/// has one thread only.
pub(crate) fn fork_single_threaded(in_child: impl FnOnce() -> u8) -> io::Result<Pid> {
    // SAFETY: the caller upholds that no other thread exists, so the child may do anything.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => exit_now(in_child()),
    }
}

/// One mount, ready for a child that must not allocate.
pub(crate) struct Mount<'a> {
    pub(crate) source: &'a CStr,
    pub(crate) target: &'a CStr,
    pub(crate) kind: &'a CStr,
    pub(crate) flags: MsFlags,
    /// Propagation, set in a call of its own.
    pub(crate) propagation: MsFlags,
    /// A bind mount takes most flags only in a second call.
    pub(crate) remount: Option<MsFlags>,
    pub(crate) data: &'a CStr,
}

/// Mounts in order in a child process, which exits with 0 or the errno. `directory` is where relative paths
/// in the mounts' data start.
pub(crate) fn fork_mounts(directory: &CStr, mounts: &[Mount<'_>]) -> io::Result<Pid> {
    // SAFETY: between fork and _exit the child makes plain system calls on memory that exists already;
    // it neither allocates nor takes locks, so other threads do not matter.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => exit_now(mount_all(directory, mounts).err().map_or(0, errno_status)),
    }
}

fn mount_all(directory: &CStr, mounts: &[Mount<'_>]) -> nix::Result<()> {
    nix::unistd::chdir(directory)?;
    for m in mounts {
        let none: Option<&CStr> = None;
        nix::mount::mount(Some(m.source), m.target, Some(m.kind), m.flags, Some(m.data))?;
        if let Some(flags) = m.remount {
            nix::mount::mount(none, m.target, none, flags, none)?;
        }
        if !m.propagation.is_empty() {
            nix::mount::mount(none, m.target, none, m.propagation, none)?;
        }
    }
    Ok(())
}

/// Detaches every mount on `target`, in a child process.
pub(crate) fn fork_unmount(target: &CStr) -> io::Result<Pid> {
    // SAFETY: as in `fork_mounts`.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => exit_now(unmount_all(target).err().map_or(0, errno_status)),
    }
}

/// Detaches every mount on `target`.
pub(crate) fn unmount_all(target: &CStr) -> nix::Result<()> {
    // Mounts may be stacked; the bound keeps a misbehaving kernel from holding us.
    for _ in 0..128 {
        match nix::mount::umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(nix::Error::EINVAL | nix::Error::ENOENT | nix::Error::ENOTDIR) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn errno_status(errno: nix::Error) -> u8 {
    u8::try_from(errno as i32).unwrap_or(255)
}

fn exit_now(status: u8) -> ! {
    // SAFETY: _exit takes any status and runs no handlers.
    unsafe { libc::_exit(i32::from(status)) }
}

/// Gives the child three descriptors as 3, 4 and 5.
pub(crate) fn pass_three(command: &mut Command, fds: [OwnedFd; 3]) {
    let pass = move || {
        let mut copies = [0; 3];
        // Above all targets first, so that no target is overwritten before it was copied.
        for (copy, fd) in copies.iter_mut().zip(&fds) {
            // SAFETY: fcntl on a descriptor that `fds` owns.
            *copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 6) };
            if *copy < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (target, copy) in (3..).zip(copies) {
            // SAFETY: `copy` is open; what is at `target` belongs to the parent and is given up here.
            if unsafe { libc::dup2(copy, target) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: fcntl and dup2 are async-signal-safe, and the closure does not allocate.
    unsafe { command.pre_exec(pass) };
}

/// Lets the child receive the signals that the loop has blocked: a mask is inherited, and not every
/// program sets its own.
pub(crate) fn unblock_signals(command: &mut Command) {
    let unblock = || -> io::Result<()> {
        let none = nix::sys::signal::SigSet::empty();
        nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&none), None)?;
        Ok(())
    };
    // SAFETY: sigprocmask is async-signal-safe, and the closure does not allocate.
    unsafe { command.pre_exec(unblock) };
}

/// Sets a pipe's size; best effort, a user's limit may forbid it.
pub(crate) fn set_pipe_size(fd: impl AsFd, size: i32) {
    // SAFETY: F_SETPIPE_SZ takes a descriptor and an integer.
    unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETPIPE_SZ, size) };
}

/// Sends any signal, realtime ones too.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes two integers.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor from 3 on, `keep` excepted. For the moment after the fork, when nothing else is
/// open that anybody here knows of.
pub(crate) fn close_all_but(keep: BorrowedFd<'_>) {
    let keep = keep.as_raw_fd().cast_unsigned();
    for (first, last) in [(3, keep.wrapping_sub(1)), (keep + 1, u32::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: close_range takes integers; the descriptors closed were inherited and have no owner here.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
            continue;
        }
        // A kernel before 5.9, or one that forbids the call.
        for fd in first..=last.min(4096) {
            // SAFETY: as above.
            unsafe { libc::close(fd.cast_signed()) };
        }
    }
}
