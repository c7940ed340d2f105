//! When the kernel kills for want of memory: an event file on v1 (the kernel's `memory.rst`, section
//! 9), a counter in a watched file on v2.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::EventfdFlags;
use rustix::fs::inotify::{CreateFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};

use super::file::{raw_write, read};
use super::{Cgroup, Error};

/// Readable when there may be news.
#[derive(Debug)]
pub(crate) struct OomWatch {
    fd: OwnedFd,
    directory: PathBuf,
    /// Kills so far; `None` on v1, where the descriptor itself counts.
    killed: Option<u64>,
}

impl Cgroup {
    /// `None` where no memory controller could tell.
    pub(crate) fn watch_oom(&self) -> Result<Option<OomWatch>, Error> {
        let (directory, watch): (&PathBuf, fn(&Path) -> io::Result<OwnedFd>) =
            match (self.v2_directory(), self.paths.get("memory")) {
                (Some(directory), _) if directory.join("memory.events").exists() => {
                    (directory, watch_v2)
                }
                (None, Some(directory)) => (directory, watch_v1),
                _ => return Ok(None),
            };
        let killed = self.v2_directory().map(|directory| kills(directory));
        let fd = watch(directory)
            .map_err(|cause| Error::Read { path: directory.join("memory.events"), cause })?;
        Ok(Some(OomWatch { fd, directory: directory.clone(), killed }))
    }
}

fn watch_v1(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let control = rustix::fs::open(directory.join("memory.oom_control"), flags, Mode::empty())?;
    let events = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let line = format!("{} {}", events.as_raw_fd(), control.as_raw_fd());
    raw_write(directory, "cgroup.event_control", &line)?;
    Ok(events)
}

fn watch_v2(directory: &Path) -> io::Result<OwnedFd> {
    let events = rustix::fs::inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    rustix::fs::inotify::add_watch(&events, directory.join("memory.events"), WatchFlags::MODIFY)?;
    Ok(events)
}

fn kills(directory: &Path) -> u64 {
    let text = read(directory, "memory.events").unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

impl OomWatch {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// How often it happened since the last call.
    pub(crate) fn take(&mut self) -> u64 {
        let mut bytes = [0_u8; 4096];
        let length = rustix::io::read(&self.fd, &mut bytes).unwrap_or(0);
        match &mut self.killed {
            Some(before) => {
                let now = kills(&self.directory).max(*before);
                now - std::mem::replace(before, now)
            }
            // The removal of the group comes as an event too.
            None if length < 8 || !self.directory.join("memory.oom_control").exists() => 0,
            None => u64::from_ne_bytes([
                bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
            ]),
        }
    }
}
