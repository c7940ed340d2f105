//! Layers becoming snapshots.
//!
//! Where a snapshotter keeps every layer for itself they are unpacked side by side, as they arrive, and
//! committed in order, as many at once as are ready: one wait for the disk for all of these. Elsewhere each
//! needs the one below, and they go one after the other.

use std::path::PathBuf;
use std::sync::Arc;

use oci_image::Digest;
use oci_image::digest::chain_ids;
use oci_image::layer::{Missing, Whiteouts};
use oci_image::manifest::{ImageConfig, Manifest};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::blobs::Blobs;
use super::destination::{Unpack, to_record};
use super::error::{Result, TransferError as Error};
use super::progress::Object;
use crate::diff::inherit;
use crate::error::Error as StoreError;
use crate::snapshot::Commit;
use crate::store::record::Labels;

/// One image's layers on their way. Dropped early, what is under way ends soon; what it leaves belongs to the
/// lease.
pub(super) struct Unpacking {
    shared: Arc<Shared>,
    states: Vec<State>,
    work: JoinSet<Result<Done>>,
    committing: bool,
    _stop: DropGuard,
}

struct Shared {
    blobs: Blobs,
    snapshotter: String,
    layers: Vec<Object>,
    diff_ids: Vec<Digest>,
    chain: Vec<Digest>,
    side_by_side: bool,
    processors: Semaphore,
    stop: CancellationToken,
}

enum State {
    Awaited,
    Arrived,
    Busy,
    /// None: its snapshot was there before.
    Laid(Option<Laid>),
    /// Committed.
    There,
}

/// A layer in an active snapshot.
struct Laid {
    key: String,
    /// Where it stands alone, and what it lacks there.
    alone: Option<(PathBuf, Missing)>,
}

enum Done {
    Laid(usize, Option<Laid>),
    Committed(usize),
}

impl Unpacking {
    pub(super) fn new(
        blobs: &Blobs,
        unpack: &Unpack,
        manifest: &Manifest,
        config: &ImageConfig,
        layers: Vec<Object>,
    ) -> Result<Self> {
        let diff_ids = config.rootfs.diff_ids.clone();
        if diff_ids.len() != manifest.layers.len() {
            let layers = manifest.layers.len();
            return Err(Error::Layers { layers, diff_ids: diff_ids.len() });
        }
        let chain = chain_ids(&diff_ids);
        let snapshotter = if unpack.snapshotter.is_empty() {
            DEFAULT_SNAPSHOTTER.to_owned()
        } else {
            unpack.snapshotter.clone()
        };
        let side_by_side = blobs.app.snapshots.rebases(&snapshotter);
        let side_by_side = side_by_side.map_err(Error::store("find snapshotter"))?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let stop = CancellationToken::new();
        let states = layers.iter().map(|_| State::Awaited).collect();
        let shared = Shared {
            blobs: blobs.clone(),
            snapshotter,
            layers,
            diff_ids,
            chain,
            side_by_side,
            processors: Semaphore::new(processors),
            stop: stop.clone(),
        };
        let (shared, work) = (Arc::new(shared), JoinSet::new());
        Ok(Self { shared, states, work, committing: false, _stop: stop.drop_guard() })
    }

    /// The blob of this layer is there.
    pub(super) fn arrived(&mut self, index: usize) {
        self.states[index] = State::Arrived;
        self.begin();
    }

    /// Waits for the next step that ends; None when none is under way.
    pub(super) async fn step(&mut self) -> Option<Result<()>> {
        match self.work.join_next().await? {
            Ok(Ok(done)) => self.done(done),
            Ok(Err(error)) => return Some(Err(error)),
            Err(_) => return Some(Err(Error::Abandoned)),
        }
        Some(Ok(()))
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Laid(index, laid) => self.states[index] = State::Laid(laid),
            Done::Committed(count) => {
                self.committing = false;
                let next = self.next();
                self.states[next..next + count].fill_with(|| State::There);
            }
        }
        self.begin();
    }

    /// The lowest layer that is not committed.
    fn next(&self) -> usize {
        self.states.iter().take_while(|state| matches!(state, State::There)).count()
    }

    /// Begins whatever can be begun.
    fn begin(&mut self) {
        let next = self.next();
        let last = if self.shared.side_by_side { self.states.len() } else { next + 1 };
        for (index, state) in self.states.iter_mut().enumerate().take(last) {
            if matches!(state, State::Arrived) {
                *state = State::Busy;
                self.work.spawn(Arc::clone(&self.shared).lay(index));
            }
        }
        if self.committing {
            return;
        }
        let mut ready = Vec::new();
        for state in &mut self.states[next..] {
            match std::mem::replace(state, State::Busy) {
                State::Laid(laid) => ready.push(laid),
                other => {
                    *state = other;
                    break;
                }
            }
        }
        if !ready.is_empty() {
            self.committing = true;
            self.work.spawn(Arc::clone(&self.shared).commit(next, ready));
        }
    }

    /// Labels the config with what was made, when all of it is.
    pub(super) async fn finish(self, config: &Digest) -> Result<()> {
        let Some(top) = self.shared.chain.last() else { return Ok(()) };
        let label = (format!("{REF_SNAPSHOT}.{}", self.shared.snapshotter), top.to_string());
        self.shared.blobs.label(config, Labels::from([label])).await
    }

    /// Ends what is under way, and takes away what was made of it and cannot be used.
    pub(super) async fn give_up(mut self) {
        self.shared.stop.cancel();
        while let Some(ended) = self.work.join_next().await {
            if let Ok(Ok(Done::Laid(index, laid))) = ended {
                self.states[index] = State::Laid(laid);
            }
        }
        for state in self.states {
            if let State::Laid(Some(laid)) = state {
                self.shared.remove(&laid.key).await;
            }
        }
    }
}

impl Shared {
    /// Makes an active snapshot of a layer, unless there is the committed one.
    async fn lay(self: Arc<Self>, index: usize) -> Result<Done> {
        let (blobs, object) = (&self.blobs, &self.layers[index]);
        let (chain, by) = (self.chain[index].as_str(), self.snapshotter.as_str());
        if blobs.app.snapshots.stat(&blobs.context.namespace, by, chain).is_ok() {
            self.hold(chain).await?;
            return Ok(Done::Laid(index, None));
        }
        let _permit = self.processors.acquire().await.map_err(|_| Error::Abandoned)?;
        blobs.report.object("extracting", object, 0).await;
        let key = format!("extract-{} {chain}", unique());
        let laid = self.extract(index, &key).await;
        if laid.is_err() {
            self.remove(&key).await;
        }
        laid.map(|alone| Done::Laid(index, Some(Laid { key, alone })))
    }

    async fn extract(&self, index: usize, key: &str) -> Result<Option<(PathBuf, Missing)>> {
        let (app, context) = (&self.blobs.app, &self.blobs.context);
        let by = self.snapshotter.as_str();
        let diff_id = &self.diff_ids[index];
        let failed = |source| Error::Extract { diff_id: diff_id.clone(), source };
        let layer = &self.layers[index].descriptor;
        let below = index.checked_sub(1).filter(|_| !self.side_by_side);
        let parent = below.map_or("", |below| self.chain[below].as_str());
        let labels = self.labels(index);
        let mounts = app.snapshots.prepare(context, by, key, parent, labels).await;
        let mounts = mounts.map_err(failed)?;
        let alone = app.snapshots.layer(&context.namespace, by, key).map_err(failed)?;
        let (found, alone) = match alone.filter(|_| self.side_by_side) {
            Some(directory) => {
                // The lowest hides nothing.
                let whiteouts = if index == 0 { Whiteouts::Remove } else { Whiteouts::Overlay };
                let (into, stop) = (directory.clone(), self.stop.clone());
                let unpacked =
                    app.diff.unpack(context, &to_record(layer), into, whiteouts, stop).await;
                let unpacked = unpacked.map_err(failed)?;
                (unpacked.diff_id.to_string(), Some((directory, unpacked.missing)))
            }
            None => {
                let applied = app.diff.apply(context, &to_record(layer), mounts, false).await;
                (applied.map_err(failed)?.digest, None)
            }
        };
        if found != diff_id.as_str() {
            let (layer, want) = (layer.digest.clone(), diff_id.clone());
            return Err(Error::DiffId { layer, got: found, want });
        }
        Ok(alone)
    }

    /// Commits the layers from `first` on, as many as are ready.
    async fn commit(self: Arc<Self>, first: usize, ready: Vec<Option<Laid>>) -> Result<Done> {
        let fresh: Vec<bool> = ready.iter().map(Option::is_some).collect();
        let keys: Vec<String> = ready.iter().flatten().map(|laid| laid.key.clone()).collect();
        let committed = match self.take_over(first, &ready).await {
            Ok(()) => self.commit_all(first, ready).await,
            Err(error) => Err(error),
        };
        if committed.is_err() {
            for key in &keys {
                self.remove(key).await;
            }
        }
        for key in committed? {
            // Somebody else unpacked the same layer meanwhile.
            self.remove(&key).await;
        }
        let count = fresh.len();
        for (index, fresh) in (first..).zip(fresh) {
            let object = &self.layers[index];
            if fresh {
                self.blobs.report.object("extracted", object, object.descriptor.size).await;
            }
            let label = (UNCOMPRESSED.to_owned(), self.diff_ids[index].to_string());
            self.blobs.label(&object.descriptor.digest, Labels::from([label])).await?;
        }
        Ok(Done::Committed(count))
    }

    /// What the layers lack they have from those below.
    async fn take_over(&self, first: usize, ready: &[Option<Laid>]) -> Result<()> {
        let (app, context) = (&self.blobs.app, &self.blobs.context);
        let failed = |index: usize| {
            let diff_id = self.diff_ids[index].clone();
            move |source| Error::Extract { diff_id, source }
        };
        let alone: Vec<_> =
            ready.iter().map(|laid| laid.as_ref().and_then(|laid| laid.alone.clone())).collect();
        if alone.iter().all(Option::is_none) {
            return Ok(());
        }
        // Nearest last.
        let mut below = Vec::new();
        for index in 0..first + alone.len() {
            let own = index.checked_sub(first).and_then(|at| alone[at].clone());
            let chain = self.chain[index].as_str();
            let directory = match &own {
                Some((directory, _)) => Some(directory.clone()),
                None => {
                    let layer = app.snapshots.layer(&context.namespace, &self.snapshotter, chain);
                    layer.map_err(failed(index))?
                }
            };
            if let Some((directory, missing)) = own {
                let below: Vec<PathBuf> = below.iter().rev().cloned().collect();
                let work = move || inherit(&directory, &missing, &below);
                let done = tokio::task::spawn_blocking(work).await;
                done.map_err(|_| Error::Abandoned)?.map_err(failed(index))?;
            }
            below.extend(directory);
        }
        Ok(())
    }

    /// Answers the keys of those that others had committed.
    async fn commit_all(&self, first: usize, ready: Vec<Option<Laid>>) -> Result<Vec<String>> {
        let commits: Vec<Commit> = (first..)
            .zip(ready)
            .filter_map(|(index, laid)| {
                let below = index.checked_sub(1).filter(|_| self.side_by_side);
                Some(Commit {
                    key: laid?.key,
                    name: self.chain[index].to_string(),
                    labels: self.labels(index),
                    onto: below.map(|below| self.chain[below].to_string()),
                })
            })
            .collect();
        if commits.is_empty() {
            return Ok(Vec::new());
        }
        let diff_id = self.diff_ids[first].clone();
        let snapshots = &self.blobs.app.snapshots;
        let committed = snapshots.commit_all(&self.blobs.context, &self.snapshotter, commits);
        committed.await.map_err(|source| Error::Extract { diff_id, source })
    }

    fn labels(&self, index: usize) -> Labels {
        Labels::from([(SNAPSHOT_REF.to_owned(), self.chain[index].to_string())])
    }

    async fn remove(&self, key: &str) {
        let (app, context) = (&self.blobs.app, &self.blobs.context);
        match app.snapshots.remove(context, &self.snapshotter, key).await {
            Ok(()) | Err(StoreError::SnapshotGone { .. }) => {}
            Err(error) => tracing::warn!(key, %error, "remove half-made snapshot"),
        }
    }

    /// Puts a snapshot that was there already under our lease.
    async fn hold(&self, chain: &str) -> Result<()> {
        let context = &self.blobs.context;
        let Some(lease) = &context.lease else { return Ok(()) };
        let resource = crate::lease::Resource {
            kind: format!("snapshots/{}", self.snapshotter),
            id: chain.to_owned(),
        };
        let leases = &self.blobs.app.leases;
        let held = leases.add_resource(&context.namespace, lease, resource).await;
        held.map_err(Error::store("hold snapshot"))
    }
}

/// Tells extractions of the same layer apart.
fn unique() -> String {
    let mut random = [0_u8; 6];
    getrandom::fill(&mut random).unwrap_or_default();
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{text}", crate::store::record::Timestamp::now().subsec_nanosecond())
}

const UNCOMPRESSED: &str = "containerd.io/uncompressed";
const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
const REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot";
const DEFAULT_SNAPSHOTTER: &str = "overlayfs";
