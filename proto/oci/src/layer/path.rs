//! Names in a tar, made safe: components without `.`, `..` and empty ones, relative to the root.

use super::LayerError;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Cleans a name lexically. Leading slashes are dropped as tar does; a name whose `..` leads above
/// the root is refused. The empty path is the root itself.
pub(super) fn clean(name: &[u8]) -> Result<PathBuf, LayerError> {
    let escape = || LayerError::Escape { path: show(name) };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or_else(escape)?;
            }
            part if part.contains(&0) => {
                return Err(LayerError::Entry {
                    path: show(name),
                    reason: "name holds a zero byte",
                });
            }
            part => parts.push(part),
        }
    }
    Ok(parts.iter().map(|part| OsStr::from_bytes(part)).collect())
}

/// Directory and last name of a cleaned path; `None` for the root itself.
pub(super) fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}

pub(super) fn show(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_escapes_refused() {
        for (name, cleaned) in [
            ("./a//b/", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("a/../b", "b"),
            (".", ""),
            ("", ""),
        ] {
            assert_eq!(clean(name.as_bytes()).unwrap(), Path::new(cleaned), "{name}");
        }
        for name in ["..", "../a", "a/../../b", "/../etc/passwd"] {
            assert!(matches!(clean(name.as_bytes()), Err(LayerError::Escape { .. })), "{name}");
        }
    }
}
