//! Space on the disk kept for the day it is full.
//!
//! redb gives up on a file after the first failed write, and even a removal has to write. So the database lies
//! beside a file of nothing, from which a write that finds no space takes some. While that file is not whole,
//! new records are refused (see [`super::Transaction::put`]); removals, and with them the end of the shortage,
//! go through.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Enough for some hundred removals.
const SIZE: u64 = 1 << 20;
/// Taken at once, at the least.
const PART: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Reserve {
    file: File,
    left: AtomicU64,
    whole: u64,
}

impl Reserve {
    /// The reserve beside the database at `path`; what the disk cannot give it now it gets later. Locked: it is
    /// there when the database has no name yet, and two of them in one place would be one too many.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = path.with_extension("reserve");
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("in use by another process"),
            TryLockError::Error(error) => error,
        })?;
        let left = AtomicU64::new(file.metadata()?.len().min(SIZE));
        let mut reserve = Self { file, left, whole: SIZE };
        if reserve.fill() == Err(Errno::OPNOTSUPP) {
            reserve.whole = 0;
        }
        Ok(reserve)
    }

    /// Whether all of it is there, now or again.
    pub(super) fn is_whole(&self) -> bool {
        self.left.load(Ordering::Relaxed) >= self.whole || self.fill().is_ok()
    }

    fn fill(&self) -> Result<(), Errno> {
        let filled = fallocate(&self.file, FallocateFlags::empty(), 0, SIZE);
        // What a disk gives in part is left to others.
        let left = if filled.is_ok() { SIZE } else { self.left.load(Ordering::Relaxed) };
        self.file.set_len(left).ok();
        self.left.store(left, Ordering::Relaxed);
        filled
    }

    /// Makes room for this many bytes. False when there is nothing left to give.
    pub(super) fn give(&self, bytes: usize) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        let part = u64::try_from(bytes).unwrap_or(u64::MAX).max(PART).min(left);
        if part == 0 || self.file.set_len(left - part).is_err() {
            return false;
        }
        self.left.store(left - part, Ordering::Relaxed);
        tracing::warn!(left = left - part, "no space left on device; the reserve is used");
        true
    }
}
