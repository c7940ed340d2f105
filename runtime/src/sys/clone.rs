//! Births and namespaces: clone3, setns, unshare, pidfd. See clone(2), setns(2).
#![allow(
    clippy::disallowed_methods,
    reason = "what the runtime does before the clone, on the host"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{check, check_int};

/// Which side of the clone this is.
#[derive(Debug)]
pub(crate) enum Side {
    Child,
    Parent(i32),
}

/// Flags of namespaces as clone3 takes them.
pub(crate) type Flags = u64;

pub(crate) const NEWTIME: Flags = 0x80;

const INTO_CGROUP: Flags = 0x2_0000_0000;

pub(crate) fn ns(flag: libc::c_int) -> Flags {
    u64::from(flag.unsigned_abs())
}

/// Forks with `flags`. With `as_sibling` the new process is a child of our parent
/// (`CLONE_PARENT`), so that a stage in between can end at once.
pub(crate) fn clone(flags: Flags, as_sibling: bool) -> io::Result<Side> {
    assert_single_threaded()?;
    if as_sibling { call(flags | ns(libc::CLONE_PARENT), None) } else { call(flags, None) }
}

/// Forks a child of ours that is born in `cgroup`, a directory of cgroup2; false where it is not.
pub(crate) fn clone_into(flags: Flags, cgroup: BorrowedFd<'_>) -> io::Result<(Side, bool)> {
    assert_single_threaded()?;
    match call(flags, Some(cgroup)) {
        Ok(side) => Ok((side, true)),
        // A group that takes no process, or has no room for one; a sandbox without clone3.
        Err(_) => Ok((call(flags, None)?, false)),
    }
}

fn call(flags: Flags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let mut arguments = libc::clone_args {
        flags,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if flags & ns(libc::CLONE_PARENT) != 0 {
        arguments.exit_signal = 0;
    }
    if let Some(cgroup) = cgroup {
        arguments.flags |= INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: without CLONE_VM this is a fork: the child gets a copy of our memory and goes on
    // with the same stack; we are the only thread (checked above), so no lock is left held.
    let result = unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>())
    };
    let pid = match check(result) {
        // Sandboxes forbid clone3(2), whose flags their filters cannot see; clone(2) has all that
        // we need of it.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && cgroup.is_none() => {
            let flags = arguments.flags | arguments.exit_signal;
            // SAFETY: as above; a null stack means to go on with the same one. On the supported
            // machines flags come first and all that follows is unused here.
            check(unsafe {
                libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize)
            })?
        }
        result => result?,
    };
    match pid {
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(i32::try_from(pid).map_err(io::Error::other)?)),
    }
}

/// A user namespace of these mappings that no process is in; for id-mapped mounts.
pub(crate) fn user_namespace(uids: &str, gids: &str) -> io::Result<OwnedFd> {
    let (ours, theirs) = super::socket::message_pair()?;
    match clone(ns(libc::CLONE_NEWUSER), false)? {
        Side::Child => {
            drop(ours);
            // Until the other end is closed.
            drop(super::socket::receive(&theirs));
            exit_now(0)
        }
        Side::Parent(pid) => {
            drop(theirs);
            let made = std::fs::write(format!("/proc/{pid}/uid_map"), uids)
                .and_then(|()| std::fs::write(format!("/proc/{pid}/gid_map"), gids))
                .and_then(|()| std::fs::File::open(format!("/proc/{pid}/ns/user")));
            drop(ours);
            wait(pid, true)?;
            Ok(made?.into())
        }
    }
}

fn assert_single_threaded() -> io::Result<()> {
    // st_nlink of /proc/self/task is 2 + the number of threads.
    let links = rustix::fs::stat("/proc/self/task").map_or(3, |stat| stat.st_nlink);
    if links > 3 {
        return Err(io::Error::other("clone from a process with several threads"));
    }
    Ok(())
}

pub(crate) fn setns(fd: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: both arguments are plain integers; the descriptor is borrowed, so open.
    check_int(unsafe { libc::setns(fd.as_raw_fd(), flags) }).map(drop)
}

pub(crate) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: takes an integer only.
    check_int(unsafe { libc::unshare(flags) }).map(drop)
}

pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor of another process, ours from now on too.
pub(crate) fn take_fd(pid: i32, number: i32) -> io::Result<OwnedFd> {
    let process = pidfd_open(pid)?;
    // SAFETY: takes integers only; the descriptor is borrowed, so open.
    let fd =
        check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0_u32) })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn pidfd_send_signal(fd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo is allowed and means the same as kill(2).
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(result).map(drop)
}

/// Waits for a child; the raw wait status. `block` = false returns `None` when it still runs.
pub(crate) fn wait(pid: i32, block: bool) -> io::Result<Option<(i32, i32)>> {
    loop {
        let mut status = 0;
        let options = if block { 0 } else { libc::WNOHANG };
        // SAFETY: `status` is a live local the kernel writes an int to.
        match check_int(unsafe { libc::waitpid(pid, &raw mut status, options) }) {
            Ok(0) => return Ok(None),
            Ok(pid) => return Ok(Some((pid, status))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The shell's view of a wait status: the code, or 128 + signal.
pub(crate) fn exit_code(status: i32) -> u8 {
    let code = if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    };
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// Ends the process without running anything more; for the child's side of a clone.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of ours.
    unsafe { libc::_exit(code) }
}
