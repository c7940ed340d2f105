//! A container's root file system: image, shared `-init` layer, own layer; mounted once by us.
//!
//! ```text
//!  <chain id>             committed by containerd when it unpacked the image
//!  <chain id>-init        committed by us: /dev skeleton, empty /etc/{hosts,hostname,resolv.conf}
//!  <container id>         the container's own, active
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proto::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
    StatSnapshotRequest, UsageRequest,
};
use proto::containerd::types::Mount;

use super::{Container, ContainerError};
use crate::app::App;
use crate::containerd::SNAPSHOTTER;
use crate::image::ImageError;
use crate::sys;
use crate::sys::inside::Inside;

/// Prepares the container's own snapshot.
pub(crate) async fn prepare(app: &App, id: &str, chain_id: &str) -> Result<(), ContainerError> {
    let request = |parent: String| PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: id.to_owned(),
        parent,
        labels: labels(app),
    };
    let parent = init_name(chain_id);
    match app.containerd.snapshots().prepare(request(parent.clone())).await {
        Ok(_) => return Ok(()),
        Err(status) if status.code() == tonic::Code::NotFound => {}
        Err(status) => return Err(ContainerError::containerd("prepare snapshot")(status)),
    }
    make_init(app, chain_id).await?;
    app.containerd
        .snapshots()
        .prepare(request(parent))
        .await
        .map_err(ContainerError::containerd("prepare snapshot"))?;
    Ok(())
}

/// Removes the container's snapshot; absence is fine.
pub(crate) async fn remove(app: &App, id: &str) -> Result<(), ContainerError> {
    let request = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: id.to_owned() };
    match app.containerd.snapshots().remove(request).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
        Err(status) => Err(ContainerError::containerd("remove snapshot")(status)),
    }
}

/// Removes the snapshot of a container that does not exist, as soon as that can be done.
pub(super) fn remove_later(app: &Arc<App>, id: String) {
    let app = Arc::clone(app);
    tokio::spawn(async move {
        let mut pause = 0;
        loop {
            pause = super::lifecycle::backoff(pause, 0);
            tokio::select! {
                () = app.shutdown.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            }
            if remove(&app, &id).await.is_ok() {
                return;
            }
        }
    });
}

/// Forgets, of the layers that the containers of an image share, those that neither an image nor a container
/// has a use for any more.
pub(crate) async fn forget_unused(app: &App, mut chains: Vec<String>) {
    let mut used = app.images.chains().await;
    used.extend(app.containers.all().iter().map(|one| one.record().chain_id.clone()));
    chains.retain(|chain| !used.contains(chain));
    forget_inits(app, &chains).await;
}

/// The same for the one that the last container of an image had.
pub(super) async fn forget_init(app: &App, image: &str, chain: &str) {
    if app.containers.all().iter().all(|other| other.record().chain_id != chain)
        && matches!(app.images.resolve(image, "").await, Err(ImageError::NotFound(_)))
    {
        forget_inits(app, &[chain.to_owned()]).await;
    }
}

/// Forgets these, and collects what only they held. In use or absent is fine.
async fn forget_inits(app: &App, chains: &[String]) {
    let mut forgotten = false;
    for chain in chains {
        let request =
            RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: init_name(chain) };
        match app.containerd.snapshots().remove(request).await {
            Ok(_) => forgotten = true,
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => tracing::debug!(chain, "init layer stays: {}", status.message()),
        }
    }
    if forgotten && let Err(error) = app.images.collect().await {
        tracing::debug!("layers stay until something else is removed: {error}");
    }
}

/// Mounts the container's snapshot on `target`, unless it is.
pub(crate) async fn mount(app: &App, id: &str, target: &Path) -> Result<(), ContainerError> {
    if sys::mount::is_mounted(target) {
        return Ok(());
    }
    mount_all(mounts(app, id).await?, target).await
}

/// Unmounts and removes the mount point.
pub(crate) async fn unmount(target: &Path) -> Result<(), ContainerError> {
    let target = target.to_owned();
    blocking(move || {
        sys::mount::unmount(&target)
            .map_err(ContainerError::kernel(format!("unmount {}", target.display())))?;
        drop(std::fs::remove_dir(&target));
        Ok(())
    })
    .await
}

/// Bytes of what the container wrote, and of everything in its root.
pub(crate) async fn sizes(app: &App, container: &Container) -> (i64, i64) {
    let own = own_size(app, &container.id).await.unwrap_or_else(|error| {
        tracing::warn!(container = container.id, "{error}");
        0
    });
    let mut all = own;
    let mut key = container.record().chain_id.clone();
    let mut snapshots = app.containerd.snapshots();
    let snapshotter = || SNAPSHOTTER.to_owned();
    while !key.is_empty() {
        let request = UsageRequest { snapshotter: snapshotter(), key: key.clone() };
        let Ok(usage) = snapshots.usage(request).await else { break };
        all = all.saturating_add(usage.into_inner().size);
        let request = StatSnapshotRequest { snapshotter: snapshotter(), key };
        let Ok(stat) = snapshots.stat(request).await else { break };
        key = stat.into_inner().info.map(|info| info.parent).unwrap_or_default();
    }
    (own, all)
}

/// containerd would count blocks, and those of directories too.
async fn own_size(app: &App, id: &str) -> Result<i64, ContainerError> {
    let mounts = mounts(app, id).await?;
    let own = mounts.iter().flat_map(|mount| &mount.options).find_map(|option| {
        let directory = option.strip_prefix("upperdir=")?;
        Some(PathBuf::from(directory))
    });
    let Some(own) = own else { return Ok(0) };
    blocking(move || {
        let layer = Inside::open(&own).map_err(ContainerError::io("open layer"))?;
        Ok(i64::try_from(layer.size()).unwrap_or(i64::MAX))
    })
    .await
}

async fn mounts(app: &App, id: &str) -> Result<Vec<Mount>, ContainerError> {
    let request = MountsRequest { snapshotter: SNAPSHOTTER.to_owned(), key: id.to_owned() };
    let answer = app.containerd.snapshots().mounts(request).await;
    Ok(answer.map_err(ContainerError::containerd("mounts of snapshot"))?.into_inner().mounts)
}

/// Runs file and mount work off the reactor.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ContainerError> + Send + 'static,
) -> Result<T, ContainerError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ContainerError::OwnerGone)?
}

async fn mount_all(mounts: Vec<Mount>, target: &Path) -> Result<(), ContainerError> {
    let target = target.to_owned();
    blocking(move || {
        std::fs::create_dir_all(&target)
            .map_err(ContainerError::io(format!("create {}", target.display())))?;
        for mount in &mounts {
            sys::mount::apply(mount, &target).map_err(ContainerError::kernel(format!(
                "mount {} on {}",
                mount.r#type,
                target.display()
            )))?;
        }
        Ok(())
    })
    .await
}

async fn make_init(app: &App, chain_id: &str) -> Result<(), ContainerError> {
    let name = init_name(chain_id);
    let stat = StatSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: name.clone() };
    if app.containerd.snapshots().stat(stat).await.is_ok() {
        return Ok(());
    }
    let id = sys::dirs::random_id()
        .map_err(|error| ContainerError::Invalid(format!("random bytes: {error}")))?;
    let key = format!("init-{id}");
    let mounts = app
        .containerd
        .snapshots()
        .prepare(PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.clone(),
            parent: chain_id.to_owned(),
            labels: labels(app),
        })
        .await
        .map_err(ContainerError::containerd("prepare init snapshot"))?
        .into_inner()
        .mounts;
    let target = app.config.exec_root.join("rootfs").join(&key);
    let filled = async {
        mount_all(mounts, &target).await?;
        let root = target.clone();
        blocking(move || skeleton(&root).map_err(ContainerError::io("init layer"))).await
    }
    .await;
    let unmounted = unmount(&target).await;
    if let Err(error) = filled.and(unmounted) {
        remove(app, &key).await?;
        return Err(error);
    }
    let commit = CommitSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        name,
        key: key.clone(),
        labels: labels(app),
        ..CommitSnapshotRequest::default()
    };
    match app.containerd.snapshots().commit(commit).await {
        Ok(_) => Ok(()),
        // Someone else was faster.
        Err(status) if status.code() == tonic::Code::AlreadyExists => remove(app, &key).await,
        Err(status) => Err(ContainerError::containerd("commit init snapshot")(status)),
    }
}

/// What every container finds in its root besides the image.
fn skeleton(root: &Path) -> std::io::Result<()> {
    let inside = Inside::open(root)?;
    for dir in ["/dev/pts", "/dev/shm", "/proc", "/sys", "/etc"] {
        inside.make_dirs(dir, 0o755)?;
    }
    for file in ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/dev/console", "/.dockerenv"] {
        inside.touch(file, 0o755)?;
    }
    inside.symlink("/proc/mounts", "/etc/mtab")
}

fn init_name(chain_id: &str) -> String {
    if chain_id.is_empty() { "scratch-init".to_owned() } else { format!("{chain_id}-init") }
}

fn labels(app: &App) -> HashMap<String, String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(now.as_secs()).unwrap_or_default();
    HashMap::from([
        ("containerd.io/gc.root".to_owned(), docker_api::time::rfc3339_nano(seconds, 0)),
        ("dockerd-rs.engine".to_owned(), app.id.clone()),
    ])
}
