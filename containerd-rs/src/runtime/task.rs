//! One task: the way to its shim, what is known of its processes, and its owner.
//!
//! Requests go to the shim side by side; only the end of a task has an order, and that is the owner's: it
//! takes Delete requests and the loss of the connection, whichever comes first, and does each thing once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost_types::{Any, Timestamp};
use proto::containerd::task::v2 as wire;
use proto::containerd::v1::types::{ProcessInfo, Status};
use proto::errdefs::Kind;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use trace_log::task::{Here, current, span, within};
use tracing::{info, warn};

use super::bundle::Bundle;
use super::shim::{QUICK, Shim};
use super::{Inner, TaskError, TaskKey, now};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Exit {
    pub(crate) pid: u32,
    pub(crate) status: u32,
    pub(crate) at: Option<Timestamp>,
}

/// The exit status of a process that was killed because its shim died.
const KILLED: u32 = 137;
/// Compat: containerd's answer when not even the shim's `delete` knows.
const UNKNOWN_STATUS: u32 = 255;
/// How long a shim that was told to end is waited for.
const LEAVING: Duration = Duration::from_millis(300);
/// Delete requests that may wait for the owner.
const DELETES: usize = 16;

/// A Delete request: who is answered, and where that stands in a trace.
type Delete = (oneshot::Sender<Result<Exit, TaskError>>, Option<Here>);

/// A living task.
pub(crate) struct Task {
    key: TaskKey,
    bundle: Bundle,
    binary: PathBuf,
    shim: Shim,
    /// By exec id; the first process has the empty one.
    processes: Mutex<HashMap<String, Process>>,
    deletes: mpsc::Sender<Delete>,
    inbox: Mutex<Option<mpsc::Receiver<Delete>>>,
    /// True once the owner is done, and all exits are noted.
    gone: watch::Sender<bool>,
    _log: Option<LogReader>,
}

/// What is known here of a process.
#[derive(Debug, Clone, Copy, Default)]
struct Process {
    pid: u32,
    exit: Option<Exit>,
}

/// Ends the reader of the shim's log.
pub(super) struct LogReader(pub(super) AbortHandle);

impl Drop for LogReader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Task {
    pub(super) fn new(
        key: TaskKey,
        bundle: Bundle,
        binary: PathBuf,
        shim: Shim,
        log: Option<LogReader>,
    ) -> Arc<Self> {
        let (deletes, inbox) = mpsc::channel(DELETES);
        let init = (String::new(), Process::default());
        Arc::new(Self {
            key,
            bundle,
            binary,
            shim,
            processes: Mutex::new(HashMap::from([init])),
            deletes,
            inbox: Mutex::new(Some(inbox)),
            gone: watch::Sender::new(false),
            _log: log,
        })
    }

    pub(crate) fn key(&self) -> &TaskKey {
        &self.key
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    pub(super) fn shim(&self) -> &Shim {
        &self.shim
    }

    /// Starts the first process (empty id) or an exec; gives its pid.
    pub(crate) async fn start(&self, exec_id: &str) -> Result<u32, TaskError> {
        let pid = self.shim.start(exec_id).await?;
        self.note_pid(exec_id, pid);
        Ok(pid)
    }

    /// Adds a process, to be started next.
    pub(crate) async fn exec(&self, request: wire::ExecProcessRequest) -> Result<(), TaskError> {
        let exec_id = request.exec_id.clone();
        self.shim.exec(request).await?;
        self.processes().insert(exec_id, Process::default());
        Ok(())
    }

    /// The state of a process as its shim tells it. A silent shim gets two seconds, then the answer is what is
    /// known here.
    pub(crate) async fn state(&self, exec_id: &str) -> Result<wire::StateResponse, TaskError> {
        match self.shim.state(exec_id, QUICK).await {
            Ok(state) => {
                if state.status() == Status::Stopped {
                    let (pid, status) = (state.pid, state.exit_status);
                    self.note_exit(exec_id, Exit { pid, status, at: state.exited_at });
                }
                Ok(state)
            }
            Err(TaskError::ShimSilent { .. }) => {
                let known = self.processes().get(exec_id).copied();
                let process = known.ok_or_else(|| TaskError::ShimSilent {
                    method: "State".to_owned(),
                    limit: QUICK,
                })?;
                Ok(self.remembered(exec_id, process))
            }
            // Compat: for containerd a task without a shim is not there.
            Err(TaskError::ShimGone) => Err(TaskError::NotFound { id: self.key.id.clone() }),
            Err(error) => Err(error),
        }
    }

    fn remembered(&self, exec_id: &str, process: Process) -> wire::StateResponse {
        let mut state = wire::StateResponse {
            id: self.key.id.clone(),
            bundle: self.bundle.path.to_string_lossy().into_owned(),
            pid: process.pid,
            exec_id: exec_id.to_owned(),
            ..Default::default()
        };
        if let Some(exit) = process.exit {
            state.set_status(Status::Stopped);
            state.exit_status = exit.status;
            state.exited_at = exit.at;
        }
        state
    }

    /// Waits for the end of a process, as long as it takes, and over the death of the shim.
    pub(crate) async fn wait(&self, exec_id: &str) -> Result<Exit, TaskError> {
        if let Some(exit) = self.known_exit(exec_id) {
            return Ok(exit);
        }
        match self.shim.wait(exec_id).await {
            Ok(answer) => {
                let pid = self.processes().get(exec_id).map_or(0, |process| process.pid);
                let exit = Exit { pid, status: answer.exit_status, at: answer.exited_at };
                self.note_exit(exec_id, exit);
                Ok(exit)
            }
            Err(TaskError::ShimGone) => {
                // The owner finds out how it ended.
                self.gone.subscribe().wait_for(|gone| *gone).await.ok();
                self.known_exit(exec_id).ok_or(TaskError::ShimGone)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn kill(
        &self,
        exec_id: &str,
        signal: u32,
        all: bool,
    ) -> Result<(), TaskError> {
        self.shim.kill(exec_id, signal, all).await
    }

    pub(crate) async fn resize(
        &self,
        exec_id: &str,
        width: u32,
        height: u32,
    ) -> Result<(), TaskError> {
        self.shim.resize(exec_id, width, height).await
    }

    pub(crate) async fn close_io(&self, exec_id: &str, stdin: bool) -> Result<(), TaskError> {
        self.shim.close_io(exec_id, stdin).await
    }

    pub(crate) async fn pause(&self) -> Result<(), TaskError> {
        self.shim.pause().await
    }

    pub(crate) async fn resume(&self) -> Result<(), TaskError> {
        self.shim.resume().await
    }

    pub(crate) async fn pids(&self) -> Result<Vec<ProcessInfo>, TaskError> {
        Ok(self.shim.pids().await?.processes)
    }

    /// The shim's metrics document.
    pub(crate) async fn stats(&self) -> Result<Option<Any>, TaskError> {
        const LIMIT: Duration = Duration::from_secs(10);
        Ok(self.shim.stats(LIMIT).await?.stats)
    }

    pub(crate) async fn update(
        &self,
        resources: Option<Any>,
        annotations: HashMap<String, String>,
    ) -> Result<(), TaskError> {
        let request = wire::UpdateTaskRequest { resources, annotations, ..Default::default() };
        self.shim.update(request).await
    }

    /// Deletes an exec that has ended.
    pub(crate) async fn delete_process(&self, exec_id: &str) -> Result<Exit, TaskError> {
        let answer = self.shim.delete(exec_id, None).await?;
        self.processes().remove(exec_id);
        Ok(answer.into())
    }

    /// Deletes the task: container, shim and bundle are gone when this returns well. The owner does it to the
    /// end, though the caller may leave.
    pub(crate) async fn delete(&self) -> Result<Exit, TaskError> {
        let gone = || TaskError::NotFound { id: self.key.id.clone() };
        let (reply, answer) = oneshot::channel();
        self.deletes.send((reply, current())).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Notes the pid of a started process.
    pub(super) fn note_pid(&self, exec_id: &str, pid: u32) {
        if let Some(process) = self.processes().get_mut(exec_id) {
            process.pid = pid;
        }
    }

    /// Notes an exit, if it is of the process that has this id now.
    pub(super) fn note_exit(&self, exec_id: &str, exit: Exit) {
        let mut processes = self.processes();
        let Some(process) = processes.get_mut(exec_id) else { return };
        let same = process.pid == 0 || exit.pid == 0 || process.pid == exit.pid;
        if same && process.exit.is_none() {
            let pid = if exit.pid == 0 { process.pid } else { exit.pid };
            *process = Process { pid, exit: Some(Exit { pid, ..exit }) };
        }
    }

    fn known_exit(&self, exec_id: &str) -> Option<Exit> {
        self.processes().get(exec_id)?.exit
    }

    fn processes(&self) -> MutexGuard<'_, HashMap<String, Process>> {
        // The map is whole between any two statements.
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner's life: until a Delete succeeds or the shim is lost.
    pub(super) async fn own(self: Arc<Self>, runtime: Arc<Inner>) {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut inbox) = inbox else { return };
        let (namespace, container) = (self.key.namespace.as_str(), self.key.id.as_str());
        loop {
            let (reply, here) = tokio::select! {
                biased;
                Some(delete) = inbox.recv() => delete,
                () = self.shim.closed() => {
                    warn!(namespace, container, "shim disconnected");
                    self.bury(&runtime).await;
                    break;
                }
            };
            match within(here.clone(), self.shim.delete("", None)).await {
                Ok(answer) => {
                    let exit = Exit::from(answer);
                    let dismissed = async { span("end shim", self.dismiss(&runtime)).await };
                    within(here, dismissed).await;
                    info!(namespace, container, status = exit.status, "task deleted");
                    reply.send(Ok(exit)).ok();
                    break;
                }
                Err(TaskError::ShimGone) => {
                    let exit = self.bury(&runtime).await;
                    reply.send(Ok(exit)).ok();
                    break;
                }
                // The shim has no such container: nothing holds it.
                Err(error) if error.kind() == Kind::NotFound => {
                    self.dismiss(&runtime).await;
                    reply.send(Err(error)).ok();
                    break;
                }
                Err(error) => {
                    reply.send(Err(error)).ok();
                }
            }
        }
        self.gone.send_replace(true);
        // Further Delete requests, waiting or to come, find nobody: not found.
        drop(inbox);
    }

    /// After a Delete: the shim ends, then the bundle goes.
    async fn dismiss(&self, runtime: &Inner) {
        if let Err(error) = self.shim.shutdown(false).await {
            warn!(container = self.key.id, %error, "shim shutdown");
        }
        let left = async {
            // Found by the name of the container until then. One that stays is a pod's.
            if self.shim.is_found() {
                tokio::time::timeout(LEAVING, self.shim.closed()).await.ok();
            }
        };
        tokio::join!(runtime.remove_bundle(&self.key, &self.bundle), left);
        runtime.forget(&self.key);
    }

    /// After the shim's death: ends what it left and tells what it can no longer tell.
    async fn bury(&self, runtime: &Inner) -> Exit {
        let found = match runtime.caller.delete(&self.binary, &self.bundle.path, &self.key).await {
            Ok(answer) => Some(Exit::from(answer)),
            Err(error) => {
                warn!(container = self.key.id, %error, "shim delete");
                None
            }
        };
        let end = found.and_then(|exit| exit.at).unwrap_or_else(now);
        let mut unknown = Vec::new();
        for (exec_id, process) in self.processes().iter_mut() {
            if process.exit.is_none() && (process.pid != 0 || exec_id.is_empty()) {
                let mut exit = Exit { pid: process.pid, status: KILLED, at: Some(end) };
                if exec_id.is_empty() {
                    exit.status = found.map_or(UNKNOWN_STATUS, |exit| exit.status);
                    exit.pid =
                        found.map(|exit| exit.pid).filter(|pid| *pid != 0).unwrap_or(exit.pid);
                }
                process.exit = Some(exit);
                unknown.push((exec_id.clone(), exit));
            }
        }
        // The first process ends last.
        unknown.sort_by(|a, b| b.0.cmp(&a.0));
        for (exec_id, exit) in &unknown {
            runtime.publish_exit(&self.key, exec_id, exit);
        }
        let exit =
            self.known_exit("").unwrap_or(Exit { pid: 0, status: UNKNOWN_STATUS, at: Some(end) });
        runtime.remove_bundle(&self.key, &self.bundle).await;
        runtime.ends.note(&self.key, exit);
        runtime.forget(&self.key);
        runtime.publish_delete(&self.key, &exit);
        exit
    }
}

impl From<wire::DeleteResponse> for Exit {
    fn from(answer: wire::DeleteResponse) -> Self {
        Self { pid: answer.pid, status: answer.exit_status, at: answer.exited_at }
    }
}
