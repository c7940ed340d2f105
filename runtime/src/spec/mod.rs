//! From `config.json` to what will be done: load, check, plan.

pub(crate) mod landlock;
pub(crate) mod mounts;
pub(crate) mod oci;
pub(crate) mod options;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod schedule;
pub(crate) mod sysctl;

use std::io;
use std::path::{Path, PathBuf};

use crate::sys::{errno_of, errno_text};

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    // Compat: runc's sentence for a bundle without a configuration.
    #[error("JSON specification file {0} not found")]
    NotFound(String),
    #[error("open {}: {}", path.display(), errno_text(errno_of(cause)))]
    Read { path: PathBuf, cause: io::Error },
    #[error("{}: {cause}", path.display())]
    Json { path: PathBuf, cause: serde_json::Error },
}

pub(crate) fn load(path: &Path) -> Result<oci::Spec, LoadError> {
    match read(path) {
        Err(LoadError::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            Err(LoadError::NotFound(path.file_name().unwrap_or_default().display().to_string()))
        }
        result => result,
    }
}

/// The file that `exec --process` names.
pub(crate) fn load_process(path: &Path) -> Result<oci::Process, LoadError> {
    read(path)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, LoadError> {
    let bytes = crate::sys::file::read(path)
        .map_err(|cause| LoadError::Read { path: path.to_owned(), cause })?;
    serde_json::from_slice(&bytes).map_err(|cause| LoadError::Json { path: path.to_owned(), cause })
}

#[cfg(test)]
mod foreign;
