//! Metadata: one redb file, one ordered table of keys and records, one writer thread.
//!
//! Requests are closures over a [`Transaction`]. The writer thread drains its queue, runs the
//! waiting closures one after the other, commits once, durably, and then answers them all
//! (group commit). A closure that fails leaves no trace: its changes sit in an overlay that is
//! poured into the database transaction only when it succeeded. Readers use redb's snapshots and
//! never wait for the writer.
//!
//! Keys are fields joined by a zero byte, the table's name first; see [`key`]. Records are JSON.

pub(crate) mod containers;
mod file;
pub(crate) mod gc;
pub(crate) mod images;
pub(crate) mod labels;
pub(crate) mod namespaces;
pub(crate) mod record;
mod reserve;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use trace_log::task::span;

use self::reserve::Reserve;
use crate::context::Durable;
use crate::error::{Error, Result};

/// Handle to the metadata; cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    database: Arc<Database>,
    queue: Option<SyncSender<Job>>,
    generation: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
    failed: CancellationToken,
}

/// Something metadata can be read from: a snapshot, or a transaction under way.
pub(crate) trait Reader {
    fn bytes(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Calls `visit` with every key and value that starts with `prefix`, in order; stops early
    /// when it answers false.
    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()>;

    fn record<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>>
    where
        Self: Sized,
    {
        match self.bytes(key)? {
            Some(bytes) => decode(key, &bytes).map(Some),
            None => Ok(None),
        }
    }

    fn exists(&self, key: &[u8]) -> Result<bool>
    where
        Self: Sized,
    {
        Ok(self.bytes(key)?.is_some())
    }

    fn any(&self, prefix: &[u8]) -> Result<bool>
    where
        Self: Sized,
    {
        let mut found = false;
        self.scan(prefix, &mut |_, _| {
            found = true;
            Ok(false)
        })?;
        Ok(found)
    }

    fn records<T: DeserializeOwned>(&self, prefix: &[u8]) -> Result<Vec<T>>
    where
        Self: Sized,
    {
        let mut all = Vec::new();
        self.scan(prefix, &mut |key, value| {
            all.push(decode(key, value)?);
            Ok(true)
        })?;
        Ok(all)
    }
}

/// What a scan calls; false ends it.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool> + 'a;

/// A consistent view of the committed metadata.
pub(crate) struct Snapshot {
    table: Option<redb::ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

/// Changes of one request, over the database transaction they will be poured into.
pub(crate) struct Transaction<'a> {
    table: &'a redb::Table<'a, &'static [u8], &'static [u8]>,
    overlay: Overlay,
    first: bool,
    /// The disk is full: nothing new.
    full: bool,
}

impl Store {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let reserve = Arc::new(Reserve::open(path).map_err(Error::io("open", path))?);
        let database = Arc::new(file::open(path, CACHE, Arc::clone(&reserve))?);
        let (queue, jobs) = sync_channel(QUEUE);
        let generation = Arc::new(AtomicU64::new(0));
        let (own, grown) = (database.clone(), generation.clone());
        let failed = CancellationToken::new();
        let writer = Writer { database: own, generation: grown, reserve, failed: failed.clone() };
        let writer = std::thread::Builder::new()
            .name("metadata".into())
            .spawn(move || writer.run(&jobs))
            .map_err(Error::io("start writer thread of", path))?;
        Ok(Self {
            shared: Arc::new(Shared {
                database,
                queue: Some(queue),
                generation,
                writer: Some(writer),
                failed,
            }),
        })
    }

    /// Cancelled when the file can no longer be written: only a fresh start helps then.
    pub(crate) fn failed(&self) -> CancellationToken {
        self.shared.failed.clone()
    }

    /// Runs `change` on the writer thread; answers after the durable commit.
    pub(crate) async fn write<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T> + Send + 'static,
    {
        self.write_when(Durable::Now, change).await
    }

    /// The same, where the caller may not need the commit to be durable.
    pub(crate) async fn write_when<T, F>(&self, when: Durable, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T> + Send + 'static,
    {
        let (answer, done) = oneshot::channel();
        let written = async {
            self.enqueue(when, change, answer).await?;
            done.await.map_err(|_| Error::Closed)?
        };
        span("commit", written).await
    }

    async fn enqueue<T, F>(
        &self,
        when: Durable,
        change: F,
        answer: oneshot::Sender<Result<T>>,
    ) -> Result<()>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T> + Send + 'static,
    {
        use std::sync::mpsc::TrySendError;
        let queue = self.shared.queue.as_ref().ok_or(Error::Closed)?;
        let mut next = Job { when, work: work(change, answer) };
        loop {
            match queue.try_send(next) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(Error::Closed),
                Err(TrySendError::Full(back)) => next = back,
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        let transaction =
            self.shared.database.begin_read().map_err(|error| database("begin read", error))?;
        match transaction.open_table(TABLE) {
            Ok(table) => Ok(Snapshot { table: Some(table) }),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(Snapshot { table: None }),
            Err(error) => Err(database("open table", error)),
        }
    }

    /// Grows with every committed batch.
    pub(crate) fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Closing the queue ends the writer after what waits in it.
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.thread().id() != std::thread::current().id()
            && writer.join().is_err()
        {
            tracing::error!("the metadata writer panicked");
        }
    }
}

impl Reader for Snapshot {
    fn bytes(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(table) = &self.table else { return Ok(None) };
        let found = table.get(key).map_err(|error| database("get", error))?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let Some(table) = &self.table else { return Ok(()) };
        for entry in table.range(prefix..).map_err(|error| database("scan", error))? {
            let (key, value) = entry.map_err(|error| database("scan", error))?;
            if !key.value().starts_with(prefix) || !visit(key.value(), value.value())? {
                break;
            }
        }
        Ok(())
    }
}

impl Transaction<'_> {
    /// Whether no request of the same batch changed anything before this one.
    pub(crate) fn is_first(&self) -> bool {
        self.first
    }

    pub(crate) fn put<T: Serialize>(&mut self, key: &[u8], value: &T) -> Result<()> {
        if self.full && !self.exists(key)? {
            return Err(Error::Full);
        }
        let bytes = serde_json::to_vec(value).map_err(|source| record_error(key, source))?;
        self.overlay.insert(key.to_vec(), Some(bytes));
        Ok(())
    }

    /// An index entry: the key says it all.
    pub(crate) fn mark(&mut self, key: &[u8]) {
        self.overlay.insert(key.to_vec(), Some(Vec::new()));
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.overlay.insert(key.to_vec(), None);
    }

    pub(crate) fn remove_prefix(&mut self, prefix: &[u8]) -> Result<()> {
        let mut keys = Vec::new();
        self.scan(prefix, &mut |key, _| {
            keys.push(key.to_vec());
            Ok(true)
        })?;
        for key in keys {
            self.overlay.insert(key, None);
        }
        Ok(())
    }
}

impl Reader for Transaction<'_> {
    fn bytes(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(changed) = self.overlay.get(key) {
            return Ok(changed.clone());
        }
        let found = self.table.get(key).map_err(|error| database("get", error))?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let mut merged: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for entry in self.table.range(prefix..).map_err(|error| database("scan", error))? {
            let (key, value) = entry.map_err(|error| database("scan", error))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            merged.insert(key.value().to_vec(), Some(value.value().to_vec()));
        }
        for (key, value) in self.overlay.range(prefix.to_vec()..) {
            if !key.starts_with(prefix) {
                break;
            }
            merged.insert(key.clone(), value.clone());
        }
        for (key, value) in &merged {
            if let Some(value) = value
                && !visit(key, value)?
            {
                break;
            }
        }
        Ok(())
    }
}

type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;
/// Tells the caller how the batch ended.
type Finish = Box<dyn FnOnce(std::result::Result<(), Arc<redb::Error>>) + Send>;
type Work = Box<dyn FnOnce(&mut Transaction<'_>) -> (bool, Finish) + Send>;

struct Job {
    when: Durable,
    work: Work,
}

fn work<T, F>(change: F, answer: oneshot::Sender<Result<T>>) -> Work
where
    T: Send + 'static,
    F: FnOnce(&mut Transaction<'_>) -> Result<T> + Send + 'static,
{
    Box::new(move |transaction| {
        let outcome = change(transaction);
        let keep = outcome.is_ok();
        let finish: Finish = Box::new(move |committed| {
            let outcome = match committed {
                Ok(()) => outcome,
                Err(error) => outcome.and_then(|_| Err(database("commit", CommitFailed(error)))),
            };
            // A caller that hung up does not want to know.
            drop(answer.send(outcome));
        });
        (keep, finish)
    })
}

struct Writer {
    database: Arc<Database>,
    generation: Arc<AtomicU64>,
    reserve: Arc<Reserve>,
    failed: CancellationToken,
}

impl Writer {
    fn run(&self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut finished = Vec::new();
            let committed = self.batch(first, jobs, &mut finished).map_err(Arc::new);
            match &committed {
                Ok(()) => drop(self.generation.fetch_add(1, Ordering::AcqRel)),
                Err(error) => {
                    tracing::error!(%error, "metadata cannot be written; ending");
                    self.failed.cancel();
                }
            }
            for finish in finished {
                finish(committed.clone());
            }
        }
    }

    fn batch(
        &self,
        first: Job,
        jobs: &Receiver<Job>,
        finished: &mut Vec<Finish>,
    ) -> std::result::Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        let mut changed = false;
        let mut durability = Durability::None;
        let full = !self.reserve.is_whole();
        {
            let mut table = transaction.open_table(TABLE)?;
            let mut next = Some(first);
            while let Some(job) = next.take() {
                let when = job.when;
                let (overlay, finish) = run_job(&table, job.work, !changed, full);
                if when == Durable::Now && !overlay.is_empty() {
                    durability = Durability::Immediate;
                }
                if let Some(finish) = finish {
                    finished.push(finish);
                }
                for (key, value) in overlay {
                    changed = true;
                    match value {
                        Some(value) => drop(table.insert(key.as_slice(), value.as_slice())?),
                        None => drop(table.remove(key.as_slice())?),
                    }
                }
                if finished.len() < BATCH {
                    next = jobs.try_recv().ok();
                }
            }
        }
        if changed {
            transaction.set_durability(durability)?;
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        Ok(())
    }
}

/// Runs one request; what it changed is answered only when it succeeded. A panicking closure
/// costs its own request: its caller sees the answer channel closed.
fn run_job<'a>(
    table: &'a redb::Table<'a, &'static [u8], &'static [u8]>,
    work: Work,
    first: bool,
    full: bool,
) -> (Overlay, Option<Finish>) {
    let mut request = Transaction { table, overlay: Overlay::new(), first, full };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&mut request)));
    match outcome {
        Ok((true, finish)) => (request.overlay, Some(finish)),
        Ok((false, finish)) => (Overlay::new(), Some(finish)),
        Err(_) => {
            tracing::error!("a metadata request panicked");
            (Overlay::new(), None)
        }
    }
}

/// Joins fields with a zero byte; a trailing one makes prefixes exact.
pub(crate) fn key(table: &str, parts: &[&str]) -> Vec<u8> {
    let mut key = table.as_bytes().to_vec();
    for part in parts {
        key.push(0);
        key.extend_from_slice(part.as_bytes());
    }
    key
}

/// The prefix of all keys below these fields.
pub(crate) fn prefix(table: &str, parts: &[&str]) -> Vec<u8> {
    let mut prefix = key(table, parts);
    prefix.push(0);
    prefix
}

/// The fields of a key, the table's name first.
pub(crate) fn fields(key: &[u8]) -> Vec<String> {
    key.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

/// Names go into keys: a zero byte in one would forge a field.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(format!("{what} must not be empty")));
    }
    if name.contains('\0') {
        return Err(Error::invalid(format!("{what} must not contain a zero byte")));
    }
    Ok(())
}

fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| record_error(key, source))
}

fn record_error(key: &[u8], source: serde_json::Error) -> Error {
    Error::Record { key: fields(key).join("/"), source }
}

fn database(operation: &'static str, error: impl Into<redb::Error>) -> Error {
    Error::Database { operation, source: Box::new(error.into()) }
}

/// One failed commit is told to every request of its batch.
struct CommitFailed(Arc<redb::Error>);

impl From<CommitFailed> for redb::Error {
    fn from(failed: CommitFailed) -> Self {
        Self::Io(std::io::Error::other(failed.0.to_string()))
    }
}

const TABLE: TableDefinition<'static, &'static [u8], &'static [u8]> =
    TableDefinition::new("metadata");
/// Pages kept in memory.
const CACHE: usize = 1 << 19;
/// Requests that may wait; callers beyond that wait in their own tasks.
const QUEUE: usize = 1024;
/// Requests in one commit.
const BATCH: usize = 256;

#[cfg(test)]
mod tests;
