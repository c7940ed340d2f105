//! Applies a layer tar to a directory. Document: image-spec, layer.md.
//!
//! Everything a layer names is resolved below one directory descriptor with openat2, so neither
//! `..` nor a symlink the layer made a line earlier leads out of it. Modes and times of directories
//! are set when nothing will be written into them any more. The stream is hashed while it is read;
//! `Applied::diff_id` is the digest of the uncompressed tar, trailing bytes included.
//!
//! Nothing is read of the layers below, so that layers can be unpacked side by side, and in any order.
//!
//! Left to the caller: choosing the directory, verifying `diff_id`, `inherit`, throwing away a directory
//! in which `apply` failed.

mod compression;
mod entry;
mod members;
mod path;
mod root;
mod sparse;
#[cfg(test)]
mod tests;

pub use compression::{Compression, decompress};
pub use members::{Members, members};

use crate::digest::{Digest, HashingReader};
use entry::Writer;
use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// What whiteouts (`.wh.x`, `.wh..wh..opq`) become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// The kernel's overlay form: character device 0/0, `trusted.overlay.opaque`.
    Overlay,
    /// The named file is removed from the directory, which holds the layers below.
    Remove,
}

/// The directories that a layer needs and does not carry. In the layers below they have owner, mode and
/// attributes, which [`inherit`] takes over once those are there.
pub type Missing = BTreeSet<PathBuf>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Digest of the uncompressed stream.
    pub diff_id: Digest,
    /// Length of the uncompressed stream.
    pub size: u64,
    pub compression: Compression,
    pub missing: Missing,
}

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("read layer: {0}")]
    Read(#[source] std::io::Error),
    #[error("{operation} {path}: {source}")]
    Write { operation: &'static str, path: String, source: std::io::Error },
    #[error("invalid entry {path}: path escapes the layer's root")]
    Escape { path: String },
    #[error("invalid entry {path}: {reason}")]
    Entry { path: String, reason: &'static str },
    #[error("entry {path} has the unknown type {kind:?}")]
    Kind { path: String, kind: char },
}

impl LayerError {
    /// Whether the layer is to blame, and not the disk it was read from or written to.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        use std::io::ErrorKind as Kind;
        match self {
            Self::Read(source) => source.raw_os_error().is_none(),
            // A path through what is no directory, or longer than any.
            Self::Write { source, .. } => matches!(
                source.kind(),
                Kind::NotFound | Kind::NotADirectory | Kind::IsADirectory | Kind::InvalidFilename
            ),
            Self::Escape { .. } | Self::Entry { .. } | Self::Kind { .. } => true,
        }
    }
}

/// Unpacks `reader` (plain, gzip or zstd, told by its first bytes) into `root`.
pub fn apply(
    reader: impl Read,
    root: BorrowedFd<'_>,
    whiteouts: Whiteouts,
) -> Result<Applied, LayerError> {
    let (compression, stream) = decompress(reader).map_err(LayerError::Read)?;
    let mut stream = HashingReader::new(stream);
    let mut writer = Writer::new(root, whiteouts);
    members(&mut stream, LayerError::Read, |entry| writer.entry(entry))?;
    let missing = writer.finish()?;
    // What follows the end-of-archive blocks belongs to the diff id, too; so does the check that
    // the compressed stream is whole.
    std::io::copy(&mut stream, &mut std::io::sink()).map_err(LayerError::Read)?;
    let (diff_id, size) = stream.finish();
    Ok(Applied { diff_id, size, compression, missing })
}

/// Gives what was missing in the layer at `root` the looks it has in the layers below, nearest first.
pub fn inherit(
    root: BorrowedFd<'_>,
    missing: &Missing,
    below: &[OwnedFd],
) -> Result<(), LayerError> {
    missing.iter().try_for_each(|path| root::inherit(root, path, below))
}
