//! Container logs on disk, in dockerd's json-file format: whoever owns the container's output writes them
//! ([`Writer`]), the engine reads them ([`Reader`]).
//!
//! Synchronous and without policy. [`uri`] and [`attach`] hold the two small formats by which engine and
//! shim agree on a log: the log URI in a task's stdio, and the frames on the live socket beside the log.
//!
//! Disk layout, `max-file` 3 with compression:
//! ```text
//! ID-json.log          the newest, appended to
//! ID-json.log.1.gz     older
//! ID-json.log.2.gz     oldest
//! ID-json.log.offsets  only after a rotation: `inode offset` a line, where each file starts in the whole log
//! ```

pub mod attach;
mod offsets;
mod reader;
mod record;
mod scan;
mod split;
mod time;
pub mod uri;
mod writer;

pub use reader::{ReadError, Reader};
pub use record::{Entry, Stream, decode, encode};
pub use split::{MAX_LINE, Splitter};
pub use time::{ParseTimeError, Timestamp};
pub use writer::{Rotation, WriteError, Writer, compress_rotated};

#[cfg(test)]
mod tests;
