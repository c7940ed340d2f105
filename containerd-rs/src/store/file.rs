//! The database's file.
//!
//! One that is made now has no name. It gets one when something in it has to be durable: until then nobody waits
//! for the disk, and a power cut leaves a whole database or none.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, Database, StorageBackend};
use rustix::fs::{AtFlags, CWD, OFlags, linkat};
use rustix::io::Errno;

use super::{database, reserve::Reserve};
use crate::error::{Error, StoreError};

/// Opens the database at `path`, or makes one.
pub(super) fn open(
    path: &Path,
    cache: usize,
    reserve: Arc<Reserve>,
) -> Result<Database, StoreError> {
    let (file, unnamed) = open_or_make(path).map_err(Error::io("open", path))?;
    let unnamed = Arc::new(Mutex::new(unnamed));
    let file = FileBackend::new(file).map_err(|error| database("open", error))?;
    let backend = Backend { file, reserve, unnamed: Arc::clone(&unnamed) };
    let opened = Database::builder()
        .set_cache_size(cache)
        .create_with_backend(backend)
        .map_err(|error| database("open", error))?;
    if let Some(unnamed) = unnamed.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        unnamed.made = true;
    }
    Ok(opened)
}

fn open_or_make(path: &Path) -> io::Result<(File, Option<Unnamed>)> {
    let mut options = File::options();
    options.read(true).write(true);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return Ok((opened?, None)),
    }
    let flags = OFlags::TMPFILE.bits().cast_signed();
    match options.clone().custom_flags(flags).open(directory(path)) {
        Ok(file) => {
            let unnamed = Unnamed { file: file.try_clone()?, path: path.to_owned(), made: false };
            Ok((file, Some(unnamed)))
        }
        // Not every file system has such files.
        Err(error) if is_unknown(&error) => Ok((options.create(true).open(path)?, None)),
        Err(error) => Err(error),
    }
}

fn is_unknown(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL))
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// A file in wait for its name.
#[derive(Debug)]
struct Unnamed {
    file: File,
    path: PathBuf,
    /// Whether it is a database yet.
    made: bool,
}

impl Unnamed {
    fn name(&self) -> io::Result<()> {
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(CWD, own, CWD, &self.path, AtFlags::SYMLINK_FOLLOW)?;
        File::open(directory(&self.path))?.sync_all()
    }
}

#[derive(Debug)]
struct Backend {
    file: FileBackend,
    reserve: Arc<Reserve>,
    unnamed: Arc<Mutex<Option<Unnamed>>>,
}

type Range = Bound<u64>;

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut unnamed = self.unnamed.lock().unwrap_or_else(PoisonError::into_inner);
        if unnamed.as_ref().is_some_and(|unnamed| !unnamed.made) {
            return Ok(());
        }
        self.file.sync_data()?;
        if let Some(unnamed) = unnamed.as_ref() {
            unnamed.name()?;
        }
        *unnamed = None;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        loop {
            match self.file.write(offset, data) {
                Err(error)
                    if error.kind() == io::ErrorKind::StorageFull
                        && self.reserve.give(data.len()) => {}
                written => return written,
            }
        }
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Range, end: Range) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Range, end: Range) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Range, end: Range) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Range, end: Range) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Range, end: Range) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Range, end: Range) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
