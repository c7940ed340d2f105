//! GNU sparse files in PAX form 1.0: the data opens with a map of decimal lines, padded to 512.
//! Older PAX forms (0.0, 0.1) are refused loudly, since reading them as plain files would be wrong.
//! Document: GNU tar manual, "Storing Sparse Files".

use std::io::{self, Read};

/// A chunk of data and where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Reads the map at the head of a member's data.
pub(super) fn read_map(data: &mut impl Read, real_size: u64) -> io::Result<Vec<Chunk>> {
    let mut block = Block { data, buffer: [0; 512], position: 512 };
    let count = block.number()?;
    let mut chunks = Vec::new();
    let mut end = 0u64;
    for _ in 0..count {
        let chunk = Chunk { offset: block.number()?, length: block.number()? };
        let next = chunk.offset.checked_add(chunk.length).ok_or_else(invalid)?;
        if chunk.offset < end || next > real_size {
            return Err(invalid());
        }
        end = next;
        chunks.push(chunk);
    }
    Ok(chunks)
}

struct Block<'a, R> {
    data: &'a mut R,
    buffer: [u8; 512],
    position: usize,
}

impl<R: Read> Block<'_, R> {
    fn number(&mut self) -> io::Result<u64> {
        let mut value: u64 = 0;
        let mut digits = 0;
        loop {
            if self.position == self.buffer.len() {
                self.data.read_exact(&mut self.buffer)?;
                self.position = 0;
            }
            let byte = self.buffer[self.position];
            self.position += 1;
            match byte {
                b'\n' if digits > 0 => return Ok(value),
                b'0'..=b'9' if digits < 20 => {
                    digits += 1;
                    value = value
                        .checked_mul(10)
                        .and_then(|v| v.checked_add(u64::from(byte - b'0')))
                        .ok_or_else(invalid)?;
                }
                _ => return Err(invalid()),
            }
        }
    }
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "invalid sparse map")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_and_a_wrong_one_refused() {
        let mut data = b"2\n0\n5\n1000\n7\n".to_vec();
        data.resize(512, 0);
        data.extend_from_slice(b"hello");
        let mut reader = data.as_slice();
        let map = read_map(&mut reader, 1007).unwrap();
        assert_eq!(map, [Chunk { offset: 0, length: 5 }, Chunk { offset: 1000, length: 7 }]);
        assert_eq!(reader, b"hello");
        assert!(read_map(&mut data.as_slice(), 1006).is_err());
        assert!(read_map(&mut &b"x\n"[..], 5).is_err());
    }
}
