//! The kernel's side: directories, pid file, network namespaces, mounts, processes.
#![allow(unsafe_code, reason = "system calls without a safe wrapper live here")]

pub(crate) mod dirs;
pub(crate) mod netns;
pub(crate) mod pidfile;
pub(crate) mod spawn;
