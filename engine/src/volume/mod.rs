//! Volumes: directories with a name, of the `local` driver.
//!
//! [`Volumes`] is the seam to the rest of the engine; the work is [`local::Local`]'s, off the reactor.

mod copy_up;
mod local;
mod mount;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use docker_api::StringMap;
use docker_api::filters::Filters;
use docker_api::volume::{Volume, VolumeCreateRequest, VolumesPruned};
use proto::errdefs::Kind;

use crate::api::error::Classified;
use crate::config::Config;
use crate::events::Events;
use local::Local;

pub(crate) use local::VolumeError;

/// All volumes.
#[derive(Debug)]
pub(crate) struct Volumes {
    local: Arc<Local>,
    events: Events,
}

impl Classified for VolumeError {
    fn kind(&self) -> Kind {
        self.class()
    }
}

impl Volumes {
    pub(crate) async fn load(config: &Config, events: Events) -> Result<Self, VolumeError> {
        let root = config.data_root.clone();
        let local = blocking(move || Local::open(&root)).await?;
        Ok(Self { local: Arc::new(local), events })
    }

    /// Makes a volume or returns the one of that name. An empty name: anonymous (64 hex digits).
    pub(crate) async fn create(&self, request: VolumeCreateRequest) -> Result<Volume, VolumeError> {
        let (volume, new) = self.run(move |local| local.create(&request)).await?;
        if new {
            self.tell("create", &volume.name);
        }
        Ok(volume)
    }

    pub(crate) fn get(&self, name: &str) -> Result<Volume, VolumeError> {
        self.local.get(name)
    }

    pub(crate) fn list(&self, filters: &Filters) -> Result<Vec<Volume>, VolumeError> {
        self.local.list(filters)
    }

    /// The container uses the volume, from create to remove (also called at reload).
    pub(crate) async fn acquire(&self, name: &str, container_id: &str) -> Result<(), VolumeError> {
        self.local.acquire(name, container_id)
    }

    /// The end of `acquire`.
    pub(crate) async fn release(&self, name: &str, container_id: &str) {
        self.local.release(name, container_id);
    }

    /// Mounts it if its options say so; returns the directory to bind. From start to exit (also called
    /// at reload).
    pub(crate) async fn mount(
        &self,
        name: &str,
        container_id: &str,
    ) -> Result<PathBuf, VolumeError> {
        let (name, container) = (name.to_owned(), container_id.to_owned());
        self.run(move |local| local.mount(&name, &container)).await
    }

    /// The end of `mount`; false when there was none.
    pub(crate) async fn unmount(&self, name: &str, container_id: &str) -> bool {
        let (volume, container) = (name.to_owned(), container_id.to_owned());
        self.run(move |local| local.unmount(&volume, &container)).await.unwrap_or_else(|error| {
            tracing::warn!(%error, volume = name, container = container_id, "volume stays mounted");
            true
        })
    }

    /// Fills an empty volume from `source`, a directory of the image's mounted root file system
    /// (`rootfs` is that root, `target` the path inside it; symlinks stay inside).
    pub(crate) async fn copy_up(
        &self,
        name: &str,
        rootfs: &Path,
        target: &str,
    ) -> Result<(), VolumeError> {
        let (name, rootfs, target) = (name.to_owned(), rootfs.to_owned(), target.to_owned());
        self.run(move |local| local.copy_up(&name, &rootfs, &target)).await
    }

    /// Removes it; in use is an error, absence is one too unless forced.
    pub(crate) async fn remove(&self, name: &str, force: bool) -> Result<(), VolumeError> {
        let volume = name.to_owned();
        if self.run(move |local| local.remove(&volume, force)).await? {
            self.tell("destroy", name);
        }
        Ok(())
    }

    /// Removes unused ones: anonymous, or every one with `all`.
    pub(crate) async fn prune(
        &self,
        filters: Filters,
        all: bool,
    ) -> Result<VolumesPruned, VolumeError> {
        let pruned = self.run(move |local| local.prune(&filters, all)).await?;
        for name in pruned.volumes_deleted.iter().flatten() {
            self.tell("destroy", name);
        }
        let reclaimed = ("reclaimed".to_owned(), pruned.space_reclaimed.to_string());
        self.events.publish("volume", "prune", "", StringMap::from([reclaimed]));
        Ok(pruned)
    }

    fn tell(&self, action: &str, name: &str) {
        let driver = ("driver".to_owned(), "local".to_owned());
        self.events.publish("volume", action, name, StringMap::from([driver]));
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Local) -> Result<T, VolumeError> + Send + 'static,
    ) -> Result<T, VolumeError> {
        let local = Arc::clone(&self.local);
        blocking(move || work(&local)).await
    }
}

/// Disks and mounts wait, so they do it off the reactor.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(VolumeError::Interrupted))
}

#[cfg(test)]
mod tests;
