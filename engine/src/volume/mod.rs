//! Volumes: directories with a name.

use std::path::{Path, PathBuf};

use docker_api::volume::{Volume, VolumeCreateRequest};
use proto::errdefs::Kind;

use crate::api::error::Classified;
use crate::config::Config;
use crate::events::Events;

/// All volumes.
#[derive(Debug)]
pub(crate) struct Volumes {}

/// A volume call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("get {0}: no such volume")]
    NotFound(String),
    #[error("volumes are not there yet")]
    NotYet,
}

impl Classified for VolumeError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) => Kind::NotFound,
            Self::NotYet => Kind::Unimplemented,
        }
    }
}

impl Volumes {
    pub(crate) async fn load(_config: &Config, _events: Events) -> Result<Self, VolumeError> {
        Ok(Self {})
    }

    /// Makes a volume or returns the one of that name. An empty name: anonymous (64 hex digits).
    pub(crate) async fn create(
        &self,
        _request: VolumeCreateRequest,
    ) -> Result<Volume, VolumeError> {
        Err(VolumeError::NotYet)
    }

    /// The container uses the volume, from create to remove (also called at reload).
    pub(crate) async fn acquire(
        &self,
        _name: &str,
        _container_id: &str,
    ) -> Result<(), VolumeError> {
        Err(VolumeError::NotYet)
    }

    /// The end of `acquire`.
    pub(crate) async fn release(&self, _name: &str, _container_id: &str) {}

    /// Mounts it if its options say so; returns the directory to bind. From start to exit.
    pub(crate) async fn mount(
        &self,
        name: &str,
        _container_id: &str,
    ) -> Result<PathBuf, VolumeError> {
        Err(VolumeError::NotFound(name.to_owned()))
    }

    /// The end of `mount`.
    pub(crate) async fn unmount(&self, _name: &str, _container_id: &str) {}

    /// Fills an empty volume from `source`, a directory of the image's mounted root file system
    /// (`rootfs` is that root, `target` the path inside it; symlinks stay inside).
    pub(crate) async fn copy_up(
        &self,
        _name: &str,
        _rootfs: &Path,
        _target: &str,
    ) -> Result<(), VolumeError> {
        Ok(())
    }

    /// Removes it; in use is an error unless forced, absence is one too unless forced.
    pub(crate) async fn remove(&self, name: &str, _force: bool) -> Result<(), VolumeError> {
        Err(VolumeError::NotFound(name.to_owned()))
    }
}
