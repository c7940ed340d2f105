//! Frames on the live socket beside a log.
//!
//! ```text
//!  0        1       4        8            16
//!  | stream | 0 0 0 | length | log offset | payload ...
//!    u8               u32 BE   u64 BE
//! ```
//! The log offset counts the bytes of the whole log, over rotations, that were written before this
//! payload's own records. A reader that has read the log up to there goes on with the payload.

use crate::Stream;

/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 16;
/// The longest payload: writers send what one read of a pipe gives, and readers keep it whole.
pub const MAX_PAYLOAD: u32 = 1 << 20;

/// What precedes each payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub stream: Stream,
    pub length: u32,
    pub offset: u64,
}

impl Header {
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = self.stream.to_wire();
        bytes[4..8].copy_from_slice(&self.length.to_be_bytes());
        bytes[8..].copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }

    /// `None`: not a frame of this format.
    pub fn from_bytes(bytes: [u8; HEADER_LEN]) -> Option<Self> {
        let [stream, _, _, _, l0, l1, l2, l3, o0, o1, o2, o3, o4, o5, o6, o7] = bytes;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if length > MAX_PAYLOAD {
            return None;
        }
        Some(Self {
            stream: Stream::from_wire(stream)?,
            length,
            offset: u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn header_survives_its_bytes() {
        let header = Header { stream: Stream::Stderr, length: 0x000f_0304, offset: 0x0a << 56 };
        let bytes = header.to_bytes();
        assert_eq!(bytes, [2, 0, 0, 0, 0, 15, 3, 4, 10, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Header::from_bytes(bytes), Some(header));
        assert_eq!(Header::from_bytes([0; HEADER_LEN]), None);
    }

    proptest! {
        #[test]
        fn any_header_survives_its_bytes(stderr: bool, length in 0..=MAX_PAYLOAD, offset: u64) {
            let stream = if stderr { Stream::Stderr } else { Stream::Stdout };
            let header = Header { stream, length, offset };
            prop_assert_eq!(Header::from_bytes(header.to_bytes()), Some(header));
        }

        #[test]
        fn foreign_bytes_announce_no_more_than_a_reader_keeps(
            bytes: [u8; HEADER_LEN],
            stream in 0_u8..4,
        ) {
            let mut bytes = bytes;
            bytes[0] = stream;
            if let Some(header) = Header::from_bytes(bytes) {
                prop_assert!(header.length <= MAX_PAYLOAD);
                prop_assert_eq!(header.stream.to_wire(), stream);
            }
        }
    }
}
