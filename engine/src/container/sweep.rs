//! What an engine that was killed left behind and no record names: made by a create that never
//! answered, or not yet undone by a removal.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::containerd::services::containers::v1::ListContainersRequest;
use proto::containerd::services::snapshots::v1::{Kind, ListSnapshotsRequest};

use super::record::{Paths, Record};
use super::rootfs::{self, blocking};
use super::start;
use crate::app::App;
use crate::containerd::SNAPSHOTTER;
use crate::sys;

/// The label that says which engine made something in containerd.
const OWNER: &str = "dockerd-rs.engine";

/// Finds what carries this engine's mark or lies in its directories and belongs to no container,
/// and removes it while requests are answered already. Containers whose record cannot be read are
/// left alone, with all they have.
pub(super) async fn run(app: &Arc<App>, unreadable: Vec<String>) {
    let mut known = unreadable;
    known.extend(app.containers.all().iter().map(|container| container.id.clone()));
    let ids: HashSet<&str> = known.iter().map(String::as_str).collect();
    let tasks = tasks(app, &ids).await;
    let paths = paths(app, &known);
    let Layers { own: mut snapshots, shared, .. } = layers(app).await;
    snapshots.retain(|key| !ids.contains(key.as_str()));
    let chains = shared.iter().filter_map(|name| name.strip_suffix("-init"));
    let chains: Vec<String> = chains.map(str::to_owned).collect();
    let app = Arc::clone(app);
    tokio::spawn(async move {
        for id in tasks {
            tracing::info!(container = id, "removing a task without a record");
            start::delete_below(&app, &id).await;
        }
        let swept = blocking(move || {
            for stray in paths {
                if let Err(error) = remove(&stray) {
                    tracing::warn!(path = %stray.display(), "left behind: {error}");
                }
            }
            Ok(())
        });
        drop(swept.await);
        for key in snapshots {
            tracing::info!(key, "removing a snapshot without a container");
            if let Err(error) = rootfs::remove(&app, &key).await {
                tracing::warn!("{error}");
            }
        }
        rootfs::forget_unused(&app, chains).await;
    });
}

/// The anonymous volumes of a create that never answered.
pub(super) async fn draft(app: &App, path: &Path) {
    let Ok(Some(volumes)) = crate::store::read::<Vec<String>>(path) else { return };
    for volume in volumes {
        if let Err(error) = app.volumes.remove(&volume, true).await {
            tracing::debug!(volume, "{error}");
        }
    }
}

async fn tasks(app: &App, known: &HashSet<&str>) -> Vec<String> {
    let listed = app.containerd.containers().list(ListContainersRequest::default()).await;
    let listed = match listed {
        Ok(listed) => listed.into_inner().containers,
        Err(status) => {
            tracing::warn!("list containers: {}", status.message());
            Vec::new()
        }
    };
    listed
        .into_iter()
        .filter(|container| container.labels.get(OWNER) == Some(&app.id))
        .map(|container| container.id)
        .filter(|id| !known.contains(id.as_str()))
        .collect()
}

/// The layers that containerd has of this engine.
#[derive(Default)]
pub(super) struct Layers {
    /// Containers' own.
    own: HashSet<String>,
    /// What an image's containers share.
    shared: Vec<String>,
    told: bool,
}

impl Layers {
    /// Whether the layer of a container is gone. A removal takes that away first, and durably, while its
    /// record may come back with a power cut.
    pub(super) fn lack(&self, id: &str) -> bool {
        self.told && !self.own.contains(id)
    }

    /// A containerd that has nothing at all of ours may be another one.
    pub(super) fn are_ours(&self) -> bool {
        !(self.own.is_empty() && self.shared.is_empty())
    }
}

pub(super) async fn layers(app: &App) -> Layers {
    let request = ListSnapshotsRequest { snapshotter: SNAPSHOTTER.to_owned(), filters: Vec::new() };
    let mut layers = Layers::default();
    let listed = async {
        let mut pages = app.containerd.snapshots().list(request).await?.into_inner();
        while let Some(page) = pages.message().await? {
            let ours = page.info.into_iter().filter(|info| info.labels.get(OWNER) == Some(&app.id));
            for info in ours {
                if info.kind() == Kind::Active {
                    layers.own.insert(info.name);
                } else {
                    layers.shared.push(info.name);
                }
            }
        }
        Ok::<(), tonic::Status>(())
    };
    match listed.await {
        Ok(()) => layers.told = true,
        Err(status) => tracing::warn!("list snapshots: {}", status.message()),
    }
    layers
}

/// Finishes a removal of which the disk has lost the rest.
pub(super) async fn removed(app: &App, record: &Record) {
    tracing::info!(container = record.id, "removing a record whose layer was removed");
    let paths = Paths::new(&app.config.data_root, &app.config.exec_root, &record.id);
    if record.state.remove_volumes || record.host_config.auto_remove {
        for mount in record.mounts.iter().filter(|mount| mount.anonymous) {
            if let Err(error) = app.volumes.remove(&mount.name, true).await {
                tracing::debug!(volume = mount.name, "{error}");
            }
        }
    }
    Record::remove(&paths);
    if let Err(error) = std::fs::remove_dir_all(&paths.dir) {
        tracing::warn!(path = %paths.dir.display(), "left behind: {error}");
    }
}

fn paths(app: &App, known: &[String]) -> Vec<PathBuf> {
    let (data, exec) = (&app.config.data_root, &app.config.exec_root);
    let mut kept: HashSet<PathBuf> = HashSet::new();
    for id in known {
        let paths = Paths::new(data, exec, id);
        kept.extend([paths.run, paths.rootfs, paths.netns, paths.shm, paths.attach]);
    }
    ["rootfs", "netns", "shm", "c", "a"]
        .iter()
        .flat_map(|name| entries(&exec.join(name)))
        .filter(|path| !kept.contains(path))
        .collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names: Vec<OsString> = names.map(|entry| entry.file_name()).collect();
    names.into_iter().map(|name| directory.join(name)).collect()
}

/// Unmounts first: what is below a mount is not ours to remove.
fn remove(path: &Path) -> std::io::Result<()> {
    sys::mount::unmount(path)?;
    if std::fs::symlink_metadata(path)?.is_dir() {
        // Only fifos are ever made in one of them; a full one means that a mount stayed.
        for entry in entries(path) {
            std::fs::remove_file(entry)?;
        }
        std::fs::remove_dir(path)
    } else {
        std::fs::remove_file(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_more_than_fifos_stays() {
        let top = tempfile::tempdir().unwrap();
        let stray = top.path().join("stray");
        std::fs::create_dir_all(stray.join("deep")).unwrap();
        assert!(remove(&stray).is_err());
        std::fs::remove_dir(stray.join("deep")).unwrap();
        std::fs::write(stray.join("stdin"), "").unwrap();
        remove(&stray).unwrap();
        assert!(!stray.exists());
    }
}
