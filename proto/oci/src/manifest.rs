//! Manifests, indexes and image configurations as read from registries and archives. Reading is
//! tolerant (unknown fields ignored, absent lists empty); the bytes themselves are what is stored,
//! never a re-serialised form, or the digest would no longer hold.
//! Document: image-spec 1.1 and Docker's image manifest version 2, schema 2.

use crate::digest::Digest;
use crate::platform::Platform;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

pub mod media {
    //! Media types, OCI's and Docker's.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
    pub const DOCKER_SCHEMA1_SIGNED: &str =
        "application/vnd.docker.distribution.manifest.v1+prettyjws";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    pub const DOCKER_FOREIGN_GZIP: &str =
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, OCI_INDEX | DOCKER_LIST)
    }

    pub fn is_manifest(media_type: &str) -> bool {
        matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
    }

    pub fn is_config(media_type: &str) -> bool {
        matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
    }

    pub fn is_layer(media_type: &str) -> bool {
        media_type.starts_with("application/vnd.oci.image.layer.")
            || media_type.starts_with("application/vnd.docker.image.rootfs.")
    }

    /// Layers that registries refuse to hold; they are fetched from `urls`.
    pub fn is_foreign(media_type: &str) -> bool {
        media_type.contains(".foreign.") || media_type.contains(".nondistributable.")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("parse {what}: {source}")]
    Json { what: &'static str, source: serde_json::Error },
    #[error("manifest of media type {media_type} is not supported: {reason}")]
    Unsupported { media_type: String, reason: &'static str },
    #[error("manifest says it is {inside} but was served as {outside}")]
    Mismatch { inside: String, outside: String },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    #[serde(default)]
    pub size: u64,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The bytes themselves, base64; carried along, not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: None,
        }
    }

    /// A descriptor of `bytes`.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    #[serde(default)]
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(default, deserialize_with = "or_default")]
    pub manifests: Vec<Descriptor>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    #[serde(default)]
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    pub config: Descriptor,
    #[serde(default, deserialize_with = "or_default")]
    pub layers: Vec<Descriptor>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Either of the two things a manifest address may hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    Index(Index),
    Manifest(Box<Manifest>),
}

impl Document {
    /// Reads `bytes` that were announced as `media_type` (empty: unknown).
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Self, ManifestError> {
        let shape: Shape = serde_json::from_slice(bytes)
            .map_err(|source| ManifestError::Json { what: "manifest", source })?;
        if matches!(media_type, media::DOCKER_SCHEMA1 | media::DOCKER_SCHEMA1_SIGNED)
            || shape.schema_version == Some(1)
        {
            return Err(ManifestError::Unsupported {
                media_type: media::DOCKER_SCHEMA1_SIGNED.to_owned(),
                reason: "Docker image format v1 and manifest schema 1 were retired; push the image again with a newer client",
            });
        }
        let known = |text: &str| media::is_index(text) || media::is_manifest(text);
        let inside = shape.media_type.unwrap_or_default();
        // A document that can be read as two things is an attack on whoever verifies the other.
        if known(media_type) && known(&inside) && media_type != inside {
            return Err(ManifestError::Mismatch { inside, outside: media_type.to_owned() });
        }
        let kind = if known(media_type) { media_type } else { inside.as_str() };
        let is_index = if known(kind) { media::is_index(kind) } else { shape.manifests.is_some() };
        if is_index {
            if shape.config.is_some() || shape.layers.is_some() {
                return Err(ManifestError::Unsupported {
                    media_type: kind.to_owned(),
                    reason: "an index must not have layers or a config",
                });
            }
            let index = serde_json::from_slice(bytes)
                .map_err(|source| ManifestError::Json { what: "image index", source })?;
            return Ok(Self::Index(index));
        }
        if shape.manifests.is_some() {
            return Err(ManifestError::Unsupported {
                media_type: kind.to_owned(),
                reason: "a manifest must not have manifests",
            });
        }
        let manifest = serde_json::from_slice(bytes)
            .map_err(|source| ManifestError::Json { what: "image manifest", source })?;
        Ok(Self::Manifest(Box::new(manifest)))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
}

/// The parts of an image configuration that decide about unpacking and choice of platform.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ImageConfig {
    #[serde(flatten)]
    pub platform: Platform,
    #[serde(default)]
    pub created: Option<String>,
    #[serde(default)]
    pub rootfs: RootFs,
    #[serde(default, deserialize_with = "or_default")]
    pub config: RunConfig,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct RootFs {
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

/// What a container takes over from its image.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
    #[serde(deserialize_with = "or_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "or_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
}

impl ImageConfig {
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        serde_json::from_slice(bytes)
            .map_err(|source| ManifestError::Json { what: "image config", source })
    }
}

/// Go writes empty lists and maps as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_document_without_media_type_is_told_by_its_shape() {
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(Document::parse("", index), Ok(Document::Index(_))));
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{HASH}","size":3}},"layers":null,"future":1}}"#
        );
        let Document::Manifest(manifest) = Document::parse("", manifest.as_bytes()).unwrap() else {
            panic!("an index")
        };
        assert_eq!(manifest.config.size, 3);
        assert!(manifest.layers.is_empty());
    }

    #[test]
    fn a_document_with_two_faces_is_refused() {
        let both =
            format!(r#"{{"manifests":[],"config":{{"digest":"{HASH}","size":3}},"layers":[]}}"#);
        assert!(Document::parse(media::OCI_INDEX, both.as_bytes()).is_err());
        assert!(Document::parse(media::OCI_MANIFEST, both.as_bytes()).is_err());
        let named = format!(r#"{{"mediaType":"{}","manifests":[]}}"#, media::OCI_INDEX);
        assert!(Document::parse(media::OCI_MANIFEST, named.as_bytes()).is_err());
    }

    #[test]
    fn schema_one_is_named_as_such() {
        let error = Document::parse("", br#"{"schemaVersion":1,"name":"x"}"#).unwrap_err();
        assert!(error.to_string().contains("schema 1"), "{error}");
    }

    #[test]
    fn a_config_with_nulls_reads() {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Env":null,"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":["{HASH}"]}}}}"#
        );
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.platform.to_string(), "linux/amd64");
        assert_eq!(config.config.cmd, ["sh"]);
        assert_eq!(config.rootfs.diff_ids.len(), 1);
    }

    #[test]
    fn a_bad_digest_in_a_manifest_is_an_error() {
        let text = br#"{"config":{"digest":"sha256:../../x","size":1},"layers":[]}"#;
        assert!(Document::parse(media::OCI_MANIFEST, text).is_err());
    }
}
