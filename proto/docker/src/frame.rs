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
/// What is longer may come in pieces.
const WHOLE: usize = 64 << 10;

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
    /// Of a long frame that is under way: how much is to come.
    rest: Option<(Stream, usize)>,
}

impl Decoder {
    /// Adds bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, if it is there; a long one comes in pieces, whatever length a peer announces.
    pub fn next_frame(&mut self) -> Result<Option<(Stream, Bytes)>, UnknownStream> {
        let (stream, length) = match self.rest.take() {
            Some(rest) => rest,
            None => {
                let Some(head) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
                let [code, _, _, _, a, b, c, d] = *head;
                let stream = Stream::from_code(code).ok_or(UnknownStream(code))?;
                let length =
                    usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                if self.buffer.len() - HEADER < length.min(WHOLE) {
                    return Ok(None);
                }
                self.buffer.advance(HEADER);
                (stream, length)
            }
        };
        let here = length.min(self.buffer.len());
        self.rest = (here < length).then_some((stream, length - here));
        if here == 0 && length > 0 {
            return Ok(None);
        }
        Ok(Some((stream, self.buffer.split_to(here).freeze())))
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

        #[test]
        fn announced_lengths_cost_no_memory(
            lengths in proptest::collection::vec((0_u8..3, 0_u32..200_000), 1..4),
            last: u32,
            cut in 1_usize..40_000,
        ) {
            let mut wire = Vec::new();
            for (code, length) in &lengths {
                wire.extend_from_slice(&header(Stream::from_code(*code).unwrap(), *length));
                wire.extend(std::iter::repeat_n(*code, *length as usize));
            }
            // The last one is cut off.
            wire.extend_from_slice(&header(Stream::Stdin, last.max(64 << 10)));
            wire.extend(std::iter::repeat_n(9, WHOLE - 1));
            let mut decoder = Decoder::default();
            let mut seen = [0_usize; 3];
            for piece in wire.chunks(cut) {
                decoder.push(piece);
                while let Some((stream, payload)) = decoder.next_frame().unwrap() {
                    prop_assert!(payload.iter().all(|byte| *byte == stream.code()));
                    seen[usize::from(stream.code())] += payload.len();
                }
                prop_assert!(decoder.buffer.len() < HEADER + WHOLE);
            }
            let mut sent = [0; 3];
            lengths.iter().for_each(|(code, length)| sent[usize::from(*code)] += *length as usize);
            prop_assert_eq!(seen, sent);
        }
    }

    #[test]
    fn a_foreign_byte_is_an_error() {
        let mut decoder = Decoder::default();
        decoder.push(b"not a frame at all");
        assert!(decoder.next_frame().is_err());
    }
}
