//! Everything that moves bytes between a container and the outside.
//!
//! [`stdio`] opens what the URIs of a request name, in the control thread. [`pump`] moves the bytes in a thread
//! of its own, so that a slow disk or reader never holds the control thread. The two talk through
//! [`link::Link`]: commands one way, notices the other.

pub(crate) mod attach;
pub(crate) mod console;
mod flow;
pub(crate) mod link;
mod logger;
mod output;
mod pump;
pub(crate) mod stdio;
