//! Blobs on their way into the content store, and the labels that keep them together.

use std::sync::Arc;

use bytes::Bytes;
use oci_image::manifest::{Descriptor, Document, media};
use oci_image::{Digest, Reference};
use oci_registry::Repository;
use tokio::sync::{Semaphore, mpsc};

use super::error::{Result, TransferError as Error};
use super::progress::{Object, Pace, Reporter};
use crate::app::App;
use crate::content::Writer;
use crate::context::Context;
use crate::error::Error as StoreError;
use crate::store::record::Labels;

/// One transfer's access to the content store and, for a pull, to the registry.
#[derive(Clone)]
pub(crate) struct Blobs {
    pub(crate) app: App,
    pub(crate) context: Context,
    pub(crate) report: Reporter,
    remote: Option<Arc<Remote>>,
}

struct Remote {
    repository: Repository,
    /// `containerd.io/distribution.source.<host>` → repository.
    source: (String, String),
    downloads: Semaphore,
}

impl Blobs {
    pub(crate) fn local(app: App, context: Context, report: Reporter) -> Self {
        Self { app, context, report, remote: None }
    }

    pub(crate) fn remote(
        app: App,
        context: Context,
        report: Reporter,
        repository: Repository,
        reference: &Reference,
    ) -> Self {
        let source = source_label(reference);
        let downloads = Semaphore::new(DOWNLOADS);
        let remote = Some(Arc::new(Remote { repository, source, downloads }));
        Self { app, context, report, remote }
    }

    pub(crate) fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// An index or manifest, fetched where it is missing, with labels for its children.
    pub(crate) async fn document(
        &self,
        object: &Object,
        known: Option<Bytes>,
    ) -> Result<(Document, Bytes)> {
        let descriptor = &object.descriptor;
        let digest = descriptor.digest.as_str();
        let present = self.has(digest).await?;
        let bytes = match (present, known, &self.remote) {
            (true, _, _) => Bytes::from(
                self.app
                    .content
                    .read_all(&self.context.namespace, digest, DOCUMENT_MAX)
                    .map_err(Error::store("read manifest"))?,
            ),
            (false, Some(bytes), _) => bytes,
            (false, None, Some(remote)) => {
                let fetched = remote.repository.manifest(descriptor).await;
                fetched.map_err(|source| fetch_error(descriptor, source))?
            }
            (false, None, None) => {
                return Err(Error::Store {
                    operation: "read manifest",
                    source: StoreError::BlobNotFound { digest: digest.to_owned() },
                });
            }
        };
        let document = Document::parse(&descriptor.media_type, &bytes)
            .map_err(|source| Error::Manifest { digest: descriptor.digest.clone(), source })?;
        let mut labels = child_labels(&document);
        labels.extend(self.source_label());
        if present {
            self.label(&descriptor.digest, labels).await?;
            self.report.object("already exists", object, descriptor.size).await;
        } else {
            self.write(descriptor, &object.name(), &bytes, labels).await?;
            self.report.object("complete", object, descriptor.size).await;
        }
        Ok((document, bytes))
    }

    /// Makes sure that a config or layer is there.
    pub(crate) async fn ensure(&self, object: &Object) -> Result<()> {
        let descriptor = &object.descriptor;
        let digest = descriptor.digest.as_str();
        if self.has(digest).await? {
            return self.exists(object).await;
        }
        let Some(remote) = &self.remote else {
            return Err(Error::Store {
                operation: "read blob",
                source: StoreError::BlobNotFound { digest: digest.to_owned() },
            });
        };
        self.report.object("waiting", object, 0).await;
        let _permit = remote.downloads.acquire().await.map_err(|_| Error::Abandoned)?;
        let opened = self.open(&object.name(), descriptor.size, Some(digest)).await;
        let Some(mut writer) = opened? else { return self.exists(object).await };
        if writer.status().offset > descriptor.size {
            writer.truncate(0).map_err(Error::store("write blob"))?;
        }
        let writer = self.download(remote, object, writer).await?;
        let labels = self.source_label().into_iter().collect();
        match writer.commit(descriptor.size, Some(digest), labels).await {
            Ok(_) => {}
            Err(StoreError::BlobExists { .. }) => return self.exists(object).await,
            Err(source) => {
                // Wrong bytes must not be what the next try resumes from.
                drop(self.app.content.abort(&self.context.namespace, &object.name()));
                return Err(Error::Store { operation: "failed to commit", source });
            }
        }
        self.report.object("complete", object, descriptor.size).await;
        Ok(())
    }

    async fn download(&self, remote: &Remote, object: &Object, writer: Writer) -> Result<Writer> {
        let descriptor = &object.descriptor;
        let offset = writer.status().offset;
        if offset == descriptor.size {
            return Ok(writer);
        }
        let failed = |source| fetch_error(descriptor, source);
        let mut reader = remote.repository.blob(descriptor, offset).await.map_err(failed)?;
        // Hashing and writing happen on a thread of their own, beside the network.
        let (chunks, received) = mpsc::channel::<Bytes>(16);
        let writing = tokio::task::spawn_blocking(move || drain(writer, received));
        let mut pace = Pace::new();
        let outcome = loop {
            match reader.chunk().await {
                Ok(Some(chunk)) => {
                    if chunks.send(chunk).await.is_err() {
                        break Ok(());
                    }
                    if pace.due() {
                        self.report.moving("downloading", object, reader.position());
                    }
                }
                Ok(None) => break Ok(()),
                Err(source) => break Err(failed(source)),
            }
        };
        drop(chunks);
        let writer = writing.await.map_err(|_| Error::Abandoned)?;
        outcome?;
        writer.map_err(Error::store("write blob"))
    }

    /// A blob that is there and held.
    async fn exists(&self, object: &Object) -> Result<()> {
        let labels = self.source_label().into_iter().collect();
        self.label(&object.descriptor.digest, labels).await?;
        self.report.object("already exists", object, object.descriptor.size).await;
        Ok(())
    }

    /// Whether a blob is there; it stays, then.
    async fn has(&self, digest: &str) -> Result<bool> {
        self.app.content.hold(&self.context, digest).await.map_err(Error::store("hold blob"))
    }

    /// Opens the writer of a ref, waiting for whoever has it; `None` when the blob is there.
    async fn open(
        &self,
        reference: &str,
        size: u64,
        digest: Option<&str>,
    ) -> Result<Option<Writer>> {
        loop {
            match self.app.content.open_writer(&self.context, reference, size, digest).await {
                Ok(writer) => return Ok(Some(writer)),
                Err(StoreError::BlobExists { .. }) => return Ok(None),
                Err(StoreError::Unavailable { .. }) => {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                Err(source) => return Err(Error::Store { operation: "open ingest", source }),
            }
        }
    }

    /// Stores bytes that are in memory.
    pub(crate) async fn write(
        &self,
        descriptor: &Descriptor,
        reference: &str,
        bytes: &Bytes,
        labels: Labels,
    ) -> Result<()> {
        let digest = descriptor.digest.as_str();
        let Some(mut writer) = self.open(reference, descriptor.size, Some(digest)).await? else {
            return self.label(&descriptor.digest, labels).await;
        };
        if writer.status().offset > 0 && writer.status().offset != descriptor.size {
            writer.truncate(0).map_err(Error::store("write blob"))?;
        }
        if writer.status().offset == 0 {
            writer.write(bytes).map_err(Error::store("write blob"))?;
        }
        match writer.commit(descriptor.size, Some(digest), labels.clone()).await {
            Ok(_) => Ok(()),
            Err(StoreError::BlobExists { .. }) => self.label(&descriptor.digest, labels).await,
            Err(source) => {
                drop(self.app.content.abort(&self.context.namespace, reference));
                Err(Error::Store { operation: "failed to commit", source })
            }
        }
    }

    /// Adds labels to a blob.
    pub(crate) async fn label(&self, digest: &Digest, labels: Labels) -> Result<()> {
        if labels.is_empty() {
            return Ok(());
        }
        let info = self
            .app
            .content
            .info(&self.context.namespace, digest.as_str())
            .map_err(Error::store("label blob"))?;
        let mask: Vec<String> = labels
            .iter()
            .filter(|(name, value)| info.labels.get(*name) != Some(*value))
            .map(|(name, _)| format!("labels.{name}"))
            .collect();
        if mask.is_empty() {
            return Ok(());
        }
        self.app
            .content
            .update(&self.context, digest.as_str(), labels, mask)
            .await
            .map_err(Error::store("label blob"))?;
        Ok(())
    }

    fn source_label(&self) -> Option<(String, String)> {
        self.remote.as_ref().map(|remote| remote.source.clone())
    }
}

/// Where a blob came from. Compat: without the port, as containerd writes it.
pub(crate) fn source_label(reference: &Reference) -> (String, String) {
    let domain = reference.domain();
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => domain,
    };
    (format!("{SOURCE}.{}", host.trim_matches(['[', ']'])), reference.path().to_owned())
}

fn drain(mut writer: Writer, mut chunks: mpsc::Receiver<Bytes>) -> crate::error::Result<Writer> {
    while let Some(chunk) = chunks.blocking_recv() {
        writer.write(&chunk)?;
    }
    Ok(writer)
}

fn fetch_error(descriptor: &Descriptor, source: oci_registry::RegistryError) -> Error {
    Error::Fetch { digest: descriptor.digest.clone(), source }
}

/// What keeps the children of a document from the garbage collector. Compat: containerd's names,
/// by which clients walk an image without parsing it.
pub(crate) fn child_labels(document: &Document) -> Labels {
    let mut labels = Labels::new();
    match document {
        Document::Index(index) => {
            let (mut manifests, mut others) = (0, 0);
            for child in &index.manifests {
                let name = if media::is_manifest(&child.media_type) {
                    manifests += 1;
                    format!("{REF_CONTENT}.m.{}", manifests - 1)
                } else {
                    others += 1;
                    format!("{REF_CONTENT}.{}", others - 1)
                };
                labels.insert(name, child.digest.to_string());
            }
        }
        Document::Manifest(manifest) => {
            let (mut layers, mut others) = (0, 0);
            for child in std::iter::once(&manifest.config).chain(&manifest.layers) {
                let name = if media::is_config(&child.media_type) {
                    format!("{REF_CONTENT}.config")
                } else if media::is_layer(&child.media_type) {
                    layers += 1;
                    format!("{REF_CONTENT}.l.{}", layers - 1)
                } else {
                    others += 1;
                    format!("{REF_CONTENT}.{}", others - 1)
                };
                labels.insert(name, child.digest.to_string());
            }
        }
    }
    labels
}

const SOURCE: &str = "containerd.io/distribution.source";
const REF_CONTENT: &str = "containerd.io/gc.ref.content";
const DOCUMENT_MAX: u64 = 8 << 20;
/// Compat: max-concurrent-downloads.
const DOWNLOADS: usize = 3;
