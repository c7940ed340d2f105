//! Reading and writing a cgroup's files.

use std::io;
use std::path::Path;

use super::Error;
use crate::sys::file;

/// Writes a value to `directory/name`, which the kernel made: nothing is created.
pub(super) fn write(directory: &Path, name: &str, value: &str) -> Result<(), Error> {
    raw_write(directory, name, value).map_err(|cause| Error::Write {
        path: directory.join(name),
        value: value.to_owned(),
        cause,
    })
}

pub(super) fn raw_write(directory: &Path, name: &str, value: &str) -> io::Result<()> {
    file::write(&directory.join(name), [value]).map_err(|error| error.cause)
}

/// Several values for one file, opened once.
pub(super) fn write_all(directory: &Path, name: &str, values: &[String]) -> Result<(), Error> {
    let path = directory.join(name);
    file::write(&path, values).map_err(|error| Error::Write {
        value: values.get(error.at).cloned().unwrap_or_default(),
        path,
        cause: error.cause,
    })
}

/// The value without its final newline.
pub(super) fn read(directory: &Path, name: &str) -> Result<String, Error> {
    let path = directory.join(name);
    match file::read_text(&path) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(cause) => Err(Error::Read { path, cause }),
    }
}

/// Process ids, one a line. A directory that is gone holds none.
pub(super) fn pids(directory: &Path) -> Result<Vec<i32>, Error> {
    let path = directory.join("cgroup.procs");
    match file::read_text(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(error) if gone(&error) => Ok(Vec::new()),
        Err(cause) => Err(Error::Read { path, cause }),
    }
}

pub(super) fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

pub(super) fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::Write { cause, .. } | Error::Read { cause, .. } => cause.raw_os_error(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::{assert_sentence, fewer, lines, torn};
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(fewer())]

        #[test]
        fn processes_are_the_numbers_of_their_file(
            wanted in vec(0..1 << 22, 0..=8),
            broken in torn(lines(&["1", "-", "+", " ", "4194304", "99999999999", "x", "é"])),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("cgroup.procs");
            let text: String = wanted.iter().map(|pid| format!("{pid}\n")).collect();
            std::fs::write(&path, text).unwrap();
            prop_assert_eq!(pids(directory.path()).unwrap(), wanted);

            std::fs::write(&path, &broken.0).unwrap();
            match pids(directory.path()) {
                Ok(pids) => prop_assert!(pids.len() <= broken.0.len()),
                Err(error) => assert_sentence(&error.to_string()),
            }
        }
    }
}
