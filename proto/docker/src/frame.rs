//! The multiplexed stream of attach, exec and logs: eight bytes (stream, three zeros, length as
//! u32 big endian), then the payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Which stream a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdin,
    Stdout,
    Stderr,
    /// An error of the daemon, in band.
    SystemError,
}

impl Stream {
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::SystemError => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::SystemError),
            _ => None,
        }
    }
}

/// Length of a frame's header.
pub const HEADER: usize = 8;

/// The header of a frame with `length` bytes of payload.
#[must_use]
pub fn header(stream: Stream, length: u32) -> [u8; HEADER] {
    let [a, b, c, d] = length.to_be_bytes();
    [stream.code(), 0, 0, 0, a, b, c, d]
}

/// One frame, header and payload together.
#[must_use]
pub fn encode(stream: Stream, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + payload.len());
    for chunk in payload.chunks(1 << 24) {
        out.put_slice(&header(stream, u32::try_from(chunk.len()).unwrap_or(u32::MAX)));
        out.put_slice(chunk);
    }
    out.freeze()
}

/// The first byte of a header names no stream.
#[derive(Debug, thiserror::Error)]
#[error("unrecognized stream: {0}")]
pub struct UnknownStream(pub u8);

/// Splits a byte stream into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Adds bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame, if it is there.
    pub fn next_frame(&mut self) -> Result<Option<(Stream, Bytes)>, UnknownStream> {
        let Some(head) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let [code, _, _, _, a, b, c, d] = *head;
        let stream = Stream::from_code(code).ok_or(UnknownStream(code))?;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if self.buffer.len() - HEADER < length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some((stream, self.buffer.split_to(length).freeze())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_cut(payloads in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 1..50), 0..8), cut in 1_usize..20) {
            let mut wire = Vec::new();
            for payload in &payloads {
                wire.extend_from_slice(&encode(Stream::Stdout, payload));
            }
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in wire.chunks(cut) {
                decoder.push(piece);
                while let Some((_, payload)) = decoder.next_frame().unwrap() {
                    seen.push(payload.to_vec());
                }
            }
            prop_assert_eq!(seen, payloads);
        }
    }

    #[test]
    fn a_foreign_byte_is_an_error() {
        let mut decoder = Decoder::default();
        decoder.push(b"not a frame at all");
        assert!(decoder.next_frame().is_err());
    }
}
