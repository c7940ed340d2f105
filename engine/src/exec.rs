//! Execs.

/// All execs.
#[derive(Debug, Default)]
pub(crate) struct Execs {}
