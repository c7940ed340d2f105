//! The members of a tar, one after the other, in bounded memory.
//!
//! Long names and attributes stand in members of their own that the reader of the format keeps in
//! memory, whatever size they say they have: a few packed bytes would fill it. What comes between the
//! end of one member's content and the next member is therefore counted.

use std::cell::Cell;
use std::io::{self, Read};

/// A reader that gives no more than it is allowed to.
pub struct Members<'a, R> {
    inner: R,
    allowed: &'a Cell<u64>,
}

impl<R: Read> Read for Members<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let allowed = self.allowed.get();
        if allowed == 0 && !into.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the headers of a member are too large",
            ));
        }
        let most = usize::try_from(allowed).unwrap_or(usize::MAX).min(into.len());
        let count = self.inner.read(&mut into[..most])?;
        self.allowed.set(allowed.saturating_sub(count as u64));
        Ok(count)
    }
}

/// Hands every member of a tar to `each`; what that leaves of a member's content is skipped.
pub fn members<R: Read, E>(
    reader: R,
    failed: impl Fn(io::Error) -> E,
    mut each: impl FnMut(&mut tar::Entry<'_, Members<'_, R>>) -> Result<(), E>,
) -> Result<(), E> {
    let allowed = Cell::new(HEADERS);
    let mut archive = tar::Archive::new(Members { inner: reader, allowed: &allowed });
    let mut entries = archive.entries().map_err(&failed)?;
    loop {
        allowed.set(HEADERS);
        let Some(entry) = entries.next() else { return Ok(()) };
        let mut entry = entry.map_err(&failed)?;
        allowed.set(u64::MAX);
        each(&mut entry)?;
        io::copy(&mut entry, &mut io::sink()).map_err(&failed)?;
    }
}

/// A name, a target and attributes, a mebibyte each as in Go's reader, and maps of sparse files.
const HEADERS: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of the given kind and size, then zeros without end; counts what is read.
    fn endless(kind: u8, size: &str) -> (io::Result<()>, u64) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.as_old_mut().size.copy_from_slice(size.as_bytes());
        header.set_cksum();
        let mut read = 0;
        let stream = header.as_bytes().chain(io::repeat(0).take(1 << 30));
        let outcome = members(Counted(stream, &mut read), |error| error, |_| Ok(()));
        (outcome, read)
    }

    struct Counted<'a, R>(R, &'a mut u64);

    impl<R: Read> Read for Counted<'_, R> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read(into)?;
            *self.1 += count as u64;
            Ok(count)
        }
    }

    #[test]
    fn names_and_attributes_without_end_are_refused_early() {
        for kind in [b'L', b'K', b'x'] {
            let (outcome, read) = endless(kind, "07777777777\0");
            let text = outcome.unwrap_err().to_string();
            assert!(text.ends_with("the headers of a member are too large"), "{text}");
            assert!(read <= HEADERS + 1024, "{read} bytes of {:?}", char::from(kind));
        }
    }

    #[test]
    fn content_may_be_as_long_as_it_likes_and_need_not_be_read() {
        for kind in [b'0', b'g'] {
            let (outcome, read) = endless(kind, "00100000000\0");
            outcome.unwrap();
            assert!(read > 16 << 20, "{read} bytes of {:?}", char::from(kind));
        }
    }
}
