//! The kernel, where std does not reach.
#![allow(unsafe_code, reason = "system calls without a safe wrapper live here")]

pub(crate) mod copy;
pub(crate) mod mount;
