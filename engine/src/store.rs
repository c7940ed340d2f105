//! Records on disk: JSON, written beside and renamed, synced where the caller promised it.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Whether the record must survive a power cut when the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Survives a kill of the engine.
    Written,
    /// Survives the machine.
    Synced,
}

/// A record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("record {path}: {source}")]
    Format { path: PathBuf, source: serde_json::Error },
    #[error("record {path}: it is of the container {id:?}")]
    Foreign { path: PathBuf, id: String },
    #[error("record {path}: it has version {version}, newer than this engine knows")]
    Newer { path: PathBuf, version: u32 },
}

/// Replaces the record at `path`.
pub(crate) fn write<T: Serialize>(
    path: &Path,
    record: &T,
    durability: Durability,
) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(record)
        .map_err(|source| StoreError::Format { path: path.to_owned(), source })?;
    write_bytes(path, &bytes, durability)
        .map_err(|source| StoreError::Write { path: path.to_owned(), source })
}

/// Replaces a file by rename.
pub(crate) fn write_bytes(
    path: &Path,
    bytes: &[u8],
    durability: Durability,
) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(&temporary)?;
    file.write_all(bytes)?;
    if durability == Durability::Synced {
        file.sync_data()?;
    }
    std::fs::rename(&temporary, path)?;
    if durability == Durability::Synced
        && let Some(parent) = path.parent()
    {
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Reads a record; `None` when there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Read { path: path.to_owned(), source }),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| StoreError::Format { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_absence_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), None);
        write(&path, &vec![1_u8, 2], Durability::Synced).unwrap();
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), Some(vec![1, 2]));
    }
}
