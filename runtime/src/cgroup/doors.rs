//! The way into a container's cgroups that waits for nobody.
//!
//! Whoever moves another process has the kernel wait until no processor is in the midst of a fork or
//! an exit, which takes milliseconds. A process that is born in its place needs no such wait (cgroup2
//! only), nor does a thread that moves itself (v1 only).

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::Cgroup;

/// Opened with the runtime's rights, for a process that may have lost them.
#[derive(Debug)]
pub(crate) struct Doors {
    unified: Option<OwnedFd>,
    tasks: Vec<OwnedFd>,
}

impl Doors {
    /// `None` where one does not open: joining tells why.
    pub(super) fn open(cgroup: &Cgroup) -> Option<Self> {
        let open = |path: PathBuf, flags: OFlags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).ok()
        };
        let unified = match cgroup.paths.get("") {
            Some(directory) => Some(open(directory.clone(), OFlags::PATH | OFlags::DIRECTORY)?),
            None => None,
        };
        let v1 = cgroup.paths.iter().filter(|(controller, _)| !controller.is_empty());
        let v1: BTreeSet<&PathBuf> = v1.map(|(_, directory)| directory).collect();
        let tasks = v1.into_iter().map(|directory| open(directory.join("tasks"), OFlags::WRONLY));
        Some(Self { unified, tasks: tasks.collect::<Option<_>>()? })
    }

    /// Where in the unified hierarchy the process is to be born.
    pub(crate) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Moves the caller, which has one thread, into the other hierarchies; whether it is in all.
    pub(crate) fn enter(self) -> bool {
        self.tasks.iter().all(|tasks| rustix::io::write(tasks, b"0").is_ok())
    }
}
