//! Small files in as few calls as there can be: the C library's open sets close-on-exec once more, and
//! std feels its way up from 32 bytes where a file has no size, as in procfs and cgroups.
#![allow(clippy::disallowed_methods, reason = "the runtime's own files: state, cgroups")]

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

const USUAL: usize = 4096;

pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::with_capacity(USUAL);
    loop {
        if bytes.len() == bytes.capacity() {
            bytes.reserve(bytes.capacity());
        }
        match rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => return Ok(bytes),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Writes each value by a call of its own, as the kernel's files want it. Nothing is created.
pub(crate) fn write<T: AsRef<[u8]>>(
    path: &Path,
    values: impl IntoIterator<Item = T>,
) -> Result<(), Unwritten> {
    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
    let failed = |at: usize| move |errno: rustix::io::Errno| Unwritten { at, cause: errno.into() };
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(failed(0))?;
    for (at, value) in values.into_iter().enumerate() {
        let value = value.as_ref();
        let written =
            rustix::io::retry_on_intr(|| rustix::io::write(&fd, value)).map_err(failed(at))?;
        if written != value.len() {
            return Err(Unwritten { at, cause: io::ErrorKind::WriteZero.into() });
        }
    }
    Ok(())
}

/// Which value was refused.
#[derive(Debug)]
pub(crate) struct Unwritten {
    pub(crate) at: usize,
    pub(crate) cause: io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_whatever_its_length() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        for length in [0, 1, USUAL - 1, USUAL, USUAL + 1, 3 * USUAL + 7] {
            let text = "x".repeat(length);
            std::fs::write(&path, &text).unwrap();
            assert_eq!(read_text(&path).unwrap(), text, "{length}");
        }
    }

    #[test]
    fn a_file_without_a_size_is_read_whole() {
        let path = Path::new("/proc/self/environ");
        assert_eq!(read(path).unwrap(), std::fs::read(path).unwrap());
    }

    #[test]
    fn nothing_is_created() {
        let directory = tempfile::tempdir().unwrap();
        let error = write(&directory.path().join("f"), ["1"]).unwrap_err();
        assert_eq!((error.at, error.cause.raw_os_error()), (0, Some(libc::ENOENT)));
        assert!(!directory.path().join("f").exists());
    }
}
