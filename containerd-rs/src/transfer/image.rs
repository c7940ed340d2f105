//! From a descriptor to a complete image: its documents, its blobs, and its snapshots.

use bytes::Bytes;
use oci_image::manifest::{Descriptor, Document, ImageConfig, Manifest};
use oci_image::{Digest, Platform};
use tokio::task::JoinSet;

use super::blobs::Blobs;
use super::destination::ImageStore;
use super::error::{Result, TransferError as Error};
use super::progress::Object;
use super::unpack::Unpacking;
use crate::error::Error as StoreError;

/// Fetches (or, in an import, finds) everything below `root` that `store` wants, and unpacks it.
pub(crate) async fn complete(
    blobs: &Blobs,
    store: &ImageStore,
    root: &Descriptor,
    parents: Vec<String>,
    known: Option<Bytes>,
) -> Result<()> {
    let mut manifests = Vec::new();
    let mut pending = vec![(Object { descriptor: root.clone(), parents }, known, 0)];
    while let Some((object, known, depth)) = pending.pop() {
        if depth > DEPTH {
            return Err(Error::Invalid(format!("index {} is nested too deeply", root.digest)));
        }
        let found = blobs.document(&object, known).await;
        let (document, _) = match found {
            // Compat: an archive may hold an index of many platforms and the blobs of one.
            Err(Error::Store { source: StoreError::BlobNotFound { .. }, .. })
                if depth > 0 && !blobs.is_remote() =>
            {
                continue;
            }
            other => other?,
        };
        match document {
            Document::Manifest(manifest) => manifests.push((object, *manifest)),
            Document::Index(index) => {
                let wanted = store.wanted(&index);
                if wanted.is_empty() && !index.manifests.is_empty() {
                    return Err(Error::Platform(object.descriptor.digest.clone()));
                }
                for descriptor in wanted.into_iter().rev() {
                    let parents = vec![object.name()];
                    pending.push((Object { descriptor, parents }, None, depth + 1));
                }
            }
        }
    }
    if manifests.is_empty() {
        return Err(Error::Platform(root.digest.clone()));
    }
    for (object, manifest) in manifests {
        one(blobs, store, &object, manifest).await?;
    }
    Ok(())
}

/// One platform's image: layers come down side by side, and are unpacked as they arrive.
async fn one(blobs: &Blobs, store: &ImageStore, object: &Object, manifest: Manifest) -> Result<()> {
    let parents = vec![object.name()];
    let child = |descriptor: &Descriptor| Object {
        descriptor: descriptor.clone(),
        parents: parents.clone(),
    };
    let config = child(&manifest.config);
    blobs.ensure(&config).await?;
    let layers: Vec<Object> = manifest.layers.iter().map(child).collect();
    // Aborted with everything below it when this function is left early.
    let mut downloads: JoinSet<Result<Digest>> = JoinSet::new();
    let mut started = std::collections::HashSet::new();
    for layer in &layers {
        let (blobs, layer) = (blobs.clone(), layer.clone());
        if started.insert(layer.descriptor.digest.clone()) {
            let digest = layer.descriptor.digest.clone();
            downloads.spawn(async move { blobs.ensure(&layer).await.map(|()| digest) });
        }
    }
    let target = match image_config(blobs, &manifest.config)? {
        Some(config) => {
            let platform = named_platform(object, &config);
            store.unpack_for(&platform).map(|unpack| (unpack, config))
        }
        None => None,
    };
    let Some((unpack, config)) = target else {
        while let Some(done) = downloads.join_next().await {
            done.map_err(|_| Error::Abandoned)??;
        }
        return Ok(());
    };
    let mut unpacking = Unpacking::new(blobs, unpack, &manifest, &config, layers)?;
    match whole(&manifest, &mut downloads, &mut unpacking).await {
        Ok(()) => unpacking.finish(&manifest.config.digest).await,
        Err(error) => {
            unpacking.give_up().await;
            Err(error)
        }
    }
}

/// Until everything is down and unpacked.
async fn whole(
    manifest: &Manifest,
    downloads: &mut JoinSet<Result<Digest>>,
    unpacking: &mut Unpacking,
) -> Result<()> {
    loop {
        tokio::select! {
            Some(done) = downloads.join_next() => {
                let digest = done.map_err(|_| Error::Abandoned)??;
                // An image may have the same layer twice.
                let here = manifest.layers.iter().enumerate().filter(|(_, l)| l.digest == digest);
                here.for_each(|(index, _)| unpacking.arrived(index));
            }
            Some(done) = unpacking.step() => done?,
            else => return Ok(()),
        }
    }
}

/// `None` for what is no image (an attestation, an artefact).
fn image_config(blobs: &Blobs, descriptor: &Descriptor) -> Result<Option<ImageConfig>> {
    if !oci_image::manifest::media::is_config(&descriptor.media_type) {
        return Ok(None);
    }
    let bytes = blobs
        .app
        .content
        .read_all(&blobs.context.namespace, descriptor.digest.as_str(), CONFIG_MAX)
        .map_err(Error::store("read image config"))?;
    ImageConfig::parse(&bytes)
        .map(Some)
        .map_err(|source| Error::Manifest { digest: descriptor.digest.clone(), source })
}

fn named_platform(object: &Object, config: &ImageConfig) -> Platform {
    if config.platform.architecture.is_empty()
        && let Some(platform) = &object.descriptor.platform
    {
        return platform.clone();
    }
    config.platform.clone()
}

const CONFIG_MAX: u64 = 8 << 20;
const DEPTH: usize = 4;
