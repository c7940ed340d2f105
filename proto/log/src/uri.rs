//! The log URI that the engine puts into a task's stdout and stderr when the shim announces
//! `json-file` among its log-URI schemes:
//! `json-file:///path/ID-json.log?max-size=BYTES&max-file=N&compress=true&attach=/path.sock&attrs={…}&discard=1`

use std::fmt;
use std::path::{Path, PathBuf};

use crate::Rotation;

/// The scheme as announced.
pub const SCHEME: &str = "json-file";

/// Where a process's output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogUri {
    pub path: PathBuf,
    pub rotation: Rotation,
    /// Where the live socket listens.
    pub attach: Option<PathBuf>,
    /// A JSON object that every record carries, or empty.
    pub attrs: String,
    /// Write no log; only the live socket.
    pub discard: bool,
}

/// The text is not a usable json-file URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("not a json-file log uri: {0:?}")]
    Scheme(String),
    #[error("log path is not absolute: {0:?}")]
    NotAbsolute(String),
    #[error("log uri: bad value of {key}: {value:?}")]
    Value { key: String, value: String },
}

impl LogUri {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            rotation: Rotation::default(),
            attach: None,
            attrs: String::new(),
            discard: false,
        }
    }

    /// Unknown parameters are ignored.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let rest =
            text.strip_prefix("json-file://").ok_or_else(|| UriError::Scheme(text.to_owned()))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = unescape(path);
        if !path.starts_with('/') {
            return Err(UriError::NotAbsolute(path));
        }
        let mut uri = Self::new(path);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = unescape(&value.replace('+', " "));
            let bad = || UriError::Value { key: key.to_owned(), value: value.clone() };
            match key {
                "max-size" => uri.rotation.max_size = Some(value.parse().map_err(|_| bad())?),
                "max-file" => uri.rotation.max_files = value.parse().map_err(|_| bad())?,
                "compress" => uri.rotation.compress = matches!(value.as_str(), "true" | "1"),
                "discard" => uri.discard = matches!(value.as_str(), "true" | "1"),
                "attach" if value.starts_with('/') => uri.attach = Some(PathBuf::from(&value)),
                "attrs" => {
                    let object = value.starts_with('{') && !value.contains('\n');
                    if !object || serde_json::from_str::<serde::de::IgnoredAny>(&value).is_err() {
                        return Err(bad());
                    }
                    uri.attrs = value;
                }
                "attach" => return Err(bad()),
                _ => {}
            }
        }
        Ok(uri)
    }
}

impl fmt::Display for LogUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "json-file://{}?max-file={}", escape_path(&self.path), self.rotation.max_files)?;
        if let Some(size) = self.rotation.max_size {
            write!(f, "&max-size={size}")?;
        }
        if self.rotation.compress {
            f.write_str("&compress=true")?;
        }
        if let Some(attach) = &self.attach {
            write!(f, "&attach={}", escape_path(attach))?;
        }
        if !self.attrs.is_empty() {
            write!(f, "&attrs={}", escape(&self.attrs))?;
        }
        if self.discard {
            f.write_str("&discard=1")?;
        }
        Ok(())
    }
}

fn escape_path(path: &Path) -> String {
    escape(&path.to_string_lossy())
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn unescape(text: &str) -> String {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if let (b'%', [high, low, after @ ..]) = (byte, tail)
            && let (Some(high), Some(low)) = (digit(high), digit(low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(*byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_uri_survives_its_text() {
        let uri = LogUri {
            path: "/var/lib/a b/c?d-json.log".into(),
            rotation: Rotation { max_size: Some(10_000_000), max_files: 3, compress: true },
            attach: Some("/run/a/0123.s".into()),
            attrs: "{\"tag\":\"x&y=+%\"}".into(),
            discard: true,
        };
        assert_eq!(LogUri::parse(&uri.to_string()), Ok(uri));
        let plain = LogUri::parse("json-file:///x.log").unwrap();
        assert_eq!(plain, LogUri::new("/x.log"));
        assert_eq!(LogUri::parse(&plain.to_string()), Ok(plain));
    }

    #[test]
    fn bad_uris_are_refused() {
        for bad in [
            "fifo:///x",
            "json-file://x.log",
            "json-file:///x?max-size=1m",
            "json-file:///x?attach=x.s",
            "json-file:///x?attrs=[]",
            "json-file:///x?attrs={%0A}",
        ] {
            assert!(LogUri::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_uri_survives_its_text(
            path in "/\\PC{0,12}",
            attach in proptest::option::of("/\\PC{0,12}"),
            attrs in proptest::option::of(
                proptest::collection::btree_map("\\PC{0,5}", "\\PC{0,5}", 0..3),
            ),
            (max_size, max_files, compress, discard) in any::<(Option<u64>, u32, bool, bool)>(),
        ) {
            let uri = LogUri {
                path: path.into(),
                rotation: Rotation { max_size, max_files, compress },
                attach: attach.map(PathBuf::from),
                attrs: attrs.map(|attrs| serde_json::to_string(&attrs).unwrap()).unwrap_or_default(),
                discard,
            };
            prop_assert_eq!(LogUri::parse(&uri.to_string()), Ok(uri));
        }

        #[test]
        fn broken_uris_are_refused_or_absolute(
            tail in "[/a%2fF?&=+{}\"#é-]{0,20}(attach=|attrs=|max-size=|max-file=)?[/%0-9a{}]{0,8}",
        ) {
            if let Ok(uri) = LogUri::parse(&format!("json-file://{tail}")) {
                prop_assert!(uri.path.is_absolute());
                prop_assert!(uri.attach.is_none_or(|path| path.is_absolute()));
            }
        }
    }
}
