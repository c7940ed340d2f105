//! The kernel, where std does not reach.

pub(crate) mod copy;
pub(crate) mod mount;
