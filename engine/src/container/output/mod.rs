//! Who keeps a process's output: a shim that announces the log scheme `json-file` writes the log and
//! listens for live clients itself. Over any other shim the engine gives the process fifos, as upstream
//! does, and a [`relay`] of ours writes the same log and listens on the same socket: everything above
//! (logs, attach, exec) does not know the difference.
//!
//! What only a shim can give is lost with the second way: while the engine is away nobody reads the
//! fifos. A process that writes more than they hold waits, and goes on when the engine is back.

mod relay;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use container_log::Stream;
use container_log::uri::LogUri;

use super::error::ContainerError;
use super::rootfs::blocking;
use super::start::make_fifo;
use relay::Relay;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    Shim,
    Engine,
}

/// The outputs of all processes.
#[derive(Debug)]
pub(crate) struct Outputs {
    keeper: Keeper,
    /// By container or exec id.
    relays: Mutex<HashMap<String, Relay>>,
}

/// What a request for a process names as its outputs.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The fifos of one process, where the engine keeps its output.
#[derive(Debug, Clone)]
pub(crate) struct Fifos {
    stdout: PathBuf,
    /// A terminal has one output.
    stderr: Option<PathBuf>,
}

impl Fifos {
    /// Of a container, or with a prefix of an exec in it.
    pub(crate) fn new(run: &Path, prefix: &str, terminal: bool) -> Self {
        Self {
            stdout: run.join(format!("{prefix}stdout")),
            stderr: (!terminal).then(|| run.join(format!("{prefix}stderr"))),
        }
    }

    fn all(&self) -> impl Iterator<Item = (Stream, &Path)> {
        let stderr = self.stderr.iter().map(|path| (Stream::Stderr, path.as_path()));
        std::iter::once((Stream::Stdout, self.stdout.as_path())).chain(stderr)
    }

    pub(crate) fn remove(&self) {
        for (_, path) in self.all() {
            drop(std::fs::remove_file(path));
        }
    }
}

impl Outputs {
    pub(crate) fn new(shim_writes_logs: bool) -> Self {
        let keeper = if shim_writes_logs { Keeper::Shim } else { Keeper::Engine };
        Self { keeper, relays: Mutex::default() }
    }

    /// Before the process is created: whoever keeps its output must be there before its first byte.
    pub(crate) async fn prepare(
        &self,
        id: &str,
        uri: LogUri,
        fifos: Fifos,
    ) -> Result<Streams, ContainerError> {
        if self.keeper == Keeper::Shim {
            let stdout = uri.to_string();
            let stderr = if fifos.stderr.is_some() { stdout.clone() } else { String::new() };
            return Ok(Streams { stdout, stderr });
        }
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let streams = Streams {
            stdout: text(&fifos.stdout),
            stderr: fifos.stderr.as_deref().map(text).unwrap_or_default(),
        };
        let relay = blocking(move || {
            if let Some(run) = fifos.stdout.parent() {
                std::fs::create_dir_all(run)
                    .map_err(ContainerError::io(format!("create {}", run.display())))?;
            }
            fifos.remove();
            for (_, path) in fifos.all() {
                make_fifo(path)?;
            }
            Relay::start(&uri, &fifos)
        })
        .await?;
        self.add(id, relay);
        Ok(streams)
    }

    /// After a restart of the engine: goes on where the process was given fifos.
    pub(crate) async fn resume(
        &self,
        id: &str,
        uri: LogUri,
        fifos: Fifos,
    ) -> Result<(), ContainerError> {
        let relay =
            blocking(move || fifos.stdout.exists().then(|| Relay::start(&uri, &fifos)).transpose());
        if let Some(relay) = relay.await? {
            self.add(id, relay);
        }
        Ok(())
    }

    /// The process has ended: what it left is in the log when this returns.
    pub(crate) async fn finish(&self, id: &str) {
        let relay = self.relays.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some(relay) = relay {
            relay.finish().await;
        }
    }

    /// The engine ends: what has been read is written, unfinished lines too.
    pub(crate) async fn leave(&self) {
        let relays =
            std::mem::take(&mut *self.relays.lock().unwrap_or_else(PoisonError::into_inner));
        for relay in relays.into_values() {
            relay.leave().await;
        }
    }

    fn add(&self, id: &str, relay: Relay) {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), relay);
    }
}
