//! Where each file of a rotated log starts in the whole log.
//!
//! Kept by inode in `LOG.offsets`, which is replaced by rename before the files themselves move, so a reader
//! finds the start of whatever file it holds at any moment of a rotation. A log that was never rotated by
//! us has no such file and starts at 0.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    /// (inode, offset), ascending by offset.
    entries: Vec<(u64, u64)>,
}

impl Offsets {
    /// Lines that cannot be read are left out, and places where no file ends; no file is an empty table.
    pub(crate) fn load(log: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(file_of(log)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let entries = text
            .lines()
            .filter_map(|line| {
                let (inode, offset) = line.split_once(' ')?;
                let offset: u64 = offset.parse().ok()?;
                (offset <= FARTHEST).then_some((inode.parse().ok()?, offset))
            })
            .collect();
        Ok(Self { entries })
    }

    pub(crate) fn store(&self, log: &Path) -> io::Result<()> {
        let path = file_of(log);
        let fresh = with_suffix(&path, ".tmp");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&fresh)?;
        for (inode, offset) in &self.entries {
            writeln!(file, "{inode} {offset}")?;
        }
        fs::rename(fresh, path)
    }

    pub(crate) fn get(&self, inode: u64) -> Option<u64> {
        self.entries.iter().find(|(known, _)| *known == inode).map(|(_, offset)| *offset)
    }

    /// The start of the newest file.
    pub(crate) fn last(&self) -> Option<u64> {
        self.entries.last().map(|(_, offset)| *offset)
    }

    /// Adds a file; an inode number that is used again forgets its former file.
    pub(crate) fn set(&mut self, inode: u64, offset: u64) {
        self.entries.retain(|(known, _)| *known != inode);
        let place = self.entries.partition_point(|(_, other)| *other <= offset);
        self.entries.insert(place, (inode, offset));
    }

    /// Forgets all files but the newest `count`.
    pub(crate) fn keep(&mut self, count: usize) {
        let surplus = self.entries.len().saturating_sub(count);
        self.entries.drain(..surplus);
    }
}

/// Beyond any log, and far enough from the end of numbers to add to.
const FARTHEST: u64 = 1 << 62;

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn file_of(log: &Path) -> PathBuf {
    with_suffix(log, ".offsets")
}
