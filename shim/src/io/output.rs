//! One output of a process, and the log that outputs share.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use container_log::{Stream, Timestamp, WriteError, Writer};

use super::attach::Attach;
use super::flow::{Flow, Wait, read_some};

/// Where one of a process's outputs goes.
pub(crate) enum Output {
    Copied(Flow),
    Logged { source: OwnedFd, stream: Stream, ended: bool },
}

/// The log of a process and its live socket.
pub(crate) struct Log {
    pub(crate) writer: Option<Writer>,
    pub(crate) attach: Option<Attach>,
    /// Bytes read so far, the offset where no log is written.
    seen: u64,
}

impl Output {
    pub(crate) fn source(&self) -> BorrowedFd<'_> {
        match self {
            Self::Copied(flow) => flow.source(),
            Self::Logged { source, .. } => source.as_fd(),
        }
    }

    pub(crate) fn target(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Copied(flow) => Some(flow.target()),
            Self::Logged { .. } => None,
        }
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
            Self::Copied(flow) => (flow.run(budget), None),
            Self::Logged { source, stream, ended } => match log {
                Some(log) => log.take(source, *stream, ended, budget, drain),
                None => (Some(Wait::Done), None),
            },
        }
    }

    /// The process is gone: whatever line is unfinished is written now.
    pub(crate) fn finish(&mut self, log: Option<&mut Log>) -> Option<WriteError> {
        match (self, log) {
            (Self::Logged { stream, ended, .. }, Some(log)) if !*ended => log.end(*stream),
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
        ended: &mut bool,
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
                Err(Wait::Done) => {
                    *ended = true;
                    return (Some(Wait::Done), self.end(stream).or(error));
                }
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

const READ_SIZE: usize = 64 * 1024;
