//! Archive to image store.

use std::io::Read;

use oci_image::manifest::{Descriptor, media};
use tokio::runtime::Handle;

use super::archive::Importer;
use super::blobs::{Blobs, child_labels};
use super::destination::ImageStore;
use super::error::{Result, TransferError as Error};
use super::progress::Reporter;
use super::{image, leased, save};
use crate::app::App;
use crate::context::Context;
use oci_image::manifest::Document;

pub(crate) async fn import(
    app: &App,
    context: Context,
    source: impl Read + Send + 'static,
    store: ImageStore,
    report: Reporter,
) -> Result<()> {
    leased(app, context, async |context| {
        report.note("Importing".to_owned()).await;
        let importer =
            Importer { app: app.clone(), context: context.clone(), runtime: Handle::current() };
        let contents = tokio::task::spawn_blocking(move || importer.read(source))
            .await
            .map_err(|_| Error::Abandoned)??;
        let blobs = Blobs::local(app.clone(), context, report.clone());
        for (descriptor, bytes) in contents.manifests {
            let labels = Document::parse(&descriptor.media_type, &bytes)
                .map(|document| child_labels(&document))
                .map_err(|source| Error::Manifest { digest: descriptor.digest.clone(), source })?;
            let name = format!("manifest-{}", descriptor.digest);
            blobs.write(&descriptor, &name, &bytes.into(), labels).await?;
        }
        let bytes = contents.bytes;
        let index = Descriptor::of(media::OCI_INDEX, &bytes);
        // Compat: stored even where no image names it; then it goes with the lease.
        let labels = child_labels(&Document::Index(contents.index.clone()));
        blobs.write(&index, &format!("index-{}", index.digest), &bytes.into(), labels).await?;
        let mut seen = std::collections::HashSet::new();
        let wanted = store.wanted(&contents.index);
        if wanted.is_empty() && !contents.index.manifests.is_empty() {
            return Err(Error::Platform(index.digest));
        }
        for manifest in &wanted {
            if seen.insert(manifest.digest.clone()) {
                let parents = vec![format!("index-{}", index.digest)];
                image::complete(&blobs, &store, manifest, parents, None).await?;
            }
        }
        let names = store.names(&index);
        if !names.is_empty() {
            save(&blobs, &store, names, &index).await?;
        }
        for manifest in &wanted {
            let names = store.imported_names(manifest);
            if names.is_empty() {
                tracing::info!(digest = %manifest.digest, "imported manifest without a name");
                continue;
            }
            save(&blobs, &store, names, manifest).await?;
        }
        report.note("Completed import".to_owned()).await;
        Ok(())
    })
    .await
}
