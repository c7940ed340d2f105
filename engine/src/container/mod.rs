//! Containers: the table of all of them, and what each one is to the rest of the engine.
//!
//! A container has one owner task ([`driver`]) that applies [`lifecycle`]; everyone else reads the
//! record under a short lock and watches [`Snapshot`]s.

pub(crate) mod attach;
pub(crate) mod check;
pub(crate) mod create;
mod driver;
pub(crate) mod error;
mod files;
mod health;
pub(crate) mod lifecycle;
pub(crate) mod logs;
mod mounts;
mod names;
pub(crate) mod output;
pub(crate) mod record;
pub(crate) mod reload;
pub(crate) mod rootfs;
pub(crate) mod spec;
mod start;
mod sweep;
pub(crate) use start::make_fifo;
pub(crate) mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use docker_api::StringMap;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::app::App;
use crate::store::Durability;
use crate::trace::Trace;
use driver::{Command, Then};
pub(crate) use error::ContainerError;
use lifecycle::{Phase, Refusal};
use record::{Paths, Record};

/// All containers.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Name to id; reserved before the container exists.
    names: HashMap<String, String>,
}

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) paths: Paths,
    record: Mutex<Record>,
    /// Held over a change and its writing: two writers would take each other's file, or put an older
    /// record over a newer one.
    writing: Mutex<()>,
    commands: mpsc::Sender<Command>,
    pub(crate) state: watch::Sender<Snapshot>,
    /// Clients that attached before the start.
    waiting: Mutex<Vec<oneshot::Sender<UnixStream>>>,
    /// Of the last writing.
    serial: AtomicU64,
    /// The record on disk is behind: to be written once the disk has space again.
    unsaved: AtomicBool,
}

/// What waiters look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) phase: Phase,
    /// Counts exits, so that `next-exit` cannot miss one.
    pub(crate) exits: u64,
    pub(crate) exit_code: i64,
    pub(crate) error: String,
    /// It has ended, and its addresses and ports are not free yet.
    pub(crate) held: bool,
    /// The log is closed and everything is released.
    pub(crate) clean: bool,
    pub(crate) removed: bool,
}

/// How a process is to end.
#[derive(Clone, Debug)]
pub(crate) struct StopOptions {
    pub(crate) signal: Option<String>,
    /// Seconds; negative waits for ever.
    pub(crate) timeout: Option<i64>,
}

impl Container {
    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.record().state.phase
    }

    /// Changes the record and writes it down, or leaves it as it was.
    pub(crate) fn change(
        &self,
        durability: Durability,
        edit: impl FnOnce(&mut Record),
    ) -> Result<(), ContainerError> {
        let _alone = self.writing();
        let before = {
            let mut record = self.record();
            let before = record.clone();
            edit(&mut record);
            before
        };
        self.write(durability).inspect_err(|_| *self.record() = before)
    }

    /// Changes the record by what has happened already. A disk that does not take it now gets it later.
    pub(crate) fn note(&self, durability: Durability, edit: impl FnOnce(&mut Record)) {
        let _alone = self.writing();
        edit(&mut self.record());
        if let Err(error) = self.write(durability) {
            tracing::error!(container = self.id, "{error}; to be tried again");
        }
    }

    /// Writes down what could not be written before.
    fn save(&self) -> Result<(), ContainerError> {
        let _alone = self.writing();
        self.write(Durability::Synced)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, durability: Durability) -> Result<(), ContainerError> {
        let mut record = self.record().clone();
        record.serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        // `--rm` containers are not worth a sync.
        let durability =
            if record.host_config.auto_remove { Durability::Written } else { durability };
        let write = || record.write(&self.paths, durability);
        let written = match durability {
            // The disk takes milliseconds: the reactor's other work goes to another thread.
            Durability::Synced => tokio::task::block_in_place(write),
            Durability::Written => write(),
        };
        self.unsaved.store(written.is_err(), Ordering::Relaxed);
        Ok(written?)
    }

    /// Tells waiters where the container stands now.
    pub(crate) fn announce(&self, edit: impl FnOnce(&mut Snapshot)) {
        let (phase, code, error) = {
            let record = self.record();
            (record.state.phase, record.state.exit_code, record.state.error.clone())
        };
        self.state.send_modify(|snapshot| {
            snapshot.phase = phase;
            snapshot.exit_code = code;
            snapshot.error = error;
            edit(snapshot);
        });
    }

    /// An event with the attributes dockerd gives.
    pub(crate) fn event(&self, app: &App, action: &str, more: &[(&str, String)]) {
        let mut attributes: StringMap;
        {
            let record = self.record();
            attributes = record.config.labels.clone().unwrap_or_default();
            attributes.insert("image".to_owned(), record.config.image.clone());
            attributes.insert("name".to_owned(), record.name.clone());
        }
        for (key, value) in more {
            attributes.insert((*key).to_owned(), value.clone());
        }
        app.events.publish("container", action, &self.id, attributes);
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, ContainerError>>) -> Command,
    ) -> Result<T, ContainerError> {
        let (reply, answer) = oneshot::channel();
        let gone = |_| {
            // The owner ends with the container; who comes second finds nothing.
            if self.state.borrow().removed {
                ContainerError::NotFound(self.id.clone())
            } else {
                ContainerError::OwnerGone
            }
        };
        if self.commands.send(command(reply)).await.is_err() {
            return Err(gone(()));
        }
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(gone(())),
        }
    }

    /// Starts it; `trace` is of this run.
    pub(crate) async fn start(&self, trace: Option<Arc<Trace>>) -> Result<(), ContainerError> {
        let trace = trace.map(|trace| (trace, trace_log::task::current()));
        self.ask(|reply| Command::Start { by_policy: false, trace, reply: Some(reply) }).await
    }

    pub(crate) async fn signal(&self, signal: i32) -> Result<(), ContainerError> {
        self.ask(|reply| Command::Kill { signal, reply }).await
    }

    pub(crate) async fn pause(&self) -> Result<(), ContainerError> {
        self.ask(|reply| Command::Pause { reply }).await
    }

    pub(crate) async fn unpause(&self) -> Result<(), ContainerError> {
        self.ask(|reply| Command::Unpause { reply }).await
    }

    pub(crate) async fn remove(&self, force: bool, volumes: bool) -> Result<(), ContainerError> {
        if self.phase() == Phase::Removing {
            let name = self.record().name.clone();
            return Err(ContainerError::refused(Refusal::RemoveInProgress, &self.id, &name));
        }
        self.ask(|reply| Command::Remove { force, volumes, reply }).await
    }

    /// Lets the owner take up what goes with a process that was found alive.
    async fn adopted(&self) {
        drop(self.commands.send(Command::Adopted).await);
    }

    /// Lets the owner do first what an engine that was killed left undone.
    async fn recover(&self, then: Then) {
        // An owner that is gone has nothing left to do.
        drop(self.commands.send(Command::Recover(then)).await);
    }

    /// Ends the process: signal, patience, SIGKILL. Goes on when the caller leaves, if spawned.
    pub(crate) async fn stop(&self, options: StopOptions) -> Result<(), ContainerError> {
        let (signal, timeout) = {
            let record = self.record();
            let signal = options
                .signal
                .or_else(|| record.config.stop_signal.clone())
                .filter(|signal| !signal.is_empty())
                .unwrap_or_else(|| "SIGTERM".to_owned());
            (signal, options.timeout.or(record.config.stop_timeout).unwrap_or(10))
        };
        let signal = crate::sys::signal::parse(&signal)
            .ok_or_else(|| ContainerError::Invalid(format!("Invalid signal: {signal}")))?;
        let mut state = self.state.subscribe();
        let exits = state.borrow().exits;
        self.ask(|reply| Command::Stop { signal, reply }).await?;
        let gone = state.wait_for(|now| now.exits > exits || !now.phase.has_process());
        let done = match u64::try_from(timeout) {
            Ok(seconds) => {
                tokio::time::timeout(std::time::Duration::from_secs(seconds), gone).await.is_ok()
            }
            Err(_) => gone.await.is_ok(),
        };
        if !done {
            match self.ask(|reply| Command::Stop { signal: 9, reply }).await {
                Ok(()) | Err(ContainerError::Already) => {}
                Err(error) => return Err(error),
            }
            drop(state.wait_for(|now| now.exits > exits || !now.phase.has_process()).await);
        }
        drop(state.wait_for(|now| now.clean || now.removed || now.phase.has_process()).await);
        Ok(())
    }

    /// Waits while it has ended and still holds addresses and ports: until then nobody is told.
    pub(crate) async fn settled(&self) {
        drop(self.state.subscribe().wait_for(|now| !now.held).await);
    }

    /// Registers for the live output of the next start.
    fn wait_for_start(&self) -> oneshot::Receiver<UnixStream> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }
}

impl Table {
    fn release(&mut self, name: &str, id: &str) {
        if self.names.get(name).is_some_and(|by| by == id) {
            self.names.remove(name);
        }
    }
}

impl Containers {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every container, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.table().by_id.values().cloned().collect()
    }

    /// By full id, exact name, or unique id prefix, in that order.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Container>, ContainerError> {
        let table = self.table();
        let plain = name.strip_prefix('/').unwrap_or(name);
        if let Some(found) = table
            .by_id
            .get(name)
            .or_else(|| table.names.get(plain).and_then(|id| table.by_id.get(id)))
        {
            return Ok(Arc::clone(found));
        }
        if name.is_empty() {
            return Err(ContainerError::NotFound(name.to_owned()));
        }
        let mut matches = table
            .by_id
            .range(name.to_owned()..)
            .take_while(|(id, _)| id.starts_with(name))
            .map(|(_, found)| found);
        match (matches.next(), matches.next()) {
            (Some(found), None) => Ok(Arc::clone(found)),
            (Some(_), Some(_)) => Err(ContainerError::Ambiguous(name.to_owned())),
            _ => Err(ContainerError::NotFound(name.to_owned())),
        }
    }

    /// Takes a name for an id, or says who has it.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<(), ContainerError> {
        let mut table = self.table();
        match table.names.get(name) {
            Some(by) if by != id => {
                Err(ContainerError::NameTaken { name: name.to_owned(), by: by.clone() })
            }
            _ => {
                table.names.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Gives a name back, if it is still this id's.
    pub(crate) fn release(&self, name: &str, id: &str) {
        self.table().release(name, id);
    }

    /// Name and id at once: nobody sees the one without the other.
    fn forget(&self, container: &Container) {
        let name = container.record().name.clone();
        let mut table = self.table();
        table.release(&name, &container.id);
        table.by_id.remove(&container.id);
    }

    /// Puts a container into the table and starts its owner.
    pub(crate) fn adopt(&self, app: &Arc<App>, record: Record) -> Arc<Container> {
        let (commands, inbox) = mpsc::channel(64);
        let phase = record.state.phase;
        let snapshot = Snapshot {
            phase,
            exit_code: record.state.exit_code,
            error: record.state.error.clone(),
            held: record.state.unclean && !phase.has_process(),
            clean: !record.state.unclean && !phase.has_process(),
            ..Snapshot::default()
        };
        let container = Arc::new(Container {
            id: record.id.clone(),
            paths: Paths::new(&app.config.data_root, &app.config.exec_root, &record.id),
            serial: AtomicU64::new(record.serial),
            record: Mutex::new(record),
            writing: Mutex::new(()),
            commands,
            state: watch::Sender::new(snapshot),
            waiting: Mutex::new(Vec::new()),
            unsaved: AtomicBool::new(false),
        });
        self.table().by_id.insert(container.id.clone(), Arc::clone(&container));
        driver::spawn(Arc::clone(app), Arc::clone(&container), inbox);
        container
    }

    /// Ids of containers made from this image: `(id, running)`.
    pub(crate) fn using_image(&self, image_id: &str) -> Vec<(String, bool)> {
        self.all()
            .iter()
            .filter_map(|container| {
                let record = container.record();
                (record.image_id == image_id)
                    .then(|| (container.id.clone(), record.state.phase.is_running()))
            })
            .collect()
    }
}

/// Ends every container, with `--live-restore=false`.
pub(crate) async fn stop_all(app: &Arc<App>) {
    let mut stops = tokio::task::JoinSet::new();
    let timeout = app.config.shutdown_timeout;
    for container in app.containers.all() {
        if container.phase().is_running() {
            stops.spawn(async move {
                let options = StopOptions { signal: None, timeout: Some(timeout.min(10)) };
                if let Err(error) = container.stop(options).await {
                    tracing::warn!(container = container.id, "stop: {error}");
                }
            });
        }
    }
    while stops.join_next().await.is_some() {}
}
