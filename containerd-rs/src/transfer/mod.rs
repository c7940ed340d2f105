//! Transfers: whole images moved between registries, archives and the image store, inside the
//! daemon. A transfer runs under a lease, so that nothing of it is collected before an image names
//! it; one that fails leaves nothing named, and what it stored is collected at once.
//!
//! | from | to | |
//! |---|---|---|
//! | registry | image store | [`pull`] |
//! | archive stream | image store | [`import`] |
//! | image store | image store | [`tag`] |
//! | image store | archive stream | [`export`] |

mod archive;
mod blobs;
mod destination;
mod error;
mod export;
mod image;
mod import;
mod progress;
mod unpack;

pub(crate) use destination::{ExtraReference, ImageStore, Unpack};
pub(crate) use error::TransferError;
pub(crate) use export::{ArchiveWriter, ExportOptions, export};
pub(crate) use import::import;
pub(crate) use progress::{Progress, Reporter};

use std::path::PathBuf;
use std::sync::Arc;

use oci_image::Reference;
use oci_image::manifest::Descriptor;
use oci_registry::{Client, Credentials, Hosts, Options, Scheme};

use crate::app::App;
use crate::context::Context;
use crate::store::record::{Labels, Timestamp};
use blobs::Blobs;
use error::{Result, TransferError as Error};

/// A name in a registry and how to get in.
pub(crate) struct RegistrySource {
    pub(crate) reference: String,
    pub(crate) host_directory: Option<PathBuf>,
    pub(crate) default_scheme: Option<Scheme>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) credentials: Option<Arc<dyn Credentials>>,
}

/// Registry to image store.
pub(crate) async fn pull(
    app: &App,
    context: Context,
    source: RegistrySource,
    store: ImageStore,
    report: Reporter,
) -> Result<()> {
    leased(app, context, async |context| {
        let name = source.reference.clone();
        let reference = Reference::parse_qualified(&name)
            .map_err(|source| Error::Reference { reference: name.clone(), source })?;
        report.note(format!("Resolving from OCI Registry ({name})")).await;
        let client = Client::new(Options {
            hosts: Hosts {
                directory: source.host_directory,
                default_scheme: source.default_scheme,
            },
            headers: source.headers,
            credentials: source.credentials,
            ..Options::default()
        });
        let repository = client.repository(&reference);
        let repository = repository.map_err(Error::Resolve)?;
        let resolved = repository.resolve().await.map_err(Error::Resolve)?;
        let mut target = resolved.descriptor;
        target.annotations.extend([blobs::source_label(&reference)]);
        report.note(format!("Pulling from OCI Registry ({name})")).await;
        report.named("fetching image content", &name, None).await;
        let blobs = Blobs::remote(app.clone(), context, report.clone(), repository, &reference);
        image::complete(&blobs, &store, &target, vec![name.clone()], resolved.bytes).await?;
        save(&blobs, &store, store.names(&target), &target).await?;
        report.note(format!("Completed pull from OCI Registry ({name})")).await;
        Ok(())
    })
    .await
}

/// Image store to image store: another name for the same thing.
pub(crate) async fn tag(
    app: &App,
    context: Context,
    source: ImageStore,
    store: ImageStore,
) -> Result<()> {
    leased(app, context, async |context| {
        let image = app
            .images
            .get(&context.namespace, &source.name)
            .map_err(|_| Error::NoImage(source.name.clone()))?;
        let target = from_record(&image.target)?;
        store.store(app, &context, store.names(&target), &target).await?;
        Ok(())
    })
    .await
}

/// Names `target` and tells about it.
async fn save(
    blobs: &Blobs,
    store: &ImageStore,
    names: Vec<String>,
    target: &Descriptor,
) -> Result<()> {
    for image in store.store(&blobs.app, &blobs.context, names, target).await? {
        blobs.report.named("saved", &image.name, Some(target.clone())).await;
    }
    Ok(())
}

/// Runs `work` under the caller's lease, or one of our own that ends with it.
async fn leased<T>(
    app: &App,
    mut context: Context,
    work: impl AsyncFnOnce(Context) -> Result<T>,
) -> Result<T> {
    if context.lease.is_some() {
        return work(context).await;
    }
    let expires = Timestamp::now() + std::time::Duration::from_secs(24 * 60 * 60);
    let labels = Labels::from([(crate::lease::EXPIRE.to_owned(), expires.to_string())]);
    let lease = app
        .leases
        .create(&context.namespace, "", labels)
        .await
        .map_err(Error::store("create lease"))?;
    let mut guard = Held { app: app.clone(), context: context.clone(), lease: Some(lease.id) };
    context.lease.clone_from(&guard.lease);
    let outcome = work(context).await;
    guard.release(outcome.is_err()).await;
    outcome
}

/// A lease that ends even when the caller hangs up in the middle.
struct Held {
    app: App,
    context: Context,
    lease: Option<String>,
}

impl Held {
    async fn release(&mut self, failed: bool) {
        let Some(lease) = self.lease.take() else { return };
        release(&self.app, &self.context, &lease, failed).await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            let (app, context) = (self.app.clone(), self.context.clone());
            // Ends by itself: one write and one collection.
            tokio::spawn(async move { release(&app, &context, &lease, true).await });
        }
    }
}

async fn release(app: &App, context: &Context, lease: &str, failed: bool) {
    if let Err(error) = app.leases.delete(&context.namespace, lease).await {
        tracing::warn!(lease, %error, "delete lease of a transfer");
    }
    if !failed {
        app.collector.schedule();
    } else if let Err(error) = app.collector.run().await {
        tracing::warn!(%error, "collect what a failed transfer left");
    }
}

fn from_record(target: &crate::store::record::Descriptor) -> Result<Descriptor> {
    let digest = oci_image::Digest::parse(&target.digest)
        .map_err(|error| Error::Invalid(format!("digest {}: {error}", target.digest)))?;
    let size = u64::try_from(target.size).unwrap_or(0);
    let mut descriptor = Descriptor::new(&target.media_type, digest, size);
    descriptor.annotations.clone_from(&target.annotations);
    Ok(descriptor)
}
