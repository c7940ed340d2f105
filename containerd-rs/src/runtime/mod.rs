//! Tasks: the running side of containers. Each has a bundle on disk, a shim that serves it, and an owner here.
//!
//! ```text
//!            create ──────────────┐                      reload (bundle found, shim answers)
//!               │ bundle, shim    │ any failure:             │
//!               ▼ start, Create   ▼ shim delete,             ▼
//!           Creating ──ok──► Live │ bundle removed  ◄───  Recovering ── shim gone: exit and delete events
//!                             │   ▼
//!                             │  (gone)
//!                             ├── Delete: shim Delete, Shutdown, bundle removed
//!                             └── connection lost: `shim delete`, exit and delete events, bundle removed
//! ```
//!
//! The truth about a process is the shim's; what is kept here (pids, exits) serves when a shim is silent or
//! dead. Nothing here is written to the metadata store: the state directory and the shims are the record, which
//! is why tasks survive us.
//!
//! Semantics: containerd `core/runtime/v2`. The gRPC face is `grpc/tasks.rs`.

mod bootstrap;
mod bundle;
mod ends;
mod error;
mod events_server;
mod log;
mod name;
mod pulse;
mod reload;
mod shim;
mod task;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost_types::{Any, Timestamp};
use proto::containerd::events::{TaskDelete, TaskExit};
use proto::containerd::task::v2::CreateTaskRequest;
use proto::containerd::types::{Envelope, Mount};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use trace_log::task::carry;
use tracing::{debug, info, warn};

use bundle::Bundle;
use ends::Ends;
use name::Resolver;
use shim::{Caller, Shim};

pub(crate) use error::TaskError;
pub(crate) use events_server::EventsServer;
pub(crate) use task::{Exit, Task};

/// Which task: a container's id in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TaskKey {
    pub(crate) namespace: String,
    pub(crate) id: String,
}

/// Where events go. Called in order; must not wait.
pub(crate) type Publish = Arc<dyn Fn(Envelope) + Send + Sync>;

/// What the runtime service needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    /// The gRPC socket, told to shims.
    pub(crate) address: PathBuf,
    /// The socket that shims hand in events on.
    pub(crate) ttrpc_address: PathBuf,
    /// Shim binaries by runtime name, where configured.
    pub(crate) shims: BTreeMap<String, PathBuf>,
    pub(crate) debug: bool,
}

/// What a new task is made of.
#[derive(Debug, Clone, Default)]
pub(crate) struct CreateTask {
    /// config.json, verbatim.
    pub(crate) spec: Vec<u8>,
    /// A runtime's name or the absolute path of a shim.
    pub(crate) runtime: String,
    pub(crate) options: Option<Any>,
    pub(crate) rootfs: Vec<Mount>,
    pub(crate) terminal: bool,
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The runtime service; clones share it.
#[derive(Clone)]
pub(crate) struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    state: PathBuf,
    caller: Caller,
    resolver: Resolver,
    publish: Publish,
    slots: Mutex<HashMap<TaskKey, Slot>>,
    /// A slot is not busy any more.
    settled: Notify,
    ends: Ends,
    tasks: TaskTracker,
}

/// A name that is taken.
enum Slot {
    /// Being created, or being cleaned up after a restart.
    Busy,
    Live(Arc<Task>),
}

impl Runtime {
    pub(crate) fn new(settings: Settings, publish: Publish) -> Self {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let caller = Caller {
            address: text(&settings.address),
            ttrpc_address: text(&settings.ttrpc_address),
            publish_binary: std::env::current_exe().unwrap_or_else(|_| "containerd-rs".into()),
            debug: settings.debug,
        };
        let inner = Inner {
            root: settings.root,
            state: settings.state,
            caller,
            resolver: Resolver::new(settings.shims),
            publish,
            slots: Mutex::default(),
            settled: Notify::new(),
            ends: Ends::default(),
            tasks: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whether the shim behind the stock runtime name is ours, so that its log URIs may be announced.
    pub(crate) fn serves_our_shim(&self) -> bool {
        self.inner.resolver.is_ours()
    }

    /// Creates a task and gives it with the pid of its first process. Goes on to its end though the caller
    /// may leave.
    pub(crate) async fn create(
        &self,
        key: TaskKey,
        request: CreateTask,
    ) -> Result<(Arc<Task>, u32), TaskError> {
        let inner = Arc::clone(&self.inner);
        let id = key.id.clone();
        let work = self.inner.tasks.spawn(carry(inner.create(key, request)));
        work.await.unwrap_or(Err(TaskError::OwnerGone { id }))
    }

    /// The living task of this name.
    pub(crate) fn get(&self, key: &TaskKey) -> Result<Arc<Task>, TaskError> {
        match self.inner.slots().get(key) {
            Some(Slot::Live(task)) => Ok(Arc::clone(task)),
            _ => Err(TaskError::NotFound { id: key.id.clone() }),
        }
    }

    /// Waits for a creation under way: whoever deletes must not be overtaken by it.
    pub(crate) async fn settled(&self, key: &TaskKey) {
        loop {
            let settled = self.inner.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if !matches!(self.inner.slots().get(key), Some(Slot::Busy)) {
                return;
            }
            settled.await;
        }
    }

    /// How the task of this name ended, if its shim was lost and nobody has deleted it.
    pub(crate) fn end_of(&self, key: &TaskKey) -> Option<Exit> {
        self.inner.ends.of(key)
    }

    /// The living tasks of a namespace, in no order.
    pub(crate) fn list(&self, namespace: &str) -> Vec<Arc<Task>> {
        let slots = self.inner.slots();
        let tasks = slots.values().filter_map(|slot| match slot {
            Slot::Live(task) if task.key().namespace == namespace => Some(Arc::clone(task)),
            _ => None,
        });
        tasks.collect()
    }

    /// Takes an event from a shim: notes what it says about exits, then passes it on.
    fn forward(&self, envelope: Envelope) {
        if let Some(any) = envelope.event.as_ref().filter(|_| envelope.topic == topic::EXIT)
            && let Ok(exit) = proto::any::unpack::<TaskExit>(any)
        {
            let key = TaskKey { namespace: envelope.namespace.clone(), id: exit.container_id };
            if let Ok(task) = self.get(&key) {
                let exec_id = if exit.id == key.id { "" } else { exit.id.as_str() };
                let (pid, status, at) = (exit.pid, exit.exit_status, exit.exited_at);
                task.note_exit(exec_id, Exit { pid, status, at });
            }
        }
        (self.inner.publish)(envelope);
    }
}

/// Topics of the events that we send in a dead shim's place.
mod topic {
    pub(super) const EXIT: &str = "/tasks/exit";
    pub(super) const DELETE: &str = "/tasks/delete";
}

impl Inner {
    async fn create(
        self: Arc<Self>,
        key: TaskKey,
        request: CreateTask,
    ) -> Result<(Arc<Task>, u32), TaskError> {
        self.reserve(&key)?;
        self.ends.forget(&key);
        let created = self.build(&key, request).await;
        match &created {
            Ok((task, pid)) => {
                let shim = task.binary().display();
                info!(namespace = key.namespace, container = key.id, pid, %shim, "task created");
            }
            Err(error) => {
                debug!(namespace = key.namespace, container = key.id, %error, "task not created");
                self.forget(&key);
            }
        }
        created
    }

    /// The steps of a birth. Each failure takes back what the steps before have made.
    async fn build(
        self: &Arc<Self>,
        key: &TaskKey,
        request: CreateTask,
    ) -> Result<(Arc<Task>, u32), TaskError> {
        let start = |source| TaskError::StartShim { source: Box::new(source) };
        let binary = self.resolver.resolve(&request.runtime).map_err(start)?;
        let bundle = Bundle::locate(&self.root, &self.state, key);
        let (spec, shim_binary) = (request.spec, binary.clone());
        let place = bundle.clone();
        let made = self.blocking(key, move || {
            place.create(&spec)?;
            place.save_shim(&shim_binary).map_err(|source| TaskError::Bundle {
                step: "write shim-binary-path of",
                path: place.path.clone(),
                source,
            })
        });
        trace_log::task::span("bundle", made).await?;
        let log = self.read_log(&bundle, key);
        let launched = self.launch(key, &bundle, &binary, request.options.as_ref());
        let shim = match trace_log::task::span("start shim", launched).await {
            Ok(shim) => shim,
            Err(error) => {
                self.discard(key, &bundle, &binary).await;
                return Err(start(error));
            }
        };
        let wire = CreateTaskRequest {
            bundle: bundle.path.to_string_lossy().into_owned(),
            rootfs: request.rootfs,
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            options: request.options,
            ..Default::default()
        };
        match shim.create(wire).await {
            Ok(pid) => {
                let task = Task::new(key.clone(), bundle, binary, shim, Some(log));
                task.note_pid("", pid);
                self.adopt(&task);
                Ok((task, pid))
            }
            Err(source) => {
                // A container the runtime half made is the shim's to remove; then the shim goes.
                shim.delete("", Some(shim::CONNECT)).await.ok();
                shim.shutdown(true).await.ok();
                drop(shim);
                self.discard(key, &bundle, &binary).await;
                Err(TaskError::CreateTask { source: Box::new(source) })
            }
        }
    }

    async fn launch(
        &self,
        key: &TaskKey,
        bundle: &Bundle,
        binary: &std::path::Path,
        options: Option<&Any>,
    ) -> Result<Shim, TaskError> {
        let bootstrap = self.caller.start(binary, &bundle.path, key, options).await?;
        let (saved, path) = (bootstrap.clone(), bundle.path.clone());
        self.blocking(key, move || {
            saved.save(&path).map_err(|source| TaskError::Bundle {
                step: "write bootstrap.json of",
                path,
                source,
            })
        })
        .await?;
        Shim::connect(bootstrap, key.clone()).await
    }

    /// Removes what a failed birth left: container, shim, mounts, directories.
    async fn discard(&self, key: &TaskKey, bundle: &Bundle, binary: &std::path::Path) {
        if let Err(error) = self.caller.delete(binary, &bundle.path, key).await {
            debug!(container = key.id, %error, "shim delete after a failure");
        }
        self.remove_bundle(key, bundle).await;
    }

    async fn remove_bundle(&self, key: &TaskKey, bundle: &Bundle) {
        let place = bundle.clone();
        if let Err(error) = self.blocking(key, move || place.remove()).await {
            warn!(namespace = key.namespace, container = key.id, %error, "bundle not removed");
        }
    }

    /// Makes the task findable and gives it its owner.
    fn adopt(self: &Arc<Self>, task: &Arc<Task>) {
        self.slots().insert(task.key().clone(), Slot::Live(Arc::clone(task)));
        self.settled.notify_waiters();
        self.tasks.spawn(Arc::clone(task).own(Arc::clone(self)));
    }

    fn reserve(&self, key: &TaskKey) -> Result<(), TaskError> {
        let mut slots = self.slots();
        if slots.contains_key(key) {
            return Err(TaskError::AlreadyExists { id: key.id.clone() });
        }
        slots.insert(key.clone(), Slot::Busy);
        Ok(())
    }

    fn forget(&self, key: &TaskKey) {
        self.slots().remove(key);
        self.settled.notify_waiters();
    }

    /// Starts the reader of a shim's log; it ends when the handle is dropped.
    fn read_log(&self, bundle: &Bundle, key: &TaskKey) -> task::LogReader {
        let (fifo, key) = (bundle.log(), key.clone());
        let reader = self.tasks.spawn(async move { log::copy(&fifo, &key).await });
        task::LogReader(reader.abort_handle())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        key: &TaskKey,
        work: impl FnOnce() -> Result<T, TaskError> + Send + 'static,
    ) -> Result<T, TaskError> {
        let id = key.id.clone();
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(TaskError::OwnerGone { id }))
    }

    /// Says in the shim's place that a process ended.
    fn publish_exit(&self, key: &TaskKey, exec_id: &str, exit: &Exit) {
        let event = TaskExit {
            container_id: key.id.clone(),
            id: if exec_id.is_empty() { key.id.clone() } else { exec_id.to_owned() },
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: exit.at,
        };
        self.publish(key, topic::EXIT, proto::any::pack(&event));
    }

    /// Says in the shim's place that a task is deleted.
    fn publish_delete(&self, key: &TaskKey, exit: &Exit) {
        let event = TaskDelete {
            container_id: key.id.clone(),
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: exit.at,
            id: String::new(),
        };
        self.publish(key, topic::DELETE, proto::any::pack(&event));
    }

    fn publish(&self, key: &TaskKey, topic: &str, event: Any) {
        (self.publish)(Envelope {
            timestamp: Some(now()),
            namespace: key.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(event),
        });
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<TaskKey, Slot>> {
        // The map is whole between any two statements.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

#[cfg(test)]
mod tests;
