//! An image store as one end of a transfer: which manifests it wants, which names it gives.
//! Document: containerd's transfer types, `ImageStore`.

use oci_image::Platform;
use oci_image::manifest::{Descriptor, Index};
use std::collections::BTreeMap;

use super::error::{Result, TransferError as Error};
use crate::app::App;
use crate::context::Context;
use crate::error::Error as StoreError;
use crate::store::record::{Descriptor as Target, Image, Labels};

#[derive(Debug, Clone, Default)]
pub(crate) struct ImageStore {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) platforms: Vec<Platform>,
    pub(crate) manifest_limit: usize,
    pub(crate) extra: Vec<ExtraReference>,
    pub(crate) unpacks: Vec<Unpack>,
}

/// A name beside the first, or the beginning of names.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExtraReference {
    pub(crate) name: String,
    pub(crate) is_prefix: bool,
    pub(crate) allow_overwrite: bool,
    pub(crate) add_digest: bool,
    pub(crate) skip_named_digest: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Unpack {
    pub(crate) platform: Platform,
    pub(crate) snapshotter: String,
}

impl ImageStore {
    /// The manifests of an index to follow, best first where their number is limited.
    pub(crate) fn wanted(&self, index: &Index) -> Vec<Descriptor> {
        let mut wanted: Vec<(usize, Descriptor)> = index
            .manifests
            .iter()
            .filter_map(|manifest| Some((self.rank(manifest.platform.as_ref())?, manifest.clone())))
            .collect();
        if self.manifest_limit > 0 {
            wanted.sort_by_key(|(rank, _)| *rank);
            wanted.truncate(self.manifest_limit);
        }
        wanted.into_iter().map(|(_, manifest)| manifest).collect()
    }

    fn rank(&self, platform: Option<&Platform>) -> Option<usize> {
        let Some(platform) = platform else { return Some(usize::MAX) };
        if self.platforms.is_empty() {
            return Some(0);
        }
        // Compat: without a limit each platform means itself; with one, the best that runs there.
        if self.manifest_limit == 0 {
            let normal = platform.normalised();
            return self.platforms.iter().position(|own| {
                let own = own.normalised();
                own.os == normal.os
                    && own.architecture == normal.architecture
                    && own.variant == normal.variant
            });
        }
        self.platforms.iter().enumerate().find_map(|(index, own)| {
            own.rank(platform).map(|rank| index.saturating_mul(64).saturating_add(rank))
        })
    }

    /// The snapshotter an image of this platform is unpacked into.
    pub(crate) fn unpack_for(&self, platform: &Platform) -> Option<&Unpack> {
        let assumed =
            if platform.architecture.is_empty() { Platform::host() } else { platform.clone() };
        self.unpacks.iter().find(|unpack| unpack.platform.rank(&assumed).is_some())
    }

    /// The names for something that was pulled or is tagged.
    pub(crate) fn names(&self, target: &Descriptor) -> Vec<String> {
        let mut names = Vec::new();
        if !self.name.is_empty() {
            names.push(self.name.clone());
        }
        for extra in self.extra.iter().filter(|extra| !extra.is_prefix) {
            names.push(if extra.add_digest {
                format!("{}@{}", extra.name, target.digest)
            } else {
                extra.name.clone()
            });
        }
        names
    }

    /// The names for one manifest of an imported archive, from its annotations.
    pub(crate) fn imported_names(&self, manifest: &Descriptor) -> Vec<String> {
        let mut names = Vec::new();
        for extra in self.extra.iter().filter(|extra| extra.is_prefix) {
            let name = annotated_name(&manifest.annotations, extra);
            let named = name.is_some();
            names.extend(name);
            if extra.add_digest && !(named && extra.skip_named_digest) {
                names.push(format!("{}@{}", extra.name, manifest.digest));
            }
        }
        names
    }

    /// Points `names` at `target`.
    pub(crate) async fn store(
        &self,
        app: &App,
        context: &Context,
        names: Vec<String>,
        target: &Descriptor,
    ) -> Result<Vec<Image>> {
        if names.is_empty() {
            return Err(Error::NoName);
        }
        let mut stored = Vec::new();
        for name in names {
            let mut image = Image::new(name, to_record(target));
            image.labels.clone_from(&self.labels);
            // Somebody may remove it between the two.
            let mut tries = 0;
            stored.push(loop {
                tries += 1;
                match app.images.create(context, image.clone()).await {
                    Err(StoreError::AlreadyExists { .. }) => {}
                    other => break other.map_err(Error::store("create image"))?,
                }
                match app.images.update(context, image.clone(), Vec::new()).await {
                    Err(StoreError::NotFound { .. }) if tries < 5 => {}
                    other => break other.map_err(Error::store("update image"))?,
                }
            });
        }
        Ok(stored)
    }
}

fn annotated_name(
    annotations: &BTreeMap<String, String>,
    extra: &ExtraReference,
) -> Option<String> {
    if let Some(name) = annotations.get(IMAGE_NAME).filter(|name| !name.is_empty()) {
        return Some(name.clone());
    }
    let name = annotations.get(REF_NAME)?;
    if name.is_empty() || extra.name.is_empty() {
        return None;
    }
    if !name.contains(['/', ':', '@']) {
        return Some(format!("{}:{name}", extra.name));
    }
    // A full name; one that is not ours is taken only where that is allowed.
    let ours = name
        .strip_prefix(&extra.name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']));
    (extra.allow_overwrite || ours).then(|| name.clone())
}

pub(crate) fn to_record(descriptor: &Descriptor) -> Target {
    Target {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        annotations: descriptor.annotations.clone(),
    }
}

/// The full name of an image in an archive.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";
/// Its tag, or whatever made the archive wrote there.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[cfg(test)]
mod tests {
    use super::*;
    use oci_image::manifest::media;

    fn manifest(platform: Option<&str>, annotations: &[(&str, &str)]) -> Descriptor {
        let mut descriptor = Descriptor::of(media::OCI_MANIFEST, b"x");
        descriptor.platform = platform.map(|text| Platform::parse(text).unwrap());
        for (name, value) in annotations {
            descriptor.annotations.insert((*name).into(), (*value).into());
        }
        descriptor
    }

    #[test]
    fn names_of_an_archive_follow_annotations_and_prefixes() {
        let prefix = |allow_overwrite, add_digest| ImageStore {
            extra: vec![ExtraReference {
                name: "r.example/base".into(),
                is_prefix: true,
                allow_overwrite,
                add_digest,
                skip_named_digest: true,
            }],
            ..ImageStore::default()
        };
        let digest = oci_image::Digest::of(b"x");
        for (annotations, overwrite, add_digest, names) in [
            (
                vec![(IMAGE_NAME, "docker.io/a/b:c"), (REF_NAME, "c")],
                false,
                false,
                vec!["docker.io/a/b:c".to_owned()],
            ),
            (vec![(REF_NAME, "v1")], false, false, vec!["r.example/base:v1".to_owned()]),
            (vec![(REF_NAME, "other/x:1")], false, false, vec![]),
            (vec![(REF_NAME, "other/x:1")], true, false, vec!["other/x:1".to_owned()]),
            (
                vec![(REF_NAME, "r.example/base:2")],
                false,
                true,
                vec!["r.example/base:2".to_owned()],
            ),
            (vec![(REF_NAME, "r.example/basement:2")], false, false, vec![]),
            (vec![], false, true, vec![format!("r.example/base@{digest}")]),
        ] {
            let found = prefix(overwrite, add_digest).imported_names(&manifest(None, &annotations));
            assert_eq!(found, names, "{annotations:?}");
        }
    }

    #[test]
    fn manifests_are_filtered_by_platform_and_limited_to_the_best() {
        let index = Index {
            schema_version: 2,
            media_type: String::new(),
            manifests: ["linux/386", "linux/arm64", "linux/amd64"]
                .map(|text| manifest(Some(text), &[]))
                .into(),
            annotations: BTreeMap::new(),
        };
        let store = |platforms: &[&str], manifest_limit| ImageStore {
            platforms: platforms.iter().map(|text| Platform::parse(text).unwrap()).collect(),
            manifest_limit,
            ..ImageStore::default()
        };
        let wanted = |platforms: &[&str], limit| -> Vec<String> {
            let found = store(platforms, limit).wanted(&index);
            found.iter().map(|found| found.platform.clone().unwrap().to_string()).collect()
        };
        assert_eq!(wanted(&["linux/amd64"], 0), ["linux/amd64"]);
        assert_eq!(wanted(&["linux/amd64"], 1), ["linux/amd64"]);
        assert_eq!(wanted(&["linux/amd64"], 2), ["linux/amd64", "linux/386"]);
        assert_eq!(wanted(&[], 0).len(), 3);
        assert!(wanted(&["linux/s390x"], 1).is_empty());
    }
}
