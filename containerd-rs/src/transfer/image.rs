//! From a descriptor to a complete image: its documents, its blobs, and its snapshots.

use bytes::Bytes;
use oci_image::digest::chain_ids;
use oci_image::manifest::{Descriptor, Document, ImageConfig, Manifest};
use oci_image::{Digest, Platform};
use tokio::task::JoinSet;

use super::blobs::Blobs;
use super::destination::{ImageStore, Unpack, to_record};
use super::error::{Result, TransferError as Error};
use super::progress::Object;
use crate::error::Error as StoreError;
use crate::store::record::Labels;

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

/// One platform's image: layers come down side by side, and are unpacked in order as they arrive.
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
    let mut downloads: JoinSet<(usize, Result<()>)> = JoinSet::new();
    let mut started = std::collections::HashSet::new();
    for (index, layer) in layers.iter().enumerate() {
        let (blobs, layer) = (blobs.clone(), layer.clone());
        if started.insert(layer.descriptor.digest.clone()) {
            downloads.spawn(async move { (index, blobs.ensure(&layer).await) });
        }
    }
    let target = match image_config(blobs, &manifest.config)? {
        Some(config) => {
            let platform = named_platform(object, &config);
            store.unpack_for(&platform).map(|unpack| (unpack, config))
        }
        None => None,
    };
    let mut here = vec![false; layers.len()];
    let mut unpacking = match target {
        Some((unpack, config)) => {
            Some(Unpacking::new(blobs, unpack, &manifest, &config, layers.clone())?)
        }
        None => None,
    };
    let mut next = 0;
    while let Some(done) = downloads.join_next().await {
        let (index, outcome) = done.map_err(|_| Error::Abandoned)?;
        outcome?;
        let digest = &layers[index].descriptor.digest;
        for (position, layer) in layers.iter().enumerate() {
            here[position] |= layer.descriptor.digest == *digest;
        }
        while next < layers.len() && here[next] {
            if let Some(unpacking) = &mut unpacking {
                unpacking.layer(next).await?;
            }
            next += 1;
        }
    }
    if let Some(unpacking) = unpacking {
        unpacking.finish(&manifest.config.digest).await?;
    }
    Ok(())
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

/// Layers becoming snapshots, one on top of the other.
struct Unpacking<'a> {
    blobs: &'a Blobs,
    snapshotter: String,
    layers: Vec<Object>,
    diff_ids: Vec<Digest>,
    chain: Vec<Digest>,
}

impl<'a> Unpacking<'a> {
    fn new(
        blobs: &'a Blobs,
        unpack: &Unpack,
        manifest: &Manifest,
        config: &ImageConfig,
        layers: Vec<Object>,
    ) -> Result<Self> {
        let diff_ids = config.rootfs.diff_ids.clone();
        if diff_ids.len() != manifest.layers.len() {
            let layers = manifest.layers.len();
            return Err(Error::Layers { layers, diff_ids: diff_ids.len() });
        }
        let chain = chain_ids(&diff_ids);
        let snapshotter = if unpack.snapshotter.is_empty() {
            DEFAULT_SNAPSHOTTER.to_owned()
        } else {
            unpack.snapshotter.clone()
        };
        Ok(Self { blobs, snapshotter, layers, diff_ids, chain })
    }

    async fn layer(&mut self, index: usize) -> Result<()> {
        let blobs = self.blobs;
        let (chain, diff_id) = (&self.chain[index], &self.diff_ids[index]);
        let snapshots = &blobs.app.snapshots;
        let by = self.snapshotter.as_str();
        let object = &self.layers[index];
        if snapshots.stat(&blobs.context.namespace, by, chain.as_str()).is_err() {
            blobs.report.object("extracting", object, 0).await;
            self.extract(index).await?;
            blobs.report.object("extracted", object, object.descriptor.size).await;
        } else {
            self.hold(chain).await?;
        }
        let label = (UNCOMPRESSED.to_owned(), diff_id.to_string());
        blobs.label(&object.descriptor.digest, Labels::from([label])).await
    }

    async fn extract(&self, index: usize) -> Result<()> {
        let blobs = self.blobs;
        let snapshots = &blobs.app.snapshots;
        let by = self.snapshotter.as_str();
        let (chain, diff_id) = (&self.chain[index], &self.diff_ids[index]);
        let parent = index.checked_sub(1).map_or("", |below| self.chain[below].as_str());
        let failed = |source| Error::Extract { diff_id: diff_id.clone(), source };
        let labels = Labels::from([(SNAPSHOT_REF.to_owned(), chain.to_string())]);
        let key = format!("extract-{} {chain}", unique());
        let mounts = snapshots
            .prepare(&blobs.context, by, &key, parent, labels.clone())
            .await
            .map_err(failed)?;
        let layer = &self.layers[index].descriptor;
        let applied = blobs.app.diff.apply(&blobs.context, &to_record(layer), mounts, false).await;
        let outcome = match applied {
            Err(source) => Err(Error::Extract { diff_id: diff_id.clone(), source }),
            Ok(found) if found.digest != diff_id.as_str() => Err(Error::DiffId {
                layer: layer.digest.clone(),
                got: found.digest,
                want: diff_id.clone(),
            }),
            Ok(_) => {
                let chain = chain.as_str();
                match snapshots.commit(&blobs.context, by, chain, &key, labels, None).await {
                    Ok(()) => return Ok(()),
                    // Somebody else unpacked the same layer meanwhile.
                    Err(StoreError::AlreadyExists { .. }) => Ok(()),
                    Err(source) => Err(Error::Extract { diff_id: diff_id.clone(), source }),
                }
            }
        };
        if let Err(error) = snapshots.remove(&blobs.context, by, &key).await {
            tracing::warn!(key, %error, "remove half-made snapshot");
        }
        outcome
    }

    /// Puts a snapshot that was there already under our lease.
    async fn hold(&self, chain: &Digest) -> Result<()> {
        let context = &self.blobs.context;
        let Some(lease) = &context.lease else { return Ok(()) };
        let resource = crate::lease::Resource {
            kind: format!("snapshots/{}", self.snapshotter),
            id: chain.to_string(),
        };
        self.blobs
            .app
            .leases
            .add_resource(&context.namespace, lease, resource)
            .await
            .map_err(Error::store("hold snapshot"))
    }

    async fn finish(self, config: &Digest) -> Result<()> {
        let Some(top) = self.chain.last() else { return Ok(()) };
        let label = (format!("{REF_SNAPSHOT}.{}", self.snapshotter), top.to_string());
        self.blobs.label(config, Labels::from([label])).await
    }
}

/// Tells extractions of the same layer apart.
fn unique() -> String {
    let mut random = [0_u8; 6];
    getrandom::fill(&mut random).unwrap_or_default();
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{text}", crate::store::record::Timestamp::now().subsec_nanosecond())
}

const UNCOMPRESSED: &str = "containerd.io/uncompressed";
const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
const REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot";
pub(crate) const DEFAULT_SNAPSHOTTER: &str = "overlayfs";
const CONFIG_MAX: u64 = 8 << 20;
const DEPTH: usize = 4;
