//! The processes of a cgroup: listing, freezing, killing, and removing what they leave.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Error;
use super::file::{gone, pids, raw_write, read, write};
use crate::sys::process::kill;

/// Of the group, and of the groups below it.
pub(super) fn all_pids(directory: &Path, recursive: bool) -> Result<Vec<i32>, Error> {
    let mut all = pids(directory)?;
    if recursive {
        for child in children(directory) {
            all.extend(all_pids(&child, true)?);
        }
    }
    Ok(all)
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Sends `signal` to every process, as often as new ones appear where it is SIGKILL.
pub(super) fn signal_all(directory: &Path, signal: i32) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pids = all_pids(directory, true)?;
        for pid in &pids {
            match kill(*pid, signal) {
                Err(cause) if cause.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(Error::Kill { pid: *pid, cause });
                }
                _ => {}
            }
        }
        if signal != libc::SIGKILL || pids.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::StillAlive { path: directory.to_owned(), count: pids.len() });
        }
        wait_for_change(directory, Duration::from_millis(2));
    }
}

/// SIGKILL to a whole v2 tree at once. `false`: the kernel lacks it (before 5.14).
pub(super) fn kill_tree(directory: &Path) -> Result<bool, Error> {
    match raw_write(directory, "cgroup.kill", "1") {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(!directory.exists()),
        Err(error) if gone(&error) => Ok(true),
        // A threaded group cannot be killed as one.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        Err(cause) => {
            Err(Error::Write { path: directory.join("cgroup.kill"), value: "1".into(), cause })
        }
    }
}

pub(super) fn freeze_v2(directory: &Path, frozen: bool) -> Result<(), Error> {
    write(directory, "cgroup.freeze", if frozen { "1" } else { "0" })?;
    let deadline = Instant::now() + PATIENCE;
    while is_frozen_v2(directory)? != frozen {
        if Instant::now() > deadline {
            raw_write(directory, "cgroup.freeze", "0").unwrap_or_default();
            return Err(Error::Freeze(directory.to_owned()));
        }
        wait_for_change(directory, Duration::from_millis(10));
    }
    Ok(())
}

pub(super) fn is_frozen_v2(directory: &Path) -> Result<bool, Error> {
    Ok(read(directory, "cgroup.events")?.lines().any(|line| line == "frozen 1"))
}

/// v1 says FREEZING until the last task stands, which may need another push.
pub(super) fn freeze_v1(directory: &Path, frozen: bool) -> Result<(), Error> {
    let wanted = if frozen { "FROZEN" } else { "THAWED" };
    let deadline = Instant::now() + PATIENCE;
    let mut turn = 0_u32;
    loop {
        write(directory, "freezer.state", wanted)?;
        let state = read(directory, "freezer.state")?;
        if state == wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            raw_write(directory, "freezer.state", "THAWED").unwrap_or_default();
            return Err(Error::Freeze(directory.to_owned()));
        }
        turn += 1;
        // A task that forks at the wrong moment keeps the group from freezing: let it go on.
        if frozen && turn.is_multiple_of(50) {
            write(directory, "freezer.state", "THAWED")?;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Removes the groups below, then the group. What is gone already is fine.
pub(super) fn remove(directory: &Path) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(200);
    loop {
        let error = match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if gone(&error) => return Ok(()),
            Err(error) => error,
        };
        // ENOTEMPTY is for tests on ordinary file systems.
        if !matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)) {
            return Err(Error::Remove { path: directory.to_owned(), cause: error });
        }
        for child in children(directory) {
            remove(&child)?;
        }
        if Instant::now() > deadline {
            return Err(Error::Remove { path: directory.to_owned(), cause: error });
        }
        wait_for_change(directory, pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Until `cgroup.events` changes, or `most` has passed; v1 has no such file and just waits.
fn wait_for_change(directory: &Path, most: Duration) {
    let Ok(events) = fs::File::open(directory.join("cgroup.events")) else {
        std::thread::sleep(most);
        return;
    };
    // A read arms the notification.
    let populated = io::read_to_string(&events).is_ok_and(|text| text.contains("populated 1"));
    if !populated {
        std::thread::sleep(most.min(Duration::from_millis(1)));
        return;
    }
    let mut fds = [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::PRI)];
    let timeout = Timespec::try_from(most).ok();
    // An interrupted wait is only a shorter one.
    poll(&mut fds, timeout.as_ref()).unwrap_or_default();
}

/// The kernel is given this long; what takes longer is reported.
const PATIENCE: Duration = Duration::from_secs(5);
