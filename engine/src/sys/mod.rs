//! The kernel's side: directories, pid file, network namespaces, mounts, processes.
#![allow(unsafe_code, reason = "system calls without a safe wrapper live here")]

pub(crate) mod dirs;
pub(crate) mod inside;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod netns;
pub(crate) mod pidfd;
pub(crate) mod pidfile;
pub(crate) mod signal;
pub(crate) mod spawn;
