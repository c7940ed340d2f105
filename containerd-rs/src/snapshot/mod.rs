//! Snapshots: file-system states in a tree. An active or a view snapshot gives mounts; a committed
//! one can be a parent. What exists is metadata here; the trees on disk belong to a
//! [`Snapshotter`].
//!
//! Keys: `snapshot␀namespace␀snapshotter␀name` → record, and for the children of a committed one
//! `snapchild␀namespace␀snapshotter␀parent␀name`.
//! A directory without a record is a left-over of a crash and removed at start; a record is only
//! made when its directory stands, a committed one when all that is in it is on the disk.

mod commit;
mod native;
mod overlay;
mod restore;
mod tree;

pub(crate) use self::commit::Commit;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::context::{Context, Namespace};
use crate::error::{Error, Result};
use crate::events::Events;
use crate::filter::{Fields, Filters, label};
use crate::lease;
use crate::store::labels::{apply_path, check_labels, drop_empty};
use crate::store::record::{Labels, Timestamp};
use crate::store::{Reader, Store, Transaction, check_name, fields, key, namespaces, prefix};

/// How to see a snapshot: one step of mount(8).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Mount {
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) options: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    View,
    Active,
    Committed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) size: u64,
    pub(crate) inodes: u64,
}

/// A snapshot as clients see it, and the number of its directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Info {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    #[serde(default)]
    pub(crate) parent: String,
    #[serde(default)]
    pub(crate) labels: Labels,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    #[serde(default)]
    pub(crate) usage: Usage,
}

/// The trees on disk, by number. All calls may block on the disk.
pub(crate) trait Snapshotter: Send + Sync {
    /// Where everything lives, and what is exported to clients.
    fn root(&self) -> &Path;
    /// A number that no directory of this snapshotter has, or ever had in this life of ours.
    fn next_id(&self) -> u64;
    /// This one is taken, whatever the disk shows.
    fn take_id(&self, id: u64);
    fn stands(&self, id: u64) -> bool;
    /// Makes the tree; parents nearest first.
    fn create(&self, id: u64, kind: Kind, parents: &[u64]) -> Result<()>;
    fn mounts(&self, id: u64, kind: Kind, parents: &[u64]) -> Vec<Mount>;
    fn usage(&self, id: u64) -> Result<Usage>;
    /// Puts the tree out of sight at once; the rest may follow.
    fn remove(&self, id: u64) -> Result<()>;
    /// Removes every tree that is not known; asks after having looked which there are.
    fn cleanup(&self, known: &dyn Fn() -> Result<HashSet<u64>>) -> Result<()>;
    /// What was written into the trees is on the disk afterwards.
    fn sync(&self) -> Result<()> {
        let root = self.root();
        let directory = std::fs::File::open(root).map_err(Error::io("open", root))?;
        rustix::fs::syncfs(&directory).map_err(|error| Error::io("sync", root)(error.into()))
    }
    fn capabilities(&self) -> &'static [&'static str] {
        &[]
    }
    /// Where the layer of a tree stands alone, without those below. None: its trees are whole.
    fn layer(&self, _id: u64) -> Option<PathBuf> {
        None
    }
}

#[derive(Clone)]
pub(crate) struct Snapshots(Arc<Inner>);

struct Inner {
    store: Store,
    events: Events,
    snapshotters: BTreeMap<&'static str, Arc<dyn Snapshotter>>,
    /// Numbers handed out whose record is not yet written; cleanup leaves them alone.
    fresh: std::sync::Mutex<HashSet<(String, u64)>>,
}

impl Snapshots {
    pub(crate) fn open(root: &Path, store: Store, events: Events) -> Result<Self> {
        let mut snapshotters: BTreeMap<&'static str, Arc<dyn Snapshotter>> = BTreeMap::new();
        let base = |name: &str| root.join(format!("io.containerd.snapshotter.v1.{name}"));
        snapshotters.insert("overlayfs", Arc::new(overlay::Overlay::open(&base("overlayfs"))?));
        snapshotters.insert("native", Arc::new(native::Native::open(&base("native"))?));
        let fresh = std::sync::Mutex::default();
        let snapshots = Self(Arc::new(Inner { store, events, snapshotters, fresh }));
        snapshots.restore()?;
        Ok(snapshots)
    }

    /// Name and trees of every snapshotter, for introspection.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, &dyn Snapshotter)> {
        self.0.snapshotters.iter().map(|(name, snapshotter)| (*name, snapshotter.as_ref()))
    }

    pub(crate) async fn prepare(
        &self,
        context: &Context,
        snapshotter: &str,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        self.make(context, snapshotter, key, parent, labels, Kind::Active).await
    }

    pub(crate) async fn view(
        &self,
        context: &Context,
        snapshotter: &str,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        self.make(context, snapshotter, key, parent, labels, Kind::View).await
    }

    async fn make(
        &self,
        context: &Context,
        snapshotter: &str,
        name: &str,
        parent: &str,
        mut labels: Labels,
        kind: Kind,
    ) -> Result<Vec<Mount>> {
        let trees = self.snapshotter(snapshotter)?.clone();
        check_name("snapshot key", name)?;
        check_labels(&labels)?;
        drop_empty(&mut labels);
        let parents = {
            let snapshot = self.0.store.snapshot()?;
            if snapshot.exists(&at(&context.namespace, snapshotter, name))? {
                return Err(Error::already_exists("snapshot", name));
            }
            chain(&snapshot, &context.namespace, snapshotter, parent)?
        };
        let now = Timestamp::now();
        let info = Info {
            id: trees.next_id(),
            name: name.to_owned(),
            kind,
            parent: parent.to_owned(),
            labels,
            created_at: now,
            updated_at: now,
            usage: Usage::default(),
        };
        let id = info.id;
        let _fresh = self.fresh(snapshotter, id);
        {
            let (trees, parents) = (trees.clone(), parents.clone());
            blocking(move || trees.create(id, kind, &parents)).await?;
        }
        let scope = context.clone();
        let by = snapshotter.to_owned();
        let recorded = self
            .0
            .store
            .write(move |transaction| {
                let at = at(&scope.namespace, &by, &info.name);
                if transaction.exists(&at)? {
                    return Err(Error::already_exists("snapshot", info.name));
                }
                if !info.parent.is_empty() {
                    committed(transaction, &scope.namespace, &by, &info.parent)?;
                    transaction.mark(&child(&scope.namespace, &by, &info.parent, &info.name));
                }
                namespaces::ensure(transaction, &scope.namespace)?;
                lease::hold(transaction, &scope, &format!("snapshots/{by}"), &info.name)?;
                transaction.put(&at, &info)
            })
            .await;
        if let Err(error) = recorded {
            let trees = trees.clone();
            blocking(move || trees.remove(id)).await?;
            return Err(error);
        }
        if kind == Kind::Active {
            self.0.events.snapshot_prepare(&context.namespace, snapshotter, name, parent);
        }
        Ok(trees.mounts(id, kind, &parents))
    }

    /// Where the layer of a snapshot stands alone; None where the snapshotter keeps whole trees.
    pub(crate) fn layer(
        &self,
        namespace: &Namespace,
        snapshotter: &str,
        name: &str,
    ) -> Result<Option<PathBuf>> {
        let trees = self.snapshotter(snapshotter)?;
        Ok(trees.layer(self.stat(namespace, snapshotter, name)?.id))
    }

    /// Whether layers can be unpacked before those below them.
    pub(crate) fn rebases(&self, snapshotter: &str) -> Result<bool> {
        Ok(self.snapshotter(snapshotter)?.capabilities().contains(&"rebase"))
    }

    pub(crate) fn mounts(
        &self,
        namespace: &Namespace,
        snapshotter: &str,
        key: &str,
    ) -> Result<Vec<Mount>> {
        let trees = self.snapshotter(snapshotter)?;
        let snapshot = self.0.store.snapshot()?;
        let info = load(&snapshot, namespace, snapshotter, key)?;
        if info.kind == Kind::Committed {
            // Compat: a committed snapshot cannot be mounted itself.
            return Err(Error::precondition(format!(
                "failed to get active mount: requested snapshot {key} not active or view"
            )));
        }
        let parents = chain(&snapshot, namespace, snapshotter, &info.parent)?;
        Ok(trees.mounts(info.id, info.kind, &parents))
    }

    pub(crate) async fn remove(
        &self,
        context: &Context,
        snapshotter: &str,
        name: &str,
    ) -> Result<()> {
        let trees = self.snapshotter(snapshotter)?.clone();
        let (scope, by, target) = (context.clone(), snapshotter.to_owned(), name.to_owned());
        let id = self
            .0
            .store
            .write(move |transaction| {
                let info = load(transaction, &scope.namespace, &by, &target)?;
                if transaction.any(&children(&scope.namespace, &by, &target))? {
                    return Err(Error::precondition("cannot remove snapshot with child"));
                }
                lease::release(transaction, &scope, &format!("snapshots/{by}"), &target);
                forget(transaction, scope.namespace.as_str(), &by, &info);
                Ok(info.id)
            })
            .await?;
        blocking(move || trees.remove(id)).await?;
        self.0.events.snapshot_remove(&context.namespace, snapshotter, name);
        Ok(())
    }

    pub(crate) fn stat(
        &self,
        namespace: &Namespace,
        snapshotter: &str,
        name: &str,
    ) -> Result<Info> {
        self.snapshotter(snapshotter)?;
        load(&self.0.store.snapshot()?, namespace, snapshotter, name)
    }

    pub(crate) fn list(
        &self,
        namespace: &Namespace,
        snapshotter: &str,
        filters: &Filters,
    ) -> Result<Vec<Info>> {
        self.snapshotter(snapshotter)?;
        let below = prefix(SNAPSHOT_IN, &[namespace.as_str(), snapshotter]);
        let mut all: Vec<Info> = self.0.store.snapshot()?.records(&below)?;
        all.retain(|info| filters.matches(info));
        Ok(all)
    }

    /// Paths of the mask: `labels`, `labels.<name>`; none means all labels.
    pub(crate) async fn update(
        &self,
        context: &Context,
        snapshotter: &str,
        name: &str,
        new: Labels,
        mask: Vec<String>,
    ) -> Result<Info> {
        self.snapshotter(snapshotter)?;
        let (namespace, by, name) =
            (context.namespace.clone(), snapshotter.to_owned(), name.to_owned());
        self.0
            .store
            .write(move |transaction| {
                let mut info = load(transaction, &namespace, &by, &name)?;
                if mask.is_empty() {
                    info.labels = new;
                } else {
                    for path in &mask {
                        if !apply_path(path, &mut info.labels, &new) {
                            return Err(Error::invalid(format!(
                                "cannot update {path} field on snapshot \"{name}\""
                            )));
                        }
                    }
                }
                check_labels(&info.labels)?;
                drop_empty(&mut info.labels);
                info.updated_at = Timestamp::now();
                transaction.put(&at(&namespace, &by, &name), &info)?;
                Ok(info)
            })
            .await
    }

    pub(crate) async fn usage(
        &self,
        namespace: &Namespace,
        snapshotter: &str,
        name: &str,
    ) -> Result<Usage> {
        let trees = self.snapshotter(snapshotter)?.clone();
        let info = self.stat(namespace, snapshotter, name)?;
        match info.kind {
            Kind::Committed | Kind::View => Ok(info.usage),
            Kind::Active => blocking(move || trees.usage(info.id)).await,
        }
    }

    /// Removes trees that no record knows.
    pub(crate) async fn cleanup(&self, snapshotter: &str) -> Result<()> {
        let trees = self.snapshotter(snapshotter)?.clone();
        let (snapshots, by) = (self.clone(), snapshotter.to_owned());
        let known = move || {
            // In this order: a tree leaves the fresh ones when its record is written.
            let mut known: HashSet<u64> = {
                let fresh =
                    snapshots.0.fresh.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                fresh.iter().filter(|(other, _)| *other == by).map(|(_, id)| *id).collect()
            };
            let all = every(&snapshots.0.store.snapshot()?)?;
            known.extend(all.into_iter().filter(|(_, other, _)| *other == by).map(|(.., i)| i.id));
            Ok(known)
        };
        blocking(move || trees.cleanup(&known)).await
    }

    /// Removes what a crash left of every snapshotter.
    pub(crate) async fn recover(&self) {
        for name in self.0.snapshotters.keys() {
            if let Err(error) = self.cleanup(name).await {
                tracing::warn!(snapshotter = name, %error, "remove left-over snapshots");
            }
        }
    }

    /// Removes the trees of snapshots whose records the collector removed.
    pub(crate) async fn discard(&self, removed: Vec<(Namespace, String, Info)>) {
        for (namespace, snapshotter, info) in removed {
            let Ok(trees) = self.snapshotter(&snapshotter).cloned() else { continue };
            let id = info.id;
            if let Err(error) = blocking(move || trees.remove(id)).await {
                tracing::warn!(snapshotter, id, %error, "remove snapshot tree");
            }
            self.0.events.snapshot_remove(&namespace, &snapshotter, &info.name);
        }
    }

    fn snapshotter(&self, name: &str) -> Result<&Arc<dyn Snapshotter>> {
        self.0.snapshotters.get(name).ok_or_else(|| {
            // Compat: an empty name is a missing argument, a strange one is not found.
            if name.is_empty() {
                Error::invalid("snapshotter argument missing")
            } else {
                Error::invalid(format!("snapshotter not loaded: {name}"))
            }
        })
    }

    fn fresh(&self, snapshotter: &str, id: u64) -> Fresh<'_> {
        let entry = (snapshotter.to_owned(), id);
        let mut fresh = self.0.fresh.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        fresh.insert(entry.clone());
        Fresh { snapshots: self, entry }
    }
}

struct Fresh<'a> {
    snapshots: &'a Snapshots,
    entry: (String, u64),
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        let fresh = &self.snapshots.0.fresh;
        fresh.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&self.entry);
    }
}

impl Fields for Info {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.split_first()? {
            (first, []) if first == "name" => Some(self.name.as_str().into()),
            (first, []) if first == "parent" => Some(self.parent.as_str().into()),
            (first, []) if first == "kind" => Some(
                match self.kind {
                    Kind::View => "view",
                    Kind::Active => "active",
                    Kind::Committed => "committed",
                }
                .into(),
            ),
            (first, rest) if first == "labels" => label(&self.labels, rest),
            _ => None,
        }
    }
}

/// Every snapshot with namespace and snapshotter, for the collector.
pub(crate) fn every(reader: &impl Reader) -> Result<Vec<(String, String, Info)>> {
    let mut all = Vec::new();
    reader.scan(&prefix(SNAPSHOT_IN, &[]), &mut |key, value| {
        let info = serde_json::from_slice(value)
            .map_err(|source| Error::Record { key: SNAPSHOT_IN.into(), source })?;
        if let [_, namespace, snapshotter, _] = fields(key).as_slice() {
            all.push((namespace.clone(), snapshotter.clone(), info));
        }
        Ok(true)
    })?;
    Ok(all)
}

/// Takes a snapshot out of the metadata.
pub(crate) fn forget(
    transaction: &mut Transaction<'_>,
    namespace: &str,
    snapshotter: &str,
    info: &Info,
) {
    transaction.remove(&key(SNAPSHOT_IN, &[namespace, snapshotter, &info.name]));
    if !info.parent.is_empty() {
        transaction.remove(&key(CHILD, &[namespace, snapshotter, &info.parent, &info.name]));
    }
}

fn load(reader: &impl Reader, namespace: &Namespace, by: &str, name: &str) -> Result<Info> {
    let found = reader.record(&at(namespace, by, name))?;
    found.ok_or_else(|| gone("snapshot", name))
}

fn committed(reader: &impl Reader, namespace: &Namespace, by: &str, name: &str) -> Result<Info> {
    let info = match load(reader, namespace, by, name) {
        // Compat: the parent is named as such.
        Err(Error::SnapshotGone { .. }) => return Err(gone("parent snapshot", name)),
        other => other?,
    };
    if info.kind != Kind::Committed {
        return Err(Error::invalid(format!(
            "failed to create snapshot: parent \"{name}\" is not committed snapshot"
        )));
    }
    Ok(info)
}

/// The numbers of a committed snapshot and its ancestors, nearest first.
fn chain(reader: &impl Reader, namespace: &Namespace, by: &str, name: &str) -> Result<Vec<u64>> {
    let mut ids = Vec::new();
    let mut next = name.to_owned();
    while !next.is_empty() {
        let info = committed(reader, namespace, by, &next)?;
        ids.push(info.id);
        next = info.parent;
    }
    Ok(ids)
}

fn gone(what: &'static str, name: &str) -> Error {
    Error::SnapshotGone { what, name: name.to_owned() }
}

/// The snapshotters that a namespace has snapshots of.
pub(crate) fn used(reader: &impl Reader, namespace: &Namespace) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    reader.scan(&prefix(SNAPSHOT_IN, &[namespace.as_str()]), &mut |key, _| {
        names.extend(fields(key).into_iter().nth(2));
        Ok(true)
    })?;
    Ok(names)
}

fn at(namespace: &Namespace, snapshotter: &str, name: &str) -> Vec<u8> {
    key(SNAPSHOT_IN, &[namespace.as_str(), snapshotter, name])
}

fn child(namespace: &Namespace, snapshotter: &str, parent: &str, name: &str) -> Vec<u8> {
    key(CHILD, &[namespace.as_str(), snapshotter, parent, name])
}

fn children(namespace: &Namespace, snapshotter: &str, parent: &str) -> Vec<u8> {
    prefix(CHILD, &[namespace.as_str(), snapshotter, parent])
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Closed)?
}

const SNAPSHOT_IN: &str = "snapshot";
const CHILD: &str = "snapchild";

#[cfg(test)]
mod suite;
