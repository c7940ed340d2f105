//! What a shim answers to `start`, in the three forms that exist, and the file that remembers it.
//!
//! Shims of containerd 1.6 and older print a bare address, those of 1.7 to 2.2 may print a line of JSON,
//! newer ones a protobuf `BootstrapResult`. containerd 2.x keeps the answer as `bootstrap.json` in the bundle;
//! older shims leave an `address` file there. We write the former and read both.

use std::io;
use std::path::Path;

use prost::Message;
use proto::containerd::runtime::bootstrap::v1::BootstrapResult;
use serde::{Deserialize, Serialize};

use super::TaskError;

/// How to reach a shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bootstrap {
    /// Version of the task service, 2 or 3.
    pub(crate) version: u32,
    /// `unix://` and a path.
    pub(crate) address: String,
    /// `ttrpc`, or `grpc`, which we do not speak.
    pub(crate) protocol: String,
}

const FILE: &str = "bootstrap.json";
const LEGACY_FILE: &str = "address";

impl Bootstrap {
    /// Reads what `start` printed.
    pub(crate) fn parse(output: &[u8]) -> Result<Self, TaskError> {
        let invalid = || TaskError::ShimAnswer {
            output: String::from_utf8_lossy(&output[..output.len().min(256)]).trim().to_owned(),
        };
        let text = std::str::from_utf8(output).map(str::trim).unwrap_or_default();
        let bootstrap = if text.starts_with('{') {
            serde_json::from_str(text).map_err(|_| invalid())?
        } else if is_address(text) {
            Self { version: 2, address: text.to_owned(), protocol: "ttrpc".to_owned() }
        } else {
            let wire = BootstrapResult::decode(output).map_err(|_| invalid())?;
            let version = u32::try_from(wire.version).map_err(|_| invalid())?;
            Self { version, address: wire.address, protocol: wire.protocol }
        };
        bootstrap.check().map_err(|error| error.unwrap_or_else(invalid))
    }

    /// Finds the answer of an earlier `start` in the bundle.
    pub(crate) fn load(bundle: &Path) -> io::Result<Option<Self>> {
        for (name, legacy) in [(FILE, false), (LEGACY_FILE, true)] {
            match std::fs::read(bundle.join(name)) {
                Ok(bytes) if legacy || bytes.first() == Some(&b'{') => {
                    return Ok(Self::parse(&bytes).ok());
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Remembers the answer for the next start of the daemon.
    pub(crate) fn save(&self, bundle: &Path) -> io::Result<()> {
        let temporary = bundle.join(".bootstrap.json");
        std::fs::write(&temporary, serde_json::to_vec(self).map_err(io::Error::other)?)?;
        std::fs::rename(temporary, bundle.join(FILE))
    }

    fn check(mut self) -> Result<Self, Option<TaskError>> {
        if self.protocol.is_empty() {
            self.protocol.push_str("ttrpc");
        }
        if !is_address(&self.address) {
            return Err(None);
        }
        if !matches!(self.version, 2 | 3) {
            return Err(Some(TaskError::ShimVersion { version: self.version }));
        }
        if self.protocol != "ttrpc" {
            return Err(Some(TaskError::ShimProtocol { protocol: self.protocol }));
        }
        Ok(self)
    }
}

fn is_address(text: &str) -> bool {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    path.starts_with('/') && !path.contains(['\n', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bootstrap(version: u32) -> Bootstrap {
        let address = "unix:///run/containerd/s/ab".to_owned();
        Bootstrap { version, address, protocol: "ttrpc".to_owned() }
    }

    #[test]
    fn every_form_of_answer_is_understood() {
        let bare = b"unix:///run/containerd/s/ab\n";
        assert_eq!(Bootstrap::parse(bare).unwrap(), bootstrap(2));
        let json = br#"{"version":3,"address":"unix:///run/containerd/s/ab","protocol":"ttrpc"}"#;
        assert_eq!(Bootstrap::parse(json).unwrap(), bootstrap(3));
        let wire = BootstrapResult {
            version: 3,
            address: "unix:///run/containerd/s/ab".to_owned(),
            protocol: "ttrpc".to_owned(),
            ..Default::default()
        };
        assert_eq!(Bootstrap::parse(&wire.encode_to_vec()).unwrap(), bootstrap(3));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for output in [&b""[..], b"panic: no space", b"{", b"\xff\xfe", b"{\"version\":2}"] {
            assert!(matches!(Bootstrap::parse(output), Err(TaskError::ShimAnswer { .. })));
        }
        let newer = br#"{"version":4,"address":"unix:///a","protocol":"ttrpc"}"#;
        assert!(matches!(Bootstrap::parse(newer), Err(TaskError::ShimVersion { version: 4 })));
        let grpc = br#"{"version":3,"address":"unix:///a","protocol":"grpc"}"#;
        assert!(matches!(Bootstrap::parse(grpc), Err(TaskError::ShimProtocol { .. })));
    }

    #[test]
    fn the_answer_survives_in_the_bundle_and_the_legacy_file_serves_too() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(Bootstrap::load(bundle.path()).unwrap(), None);
        std::fs::write(bundle.path().join("address"), "unix:///run/containerd/s/ab").unwrap();
        assert_eq!(Bootstrap::load(bundle.path()).unwrap(), Some(bootstrap(2)));
        bootstrap(3).save(bundle.path()).unwrap();
        assert_eq!(Bootstrap::load(bundle.path()).unwrap(), Some(bootstrap(3)));
    }

    proptest! {
        #[test]
        fn a_broken_answer_is_refused_and_a_whole_one_kept(
            version in 0_u32..6,
            path in "/[a-z\\n\0/]{0,6}|[a-z/]{0,6}",
            scheme in "(unix://|tcp://|)",
            protocol in "(ttrpc|grpc|)", form in 0_usize..3,
            edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..3),
        ) {
            let address = format!("{scheme}{path}");
            let given = Bootstrap { version, address, protocol };
            let mut output = match form {
                0 => serde_json::to_vec(&given).unwrap(),
                1 => BootstrapResult {
                    version: i32::try_from(version).unwrap(),
                    address: given.address,
                    protocol: given.protocol,
                    ..Default::default()
                }
                .encode_to_vec(),
                _ => given.address.into_bytes(),
            };
            for (at, byte) in edits {
                let at = at % (output.len() + 1);
                output.splice(at..(at + 1).min(output.len()), [byte]);
            }
            match Bootstrap::parse(&output) {
                Ok(read) => {
                    prop_assert!(matches!(read.version, 2 | 3) && read.protocol == "ttrpc");
                    prop_assert!(read.address.trim_start_matches("unix://").starts_with('/'));
                    let bundle = tempfile::tempdir().unwrap();
                    read.save(bundle.path()).unwrap();
                    prop_assert_eq!(Bootstrap::load(bundle.path()).unwrap(), Some(read));
                }
                Err(error) => prop_assert!(error.to_string().len() < 1200),
            }
        }
    }
}
