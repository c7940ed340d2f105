//! What several programs did for one run, span by span: the names that travel, and the file that
//! each of them appends its spans to.
//!
//! A caller is named by a `traceparent` (W3C Trace Context, level 1): in HTTP headers, in the
//! metadata of gRPC and ttrpc, in the environment of a program that is executed. Where the spans go
//! is a [`Place`]: in gRPC's metadata under [`LOG_KEY`], in an OCI configuration under
//! [`ANNOTATION`]. An engine makes the file; everybody else only appends to one that is there and
//! looks like one of these, since a configuration may have been written by anybody.
//!
//! ```text
//! spans 1                                    the first line
//! PROGRAM ID PARENT START END NAME           16 hexadecimal digits twice, nanoseconds twice
//! ```
//!
//! All times are of the host's monotonic clock.

#![forbid(unsafe_code)]

mod id;
mod log;
mod place;
#[cfg(feature = "tokio")]
pub mod task;

pub use id::{Caller, SpanId, TraceId};
pub use log::{LIMIT, Log, Span};
pub use place::{ANNOTATION, LOG_KEY, Page, Place};

/// The header, the metadata key and, in capitals, the variable that name a caller.
pub const CALLER_KEY: &str = "traceparent";
/// [`CALLER_KEY`] in an environment.
pub const CALLER_VARIABLE: &str = "TRACEPARENT";

/// Nanoseconds of the host's monotonic clock; no system call.
#[must_use]
pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
