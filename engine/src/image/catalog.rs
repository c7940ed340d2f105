//! Reading images: containerd's records and blobs, turned into what Docker calls an image.
//!
//! The id of an image is its target's digest (manifest or index). Blobs never change, so what was read
//! from one is kept; the list of names is asked for anew each time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use docker_api::container::Config as ContainerConfig;
use oci_image::digest::{Digest, chain_ids};
use oci_image::manifest::{Descriptor, Document, ImageConfig, Manifest};
use oci_image::platform::Platform;
use oci_image::reference::Reference;
use proto::containerd::services::content::v1::ReadContentRequest;
use proto::containerd::services::images::v1 as wire;
use proto::containerd::services::snapshots::v1::{StatSnapshotRequest, UsageRequest};
use serde::Deserialize;

use super::ImageError;
use crate::containerd::{Containerd, SNAPSHOTTER};

/// What dockerd in containerd mode calls an image without a name.
pub(crate) const DANGLING: &str = "moby-dangling";

/// One record of containerd's image store.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    /// As containerd has it: `docker.io/library/busybox:latest`.
    pub(crate) name: String,
    pub(crate) target: Digest,
    pub(crate) media_type: String,
    pub(crate) size: i64,
    /// Unix seconds and nanoseconds of the last change.
    pub(crate) updated: (i64, i32),
}

impl Named {
    fn from_wire(image: wire::Image) -> Option<Self> {
        let target = image.target?;
        let updated = image.updated_at.unwrap_or_default();
        Some(Self {
            name: image.name,
            target: Digest::parse(&target.digest).ok()?,
            media_type: target.media_type,
            size: target.size,
            updated: (updated.seconds, updated.nanos),
        })
    }

    /// The reference, unless it is a name only we give.
    pub(crate) fn reference(&self) -> Option<Reference> {
        if self.name.starts_with(DANGLING) {
            return None;
        }
        Reference::parse_qualified(&self.name).ok()
    }
}

/// One platform's image, read whole.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) config: ImageConfig,
    /// What containers inherit, in the API's form.
    pub(crate) container: ContainerConfig,
    pub(crate) details: Details,
    /// Chain ids, lowest layer first.
    pub(crate) chain: Vec<Digest>,
    /// Bytes of manifest, configuration and layers as stored.
    pub(crate) stored: i64,
    /// The manifest's descriptor, platform included.
    pub(crate) manifest: serde_json::Value,
}

/// The members of an image configuration that only people read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Details {
    pub(crate) author: String,
    pub(crate) history: Vec<HistoryEntry>,
    config: serde_json::Value,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HistoryEntry {
    pub(crate) created: String,
    pub(crate) created_by: String,
    pub(crate) comment: String,
    pub(crate) empty_layer: bool,
}

/// Reads of one containerd, with what cannot change kept.
#[derive(Debug)]
pub(crate) struct Catalog {
    containerd: Containerd,
    contents: Mutex<HashMap<Digest, Arc<Content>>>,
    usage: Mutex<HashMap<Digest, i64>>,
}

impl Catalog {
    pub(crate) fn new(containerd: Containerd) -> Self {
        Self { containerd, contents: Mutex::default(), usage: Mutex::default() }
    }

    pub(crate) fn containerd(&self) -> &Containerd {
        &self.containerd
    }

    pub(crate) async fn list(&self) -> Result<Vec<Named>, ImageError> {
        let answer = self.containerd.images().list(wire::ListImagesRequest::default()).await?;
        Ok(answer.into_inner().images.into_iter().filter_map(Named::from_wire).collect())
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Option<Named>, ImageError> {
        let request = wire::GetImageRequest { name: name.to_owned() };
        match self.containerd.images().get(request).await {
            Ok(answer) => Ok(answer.into_inner().image.and_then(Named::from_wire)),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// Finds what a user means: a name, a digest, or the beginning of an id. A name goes first.
    pub(crate) async fn find(&self, wanted: &str) -> Result<Named, ImageError> {
        let missing = || ImageError::NotFound(with_tag(wanted));
        let parsed = Reference::parse(wanted);
        if let Ok(reference) = &parsed {
            if let Some(digest) = reference.digest() {
                let images = self.list().await?;
                let repository = reference.name();
                return images
                    .into_iter()
                    .filter(|image| image.target == *digest)
                    .find(|image| image.reference().is_some_and(|r| r.name() == repository))
                    .ok_or_else(missing);
            }
            let name = reference.clone().with_default_tag().to_string();
            if let Some(found) = self.get(&name).await? {
                return Ok(found);
            }
        }
        let hex = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        if hex.is_empty() || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(parsed.map_or_else(ImageError::Malformed, |_| missing()));
        }
        let mut found = self.list().await?;
        found.retain(|image| image.target.hex().starts_with(hex));
        let Some(first) = found.first() else { return Err(missing()) };
        if found.iter().any(|image| image.target != first.target) {
            return Err(ImageError::Ambiguous(wanted.to_owned()));
        }
        // The same whichever name it has; a real name is better than a made up one.
        let named = found.iter().find(|image| image.reference().is_some());
        Ok(named.unwrap_or(first).clone())
    }

    /// The content of the image for this host's platform (or the only one there is).
    pub(crate) async fn content(&self, image: &Named) -> Result<Arc<Content>, ImageError> {
        if let Some(known) = lock(&self.contents).get(&image.target) {
            return Ok(Arc::clone(known));
        }
        let content = Arc::new(self.read(image).await?);
        lock(&self.contents).insert(image.target.clone(), Arc::clone(&content));
        Ok(content)
    }

    /// Forgets what nobody names any more.
    pub(crate) fn forget(&self, target: &Digest) {
        lock(&self.contents).remove(target);
    }

    async fn read(&self, image: &Named) -> Result<Content, ImageError> {
        let (manifest, manifest_size, descriptor) = self.manifest(image).await?;
        let bytes = self.blob(&manifest.config.digest).await?;
        let config = ImageConfig::parse(&bytes)
            .map_err(|source| ImageError::Document { image: image.name.clone(), source })?;
        let malformed = |source| ImageError::Json { image: image.name.clone(), source };
        let details: Details = docker_api::from_json(&bytes).map_err(malformed)?;
        let container = if details.config.is_null() {
            ContainerConfig::default()
        } else {
            serde_json::from_value(details.config.clone()).map_err(malformed)?
        };
        let chain = chain_ids(&config.rootfs.diff_ids);
        let sizes = manifest.layers.iter().chain([&manifest.config]).map(|layer| layer.size);
        let stored = i64::try_from(sizes.sum::<u64>()).unwrap_or(i64::MAX);
        let stored = stored.saturating_add(manifest_size);
        let mut platform = serde_json::json!({
            "architecture": config.platform.architecture,
            "os": config.platform.os,
        });
        if !config.platform.variant.is_empty() {
            platform["variant"] = serde_json::json!(config.platform.variant);
        }
        let manifest = serde_json::json!({
            "mediaType": descriptor.0,
            "digest": descriptor.1.to_string(),
            "size": descriptor.2,
            "platform": platform,
        });
        Ok(Content { config, container, details, chain, stored, manifest })
    }

    /// The manifest for this host, the bytes of the documents read, and its type, digest and size.
    async fn manifest(
        &self,
        image: &Named,
    ) -> Result<(Manifest, i64, (String, Digest, i64)), ImageError> {
        let document = |source| ImageError::Document { image: image.name.clone(), source };
        let bytes = self.blob(&image.target).await?;
        let index = match Document::parse(&image.media_type, &bytes).map_err(document)? {
            Document::Manifest(manifest) => {
                let own = (image.media_type.clone(), image.target.clone(), image.size);
                return Ok((*manifest, length(&bytes), own));
            }
            Document::Index(index) => index,
        };
        let mut missing = None;
        for descriptor in ranked(&index.manifests) {
            match self.blob(&descriptor.digest).await {
                Ok(inner) => {
                    match Document::parse(&descriptor.media_type, &inner).map_err(document)? {
                        Document::Manifest(manifest) => {
                            let own = (
                                descriptor.media_type.clone(),
                                descriptor.digest.clone(),
                                length(&inner),
                            );
                            return Ok((*manifest, length(&bytes) + length(&inner), own));
                        }
                        Document::Index(_) => {}
                    }
                }
                Err(error) => missing = missing.or(Some(error)),
            }
        }
        Err(missing.unwrap_or_else(|| ImageError::NoPlatform(image.name.clone())))
    }

    /// A small blob, whole.
    pub(crate) async fn blob(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let request = ReadContentRequest { digest: digest.to_string(), ..Default::default() };
        let mut parts = self.containerd.content().read(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = parts.message().await? {
            if bytes.len() + part.data.len() > MAX_DOCUMENT {
                return Err(ImageError::TooLarge(digest.to_string()));
            }
            bytes.extend_from_slice(&part.data);
        }
        Ok(bytes)
    }

    pub(crate) async fn is_unpacked(&self, chain_id: &Digest) -> Result<bool, ImageError> {
        let request =
            StatSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: chain_id.to_string() };
        match self.containerd.snapshots().stat(request).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(false),
            Err(status) => Err(status.into()),
        }
    }

    /// Bytes of one unpacked layer; 0 where it is not unpacked.
    pub(crate) async fn layer_usage(&self, chain_id: &Digest) -> i64 {
        if let Some(known) = lock(&self.usage).get(chain_id) {
            return *known;
        }
        let request =
            UsageRequest { snapshotter: SNAPSHOTTER.to_owned(), key: chain_id.to_string() };
        let Ok(answer) = self.containerd.snapshots().usage(request).await else { return 0 };
        let size = answer.into_inner().size;
        lock(&self.usage).insert(chain_id.clone(), size);
        size
    }

    /// Compat: in containerd mode the size is what is stored and what is unpacked.
    pub(crate) async fn size(&self, content: &Content) -> i64 {
        let mut size = content.stored;
        for chain_id in &content.chain {
            size = size.saturating_add(self.layer_usage(chain_id).await);
        }
        size
    }
}

/// No manifest or configuration is larger.
const MAX_DOCUMENT: usize = 8 << 20;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn length(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

/// The manifests worth trying: this host's first, then those that name no platform, then any image.
fn ranked(manifests: &[Descriptor]) -> Vec<&Descriptor> {
    let host = Platform::host();
    let mut ranked: Vec<(usize, &Descriptor)> = manifests
        .iter()
        // Attestations stand beside the images under a platform of their own.
        .filter(|d| !d.annotations.contains_key("vnd.docker.reference.type"))
        .map(|descriptor| match &descriptor.platform {
            Some(platform) => (host.rank(platform).unwrap_or(usize::MAX), descriptor),
            None => (usize::MAX - 1, descriptor),
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, descriptor)| descriptor).collect()
}

/// Compat: dockerd says `No such image: x:latest` whatever was typed.
fn with_tag(wanted: &str) -> String {
    match Reference::parse(wanted) {
        Ok(reference) => reference.with_default_tag().familiar(),
        Err(_) => wanted.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_images_are_named_with_their_tag() {
        assert_eq!(with_tag("nope"), "nope:latest");
        assert_eq!(with_tag("docker.io/library/nope:1"), "nope:1");
        assert_eq!(with_tag("UPPER"), "UPPER");
    }

    #[test]
    fn the_hosts_platform_is_tried_first_and_attestations_never() {
        let descriptor = |architecture: &str, digit: char| {
            let digest =
                Digest::parse(&format!("sha256:{}", digit.to_string().repeat(64))).unwrap();
            let mut descriptor = Descriptor::new("", digest, 1);
            descriptor.platform = Some(Platform::new("linux", architecture, ""));
            descriptor
        };
        let host = Platform::host().architecture;
        let mut attestation = descriptor("unknown", '3');
        attestation.annotations.insert("vnd.docker.reference.type".into(), "x".into());
        let all = [descriptor("s390x", '1'), attestation, descriptor(&host, '2')];
        let order: Vec<_> = ranked(&all).iter().map(|d| d.digest.hex().chars().next()).collect();
        assert_eq!(order, [Some('2'), Some('1')]);
    }
}
