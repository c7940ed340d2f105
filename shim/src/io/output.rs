//! One output of a process, and the log that outputs share.
//!
//! Compat: as in stock, an output is closed on both sides as soon as no process holds it any more, which is
//! how a client learns its end; stdin stays open until the process is deleted.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use container_log::{Stream, Timestamp, WriteError, Writer};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::attach::Attach;
use super::flow::{Flow, Wait, read_some};

/// Where one of a process's outputs goes.
pub(crate) enum Output {
    /// `reader` keeps a client that leaves from breaking its fifo.
    Copied {
        flow: Flow,
        reader: Option<File>,
    },
    Logged {
        source: OwnedFd,
        stream: Stream,
    },
    /// All was passed on, but the client has not opened its fifo yet: closed, it would find nothing.
    Unread(File),
    /// A reading end, to see when the client has taken what lies in its fifo.
    Unfetched(File),
    Closed,
}

/// The log of a process and its live socket.
pub(crate) struct Log {
    pub(crate) writer: Option<Writer>,
    pub(crate) attach: Option<Attach>,
    /// Bytes read so far, the offset where no log is written.
    seen: u64,
}

impl Output {
    /// What is to be watched while it waits.
    pub(crate) fn awaited(&self, wait: Wait) -> Option<BorrowedFd<'_>> {
        match (self, wait) {
            (Self::Copied { flow, .. }, Wait::Source) => Some(flow.source()),
            (Self::Copied { flow, .. }, Wait::Target) => Some(flow.target()),
            (Self::Logged { source, .. }, Wait::Source) => Some(source.as_fd()),
            _ => None,
        }
    }

    /// Lets go of an output that has ended, unless its client has yet to come.
    pub(crate) fn close(&mut self) {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Copied { flow, reader: Some(reader) } => {
                drop(reader);
                Self::Unread(flow.into_target())
            }
            other @ Self::Unread(_) => other,
            _ => return,
        };
        if let Self::Unread(fifo) = self
            && has_reader(fifo)
        {
            let rest = (unread(fifo) > 0).then(|| reading_end(fifo));
            *self = rest.and_then(Result::ok).map_or(Self::Closed, Self::Unfetched);
        }
    }

    /// How much the client has yet to read; without a client nothing, where that can be known.
    pub(crate) fn unfetched(&mut self) -> u64 {
        match self {
            Self::Copied { flow, reader: Some(reader) } => flow.left() + unread(reader),
            Self::Unfetched(reader) => {
                let rest = unread(reader);
                if rest == 0 {
                    *self = Self::Closed;
                }
                rest
            }
            _ => 0,
        }
    }

    pub(crate) fn is_unread(&self) -> bool {
        matches!(self, Self::Unread(_))
    }

    /// Bytes that would be lost now.
    pub(crate) fn has_unread_bytes(&self) -> bool {
        matches!(self, Self::Unread(fifo) if unread(fifo) > 0)
    }

    /// Moves bytes until the budget is used up (`None`) or something has to be waited for. With `drain` slow
    /// clients are not respected: what a process left behind is bounded by its pipe.
    pub(crate) fn run(
        &mut self,
        log: Option<&mut Log>,
        budget: usize,
        drain: bool,
    ) -> (Option<Wait>, Option<WriteError>) {
        match self {
            Self::Copied { flow, .. } => (flow.run(budget), None),
            Self::Logged { source, stream } => match log {
                Some(log) => log.take(source, *stream, budget, drain),
                None => (Some(Wait::Done), None),
            },
            Self::Unread(_) | Self::Unfetched(_) | Self::Closed => (Some(Wait::Done), None),
        }
    }

    /// The process is gone: whatever line is unfinished is written now.
    pub(crate) fn finish(&mut self, log: Option<&mut Log>) -> Option<WriteError> {
        match (self, log) {
            (Self::Logged { stream, .. }, Some(log)) => log.end(*stream),
            _ => None,
        }
    }
}

impl Log {
    pub(crate) fn new(writer: Option<Writer>, attach: Option<Attach>) -> Self {
        Self { writer, attach, seen: 0 }
    }

    /// True while nothing should be read: a client or a rotation is behind.
    pub(crate) fn is_blocked(&self) -> bool {
        self.attach.as_ref().is_some_and(Attach::is_full)
            || self.writer.as_ref().is_some_and(Writer::is_blocked)
    }

    fn take(
        &mut self,
        source: &OwnedFd,
        stream: Stream,
        budget: usize,
        drain: bool,
    ) -> (Option<Wait>, Option<WriteError>) {
        let mut error = None;
        let mut moved = 0;
        // Held only while something is read.
        let mut buffer = vec![0; READ_SIZE];
        while moved < budget {
            if !drain && self.is_blocked() {
                return (Some(Wait::Paused), error);
            }
            match read_some(source, &mut buffer) {
                Ok(count) => {
                    moved += count;
                    error = self.add(stream, &buffer[..count]).or(error);
                }
                Err(Wait::Done) => return (Some(Wait::Done), self.end(stream).or(error)),
                Err(wait) => return (Some(wait), error),
            }
        }
        (None, error)
    }

    fn add(&mut self, stream: Stream, bytes: &[u8]) -> Option<WriteError> {
        let offset = self.writer.as_ref().map_or(self.seen, Writer::offset);
        self.seen += bytes.len() as u64;
        let result = self.writer.as_mut().map(|w| w.write(stream, bytes, Timestamp::now()));
        if let Some(attach) = &mut self.attach {
            attach.send(stream, offset, bytes);
        }
        result.and_then(Result::err)
    }

    fn end(&mut self, stream: Stream) -> Option<WriteError> {
        self.writer.as_mut()?.finish(stream, Timestamp::now()).err()
    }
}

/// A fifo's writing end is in error while nobody has it open for reading.
fn has_reader(fifo: &File) -> bool {
    let mut fds = [PollFd::new(fifo, PollFlags::empty())];
    let polled = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_ok() && !fds[0].revents().contains(PollFlags::ERR)
}

/// Bytes that lie in it.
fn unread(fifo: &File) -> u64 {
    rustix::io::ioctl_fionread(fifo).unwrap_or(0)
}

fn reading_end(fifo: &File) -> std::io::Result<File> {
    let path = format!("/proc/self/fd/{}", fifo.as_raw_fd());
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

const READ_SIZE: usize = 64 * 1024;
