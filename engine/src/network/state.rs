//! What the network remembers.
//!
//! ```text
//! <data-root>/network/networks.json     ids of bridge, host, none (kept for good, synced)
//! <exec-root>/network/<container>.json  one attachment (gone with a reboot, like the links themselves)
//! ```

use std::collections::BTreeMap;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::ports::{ContainerPort, Published};

#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("parse {path}: {source}")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("{path} has version {version}, newer than this engine knows")]
    Newer { path: PathBuf, version: u32 },
}

/// `networks.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworksRecord {
    pub(crate) version: u32,
    /// Name to id and birth.
    pub(crate) networks: BTreeMap<String, NetworkRecord>,
    /// The subnet chosen for the default bridge, taken again while nothing collides.
    #[serde(default)]
    pub(crate) bridge_address: Option<Ipv4Net>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub(crate) id: String,
    pub(crate) created: String,
}

/// One container's place in the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) version: u32,
    pub(crate) container: String,
    pub(crate) container_name: String,
    /// `SandboxID`: 64 hex digits.
    pub(crate) sandbox_id: String,
    /// Where the namespace is pinned, by the container's own code.
    pub(crate) sandbox: PathBuf,
    pub(crate) network: String,
    pub(crate) network_id: String,
    pub(crate) endpoint_id: String,
    /// None on `none`.
    pub(crate) link: Option<Link>,
    /// Exposed but perhaps not published, for `NetworkSettings.Ports`.
    pub(crate) exposed: Vec<ContainerPort>,
    pub(crate) published: Vec<Published>,
}

/// The veth pair of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) host_link: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix_len: u8,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) mac: String,
}

/// The newest version this engine writes.
pub(crate) const VERSION: u32 = 1;

pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::Read { path: path.to_owned(), source }),
    };
    let parse = |source| StateError::Parse { path: path.to_owned(), source };
    let Versioned { version } = serde_json::from_slice(&bytes).map_err(parse)?;
    if version > VERSION {
        return Err(StateError::Newer { path: path.to_owned(), version });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(parse)
}

/// Whether a record must survive a power cut or only a dying engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    Synced,
    Written,
}

/// Writes by rename; with [`Durability::Synced`] the bytes and the name are on the disk afterwards.
pub(crate) fn write<T: Serialize>(
    path: &Path,
    record: &T,
    durability: Durability,
) -> Result<(), StateError> {
    let failed = |source| StateError::Write { path: path.to_owned(), source };
    let bytes = serde_json::to_vec(record)
        .map_err(|source| StateError::Parse { path: path.to_owned(), source })?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent).map_err(failed)?;
    let draft = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&draft)
        .map_err(failed)?;
    file.write_all(&bytes).map_err(failed)?;
    if durability == Durability::Synced {
        file.sync_all().map_err(failed)?;
    }
    std::fs::rename(&draft, path).map_err(failed)?;
    if durability == Durability::Synced {
        std::fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)?;
    }
    Ok(())
}

pub(crate) fn remove(path: &Path) -> Result<(), StateError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StateError::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Every record of a directory; what cannot be read is told and left alone.
pub(crate) fn read_all<T: serde::de::DeserializeOwned>(directory: &Path) -> Vec<T> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter_map(|path| match read(&path) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(%error, "a network record is left alone");
                None
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_reads_back_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/networks.json");
        assert_eq!(read::<NetworksRecord>(&path).unwrap(), None);
        let mut record = NetworksRecord { version: VERSION, ..NetworksRecord::default() };
        record.bridge_address = Some("172.18.0.1/16".parse().unwrap());
        write(&path, &record, Durability::Synced).unwrap();
        assert_eq!(read(&path).unwrap(), Some(record.clone()));
        record.version = VERSION + 1;
        write(&path, &record, Durability::Written).unwrap();
        assert!(matches!(read::<NetworksRecord>(&path), Err(StateError::Newer { .. })));
        remove(&path).unwrap();
        remove(&path).unwrap();
    }

    const ATTACHMENT: &str = r#"{"version":1,"container":"c","container_name":"n","sandbox_id":"s",
"sandbox":"/n","network":"bridge","network_id":"i","endpoint_id":"e","link":{"host_link":"v","address":"172.17.0.2",
"prefix_len":16,"gateway":"172.17.0.1","mac":"02:42:ac:11:00:02"},"exposed":[{"port":80,"protocol":"tcp"}],
"published":[{"container":{"port":80,"protocol":"tcp"},"host_ip":"0.0.0.0","host_port":8080}]}"#;
    const WORDS: &[&str] = &["null", "[]", "-1", "65536", "\"", ",", "1.2.3.4.5", "\0"];

    proptest! {
        // Each writes files.
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 16, ..ProptestConfig::default() })]

        #[test]
        fn a_damaged_record_is_told_or_whole(
            edits in proptest::collection::vec((any::<usize>(), 0_usize..9, 0..WORDS.len()), 0..4),
            cut in 0_usize..900,
        ) {
            let attachment = serde_json::from_str::<Attachment>(ATTACHMENT).unwrap();
            let mut text = serde_json::to_vec(&attachment).unwrap();
            for (at, cut, word) in edits {
                let at = at % (text.len() + 1);
                text.splice(at..(at + cut).min(text.len()), WORDS[word].bytes());
            }
            text.truncate(cut);
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("a.json"), &text).unwrap();
            let read = read::<Attachment>(&dir.path().join("a.json"));
            let all = read_all::<Attachment>(dir.path());
            prop_assert_eq!(all.len(), usize::from(read.is_ok()));
            if let Ok(Some(read)) = read {
                prop_assert!(read.version <= VERSION);
            }
        }
    }
}
