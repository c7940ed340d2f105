//! Appends a container's output to its log and rotates it.
//!
//! Nothing is synced: as with dockerd, a power cut may lose the last lines, a killed writer loses none that
//! it was given. Rotation renames and never truncates, so that a reader that holds the old file loses nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};

use crate::offsets::{Offsets, with_suffix};
use crate::{Splitter, Stream, Timestamp, encode};

/// When a log is cut and how much of it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// A file that has grown to this many bytes is rotated before the next record.
    pub max_size: Option<u64>,
    /// How many files are kept, the newest included; 0 counts as 1.
    pub max_files: u32,
    /// Compress all but the newest.
    pub compress: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_size: None, max_files: 1, compress: false }
    }
}

/// Why output did not reach the log.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("open log {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("write log {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("rotate log {path}: {source}")]
    Rotate { path: PathBuf, source: io::Error },
    #[error("compress log {path}: {source}")]
    Compress { path: PathBuf, source: io::Error },
}

/// The one writer of a log.
#[derive(Debug)]
pub struct Writer {
    core: Core,
    splitters: [Splitter; 2],
}

#[derive(Debug)]
struct Core {
    path: PathBuf,
    file: File,
    rotation: Rotation,
    attrs: String,
    /// Where the current file starts in the whole log.
    base: u64,
    /// Bytes in the current file.
    size: u64,
    buffer: Vec<u8>,
    compressing: Compressing,
    stamp: (Timestamp, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compressing {
    Idle,
    Due,
    Running,
}

impl Writer {
    /// Opens or creates the log at `path` and appends. `attrs` is a JSON object for every record, or empty.
    pub fn open(path: &Path, rotation: Rotation, attrs: &str) -> Result<Self, WriteError> {
        let failed = |source| WriteError::Open { path: path.to_owned(), source };
        let file = open_log(path, false).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        let offsets = Offsets::load(path).map_err(failed)?;
        let mut core = Core {
            path: path.to_owned(),
            rotation,
            attrs: attrs.to_owned(),
            base: offsets.get(meta.ino()).or(offsets.last()).unwrap_or(0),
            size: meta.len(),
            file,
            buffer: Vec::new(),
            compressing: Compressing::Idle,
            stamp: (Timestamp::default(), Timestamp::default().to_string()),
        };
        core.end_torn_line().map_err(failed)?;
        Ok(Self { core, splitters: Default::default() })
    }

    /// Writes output as read from the container; an unfinished line stays behind.
    pub fn write(
        &mut self,
        stream: Stream,
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<(), WriteError> {
        let core = &mut self.core;
        let mut result = Ok(());
        let splitter = &mut self.splitters[usize::from(stream.to_wire() - 1)];
        splitter.push(bytes, now, |line, newline, time| {
            result = std::mem::replace(&mut result, Ok(()))
                .and_then(|()| core.append(stream, line, newline, time));
        });
        result.and(core.flush())
    }

    /// The stream ended: writes its unfinished line.
    pub fn finish(&mut self, stream: Stream, now: Timestamp) -> Result<(), WriteError> {
        let core = &mut self.core;
        let mut result = Ok(());
        self.splitters[usize::from(stream.to_wire() - 1)].finish(now, |line, newline, time| {
            result = core.append(stream, line, newline, time);
        });
        result.and(core.flush())
    }

    /// Bytes of the whole log so far, counted over rotations.
    pub fn offset(&self) -> u64 {
        self.core.base + self.core.size
    }

    /// A rotated file that waits for [`compress_rotated`] with this path, on a thread or in a process of the
    /// caller's; [`Self::compressed`] reports its end.
    pub fn take_compression(&mut self) -> Option<PathBuf> {
        if self.core.compressing != Compressing::Due {
            return None;
        }
        self.core.compressing = Compressing::Running;
        Some(self.core.path.clone())
    }

    pub fn compressed(&mut self) {
        self.core.compressing = Compressing::Idle;
    }

    /// True while the log should not grow further: a rotation is due, but the former file is still being
    /// compressed. Writing on does no harm but to the size.
    pub fn is_blocked(&self) -> bool {
        self.core.compressing != Compressing::Idle && self.core.is_full()
    }
}

impl Core {
    fn is_full(&self) -> bool {
        self.rotation.max_size.is_some_and(|max| self.size + self.buffer.len() as u64 >= max)
    }

    fn append(
        &mut self,
        stream: Stream,
        line: &[u8],
        newline: bool,
        time: Timestamp,
    ) -> Result<(), WriteError> {
        if self.is_full() && self.compressing == Compressing::Idle {
            self.flush()?;
            self.rotate()
                .map_err(|source| WriteError::Rotate { path: self.path.clone(), source })?;
        }
        if self.stamp.0 != time {
            self.stamp = (time, time.to_string());
        }
        encode(&mut self.buffer, stream, &self.stamp.1, line, newline, &self.attrs);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        let buffer = std::mem::take(&mut self.buffer);
        if let Err(source) = self.file.write_all(&buffer) {
            // A disk that is full takes half a record: cut it off again, so that the log stays readable.
            self.file.set_len(self.size).ok();
            return Err(WriteError::Write { path: self.path.clone(), source });
        }
        self.size += buffer.len() as u64;
        Ok(())
    }

    /// A writer that was killed may have left half a record.
    fn end_torn_line(&mut self) -> io::Result<()> {
        if self.size == 0 {
            return Ok(());
        }
        let mut last = [0];
        let reader = File::open(&self.path)?;
        reader.read_exact_at(&mut last, self.size - 1)?;
        if last != *b"\n" {
            self.file.write_all(b"\n")?;
            self.size += 1;
        }
        Ok(())
    }

    /// Order matters for readers: the new file exists and its offset is known before any name changes.
    fn rotate(&mut self) -> io::Result<()> {
        let keep = self.rotation.max_files.max(1);
        let fresh_path = with_suffix(&self.path, ".new");
        remove(&fresh_path)?;
        let fresh = open_log(&fresh_path, true)?;
        let base = self.base + self.size;
        let mut offsets = Offsets::load(&self.path)?;
        offsets.set(self.file.metadata()?.ino(), self.base);
        offsets.set(fresh.metadata()?.ino(), base);
        // One more than will be kept: the oldest is still there.
        offsets.keep(keep as usize + 1);
        offsets.store(&self.path)?;
        if keep > 1 {
            for suffix in ["", ".gz"] {
                remove(&rotated(&self.path, keep - 1, suffix))?;
            }
            for number in (1..keep - 1).rev() {
                for suffix in ["", ".gz"] {
                    let from = rotated(&self.path, number, suffix);
                    rename_if_there(&from, &rotated(&self.path, number + 1, suffix))?;
                }
            }
            rename_if_there(&self.path, &rotated(&self.path, 1, ""))?;
        }
        fs::rename(&fresh_path, &self.path)?;
        self.file = fresh;
        self.base = base;
        self.size = 0;
        if keep > 1 && self.rotation.compress {
            self.compressing = Compressing::Due;
        }
        Ok(())
    }
}

/// Compresses the newest rotated file of the log at `path`. The header carries the time of the last
/// record, as dockerd's does.
pub fn compress_rotated(path: &Path) -> Result<(), WriteError> {
    let plain = rotated(path, 1, "");
    compress(path, &plain).map_err(|source| WriteError::Compress { path: plain, source })
}

fn compress(log: &Path, plain: &Path) -> io::Result<()> {
    let mut input = File::open(plain)?;
    let meta = input.metadata()?;
    let packed = with_suffix(plain, ".gz");
    let fresh = with_suffix(plain, ".gz.tmp");
    remove(&fresh)?;
    let output = open_log(&fresh, true)?;
    let inode = output.metadata()?.ino();
    let last = last_time(&input, meta.len())?;
    let mut header = GzBuilder::new();
    if let Some(time) = last {
        header = header.extra(format!("{{\"lastTime\":\"{time}\"}}"));
    }
    let mut encoder = header.write(output, Compression::default());
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = input.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        encoder.write_all(&buffer[..count])?;
    }
    encoder.finish()?;
    let mut offsets = Offsets::load(log)?;
    if let Some(base) = offsets.get(meta.ino()) {
        offsets.set(inode, base);
        offsets.store(log)?;
    }
    fs::rename(&fresh, &packed)?;
    fs::remove_file(plain)
}

fn last_time(file: &File, length: u64) -> io::Result<Option<Timestamp>> {
    let mut tail = vec![0; usize::try_from(length.min(128 * 1024)).unwrap_or(0)];
    let start = length - tail.len() as u64;
    file.read_exact_at(&mut tail, start)?;
    let line = tail.split(|b| *b == b'\n').rfind(|line| !line.is_empty());
    Ok(line.and_then(crate::decode).map(|entry| entry.time))
}

/// The name of a rotated file; 1 is the youngest.
pub(crate) fn rotated(path: &Path, number: u32, suffix: &str) -> PathBuf {
    with_suffix(path, &format!(".{number}{suffix}"))
}

fn open_log(path: &Path, exclusive: bool) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).create_new(exclusive).mode(0o640).open(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
