//! Decompression told by magic bytes, because media types of layers in the wild lie.

use std::io::{BufReader, Cursor, Read};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Judges the first bytes of a stream.
    pub fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame, with which zstd:chunked and pzstd files may open.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// The plain form of `reader`, and what it was compressed with.
pub fn decompress<'a>(
    mut reader: impl Read + 'a,
) -> std::io::Result<(Compression, Box<dyn Read + 'a>)> {
    let mut head = [0u8; 4];
    let mut filled = 0;
    while filled < head.len() {
        match reader.read(&mut head[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let head = head[..filled].to_vec();
    let compression = Compression::detect(&head);
    let whole = Cursor::new(head).chain(reader);
    let plain: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(BufReader::with_capacity(BUFFER, whole)),
        Compression::Gzip => Box::new(BufReader::with_capacity(
            BUFFER,
            flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(BUFFER, whole)),
        )),
        Compression::Zstd => Box::new(BufReader::with_capacity(
            BUFFER,
            zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(BUFFER, whole))?,
        )),
    };
    Ok((compression, plain))
}

const BUFFER: usize = 128 * 1024;
