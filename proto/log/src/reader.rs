//! Reads a log, rotated or not, while it is being written.
//!
//! A reader stands between two records, at a byte offset of the whole log. [`Reader::next_entry`] answers
//! `None` at the end; asking again later goes on from there, through any rotation meanwhile, without loss or
//! double as long as the files in between still exist. Whoever follows watches the directory (or asks the
//! clock) and calls again; nothing here waits.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::offsets::Offsets;
use crate::scan::find;
use crate::writer::rotated;
use crate::{Entry, Timestamp, decode};

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("open log {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("read log {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
}

/// A place in a log.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    current: Source,
    /// Files after the current one, oldest first, as found when last looked.
    ahead: VecDeque<Piece>,
    buffer: Vec<u8>,
    start: usize,
    /// Offset in the whole log of `buffer[start]`.
    position: u64,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    past_until: bool,
    /// In a line that is too long for a record: up to its end nothing is kept.
    overlong: bool,
    /// Records that begin here or later are not for this reader.
    end: Option<u64>,
}

/// One file of the set.
#[derive(Debug)]
struct Piece {
    file: File,
    inode: u64,
    base: u64,
    packed: bool,
}

#[derive(Debug)]
struct Source {
    inode: u64,
    base: u64,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Plain(File),
    Packed(Box<MultiGzDecoder<File>>),
}

impl Reader {
    /// Stands at the oldest record. The log must exist.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Open { path: path.to_owned(), source };
        let mut ahead = list(path).map_err(failed)?;
        let missing = || failed(io::ErrorKind::NotFound.into());
        let current = Source::new(ahead.pop_front().ok_or_else(missing)?);
        Ok(Self {
            path: path.to_owned(),
            position: current.base,
            current,
            ahead,
            buffer: Vec::new(),
            start: 0,
            since: None,
            until: None,
            past_until: false,
            overlong: false,
            end: None,
        })
    }

    /// Leaves out records before `time`.
    #[must_use]
    pub fn since(mut self, time: Timestamp) -> Self {
        self.since = Some(time);
        self
    }

    /// Ends before the first record after `time`.
    #[must_use]
    pub fn until(mut self, time: Timestamp) -> Self {
        self.until = Some(time);
        self
    }

    /// Leaves out what is written from now on, so that a writer who is faster than we is no matter.
    pub fn until_now(mut self) -> Result<Self, ReadError> {
        self.end = Some(self.end_offset()?);
        Ok(self)
    }

    /// Goes to the last `count` records.
    pub fn tail(&mut self, count: usize) -> Result<(), ReadError> {
        self.try_tail(count).map_err(|source| ReadError::Read { path: self.path.clone(), source })
    }

    /// Goes to `offset` of the whole log, or the nearest later place that still exists. It must be the start
    /// of a record, as every `position` and `end_offset` is.
    pub fn seek(&mut self, offset: u64) -> Result<(), ReadError> {
        let failed = |source| ReadError::Read { path: self.path.clone(), source };
        let mut pieces = list(&self.path).map_err(failed)?;
        while pieces.get(1).is_some_and(|next| next.base <= offset) {
            pieces.pop_front();
        }
        self.enter(pieces, offset)
            .map_err(|source| ReadError::Read { path: self.path.clone(), source })
    }

    /// Offset in the whole log of the next record.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Offset in the whole log of its present end; it may lie inside a record that is being written.
    pub fn end_offset(&self) -> Result<u64, ReadError> {
        let failed = |source| ReadError::Read { path: self.path.clone(), source };
        let pieces = list(&self.path).map_err(failed)?;
        let Some(last) = pieces.back() else { return Ok(self.position) };
        Ok(last.base + last.file.metadata().map_err(failed)?.len())
    }

    /// True once a record later than `until` was met: nothing more will come.
    pub fn is_past_until(&self) -> bool {
        self.past_until
    }

    /// The next record; `None` at the present end. Lines that are no records are skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        while !self.past_until && self.end.is_none_or(|end| self.position < end) {
            let line = self
                .next_line()
                .map_err(|source| ReadError::Read { path: self.path.clone(), source })?;
            let Some(line) = line else { return Ok(None) };
            let Some(entry) = decode(&self.buffer[line]) else { continue };
            if self.until.is_some_and(|until| entry.time > until) {
                self.past_until = true;
            } else if self.since.is_none_or(|since| entry.time >= since) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    #[cfg(test)]
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.capacity()
    }

    fn next_line(&mut self) -> io::Result<Option<std::ops::Range<usize>>> {
        let mut searched = self.start;
        loop {
            if let Some(length) = find(&self.buffer[searched..], |b| b == b'\n') {
                let line = self.start..searched + length + 1;
                self.position += line.len() as u64;
                self.start = line.end;
                if std::mem::take(&mut self.overlong) {
                    searched = self.start;
                    continue;
                }
                return Ok(Some(line));
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            if self.buffer.len() > RECORD_MAX {
                self.overlong = true;
                self.position += self.buffer.len() as u64;
                self.buffer.clear();
            }
            let Some(fresh) = self.fill()? else { return Ok(None) };
            searched = fresh;
        }
    }

    /// Reads more, from the next file if need be, and says where in the buffer the new bytes begin. `None`:
    /// nothing more for now.
    fn fill(&mut self) -> io::Result<Option<usize>> {
        loop {
            if let Some(fresh) = self.current.read_more(&mut self.buffer)? {
                return Ok(Some(fresh));
            }
            if self.ahead.is_empty() && !self.look_ahead()? {
                return Ok(None);
            }
            // The file is not the newest any more, so nobody writes to it; but something may have come
            // between the end met above and the rotation.
            if let Some(fresh) = self.current.read_more(&mut self.buffer)? {
                return Ok(Some(fresh));
            }
            if let Some(piece) = self.ahead.pop_front() {
                // Half a record at the end of a finished file is nobody's.
                self.buffer.clear();
                self.overlong = false;
                self.current = Source::new(piece);
                self.position = self.current.base;
            }
        }
    }

    /// Finds the files that came after the current one.
    fn look_ahead(&mut self) -> io::Result<bool> {
        match std::fs::metadata(&self.path) {
            Ok(meta) if meta.ino() == self.current.inode => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let mut pieces = list(&self.path)?;
        if let Some(place) = pieces.iter().position(|piece| piece.inode == self.current.inode) {
            pieces.drain(..=place);
        } else if pieces.iter().any(|piece| piece.base > self.current.base) {
            pieces.retain(|piece| piece.base > self.current.base);
        }
        self.ahead = pieces;
        Ok(!self.ahead.is_empty())
    }

    fn enter(&mut self, mut pieces: VecDeque<Piece>, offset: u64) -> io::Result<()> {
        let Some(first) = pieces.pop_front() else { return Ok(()) };
        self.current = Source::new(first);
        self.ahead = pieces;
        self.buffer.clear();
        self.start = 0;
        self.past_until = false;
        self.overlong = false;
        self.position = offset.max(self.current.base);
        self.current.skip(self.position - self.current.base)
    }

    fn try_tail(&mut self, count: usize) -> io::Result<()> {
        let mut pieces = list(&self.path)?;
        let mut wanted = count;
        let mut later = VecDeque::new();
        while let Some(piece) = pieces.pop_back() {
            let within = self.end.map_or(u64::MAX, |end| end.saturating_sub(piece.base));
            let (found, offset) = piece.tail(wanted, within)?;
            wanted -= found;
            let base = piece.base;
            later.push_front(piece);
            if wanted == 0 || pieces.is_empty() {
                return self.enter(later, base + offset);
            }
        }
        Ok(())
    }
}

impl Source {
    fn new(piece: Piece) -> Self {
        let bytes = if piece.packed {
            Bytes::Packed(Box::new(MultiGzDecoder::new(piece.file)))
        } else {
            Bytes::Plain(piece.file)
        };
        Self { inode: piece.inode, base: piece.base, bytes }
    }

    /// Where the new bytes begin; `None` at the end.
    fn read_more(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let before = buffer.len();
        buffer.resize(before + READ_SIZE, 0);
        let result = match &mut self.bytes {
            Bytes::Plain(file) => file.read(&mut buffer[before..]),
            Bytes::Packed(decoder) => decoder.read(&mut buffer[before..]),
        };
        buffer.truncate(before + *result.as_ref().unwrap_or(&0));
        result.map(|count| (count > 0).then_some(before))
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        match &mut self.bytes {
            Bytes::Plain(file) => file.seek(SeekFrom::Start(count)).map(drop),
            Bytes::Packed(decoder) => io::copy(&mut decoder.take(count), &mut io::sink()).map(drop),
        }
    }
}

impl Piece {
    fn open(path: &Path, packed: bool, offsets: &Offsets) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let inode = file.metadata()?.ino();
        let base = offsets.get(inode).unwrap_or(u64::MAX);
        Ok(Some(Self { file, inode, base, packed }))
    }

    /// Bytes before compression, as far as the file itself knows.
    fn length(&self) -> io::Result<u64> {
        let length = self.file.metadata()?.len();
        if !self.packed || length < 4 {
            return Ok(length);
        }
        let mut size = [0; 4];
        self.file.read_exact_at(&mut size, length - 4)?;
        Ok(u64::from(u32::from_le_bytes(size)))
    }

    /// How many of the last `count` records of the first `within` bytes are here, and where the first of
    /// them starts.
    fn tail(&self, count: usize, within: u64) -> io::Result<(usize, u64)> {
        // Nobody writes to a packed one.
        if self.packed { self.tail_packed(count) } else { self.tail_plain(count, within) }
    }

    fn tail_plain(&self, count: usize, within: u64) -> io::Result<(usize, u64)> {
        let mut end = self.file.metadata()?.len().min(within);
        let mut block = vec![0; READ_SIZE];
        // The newline before the first wanted record ends the record before it.
        let mut newlines = 0;
        while end > 0 {
            let size = end.min(READ_SIZE as u64);
            end -= size;
            let block = &mut block[..usize::try_from(size).unwrap_or(READ_SIZE)];
            self.file.read_exact_at(block, end)?;
            for (index, _) in block.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
                if newlines == count {
                    return Ok((count, end + index as u64 + 1));
                }
                newlines += 1;
            }
        }
        Ok((newlines, 0))
    }

    fn tail_packed(&self, count: usize) -> io::Result<(usize, u64)> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        let mut decoder = MultiGzDecoder::new(&file);
        let mut starts = VecDeque::from([0_u64]);
        let mut buffer = vec![0; READ_SIZE];
        let mut offset = 0;
        loop {
            let read = decoder.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            for (index, _) in buffer[..read].iter().enumerate().filter(|(_, b)| **b == b'\n') {
                starts.push_back(offset + index as u64 + 1);
                if starts.len() > count + 1 {
                    starts.pop_front();
                }
            }
            offset += read as u64;
        }
        // The description is shared with whoever reads next.
        file.seek(SeekFrom::Start(0))?;
        Ok((starts.len() - 1, starts[0]))
    }
}

/// All files of the log, oldest first, as they were at one moment.
fn list(path: &Path) -> io::Result<VecDeque<Piece>> {
    let mut found = try_list(path)?;
    for _ in 0..100 {
        let again = try_list(path)?;
        let same = |a: &Option<VecDeque<Piece>>, b: &Option<VecDeque<Piece>>| match (a, b) {
            (Some(a), Some(b)) => {
                a.iter().map(|p| (p.inode, p.base)).eq(b.iter().map(|p| (p.inode, p.base)))
            }
            _ => false,
        };
        let settled = same(&found, &again);
        found = again;
        if settled {
            break;
        }
    }
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// `None`: the newest file is missing just now.
fn try_list(path: &Path) -> io::Result<Option<VecDeque<Piece>>> {
    let offsets = Offsets::load(path)?;
    let mut pieces = VecDeque::new();
    // From the newest: during a rotation a file moves away from us and is met twice rather than never.
    let Some(newest) = Piece::open(path, false, &offsets)? else { return Ok(None) };
    pieces.push_front(newest);
    for number in 1.. {
        let plain = Piece::open(&rotated(path, number, ""), false, &offsets)?;
        let piece = match plain {
            Some(piece) => Some(piece),
            None => Piece::open(&rotated(path, number, ".gz"), true, &offsets)?,
        };
        let Some(piece) = piece else { break };
        if pieces.iter().all(|other| other.inode != piece.inode) {
            pieces.push_front(piece);
        }
    }
    // Files that another program rotated: count from the first that is known, or from 0.
    let mut next = 0;
    for piece in &mut pieces {
        if piece.base == u64::MAX {
            piece.base = next;
        }
        next = piece.base + piece.length()?;
    }
    Ok(Some(pieces))
}

const READ_SIZE: usize = 64 * 1024;
/// Writers begin a new record after 16 KiB of a line; what is longer than this is none.
const RECORD_MAX: usize = 4 << 20;
