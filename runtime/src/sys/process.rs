//! The process on its way to exec: descriptors, signals, execve, hooks' children, loopback.
#![allow(
    clippy::disallowed_methods,
    reason = "its own descriptors, where the kernel cannot list them otherwise"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use super::{check, check_int};

/// Marks every descriptor from `first` on close-on-exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: integers only.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC)
    };
    match check(result) {
        Ok(_) => return Ok(()),
        // Before 5.11 the flag, before 5.9 the call is unknown.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {}
        Err(error) => return Err(error),
    }
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if u32::try_from(fd).is_ok_and(|fd| fd >= first) {
            // SAFETY: integers only; a descriptor that is gone by now is EBADF, which is fine.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Closes every descriptor from `first` on, save `kept`. Owners of the closed ones must not be dropped
/// any more: only for a process that will exec or `_exit`.
pub(crate) fn close_all_but(first: u32, kept: &mut [RawFd]) -> io::Result<()> {
    kept.sort_unstable();
    let mut next = first;
    for fd in kept.iter().filter_map(|fd| u32::try_from(*fd).ok()) {
        if fd > next {
            close_range(next, fd - 1)?;
        }
        next = next.max(fd + 1);
    }
    close_range(next, libc::c_uint::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: integers only; see the contracts of the callers for owners.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    match check(result) {
        // Before 5.9.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
        result => return result.map(drop),
    }
    let open: Vec<u32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| (first..=last).contains(fd)) {
        // SAFETY: integers only; that of the directory just read is closed already, which is fine.
        unsafe { libc::close(i32::try_from(fd).unwrap_or(-1)) };
    }
    Ok(())
}

/// Lets a descriptor survive exec.
pub(crate) fn keep_on_exec(fd: i32) -> io::Result<()> {
    // SAFETY: integers only.
    check_int(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }).map(drop)
}

pub(crate) fn is_open(fd: i32) -> bool {
    // SAFETY: integers only.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// How many descriptors are open from `first` on, up to the first gap.
pub(crate) fn count_open_from(first: i32) -> u32 {
    (0_u32..).zip(first..).find(|(_, fd)| !is_open(*fd)).map_or(0, |(count, _)| count)
}

/// Makes `fd` standard input, output and error.
pub(crate) fn become_stdio(fd: BorrowedFd<'_>) -> io::Result<()> {
    for target in 0..=2 {
        // SAFETY: integers only; replacing 0 to 2 is the purpose.
        check_int(unsafe { libc::dup2(fd.as_raw_fd(), target) })?;
    }
    Ok(())
}

/// Gives `fd` another number too, one that survives exec.
pub(crate) fn duplicate_to(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: integers only; what `number` was is meant to be replaced.
    check_int(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// A copy of a descriptor that the caller left open for us.
pub(crate) fn duplicate(number: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    // SAFETY: integers only.
    let copy = check_int(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel just gave us this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Closes a descriptor that the caller left open for us, and nothing of ours owns.
pub(crate) fn close(number: i32) {
    // SAFETY: integers only; one that is not open is fine.
    unsafe { libc::close(number) };
}

pub(crate) fn setsid() -> io::Result<()> {
    // SAFETY: no arguments.
    check_int(unsafe { libc::setsid() }).map(drop)
}

/// execve(2); returns only on failure.
pub(crate) fn exec(path: &CString, arguments: &[CString], environment: &[CString]) -> io::Error {
    let list = |strings: &[CString]| {
        strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>()
    };
    let (arguments, environment) = (list(arguments), list(environment));
    // SAFETY: both lists end with null and point to strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// execveat(2) of the descriptor itself; returns only on failure.
pub(crate) fn exec_fd(
    fd: BorrowedFd<'_>,
    arguments: &[CString],
    environment: &[CString],
) -> io::Error {
    let list = |strings: &[CString]| {
        strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>()
    };
    let (arguments, environment) = (list(arguments), list(environment));
    // SAFETY: both lists end with null and point to strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// To one process. The kernel shows those of an outer pid namespace as 0, which to kill(2) is the
/// caller's own group.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: integers only.
    check_int(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Blocks all signals and returns a descriptor that delivers them.
pub(crate) fn signal_fd() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    let mut set = empty_set();
    // SAFETY: `set` is a live local, initialised by empty_set.
    unsafe { libc::sigfillset(&raw mut set) };
    // SAFETY: `set` is initialised; the old mask is not asked for.
    check_int(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) })?;
    // SAFETY: `set` is initialised.
    let fd = check_int(unsafe {
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    })?;
    // SAFETY: the kernel just gave us this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number of the next pending signal.
pub(crate) fn next_signal(fd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut bytes = [0_u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(fd, &mut bytes) {
        Ok(_) => {
            let number = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            Ok(i32::try_from(number).ok())
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn empty_set() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the whole set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

/// Signal mask and dispositions as a fresh program expects them. Rust ignores SIGPIPE, and an
/// ignored signal stays ignored over exec. Asked of the kernel itself: C libraries keep some signals
/// from `sigaction`, and leave just those ignored in what they spawn.
pub(crate) fn reset_signals() -> io::Result<()> {
    // The kernel's `struct sigaction`, of handler, flags, restorer and mask; SIG_DFL is zero.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel reads no more than the four words and is not asked for the old action;
        // it refuses SIGKILL and SIGSTOP, which is fine.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null::<u64>(), 8);
        }
    }
    let set = empty_set();
    // SAFETY: `set` is initialised; the old mask is not asked for.
    check_int(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()) })
        .map(drop)
}

/// Lets the usual requests to end do so, though the first process of a pid namespace would not hear
/// them; until exec, which takes handlers away. The exit code is a shell's.
pub(crate) fn end_when_asked() -> io::Result<()> {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: _exit may be called from a handler and never returns.
        unsafe { libc::_exit(128 + signal) }
    }
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: all zeroes are an action with an empty mask and no flags.
        let action = unsafe {
            (*action.as_mut_ptr()).sa_sigaction = end as *const () as libc::sighandler_t;
            action.assume_init()
        };
        // SAFETY: the action is initialised, its handler does what a handler may.
        check_int(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) })?;
    }
    Ok(())
}

/// Brings the loopback interface of the current network namespace up (netdevice(7)).
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    let mut request = Ifreq { name: [0; libc::IFNAMSIZ], flags: 0, padding: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: the ioctl reads the name and writes the flags of one ifreq, which `request` is.
    check_int(unsafe { libc::ioctl(socket.as_raw_fd(), GET_FLAGS, &raw mut request) })?;
    request.flags |= libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: the ioctl reads one ifreq.
    check_int(unsafe { libc::ioctl(socket.as_raw_fd(), SET_FLAGS, &raw const request) }).map(drop)
}

/// `SIOCGIFFLAGS` and `SIOCSIFFLAGS`, in the type that each C library's ioctl takes.
const GET_FLAGS: libc::Ioctl = 0x8913;
const SET_FLAGS: libc::Ioctl = 0x8914;

/// `struct ifreq` with its union read as flags; 40 bytes.
#[repr(C)]
struct Ifreq {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    padding: [u8; 22],
}

/// Closes every descriptor from `first` on, save `kept`, which move to the first free numbers.
/// Owners of the closed descriptors must not be dropped any more: only for a process that will
/// exec or `_exit`.
pub(crate) fn keep_only<const N: usize>(
    first: u32,
    kept: [Option<OwnedFd>; N],
) -> io::Result<[Option<OwnedFd>; N]> {
    use std::os::fd::{FromRawFd as _, IntoRawFd as _};
    let first = i32::try_from(first).map_err(io::Error::other)?;
    let count = i32::try_from(N).map_err(io::Error::other)?;
    // Out of the way first, so that no target number is one of the sources.
    let mut high = [None; N];
    for (slot, fd) in high.iter_mut().zip(kept) {
        if let Some(fd) = fd {
            // SAFETY: integers only.
            let moved = check_int(unsafe {
                libc::fcntl(fd.into_raw_fd(), libc::F_DUPFD_CLOEXEC, first + count)
            })?;
            *slot = Some(moved);
        }
    }
    let mut result = [const { None }; N];
    for ((index, slot), target) in high.into_iter().enumerate().zip(first..) {
        if let Some(moved) = slot {
            // SAFETY: integers only; what `target` was is meant to be closed.
            check_int(unsafe { libc::dup3(moved, target, libc::O_CLOEXEC) })?;
            // SAFETY: `target` is a fresh duplicate that only this value owns.
            result[index] = Some(unsafe { OwnedFd::from_raw_fd(target) });
        } else {
            // SAFETY: integers only; a number that is not open is fine.
            unsafe { libc::close(target) };
        }
    }
    let rest = u32::try_from(first + count).map_err(io::Error::other)?;
    // SAFETY: integers only; see the contract above for owners.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, rest, libc::c_uint::MAX, 0) };
    if check(closed).is_err() {
        // Before 5.9: they go at exec instead.
        close_on_exec_from(rest)?;
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_process_is_signalled() {
        for pid in [0, -1, i32::MIN] {
            assert_eq!(kill(pid, 0).unwrap_err().raw_os_error(), Some(libc::ESRCH), "{pid}");
        }
        kill(std::process::id().cast_signed(), 0).unwrap();
    }
}
