//! A daemon's messages, one a line: cut out of the pieces they come in.

use bytes::{Bytes, BytesMut};

use crate::error::CliError;

/// Holds what has come of a line whose end has not.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: BytesMut,
    /// Where no end was found.
    searched: usize,
}

/// What is longer is no message.
pub(super) const LINE_MAX: usize = 16 << 20;

impl Lines {
    /// Adds bytes as they arrive.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), CliError> {
        if self.buffer.len() + piece.len() > LINE_MAX && !piece.contains(&b'\n') {
            return Err(CliError::Usage(format!(
                "the daemon sent a line of more than {LINE_MAX} bytes"
            )));
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    /// The next line with its end, if that is there.
    pub(crate) fn next_line(&mut self) -> Option<Bytes> {
        let fresh = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(end) = fresh.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + end + 1);
        self.searched = 0;
        Some(line.freeze())
    }

    /// What was never ended.
    pub(crate) fn rest(self) -> Bytes {
        self.buffer.freeze()
    }
}
