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
        Some(Self {
            stream: Stream::from_wire(stream)?,
            length: u32::from_be_bytes([l0, l1, l2, l3]),
            offset: u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_survives_its_bytes() {
        let header = Header { stream: Stream::Stderr, length: 0x0102_0304, offset: 0x0a << 56 };
        let bytes = header.to_bytes();
        assert_eq!(bytes, [2, 0, 0, 0, 1, 2, 3, 4, 10, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Header::from_bytes(bytes), Some(header));
        assert_eq!(Header::from_bytes([0; HEADER_LEN]), None);
    }
}
