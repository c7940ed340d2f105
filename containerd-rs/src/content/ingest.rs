//! Ingests: blobs on their way in. One writer a (namespace, ref); what was written stays for a
//! later writer of the same ref, until it is aborted, committed or a day old without a lease.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::{Content, Info, check_digest};
use crate::context::{Context, Namespace};
use crate::error::{Error, Result};
use crate::filter::{Fields, Filters};
use crate::lease;
use crate::store::labels::{check_labels, drop_empty};
use crate::store::record::{Labels, Timestamp};
use crate::store::{Reader as _, Transaction, check_name, key};

/// How far an ingest has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) reference: String,
    pub(crate) offset: u64,
    pub(crate) total: u64,
    pub(crate) expected: Option<String>,
    pub(crate) started_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

/// The one writer of a ref. Dropping it frees the ref and keeps the data.
pub(crate) struct Writer {
    content: Content,
    context: Context,
    directory: PathBuf,
    reference: String,
    /// None: the bytes are there already, in another namespace.
    file: Option<File>,
    hash: Sha256,
    offset: u64,
    total: u64,
    expected: Option<String>,
    started_at: Timestamp,
    updated_at: Timestamp,
    _lock: Lock,
}

impl Content {
    /// Opens the writer of a ref, resuming what is on disk. Answers `BlobExists` when the
    /// namespace has the expected digest already.
    pub(crate) async fn open_writer(
        &self,
        context: &Context,
        reference: &str,
        total: u64,
        expected: Option<&str>,
    ) -> Result<Writer> {
        check_name("ref", reference)?;
        let lock = self.0.locks.take(&context.namespace, reference)?;
        if let Some(expected) = expected {
            check_digest(expected)?;
            if self.hold(context, expected).await? {
                return Err(Error::BlobExists { digest: expected.to_owned() });
            }
        }
        if let Some(name) = &context.lease
            && !lease::exists(&self.0.store.snapshot()?, context.namespace.as_str(), name)?
        {
            return Err(Error::LeaseGone);
        }
        let directory = self.ingest(&context.namespace, reference);
        let opening = Opening {
            content: self.clone(),
            context: context.clone(),
            directory,
            reference: reference.to_owned(),
            total,
            expected: expected.map(str::to_owned),
        };
        tokio::task::spawn_blocking(move || opening.run(lock)).await.map_err(|_| Error::Closed)?
    }

    pub(crate) fn status(&self, namespace: &Namespace, reference: &str) -> Result<Status> {
        let directory = self.ingest(namespace, reference);
        read_status(&directory, namespace)?
            .ok_or_else(|| Error::not_found("content ingest ref", reference))
    }

    pub(crate) fn statuses(&self, namespace: &Namespace, filters: &Filters) -> Result<Vec<Status>> {
        let mut all = Vec::new();
        for directory in self.ingests()? {
            if let Some(status) = read_status(&directory, namespace)?
                && filters.matches(&status)
            {
                all.push(status);
            }
        }
        all.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(all)
    }

    pub(crate) fn abort(&self, namespace: &Namespace, reference: &str) -> Result<()> {
        let directory = self.ingest(namespace, reference);
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::not_found("content ingest ref", reference))
            }
            other => other.map_err(Error::io("remove", directory)),
        }
    }

    pub(super) fn ingests(&self) -> Result<Vec<PathBuf>> {
        let root = self.0.root.join("ingest");
        let entries = std::fs::read_dir(&root).map_err(Error::io("read", &root))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    }

    fn ingest(&self, namespace: &Namespace, reference: &str) -> PathBuf {
        let name = hex(&Sha256::digest(format!("{namespace}/{reference}")));
        self.0.root.join("ingest").join(name)
    }

    /// Whether the namespace has the blob; the lease of the context holds it from here on.
    pub(crate) async fn hold(&self, context: &Context, digest: &str) -> Result<bool> {
        let key = super::at(&context.namespace, digest);
        if !self.0.store.snapshot()?.exists(&key)? {
            return Ok(false);
        }
        if context.lease.is_none() {
            return Ok(true);
        }
        let (scope, digest) = (context.clone(), digest.to_owned());
        let held = move |transaction: &mut Transaction<'_>| {
            // Garbage may have been collected since.
            let there = transaction.exists(&key)?;
            if there {
                lease::hold(transaction, &scope, "content", &digest)?;
            }
            Ok(there)
        };
        self.0.store.write(held).await
    }
}

struct Opening {
    content: Content,
    context: Context,
    directory: PathBuf,
    reference: String,
    total: u64,
    expected: Option<String>,
}

impl Opening {
    fn run(self, lock: Lock) -> Result<Writer> {
        let now = Timestamp::now();
        let mut writer = Writer {
            content: self.content,
            context: self.context,
            directory: self.directory,
            reference: self.reference,
            file: None,
            hash: Sha256::new(),
            offset: 0,
            total: self.total,
            expected: self.expected,
            started_at: now,
            updated_at: now,
            _lock: lock,
        };
        if let Some(expected) = &writer.expected
            && let Ok(found) = std::fs::metadata(writer.content.path(expected))
        {
            if writer.total != 0 && writer.total != found.len() {
                return Err(total_mismatch(found.len(), writer.total));
            }
            (writer.offset, writer.total) = (found.len(), found.len());
            return Ok(writer);
        }
        match read_status(&writer.directory, &writer.context.namespace)? {
            Some(status) => writer.resume(&status)?,
            None => writer.start()?,
        }
        Ok(writer)
    }
}

impl Writer {
    fn start(&mut self) -> Result<()> {
        std::fs::create_dir_all(&self.directory)
            .map_err(Error::io("create", self.directory.clone()))?;
        let now = self.started_at.to_string();
        self.note("startedat", &now)?;
        self.note("updatedat", &now)?;
        self.note("total", &self.total.to_string())?;
        if let Some(expected) = &self.expected {
            self.note("expected", expected)?;
        }
        if let Some(lease) = &self.context.lease {
            self.note("lease", lease)?;
        }
        self.file = Some(self.open_data()?);
        // Last: an ingest without its ref was never begun.
        self.note("ref", &format!("{}/{}", self.context.namespace, self.reference))
    }

    /// What is on disk counts, once it has been read again for its digest.
    fn resume(&mut self, status: &Status) -> Result<()> {
        if self.total == 0 {
            self.total = status.total;
        }
        if status.total > 0 && self.total != status.total {
            return Err(total_mismatch(status.total, self.total));
        }
        self.note("total", &self.total.to_string())?;
        if let Some(lease) = &self.context.lease {
            self.note("lease", lease)?;
        }
        let file = self.open_data()?;
        let mut buffer = vec![0; 256 << 10];
        let mut reader = &file;
        loop {
            let count =
                reader.read(&mut buffer).map_err(Error::io("read", self.directory.join("data")))?;
            if count == 0 {
                break;
            }
            self.hash.update(&buffer[..count]);
            self.offset += count as u64;
        }
        self.started_at = status.started_at;
        self.updated_at = status.updated_at;
        self.file = Some(file);
        Ok(())
    }

    pub(crate) fn status(&self) -> Status {
        Status {
            reference: self.reference.clone(),
            offset: self.offset,
            total: self.total,
            expected: self.expected.clone(),
            started_at: self.started_at,
            updated_at: self.updated_at,
        }
    }

    /// The digest of what has been written so far.
    pub(crate) fn digest(&self) -> String {
        match (&self.file, &self.expected) {
            (None, Some(expected)) => expected.clone(),
            _ => format!("sha256:{}", hex(&self.hash.clone().finalize())),
        }
    }

    /// Appends; blocks on the disk.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(file) = &self.file else {
            return Err(Error::precondition("content is already complete"));
        };
        file.write_all_at(bytes, self.offset)
            .map_err(Error::io("write", self.directory.join("data")))?;
        self.hash.update(bytes);
        self.offset += bytes.len() as u64;
        self.updated_at = Timestamp::now();
        Ok(())
    }

    /// Starts over; any other size than nothing is not supported, as upstream.
    pub(crate) fn truncate(&mut self, size: u64) -> Result<()> {
        if size != 0 {
            return Err(Error::Unimplemented { reason: "truncate: unsupported size".to_owned() });
        }
        // A claimed blob that is to be sent after all becomes an ingest of its own.
        if self.file.is_none() {
            self.start()?;
        }
        if let Some(file) = &self.file {
            file.set_len(0).map_err(Error::io("truncate", self.directory.join("data")))?;
            self.offset = 0;
            self.hash = Sha256::new();
        }
        Ok(())
    }

    pub(crate) fn set_total(&mut self, total: u64) {
        self.total = total;
    }

    /// Checks, syncs, moves the data to its place and records it. A size of nothing is not
    /// checked. Answers the digest; `BlobExists` when the namespace had it already.
    pub(crate) async fn commit(
        mut self,
        size: u64,
        expected: Option<&str>,
        mut labels: Labels,
    ) -> Result<String> {
        check_labels(&labels)?;
        drop_empty(&mut labels);
        if size > 0 && size != self.offset {
            return Err(Error::precondition(format!(
                "unexpected commit size {}, expected {size}",
                self.offset
            )));
        }
        let digest = self.digest();
        let wanted = expected.filter(|expected| !expected.is_empty());
        if let Some(wanted) = wanted.or(self.expected.as_deref())
            && wanted != digest
        {
            return Err(Error::precondition(format!(
                "unexpected commit digest {digest}, expected {wanted}"
            )));
        }
        let content = self.content.clone();
        let _passing = content.0.gate.read().await;
        let target = content.path(&digest);
        if let Some(file) = self.file.take() {
            let (directory, target) = (self.directory.clone(), target.clone());
            tokio::task::spawn_blocking(move || settle(&file, &directory, &target))
                .await
                .map_err(|_| Error::Closed)??;
        } else if !target.exists() {
            return Err(Error::BlobNotFound { digest });
        }
        let now = Timestamp::now();
        let info = Info {
            digest: digest.clone(),
            size: self.offset,
            created_at: now,
            updated_at: now,
            labels,
        };
        content.record(&self.context, info).await?;
        Ok(digest)
    }

    fn open_data(&self) -> Result<File> {
        let path = self.directory.join("data");
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o666)
            .open(&path)
            .map_err(Error::io("open", path))
    }

    fn note(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        std::fs::write(&path, text).map_err(Error::io("write", path))
    }
}

/// Makes the bytes durable, then visible under their digest, and that durable too: the record that
/// follows is.
fn settle(file: &File, directory: &Path, target: &Path) -> Result<()> {
    let data = directory.join("data");
    if !target.exists() {
        file.set_permissions(std::fs::Permissions::from_mode(0o444))
            .map_err(Error::io("change mode of", &data))?;
        file.sync_all().map_err(Error::io("sync", &data))?;
        std::fs::rename(&data, target).map_err(Error::io("rename", &data))?;
    }
    // Whoever was faster may not have come to this.
    let blobs = target.parent().unwrap_or(target);
    File::open(blobs).and_then(|blobs| blobs.sync_all()).map_err(Error::io("sync", blobs))?;
    std::fs::remove_dir_all(directory).map_err(Error::io("remove", directory))
}

/// None when there is no such ingest, or it belongs to another namespace.
pub(super) fn read_status(directory: &Path, namespace: &Namespace) -> Result<Option<Status>> {
    let Some(note) = Note::read(directory) else { return Ok(None) };
    if note.namespace != namespace.as_str() {
        return Ok(None);
    }
    let data = directory.join("data");
    let found = match std::fs::metadata(&data) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("stat", data)(error)),
    };
    let modified = found.modified().ok().and_then(|at| Timestamp::try_from(at).ok());
    Ok(Some(Status {
        reference: note.reference,
        offset: found.len(),
        total: note.total,
        expected: note.expected,
        started_at: note.started_at,
        updated_at: modified.unwrap_or(note.started_at),
    }))
}

/// The small files beside the data.
pub(super) struct Note {
    pub(super) namespace: String,
    pub(super) reference: String,
    pub(super) lease: Option<String>,
    pub(super) started_at: Timestamp,
    total: u64,
    expected: Option<String>,
}

impl Note {
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let text = |name: &str| std::fs::read_to_string(directory.join(name)).ok();
        let scoped = text("ref")?;
        let (namespace, reference) = scoped.split_once('/')?;
        Some(Self {
            namespace: namespace.to_owned(),
            reference: reference.to_owned(),
            lease: text("lease"),
            started_at: text("startedat")
                .and_then(|at| at.trim().parse().ok())
                .unwrap_or(Timestamp::UNIX_EPOCH),
            total: text("total").and_then(|total| total.trim().parse().ok()).unwrap_or(0),
            expected: text("expected"),
        })
    }
}

impl Fields for Status {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path {
            [field] if field == "ref" => Some(self.reference.as_str().into()),
            _ => None,
        }
    }
}

/// Who writes which ref, since when.
#[derive(Clone, Default)]
pub(super) struct Locks(Arc<Mutex<HashMap<Vec<u8>, Timestamp>>>);

/// Frees its ref when dropped.
struct Lock {
    locks: Locks,
    key: Vec<u8>,
}

impl Locks {
    fn take(&self, namespace: &Namespace, reference: &str) -> Result<Lock> {
        let key = key(namespace.as_str(), &[reference]);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = held.get(&key) {
            let age = Timestamp::now().as_millisecond() - since.as_millisecond();
            return Err(Error::unavailable(format!(
                "ref {namespace}/{reference} locked for {age}ms (since {since})"
            )));
        }
        held.insert(key.clone(), Timestamp::now());
        Ok(Lock { locks: self.clone(), key })
    }

    pub(super) fn held(&self, namespace: &str, reference: &str) -> bool {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.contains_key(&key(namespace, &[reference]))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.locks.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

fn total_mismatch(known: u64, given: u64) -> Error {
    Error::precondition(format!("provided total differs from status: {given} != {known}"))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 0x0f)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}
