//! Reading an image archive: an OCI layout or what `docker save` writes, plain or compressed. Each
//! member becomes a blob while the archive streams by; what the blobs mean is told by `index.json`
//! or `manifest.json`, which may come last.

use std::collections::{HashMap, VecDeque};
use std::io::Read;

use oci_image::Digest;
use oci_image::layer::{self, Compression, decompress};
use oci_image::manifest::{Descriptor, ImageConfig, Index, media};
use serde::{Deserialize, Serialize};
use tar::EntryType;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

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

/// A blob whose bytes are written and not yet durable.
type Committing = JoinHandle<std::result::Result<String, StoreError>>;

#[derive(Default)]
struct Members {
    blobs: HashMap<String, Blob>,
    /// In the order in which they came.
    commits: VecDeque<Committing>,
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
        while let Some(commit) = members.commits.pop_front() {
            self.committed(commit)?;
        }
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
                return members.link(name, target);
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
                members.check_room()?;
                let expected = blob_digest(&name);
                let (blob, commit) = self.blob(&name, expected.as_ref(), entry)?;
                members.blobs.insert(name, blob);
                members.commits.push_back(commit);
                if members.commits.len() > COMMITS
                    && let Some(first) = members.commits.pop_front()
                {
                    self.committed(first)?;
                }
            }
        }
        Ok(())
    }

    /// Waits until a blob is in the store.
    fn committed(&self, commit: Committing) -> Result<()> {
        match self.runtime.block_on(commit).map_err(|_| Error::Abandoned)? {
            Ok(_) | Err(StoreError::BlobExists { .. }) => Ok(()),
            Err(source) => Err(Error::Store { operation: "failed to commit", source }),
        }
    }

    /// Reads one member, verified where its name is a digest. What waits for the disk goes on beside the next.
    fn blob(
        &self,
        name: &str,
        expected: Option<&Digest>,
        data: &mut impl Read,
    ) -> Result<(Blob, Committing)> {
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
                let digest =
                    Digest::parse(&found).map_err(|error| Error::Invalid(error.to_string()))?;
                let commit = self.runtime.spawn(writer.commit(size, None, Labels::new()));
                return Ok((
                    Blob { digest, size, compression: Compression::detect(&head) },
                    commit,
                ));
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
    fn link(&mut self, name: String, target: String) -> Result<()> {
        self.check_room()?;
        self.links.insert(name, target);
        Ok(())
    }

    /// Names are kept until the end, and a few packed bytes make many of them.
    fn check_room(&self) -> Result<()> {
        if self.blobs.len() + self.links.len() < MEMBERS_MAX {
            return Ok(());
        }
        Err(Error::Invalid(format!("the archive has more than {MEMBERS_MAX} members")))
    }

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
/// That wait for the disk at once, at the most.
const COMMITS: usize = 8;
const MEMBERS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    const DOCUMENTS: &[(&str, &str)] = &[
        ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
        (
            "index.json",
            r#"{"schemaVersion":2,"manifests":[{"mediaType":"m","digest":"D","size":1}]}"#,
        ),
        ("manifest.json", r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l/layer.tar"]}]"#),
        ("c.json", r#"{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":["D"]}}"#),
        ("l/layer.tar", "layer"),
        ("blobs/sha256/0000000000000000000000000000000000000000000000000000000000000000", "no"),
    ];
    const WORDS: &[&str] = &["null", "[]", "{}", "\"\"", "-1", ",", "\"", "../", "\\ud800"];

    #[test]
    fn an_archive_of_links_without_end_is_refused() {
        let members = (0..=MEMBERS_MAX).try_fold(Members::default(), |mut members, number| {
            members.link(format!("l{number}"), "x".to_owned()).map(|()| members)
        });
        let error = members.err().unwrap().to_string();
        assert!(error.contains(&format!("more than {MEMBERS_MAX} members")), "{error}");
    }

    proptest! {
        #[test]
        fn links_lead_to_a_member_or_nowhere(
            links in proptest::collection::vec(("[a-c./]{0,4}", "[a-c./]{0,4}"), 0..8),
            wanted in "[a-c./]{0,4}",
        ) {
            let mut members = Members::default();
            let blob = Blob { digest: Digest::of(b"x"), size: 1, compression: Compression::None };
            members.blobs.insert("a".into(), blob);
            members.links.extend(links.iter().map(|(name, target)| (clean(name), clean(target))));
            let found = members.find(&wanted).is_some();
            prop_assert!(!found || clean(&wanted) == "a" || members.links.contains_key(&clean(&wanted)));
            prop_assert_eq!(clean(&clean(&wanted)), clean(&wanted));
            let part = |part: &str| part == ".." || part == "." || part.is_empty();
            prop_assert!(clean(&wanted).is_empty() || !clean(&wanted).split('/').any(part));
        }

        #[test]
        fn only_a_digest_names_a_blob(
            name in "blobs/(sha256|sha512|x)?/?[0-9a-f./]{0,66}|blobs/sha256/[0-9a-f]{64}",
        ) {
            if let Some(digest) = blob_digest(&name) {
                prop_assert_eq!(format!("blobs/sha256/{}", digest.hex()), name);
            }
        }
    }

    proptest! {
        // Each stores something on a disk.
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 32, ..ProptestConfig::default() })]

        #[test]
        fn a_broken_archive_is_refused_and_the_store_lives(archives in proptest::collection::vec(
            proptest::collection::vec((0..DOCUMENTS.len(), any::<usize>(), 0_usize..9, 0..WORDS.len(), any::<bool>()), 1..5), 4),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let config = crate::config::Config {
                root: directory.path().join("root"),
                state: directory.path().join("state"),
                ..crate::config::Config::default()
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let app = { let _inside = runtime.enter(); App::open(config).unwrap() };
            let context = Context::new(crate::context::Namespace::parse("test").unwrap());
            let importer = Importer { app, context, runtime: runtime.handle().clone() };
            let importer = std::sync::Arc::new(importer);
            for archive in archives {
                let mut builder = tar::Builder::new(Vec::new());
                for (document, at, cut, word, whole) in archive {
                    let (name, text) = DOCUMENTS[document];
                    let mut text = text.replace('D', &format!("sha256:{}", "0".repeat(64))).into_bytes();
                    if !whole {
                        let at = at % (text.len() + 1);
                        text.splice(at..(at + cut).min(text.len()), WORDS[word].bytes());
                    }
                    let mut header = tar::Header::new_gnu();
                    header.set_size(text.len() as u64);
                    header.set_mode(0o644);
                    builder.append_data(&mut header, name, text.as_slice()).unwrap();
                }
                let bytes = builder.into_inner().unwrap();
                let own = importer.clone();
                let read = runtime.block_on(async { tokio::task::spawn_blocking(move || own.read(bytes.as_slice())).await.unwrap() });
                if let Ok(contents) = read {
                    let listed: Index = serde_json::from_slice(&contents.bytes).unwrap();
                    prop_assert_eq!(listed, contents.index);
                }
            }
            // It still takes what is whole.
            let good = runtime.block_on(async {
                let own = importer.clone();
                tokio::task::spawn_blocking(move || own.blob("x", None, &mut &b"whole"[..]).map(|(blob, _)| blob.size)).await.unwrap()
            });
            prop_assert_eq!(good.unwrap(), 5);
        }
    }
}
