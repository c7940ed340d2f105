//! The kernel's side: directories, pid file, network namespaces, mounts, processes.
#![allow(unsafe_code, reason = "system calls without a safe wrapper live here")]

pub(crate) mod dirs;
pub(crate) mod inside;
pub(crate) mod mount;
pub(crate) mod netns;
pub(crate) mod pidfd;
pub(crate) mod pidfile;
pub(crate) mod signal;
pub(crate) mod spawn;

/// Processors this process may run on, whatever part of them its cgroup gives it: what dockerd counts.
pub(crate) fn processors() -> i64 {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| i64::from(set.count()))
}
