//! The garbage collector: what no root leads to, goes.
//!
//! Roots are leases, images, containers (each until its expiry label says otherwise), and content
//! and snapshots with the label `containerd.io/gc.root`. From there `containerd.io/gc.ref.*`
//! labels, image targets, snapshot parents and lease members are followed. Marking reads a
//! snapshot of the metadata; the removal transaction checks that nothing was committed since and
//! marks again if so. Metadata goes first, then snapshot trees, then bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::content::{self, Content};
use crate::context::Namespace;
use crate::error::Result;
use crate::events::Events;
use crate::lease;
use crate::snapshot::{self, Snapshots};
use crate::store::record::{Image, Labels, Timestamp};
use crate::store::{Reader, Store, Transaction, containers, fields, images, key, prefix};

#[derive(Clone)]
pub(crate) struct Collector(Arc<Inner>);

struct Inner {
    store: Store,
    content: Content,
    snapshots: Snapshots,
    events: Events,
    wake: Notify,
    mutations: AtomicU32,
    /// One run at a time.
    running: Mutex<()>,
}

/// Something that can be collected, in its namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Content(String),
    Snapshot(String, String),
    Image(String),
}

type Scoped = (String, Node);

/// The graph of one moment.
#[derive(Default)]
struct Graph {
    edges: BTreeMap<Scoped, Vec<Node>>,
    roots: Vec<Scoped>,
    /// Members of flat leases: kept, not followed.
    flat: Vec<Scoped>,
    snapshots: BTreeMap<(String, Node), snapshot::Info>,
    expired_leases: Vec<(String, String)>,
}

#[derive(Default, Debug)]
struct Dead {
    content: Vec<(String, String)>,
    snapshots: Vec<(String, String, snapshot::Info)>,
    images: Vec<(String, String)>,
    leases: Vec<(String, String)>,
}

impl Collector {
    pub(crate) fn new(
        store: Store,
        content: Content,
        snapshots: Snapshots,
        events: Events,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            content,
            snapshots,
            events,
            wake: Notify::new(),
            mutations: AtomicU32::new(0),
            running: Mutex::new(()),
        }))
    }

    /// Something was removed: a collection follows soon.
    pub(crate) fn schedule(&self) {
        self.0.wake.notify_one();
    }

    /// Something changed: a collection follows after many of these.
    pub(crate) fn mutated(&self) {
        if self.0.mutations.fetch_add(1, Ordering::Relaxed) >= MUTATIONS {
            self.schedule();
        }
    }

    /// Collects on request, a little after start, and never twice within the pause.
    pub(crate) async fn serve(self, end: CancellationToken) {
        let mut pause = START;
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if let Err(error) = self.run().await {
                tracing::error!(%error, "garbage collection");
            }
            pause = PAUSE;
            tokio::select! {
                () = end.cancelled() => return,
                () = self.0.wake.notified() => {}
            }
        }
    }

    /// One whole collection.
    pub(crate) async fn run(&self) -> Result<()> {
        let _alone = self.0.running.lock().await;
        self.0.mutations.store(0, Ordering::Relaxed);
        let started = std::time::Instant::now();
        let generation = self.0.store.generation();
        let dead = {
            let store = self.0.store.clone();
            let marked = tokio::task::spawn_blocking(move || mark(&store.snapshot()?));
            marked.await.map_err(|_| crate::error::Error::Closed)??
        };
        let dead = if dead.is_empty() {
            dead
        } else {
            let store = self.0.store.clone();
            self.0
                .store
                .write(move |transaction| {
                    // A batch that was committed since may have made a new reference; so may an
                    // earlier request of this batch, which is why only an unchanged store will do.
                    let dead = if store.generation() == generation && transaction.is_first() {
                        dead
                    } else {
                        mark(transaction)?
                    };
                    remove(transaction, &dead)?;
                    Ok(dead)
                })
                .await?
        };
        for (namespace, name) in &dead.images {
            if let Ok(namespace) = Namespace::parse(namespace) {
                self.0.events.image_delete(&namespace, name);
            }
        }
        // Compat: collected content is not announced.
        let (blobs, snapshots) = (dead.content.len(), dead.snapshots.len());
        let trees = dead.snapshots.into_iter().filter_map(|(namespace, by, info)| {
            Namespace::parse(&namespace).ok().map(|namespace| (namespace, by, info))
        });
        self.0.snapshots.discard(trees.collect()).await;
        self.0.content.sweep().await?;
        tracing::debug!(blobs, snapshots, elapsed = ?started.elapsed(), "collected garbage");
        Ok(())
    }
}

impl Dead {
    fn is_empty(&self) -> bool {
        self.content.is_empty()
            && self.snapshots.is_empty()
            && self.images.is_empty()
            && self.leases.is_empty()
    }
}

fn mark(reader: &impl Reader) -> Result<Dead> {
    let graph = Graph::read(reader)?;
    let mut alive: BTreeSet<&Scoped> = BTreeSet::new();
    let mut waiting: Vec<Scoped> = graph.roots.clone();
    while let Some(next) = waiting.pop() {
        let Some((known, edges)) = graph.edges.get_key_value(&next) else { continue };
        if alive.insert(known) {
            waiting.extend(edges.iter().map(|edge| (next.0.clone(), edge.clone())));
        }
    }
    for kept in &graph.flat {
        if let Some((known, _)) = graph.edges.get_key_value(kept) {
            alive.insert(known);
        }
    }
    let mut dead = Dead { leases: graph.expired_leases.clone(), ..Dead::default() };
    for scoped in graph.edges.keys().filter(|scoped| !alive.contains(scoped)) {
        let namespace = scoped.0.clone();
        match &scoped.1 {
            Node::Content(digest) => dead.content.push((namespace, digest.clone())),
            Node::Image(name) => dead.images.push((namespace, name.clone())),
            Node::Snapshot(by, _) => {
                if let Some(info) = graph.snapshots.get(scoped) {
                    dead.snapshots.push((namespace, by.clone(), info.clone()));
                }
            }
        }
    }
    Ok(dead)
}

fn remove(transaction: &mut Transaction<'_>, dead: &Dead) -> Result<()> {
    for (namespace, id) in &dead.leases {
        lease::remove(transaction, &Namespace::parse(namespace)?, id)?;
    }
    for (namespace, name) in &dead.images {
        transaction.remove(&key(images::IMAGE, &[namespace, name]));
    }
    for (namespace, digest) in &dead.content {
        content::forget(transaction, namespace, digest);
    }
    for (namespace, by, info) in &dead.snapshots {
        snapshot::forget(transaction, namespace, by, info);
    }
    Ok(())
}

impl Graph {
    fn read(reader: &impl Reader) -> Result<Self> {
        let mut graph = Self::default();
        let now = Timestamp::now();
        graph.read_leases(reader, now)?;
        for (namespace, image) in scoped::<Image>(reader, images::IMAGE)? {
            let mut edges = references(&image.labels);
            edges.push(Node::Content(image.target.digest));
            let node = (namespace, Node::Image(image.name));
            if !expired(&image.labels, now) {
                graph.roots.push(node.clone());
            }
            graph.edges.insert(node, edges);
        }
        for (namespace, container) in scoped::<Holder>(reader, containers::CONTAINER)? {
            let mut edges = references(&container.labels);
            edges.push(Node::Snapshot(container.snapshotter, container.snapshot_key));
            graph.roots.extend(edges.into_iter().map(|edge| (namespace.clone(), edge)));
        }
        for (namespace, info) in scoped::<content::Info>(reader, content::BLOB)? {
            let node = (namespace, Node::Content(info.digest));
            if info.labels.contains_key(ROOT) {
                graph.roots.push(node.clone());
            }
            graph.edges.insert(node, references(&info.labels));
        }
        for (namespace, by, info) in snapshot::every(reader)? {
            let mut edges = references(&info.labels);
            if !info.parent.is_empty() {
                edges.push(Node::Snapshot(by.clone(), info.parent.clone()));
            }
            let node = (namespace, Node::Snapshot(by, info.name.clone()));
            if info.labels.contains_key(ROOT) {
                graph.roots.push(node.clone());
            }
            graph.snapshots.insert(node.clone(), info);
            graph.edges.insert(node, edges);
        }
        Ok(graph)
    }

    fn read_leases(&mut self, reader: &impl Reader, now: Timestamp) -> Result<()> {
        for (namespace, lease) in lease::every(reader)? {
            if lease.expired(now) {
                self.expired_leases.push((namespace, lease.id));
                continue;
            }
            let members = lease::resources(reader, &Namespace::parse(&namespace)?, &lease.id)?;
            let nodes = members.into_iter().filter_map(|member| match member.kind.as_str() {
                "content" => Some(Node::Content(member.id)),
                "images" => Some(Node::Image(member.id)),
                kind => kind
                    .strip_prefix("snapshots/")
                    .map(|by| Node::Snapshot(by.to_owned(), member.id.clone())),
            });
            let nodes = nodes.map(|node| (namespace.clone(), node));
            if lease.labels.contains_key(FLAT) {
                self.flat.extend(nodes);
            } else {
                self.roots.extend(nodes);
            }
            let named = references(&lease.labels);
            self.roots.extend(named.into_iter().map(|node| (namespace.clone(), node)));
        }
        Ok(())
    }
}

/// What a container holds: its record without the specification, which may be long.
#[derive(serde::Deserialize)]
struct Holder {
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    snapshotter: String,
    #[serde(default)]
    snapshot_key: String,
}

/// Records with their namespace.
fn scoped<T: serde::de::DeserializeOwned>(
    reader: &impl Reader,
    table: &'static str,
) -> Result<Vec<(String, T)>> {
    let mut all = Vec::new();
    reader.scan(&prefix(table, &[]), &mut |key, value| {
        let record = serde_json::from_slice(value)
            .map_err(|source| crate::error::Error::Record { key: table.into(), source })?;
        all.push((fields(key).get(1).cloned().unwrap_or_default(), record));
        Ok(true)
    })?;
    Ok(all)
}

/// What the labels point at. After the kind a name may follow, behind a dot or a slash.
fn references(labels: &Labels) -> Vec<Node> {
    let mut nodes = Vec::new();
    for (name, value) in labels {
        let Some(kind) = name.strip_prefix("containerd.io/gc.ref.") else { continue };
        let named = |rest: &str| rest.is_empty() || rest.starts_with(['.', '/']);
        if kind.strip_prefix("content").is_some_and(named) {
            nodes.push(Node::Content(value.clone()));
        } else if kind.strip_prefix("image").is_some_and(named) {
            nodes.push(Node::Image(value.clone()));
        } else if let Some(by) = kind.strip_prefix("snapshot.") {
            let by = by.split('/').next().unwrap_or(by);
            nodes.push(Node::Snapshot(by.to_owned(), value.clone()));
        }
    }
    nodes
}

fn expired(labels: &Labels, now: Timestamp) -> bool {
    labels.get(lease::EXPIRE).and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at < now)
}

const ROOT: &str = "containerd.io/gc.root";
const FLAT: &str = "containerd.io/gc.flat";
/// containerd's `mutation_threshold`.
const MUTATIONS: u32 = 100;
const START: Duration = Duration::from_millis(100);
/// Removals within this time share a collection.
const PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
