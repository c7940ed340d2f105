//! What the shim knows of its containers and their processes.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::bundle::RuntimeOptions;
use crate::error::TaskError;
use crate::io::attach::Listener;
use crate::io::link::Key;
use crate::io::stdio::{StdinIo, StdioSpec};
use crate::machine::State;
use crate::runtime::Runtime;
use crate::serve::ReplyTo;
use crate::trace::Open;

/// Names a process: an empty exec id is the container's init.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId {
    pub(crate) container: String,
    pub(crate) exec: String,
}

impl ProcessId {
    pub(crate) fn new(container: &str, exec: &str) -> Self {
        Self { container: container.to_owned(), exec: exec.to_owned() }
    }

    pub(crate) fn init(container: &str) -> Self {
        Self::new(container, "")
    }

    /// Compat: in events the init goes by the container's id.
    pub(crate) fn event_id(&self) -> &str {
        if self.exec.is_empty() { &self.container } else { &self.exec }
    }
}

pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) runtime: Runtime,
    pub(crate) options: RuntimeOptions,
    pub(crate) has_own_pid_namespace: bool,
    /// Whether we mounted on the bundle's rootfs.
    pub(crate) mounted: bool,
    pub(crate) init: Process,
    pub(crate) execs: BTreeMap<String, Process>,
    /// Known from Create on.
    pub(crate) cgroup: Option<crate::cgroup::Cgroup>,
    pub(crate) trace: Option<Box<trace_log::Place>>,
    /// Who asked for its delete while it was being created.
    pub(crate) unwanted: Vec<ReplyTo>,
}

pub(crate) struct Process {
    pub(crate) state: State,
    pub(crate) pid: u32,
    pub(crate) stdio: StdioSpec,
    /// An exec's process document.
    pub(crate) spec: Vec<u8>,
    pub(crate) master: Option<OwnedFd>,
    /// An exec's live socket until its start: it listens as soon as the exec is answered, so that a client
    /// is there before the first byte.
    pub(crate) live: Option<Listener>,
    pub(crate) io: Option<Key>,
    /// Input that waits for the start.
    pub(crate) stdin: Option<StdinIo>,
    /// Reaped; told to clients once `drained`.
    pub(crate) reaped: Option<Exit>,
    pub(crate) drained: bool,
    /// From the reaping on until it is told.
    pub(crate) ending: Option<Box<Open>>,
    /// The exit was published, once.
    pub(crate) told: bool,
    pub(crate) waiters: Vec<ReplyTo>,
    pub(crate) deleting: Option<Deleting>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Exit {
    pub(crate) status: u32,
    pub(crate) at: SystemTime,
}

/// A delete under way: answered when all parts are done.
pub(crate) struct Deleting {
    pub(crate) reply: ReplyTo,
    pub(crate) io_closed: bool,
    pub(crate) runtime_done: bool,
}

impl Process {
    pub(crate) fn new(state: State, stdio: StdioSpec, spec: Vec<u8>) -> Self {
        Self {
            state,
            pid: 0,
            stdio,
            spec,
            master: None,
            live: None,
            io: None,
            stdin: None,
            reaped: None,
            drained: false,
            ending: None,
            told: false,
            waiters: Vec::new(),
            deleting: None,
        }
    }

    /// The exit, once clients may know it.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.reaped.filter(|_| self.told)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.pid != 0 && self.reaped.is_none()
    }
}

impl Container {
    pub(crate) fn process(&self, exec: &str) -> Result<&Process, TaskError> {
        if exec.is_empty() {
            return Ok(&self.init);
        }
        self.execs.get(exec).ok_or_else(|| TaskError::NoProcess(exec.to_owned()))
    }

    pub(crate) fn process_mut(&mut self, exec: &str) -> Result<&mut Process, TaskError> {
        if exec.is_empty() {
            return Ok(&mut self.init);
        }
        self.execs.get_mut(exec).ok_or_else(|| TaskError::NoProcess(exec.to_owned()))
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.bundle.join("log.json")
    }
}
