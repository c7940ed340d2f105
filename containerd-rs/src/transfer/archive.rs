//! Reading an image archive: an OCI layout or what `docker save` writes, plain or compressed. Each
//! member becomes a blob while the archive streams by; what the blobs mean is told by `index.json`
//! or `manifest.json`, which may come last.

use std::collections::HashMap;
use std::io::Read;

use oci_image::Digest;
use oci_image::layer::{self, Compression, decompress};
use oci_image::manifest::{Descriptor, ImageConfig, Index, media};
use serde::{Deserialize, Serialize};
use tar::EntryType;
use tokio::runtime::Handle;

use super::destination::{IMAGE_NAME, REF_NAME};
use super::error::{Result, TransferError as Error};
use crate::app::App;
use crate::context::Context;
use crate::error::Error as StoreError;
use crate::store::record::Labels;

/// What an archive holds, as documents that are to be stored.
pub(super) struct Contents {
    pub(super) index: Index,
    /// The index as it was read or made.
    pub(super) bytes: Vec<u8>,
    /// Manifests that were made here, for archives that have none.
    pub(super) manifests: Vec<(Descriptor, Vec<u8>)>,
}

/// One line of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// A manifest with its members in the order stock containerd writes them: same bytes, same digest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MadeManifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Layout {
    #[serde(rename = "imageLayoutVersion", default)]
    version: String,
}

struct Blob {
    digest: Digest,
    size: u64,
    compression: Compression,
}

pub(super) struct Importer {
    pub(super) app: App,
    pub(super) context: Context,
    pub(super) runtime: Handle,
}

#[derive(Default)]
struct Members {
    blobs: HashMap<String, Blob>,
    links: HashMap<String, String>,
    layout: Option<Layout>,
    index: Option<Vec<u8>>,
    docker: Option<Vec<DockerImage>>,
}

impl Importer {
    /// Reads the whole archive; for a blocking thread.
    pub(super) fn read(&self, source: impl Read) -> Result<Contents> {
        let (_, mut plain) = decompress(source).map_err(Error::Archive)?;
        let mut members = Members::default();
        layer::members(&mut plain, Error::Archive, |entry| self.member(&mut members, entry))?;
        // The end of a compressed stream carries its checksum.
        std::io::copy(&mut plain, &mut std::io::sink()).map_err(Error::Archive)?;
        if let Some(layout) = &members.layout {
            if layout.version != "1.0.0" {
                return Err(Error::Invalid(format!("unsupported OCI version {}", layout.version)));
            }
            let bytes = members.index.take().ok_or_else(|| Error::Member {
                member: "index.json".to_owned(),
                reason: "is missing from the OCI layout".to_owned(),
            })?;
            let index = parse("index.json", &bytes)?;
            return Ok(Contents { index, bytes, manifests: Vec::new() });
        }
        match members.docker.take() {
            Some(images) => self.docker(&members, images),
            None => Err(Error::Unrecognized),
        }
    }

    fn member(&self, members: &mut Members, entry: &mut tar::Entry<'_, impl Read>) -> Result<()> {
        let name = clean(&String::from_utf8_lossy(&entry.path_bytes()));
        match entry.header().entry_type() {
            EntryType::Symlink | EntryType::Link => {
                let is_hard = entry.header().entry_type() == EntryType::Link;
                let link = entry.link_name_bytes().unwrap_or_default();
                let link = String::from_utf8_lossy(&link).into_owned();
                let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                let target =
                    if is_hard { clean(&link) } else { clean(&format!("{directory}/{link}")) };
                members.links.insert(name, target);
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {}
            _ => return Ok(()),
        }
        match name.as_str() {
            "oci-layout" => members.layout = Some(parse(&name, &small(entry)?)?),
            "index.json" => members.index = Some(small(entry)?),
            "manifest.json" => members.docker = Some(parse(&name, &small(entry)?)?),
            // Superseded by manifest.json; nothing is kept of them.
            "repositories" => {}
            _ => {
                let expected = blob_digest(&name);
                let blob = self.blob(&name, expected.as_ref(), entry)?;
                members.blobs.insert(name, blob);
            }
        }
        Ok(())
    }

    /// Stores one member, verified where its name is a digest.
    fn blob(&self, name: &str, expected: Option<&Digest>, data: &mut impl Read) -> Result<Blob> {
        let content = &self.app.content;
        let reference = match expected {
            Some(digest) => format!("import-{digest}"),
            None => format!(
                "import-{}",
                Digest::of(format!("{:?}{name}", self.context.lease).as_bytes())
            ),
        };
        let opened = self.runtime.block_on(content.open_writer(&self.context, &reference, 0, None));
        let mut writer = opened.map_err(Error::store("open ingest"))?;
        writer.truncate(0).map_err(Error::store("write blob"))?;
        let mut buffer = vec![0; 256 << 10];
        let mut head = Vec::new();
        let written = loop {
            match data.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(count) => {
                    if head.len() < 8 {
                        head.extend_from_slice(&buffer[..count.min(8)]);
                    }
                    if let Err(error) = writer.write(&buffer[..count]) {
                        break Err(Error::Store { operation: "write blob", source: error });
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => break Err(Error::Archive(error)),
            }
        };
        let size = writer.status().offset;
        let found = writer.digest();
        let outcome = match (written, expected) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(expected)) if found != expected.as_str() => Err(Error::Member {
                member: name.to_owned(),
                reason: format!("content has the digest {found}"),
            }),
            (Ok(()), _) => {
                let commit = writer.commit(size, None, Labels::new());
                return match self.runtime.block_on(commit) {
                    Ok(_) | Err(StoreError::BlobExists { .. }) => Ok(Blob {
                        digest: Digest::parse(&found)
                            .map_err(|error| Error::Invalid(error.to_string()))?,
                        size,
                        compression: Compression::detect(&head),
                    }),
                    Err(source) => Err(Error::Store { operation: "failed to commit", source }),
                };
            }
        };
        drop(writer);
        drop(content.abort(&self.context.namespace, &reference));
        outcome
    }

    /// Makes manifests and an index for what `manifest.json` lists.
    fn docker(&self, members: &Members, images: Vec<DockerImage>) -> Result<Contents> {
        let mut manifests = Vec::new();
        let mut listed = Vec::new();
        for image in images {
            let config = members.find(&image.config).ok_or_else(|| Error::Member {
                member: image.config.clone(),
                reason: "image config is not in the archive".to_owned(),
            })?;
            let bytes = self
                .app
                .content
                .read_all(&self.context.namespace, config.digest.as_str(), CONFIG_MAX)
                .map_err(Error::store("read image config"))?;
            let parsed = ImageConfig::parse(&bytes)
                .map_err(|source| Error::Manifest { digest: config.digest.clone(), source })?;
            let mut layers = Vec::new();
            for layer in image.layers.unwrap_or_default() {
                let blob = members.find(&layer).ok_or_else(|| Error::Member {
                    member: layer.clone(),
                    reason: "layer is not in the archive".to_owned(),
                })?;
                let media_type = match blob.compression {
                    Compression::None => media::DOCKER_LAYER,
                    Compression::Gzip => media::DOCKER_LAYER_GZIP,
                    Compression::Zstd => media::DOCKER_LAYER_ZSTD,
                };
                layers.push(Descriptor::new(media_type, blob.digest.clone(), blob.size));
            }
            let manifest = MadeManifest {
                schema_version: 2,
                media_type: media::DOCKER_MANIFEST,
                config: Descriptor::new(media::DOCKER_CONFIG, config.digest.clone(), config.size),
                layers,
            };
            let bytes = to_json(&manifest)?;
            let mut descriptor = Descriptor::of(media::DOCKER_MANIFEST, &bytes);
            descriptor.platform = Some(parsed.platform.clone());
            manifests.push((descriptor.clone(), bytes));
            let tags = image.repo_tags.unwrap_or_default();
            if tags.is_empty() {
                listed.push(descriptor.clone());
            }
            for tag in tags {
                let name = oci_image::Reference::parse(&tag)
                    .map_err(|source| Error::Reference { reference: tag.clone(), source })?
                    .with_default_tag();
                let mut named = descriptor.clone();
                named.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
                let version = name.tag().unwrap_or_default().to_owned();
                named.annotations.insert(REF_NAME.to_owned(), version);
                listed.push(named);
            }
        }
        let index = Index {
            schema_version: 2,
            media_type: String::new(),
            manifests: listed,
            annotations: std::collections::BTreeMap::new(),
        };
        let bytes = to_json(&index)?;
        Ok(Contents { index, bytes, manifests })
    }
}

impl Members {
    /// A member by name, links followed.
    fn find(&self, name: &str) -> Option<&Blob> {
        let mut name = clean(name);
        for _ in 0..LINKS {
            if let Some(blob) = self.blobs.get(&name) {
                return Some(blob);
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }
}

pub(super) fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Invalid(error.to_string()))
}

fn small(data: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    data.take(DOCUMENT_MAX).read_to_end(&mut bytes).map_err(Error::Archive)?;
    Ok(bytes)
}

fn parse<T: for<'de> Deserialize<'de>>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Member { member: name.to_owned(), reason: error.to_string() })
}

/// The digest that a member of an OCI layout is named after.
fn blob_digest(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok().filter(|_| algorithm == "sha256")
}

/// A name as a key: no `.`, no `..`, no double slashes. Nothing is opened by it.
fn clean(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

const DOCUMENT_MAX: u64 = 8 << 20;
const CONFIG_MAX: u64 = 8 << 20;
const LINKS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_and_circles_end() {
        let mut members = Members::default();
        let blob = Blob { digest: Digest::of(b"x"), size: 1, compression: Compression::None };
        members.blobs.insert("a/layer.tar".into(), blob);
        members.links.insert("b/layer.tar".into(), clean("b/../a/layer.tar"));
        members.links.insert("c".into(), "d".into());
        members.links.insert("d".into(), "c".into());
        assert!(members.find("./b/layer.tar").is_some());
        assert!(members.find("c").is_none());
        assert!(members.find("missing").is_none());
    }

    #[test]
    fn only_members_named_after_their_digest_have_one() {
        let digest = Digest::of(b"x");
        let name = format!("blobs/sha256/{}", digest.hex());
        assert_eq!(blob_digest(&name), Some(digest));
        assert_eq!(blob_digest("blobs/sha256/../x"), None);
        assert_eq!(blob_digest("abc/layer.tar"), None);
    }
}
