//! One direction of bytes from a descriptor to another, both non-blocking.
//!
//! Between pipes the bytes are spliced and no memory is held. A terminal cannot be spliced; then what the
//! target does not take at once is kept until it does.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::SpliceFlags;

/// What a flow waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Source,
    Target,
    /// Somebody else will say when to go on.
    Paused,
    Done,
}

#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) source: OwnedFd,
    pub(crate) target: File,
    pending: Vec<u8>,
    splice: bool,
}

impl Flow {
    pub(crate) fn new(source: OwnedFd, target: File, splice: bool) -> Self {
        Self { source, target, pending: Vec::new(), splice }
    }

    /// Moves up to about `budget` bytes and says what to wait for; `None` when the budget is used up.
    pub(crate) fn run(&mut self, budget: usize) -> Option<Wait> {
        let mut moved = 0;
        while moved < budget {
            let step = if self.splice { self.splice_some() } else { self.copy_some() };
            match step {
                Ok(count) => moved += count,
                Err(wait) => return Some(wait),
            }
        }
        None
    }

    pub(crate) fn source(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }

    /// Bytes that the target has not got yet.
    pub(crate) fn left(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.source).unwrap_or(0) + self.pending.len() as u64
    }

    pub(crate) fn into_target(self) -> File {
        self.target
    }

    pub(crate) fn target(&self) -> BorrowedFd<'_> {
        self.target.as_fd()
    }

    fn splice_some(&self) -> Result<usize, Wait> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        match rustix::pipe::splice(&self.source, None, &self.target, None, CHUNK * 4, flags) {
            Ok(0) => Err(Wait::Done),
            Ok(count) => Ok(count),
            Err(rustix::io::Errno::INTR) => Ok(0),
            // Either side may be the reason.
            Err(rustix::io::Errno::AGAIN) => match rustix::io::ioctl_fionread(&self.source) {
                Ok(1..) => Err(Wait::Target),
                _ => Err(Wait::Source),
            },
            Err(_) => Err(Wait::Done),
        }
    }

    fn copy_some(&mut self) -> Result<usize, Wait> {
        if self.pending.is_empty() {
            let mut buffer = [0; CHUNK];
            let count = read_some(&self.source, &mut buffer)?;
            let written = self.write(&buffer[..count])?;
            self.pending.extend_from_slice(&buffer[written..count]);
            return if written < count { Err(Wait::Target) } else { Ok(count) };
        }
        let pending = std::mem::take(&mut self.pending);
        let written = self.write(&pending)?;
        if written < pending.len() {
            self.pending = pending[written..].to_vec();
            return Err(Wait::Target);
        }
        Ok(written)
    }

    /// How much the target took; a target that is gone takes nothing for ever.
    fn write(&self, mut bytes: &[u8]) -> Result<usize, Wait> {
        let length = bytes.len();
        while !bytes.is_empty() {
            match rustix::io::write(&self.target, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(_) => return Err(Wait::Done),
            }
        }
        Ok(length - bytes.len())
    }
}

/// Reads what is there. A terminal whose last process left answers EIO, which is an end like any other.
pub(crate) fn read_some(source: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Wait> {
    loop {
        match rustix::io::read(source, &mut *buffer).map_err(io::Error::from) {
            Ok(0) => return Err(Wait::Done),
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Wait::Source),
            Err(_) => return Err(Wait::Done),
        }
    }
}

const CHUNK: usize = 16 * 1024;
