//! Frames: a header of ten bytes, then the message.
//!
//! ```text
//!  0        4           8      9       10
//!  | length | stream id | kind | flags | message ...
//!    u32 BE   u32 BE      u8     u8
//! ```

use std::collections::VecDeque;

/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 10;
/// The longest message either side accepts.
pub const MAX_MESSAGE: usize = 4 << 20;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    Request,
    Response,
    Data,
    Unknown(u8),
}

impl FrameKind {
    fn from_wire(byte: u8) -> Self {
        match byte {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Data,
            other => Self::Unknown(other),
        }
    }

    fn to_wire(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Data => 3,
            Self::Unknown(other) => other,
        }
    }
}

/// One whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub stream: u32,
    pub kind: FrameKind,
    pub flags: u8,
    pub payload: Vec<u8>,
}

/// A frame that cannot be delivered. The stream of bytes stays usable: the frame is skipped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("message length {length} exceeds the maximum of {MAX_MESSAGE}")]
    TooLarge { stream: u32, kind: FrameKind, length: usize },
}

/// Turns bytes as they arrive into frames.
///
/// Holds no more than the frame under way; an idle decoder owns no memory.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: VecDeque<u8>,
    skip: usize,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes as read from the peer.
    pub fn push(&mut self, bytes: &[u8]) {
        let skipped = bytes.len().min(self.skip);
        self.skip -= skipped;
        self.buffer.extend(&bytes[skipped..]);
    }

    /// The next whole frame, if its last byte has arrived.
    #[expect(clippy::should_implement_trait, reason = "more frames may come after None")]
    pub fn next(&mut self) -> Option<Result<Frame, FrameError>> {
        if self.buffer.len() < HEADER_LEN {
            if self.buffer.is_empty() {
                self.buffer = VecDeque::new();
            }
            return None;
        }
        let mut header = [0_u8; HEADER_LEN];
        for (to, from) in header.iter_mut().zip(self.buffer.iter()) {
            *to = *from;
        }
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, flags] = header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        let kind = FrameKind::from_wire(kind);
        if length > MAX_MESSAGE {
            self.buffer.drain(..HEADER_LEN);
            let here = length.min(self.buffer.len());
            self.buffer.drain(..here);
            self.skip = length - here;
            return Some(Err(FrameError::TooLarge { stream, kind, length }));
        }
        if self.buffer.len() < HEADER_LEN + length {
            return None;
        }
        self.buffer.drain(..HEADER_LEN);
        let payload = self.buffer.drain(..length).collect();
        Some(Ok(Frame { stream, kind, flags, payload }))
    }
}

/// The bytes of one frame. Fails where the other side would refuse it.
pub fn encode(stream: u32, kind: FrameKind, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let too_large = FrameError::TooLarge { stream, kind, length: payload.len() };
    if payload.len() > MAX_MESSAGE {
        return Err(too_large);
    }
    let length = u32::try_from(payload.len()).map_err(|_| too_large)?;
    let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.push(kind.to_wire());
    bytes.push(0);
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn header_is_ten_bytes_in_network_order() {
        let bytes = encode(3, FrameKind::Request, b"ab").unwrap();
        assert_eq!(bytes, [0, 0, 0, 2, 0, 0, 0, 3, 1, 0, b'a', b'b']);
    }

    #[test]
    fn an_oversized_frame_is_reported_once_and_skipped() {
        let mut decoder = Decoder::new();
        let length = MAX_MESSAGE + 5;
        let mut head = u32::try_from(length).unwrap().to_be_bytes().to_vec();
        head.extend_from_slice(&[0, 0, 0, 7, 1, 0]);
        decoder.push(&head);
        decoder.push(b"xyz");
        let error = decoder.next().unwrap().unwrap_err();
        assert_eq!(error, FrameError::TooLarge { stream: 7, kind: FrameKind::Request, length });
        for chunk in vec![0_u8; length - 3].chunks(65536) {
            decoder.push(chunk);
        }
        assert_eq!(decoder.next(), None);
        decoder.push(&encode(9, FrameKind::Response, b"ok").unwrap());
        assert_eq!(decoder.next().unwrap().unwrap().stream, 9);
    }

    #[test]
    fn a_message_above_the_limit_is_not_sent() {
        assert!(encode(1, FrameKind::Response, &vec![0; MAX_MESSAGE + 1]).is_err());
        assert!(encode(1, FrameKind::Response, &vec![0; MAX_MESSAGE]).is_ok());
    }

    proptest! {
        #[test]
        fn frames_survive_any_chunking(
            frames in proptest::collection::vec((any::<u32>(), 0_u8..5, proptest::collection::vec(any::<u8>(), 0..300)), 0..8),
            chunk in 1_usize..50,
        ) {
            let mut bytes = Vec::new();
            for (stream, kind, payload) in &frames {
                bytes.extend(encode(*stream, FrameKind::from_wire(*kind), payload).unwrap());
            }
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for part in bytes.chunks(chunk) {
                decoder.push(part);
                while let Some(frame) = decoder.next() {
                    let frame = frame.unwrap();
                    seen.push((frame.stream, frame.kind.to_wire(), frame.payload));
                }
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::new();
            decoder.push(&bytes);
            while decoder.next().is_some() {}
        }
    }
}
