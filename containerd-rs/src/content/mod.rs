//! The content store: blobs by digest, with containerd's layout on disk.
//!
//! ```text
//! <root>/io.containerd.content.v1.content/
//!   blobs/sha256/<hex>                      0444, complete and synced
//!   ingest/<sha256 of "namespace/ref">/     data ref startedat updatedat total [expected] [lease]
//! ```
//! Whose blobs they are is metadata: `blob␀namespace␀digest` → record and the index
//! `blobin␀digest␀namespace`. A blob of another namespace can be claimed by its digest (containerd's
//! default sharing policy).

pub(crate) mod ingest;
mod sweep;

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::RwLock;

pub(crate) use self::ingest::{Status, Writer};
use crate::context::{Context, Namespace};
use crate::error::{Error, Result};
use crate::events::Events;
use crate::filter::{Fields, Filters, label};
use crate::lease;
use crate::store::labels::{apply_path, check_labels, drop_empty};
use crate::store::record::{Labels, Timestamp};
use crate::store::{Reader as _, Store, Transaction, key, namespaces, prefix};

#[derive(Clone)]
pub(crate) struct Content(Arc<Inner>);

struct Inner {
    root: PathBuf,
    store: Store,
    events: Events,
    locks: ingest::Locks,
    /// Held shared while a commit stands between rename and metadata, alone by the sweep.
    gate: RwLock<()>,
}

/// What a namespace knows of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Info {
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    #[serde(default)]
    pub(crate) labels: Labels,
}

/// An open blob; a plain file, to be read on a blocking thread or with `pread`.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) file: File,
    pub(crate) size: u64,
}

impl Content {
    pub(crate) fn open(root: &Path, store: Store, events: Events) -> Result<Self> {
        let root = root.join("io.containerd.content.v1.content");
        for part in ["blobs/sha256", "ingest"] {
            let path = root.join(part);
            std::fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        let locks = ingest::Locks::default();
        let content = Self(Arc::new(Inner { root, store, events, locks, gate: RwLock::new(()) }));
        content.sweep_unbegun()?;
        Ok(content)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0.root
    }

    pub(crate) fn info(&self, namespace: &Namespace, digest: &str) -> Result<Info> {
        check_digest(digest)?;
        let found = self.0.store.snapshot()?.record(&at(namespace, digest))?;
        found.ok_or_else(|| Error::BlobNotFound { digest: digest.to_owned() })
    }

    pub(crate) fn list(&self, namespace: &Namespace, filters: &Filters) -> Result<Vec<Info>> {
        let mut all: Vec<Info> =
            self.0.store.snapshot()?.records(&prefix(BLOB, &[namespace.as_str()]))?;
        all.retain(|info| filters.matches(info));
        Ok(all)
    }

    /// Paths of the mask: `labels`, `labels.<name>`; without one all labels are replaced.
    pub(crate) async fn update(
        &self,
        context: &Context,
        digest: &str,
        new: Labels,
        mask: Vec<String>,
    ) -> Result<Info> {
        check_digest(digest)?;
        let (namespace, digest) = (context.namespace.clone(), digest.to_owned());
        self.0
            .store
            .write(move |transaction| {
                let found: Option<Info> = transaction.record(&at(&namespace, &digest))?;
                let mut info =
                    found.ok_or_else(|| Error::BlobNotFound { digest: digest.clone() })?;
                if mask.is_empty() {
                    info.labels = new;
                } else {
                    for path in &mask {
                        if !apply_path(path, &mut info.labels, &new) {
                            return Err(Error::invalid(format!(
                                "cannot update {path} field on content info \"{digest}\""
                            )));
                        }
                    }
                }
                check_labels(&info.labels)?;
                drop_empty(&mut info.labels);
                info.updated_at = Timestamp::now();
                transaction.put(&at(&namespace, &digest), &info)?;
                Ok(info)
            })
            .await
    }

    /// Forgets the blob in this namespace; the bytes go when nobody knows them, at the next
    /// collection.
    pub(crate) async fn delete(&self, context: &Context, digest: &str) -> Result<()> {
        check_digest(digest)?;
        let (scope, blob) = (context.clone(), digest.to_owned());
        self.0
            .store
            .write(move |transaction| {
                if !transaction.exists(&at(&scope.namespace, &blob))? {
                    return Err(Error::BlobNotFound { digest: blob });
                }
                lease::release(transaction, &scope, "content", &blob);
                forget(transaction, scope.namespace.as_str(), &blob);
                Ok(())
            })
            .await?;
        self.0.events.content_delete(&context.namespace, digest);
        Ok(())
    }

    /// Opens a blob that this namespace knows.
    pub(crate) fn reader(&self, namespace: &Namespace, digest: &str) -> Result<Reader> {
        let info = self.info(namespace, digest)?;
        let path = self.path(digest);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        Ok(Reader { file, size: info.size })
    }

    /// The whole of a small blob, at most `limit` bytes.
    pub(crate) fn read_all(
        &self,
        namespace: &Namespace,
        digest: &str,
        limit: u64,
    ) -> Result<Vec<u8>> {
        use std::io::Read as _;
        let reader = self.reader(namespace, digest)?;
        if reader.size > limit {
            return Err(Error::precondition(format!(
                "content {digest} has {} bytes, more than {limit}",
                reader.size
            )));
        }
        let mut bytes = Vec::new();
        let path = self.path(digest);
        reader.file.take(limit).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        Ok(bytes)
    }

    /// Where the bytes of a (checked) digest live.
    pub(crate) fn path(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').unwrap_or(("sha256", digest));
        self.0.root.join("blobs").join(algorithm).join(hex)
    }

    /// Records that a blob on disk belongs to a namespace. Answers `BlobExists` when it did.
    async fn record(&self, context: &Context, info: Info) -> Result<()> {
        let scope = context.clone();
        let (digest, size) = (info.digest.clone(), info.size);
        let known = self
            .0
            .store
            .write(move |transaction| {
                let known = transaction.exists(&at(&scope.namespace, &info.digest))?;
                lease::hold(transaction, &scope, "content", &info.digest)?;
                if !known {
                    namespaces::ensure(transaction, &scope.namespace)?;
                    transaction.put(&at(&scope.namespace, &info.digest), &info)?;
                    let index = key(BLOB_IN, &[&info.digest, scope.namespace.as_str()]);
                    transaction.mark(&index);
                }
                Ok(known)
            })
            .await?;
        if known {
            return Err(Error::BlobExists { digest });
        }
        self.0.events.content_create(&context.namespace, &digest, size);
        Ok(())
    }
}

impl Fields for Info {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.split_first()? {
            (first, []) if first == "digest" => Some(self.digest.as_str().into()),
            (first, []) if first == "size" => Some(self.size.to_string().into()),
            (first, rest) if first == "labels" => label(&self.labels, rest),
            _ => None,
        }
    }
}

/// Takes a blob out of a namespace.
pub(crate) fn forget(transaction: &mut Transaction<'_>, namespace: &str, digest: &str) {
    transaction.remove(&key(BLOB, &[namespace, digest]));
    transaction.remove(&key(BLOB_IN, &[digest, namespace]));
}

/// A digest we can keep: `sha256:` and 64 lower-case hex digits.
pub(crate) fn check_digest(digest: &str) -> Result<()> {
    // Compat: the sentences are those of the go-digest package.
    let Some((algorithm, hex)) = digest.split_once(':') else {
        return Err(Error::invalid(format!("\"{digest}\": invalid checksum digest format")));
    };
    if algorithm != "sha256" {
        return Err(Error::invalid(format!("\"{digest}\": unsupported digest algorithm")));
    }
    if hex.len() != 64 {
        return Err(Error::invalid(format!("\"{digest}\": invalid checksum digest length")));
    }
    if !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Error::invalid(format!("\"{digest}\": invalid checksum digest format")));
    }
    Ok(())
}

fn at(namespace: &Namespace, digest: &str) -> Vec<u8> {
    key(BLOB, &[namespace.as_str(), digest])
}

pub(crate) const BLOB: &str = "blob";
const BLOB_IN: &str = "blobin";

#[cfg(test)]
mod tests;
