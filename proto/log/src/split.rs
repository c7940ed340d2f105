//! Cuts a container's output into lines as dockerd does: a line longer than 16 KiB becomes several
//! records, of which only the last ends with a newline, and all carry the time of the first.

use crate::Timestamp;
use crate::scan::find;

/// The most bytes of one record's line.
pub const MAX_LINE: usize = 16 * 1024;

/// State of one stream between two reads. Owns memory only while a line is unfinished.
#[derive(Debug, Default)]
pub struct Splitter {
    carry: Vec<u8>,
    /// Set while a long line is being written in parts.
    partial_since: Option<Timestamp>,
}

impl Splitter {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes read at `now` and hands over what is complete: (line, ends with newline, time).
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        now: Timestamp,
        mut emit: impl FnMut(&[u8], bool, Timestamp),
    ) {
        while !bytes.is_empty() {
            let room = MAX_LINE - self.carry.len();
            let window = &bytes[..bytes.len().min(room + 1)];
            match find(window, |b| b == b'\n') {
                Some(end) => {
                    let time = self.partial_since.take().unwrap_or(now);
                    if self.carry.is_empty() {
                        emit(&bytes[..end], true, time);
                    } else {
                        self.carry.extend_from_slice(&bytes[..end]);
                        emit(&self.carry, true, time);
                        self.carry = Vec::new();
                    }
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() >= room => {
                    let time = *self.partial_since.get_or_insert(now);
                    if self.carry.is_empty() {
                        emit(&bytes[..room], false, time);
                    } else {
                        self.carry.extend_from_slice(&bytes[..room]);
                        emit(&self.carry, false, time);
                        self.carry = Vec::new();
                    }
                    bytes = &bytes[room..];
                }
                None => {
                    self.carry.extend_from_slice(bytes);
                    return;
                }
            }
        }
    }

    /// The output ended: hands over the unfinished line, without a newline.
    pub fn finish(&mut self, now: Timestamp, mut emit: impl FnMut(&[u8], bool, Timestamp)) {
        if !self.carry.is_empty() {
            emit(&self.carry, false, self.partial_since.unwrap_or(now));
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool, i64)> {
        let mut splitter = Splitter::new();
        let mut lines = Vec::new();
        for (second, chunk) in (0..).zip(chunks) {
            splitter.push(chunk, Timestamp::new(second, 0), |line, newline, time| {
                lines.push((line.to_vec(), newline, time.seconds()));
            });
        }
        splitter.finish(Timestamp::new(99, 0), |line, newline, time| {
            lines.push((line.to_vec(), newline, time.seconds()));
        });
        lines
    }

    #[test]
    fn a_line_is_written_when_it_ends() {
        let lines = split(&[b"a", b"b\n\nc", b"d"]);
        let wanted =
            [(b"ab".to_vec(), true, 1), (b"".to_vec(), true, 1), (b"cd".to_vec(), false, 99)];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn a_long_line_is_cut_at_16_kib_and_keeps_its_time() {
        let long = vec![b'x'; MAX_LINE + 5];
        let lines = split(&[&long[..100], &long[100..], b"\n"]);
        let wanted = [(long[..MAX_LINE].to_vec(), false, 1), (b"xxxxx".to_vec(), true, 1)];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn a_line_of_exactly_16_kib_is_cut_when_its_newline_comes_later() {
        let full = vec![b'x'; MAX_LINE];
        let lines = split(&[&full, b"\n"]);
        assert_eq!(lines, [(full, false, 0), (b"".to_vec(), true, 0)]);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_doubled(
            chunks in proptest::collection::vec((0_usize..40_000, any::<bool>()), 0..8)
        ) {
            let mut chunks_made = Vec::new();
            for (length, newline) in chunks {
                let mut chunk = vec![b'y'; length];
                if newline { chunk.push(b'\n'); }
                chunks_made.push(chunk);
            }
            let slices: Vec<&[u8]> = chunks_made.iter().map(Vec::as_slice).collect();
            let mut joined = Vec::new();
            for (line, newline, _) in split(&slices) {
                prop_assert!(line.len() <= MAX_LINE);
                joined.extend(line);
                if newline { joined.push(b'\n'); }
            }
            prop_assert_eq!(joined, chunks_made.concat());
        }
    }
}
