//! From an image to what it is made of: index, manifest, configuration, chain id.

use anyhow::{Context as _, Result, bail};
use oci_image::Digest;
use proto::containerd::services::diff::v1::ApplyRequest;
use proto::containerd::services::images::v1 as images;
use proto::containerd::services::snapshots::v1 as snapshots;
use proto::containerd::types::{Descriptor, Platform};
use serde_json::Value;

use crate::connection::{Client, answer, refused};
use crate::content;

/// What one platform's image says.
pub(crate) struct Resolved {
    pub(crate) config: Value,
    layers: Vec<Descriptor>,
    /// Of manifest, configuration and layers.
    pub(crate) size: i64,
}

pub(crate) fn own_platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    Platform { os: "linux".into(), architecture: architecture.into(), ..Platform::default() }
}

/// `linux/arm/v7`.
pub(crate) fn parse_platform(text: &str) -> Result<Platform> {
    let mut parts = text.splitn(3, '/').map(str::to_owned);
    let (Some(os), Some(architecture)) = (parts.next(), parts.next()) else {
        bail!("platform {text:?} is not os/architecture[/variant]: invalid argument");
    };
    let variant = parts.next().unwrap_or_default();
    Ok(Platform { os, architecture, variant, ..Platform::default() })
}

pub(crate) async fn image(client: &Client, name: &str) -> Result<images::Image> {
    let request = images::GetImageRequest { name: name.to_owned() };
    let image = answer(client.images().get(request).await)?.image;
    image.with_context(|| format!("image {name:?}: not found"))
}

/// The platforms an image has configurations for, as `os/architecture`.
pub(crate) async fn platforms(client: &Client, image: &images::Image) -> Result<Vec<String>> {
    let target = image.target.clone().unwrap_or_default();
    let document = json(client, &target.digest).await?;
    let mut names = Vec::new();
    if let Some(manifests) = document["manifests"].as_array() {
        for entry in manifests {
            // What is here, not what the index could have; and no attestations.
            let digest = text(&entry["digest"]);
            if json(client, &digest).await.is_ok() && entry["platform"]["os"] != "unknown" {
                names.push(platform_name(&entry["platform"]));
            }
        }
    } else {
        let config = json(client, &text(&document["config"]["digest"])).await?;
        names.push(platform_name(&config));
    }
    names.retain(|name| name != "/");
    names.sort();
    names.dedup();
    Ok(names)
}

fn platform_name(value: &Value) -> String {
    let (os, architecture, variant) =
        (text(&value["os"]), text(&value["architecture"]), text(&value["variant"]));
    match variant.as_str() {
        "" => format!("{os}/{architecture}"),
        "v8" if architecture == "arm64" => format!("{os}/{architecture}"),
        _ => format!("{os}/{architecture}/{variant}"),
    }
}

pub(crate) async fn resolve(
    client: &Client,
    image: &images::Image,
    platform: &Platform,
) -> Result<Resolved> {
    let target = image.target.clone().unwrap_or_default();
    let mut document = json(client, &target.digest).await?;
    let mut size = target.size;
    if let Some(manifests) = document["manifests"].as_array() {
        let fits = |entry: &&Value| {
            let has = &entry["platform"];
            text(&has["os"]) == platform.os
                && text(&has["architecture"]) == platform.architecture
                && (platform.variant.is_empty() || text(&has["variant"]) == platform.variant)
        };
        let entry = manifests.iter().find(fits).or_else(|| {
            // A single one without a platform speaks for itself.
            manifests.first().filter(|only| manifests.len() == 1 && only["platform"].is_null())
        });
        let entry = entry.with_context(|| {
            let name = format!("{}/{}", platform.os, platform.architecture);
            format!("no match for platform {name} in manifest {}: not found", target.digest)
        })?;
        size = entry["size"].as_i64().unwrap_or(0);
        document = json(client, &text(&entry["digest"])).await?;
    }
    let layers: Vec<Descriptor> =
        document["layers"].as_array().into_iter().flatten().map(descriptor).collect();
    let config = descriptor(&document["config"]);
    let size = total(size, &config, &layers);
    let config = json(client, &config.digest).await?;
    Ok(Resolved { config, layers, size })
}

fn total(documents: i64, config: &Descriptor, layers: &[Descriptor]) -> i64 {
    let sizes = layers.iter().map(|layer| layer.size);
    sizes.fold(documents.saturating_add(config.size), i64::saturating_add)
}

impl Resolved {
    fn diff_ids(&self) -> Result<Vec<Digest>> {
        let ids = self.config["rootfs"]["diff_ids"].as_array();
        let ids = ids.into_iter().flatten().map(|id| Ok(Digest::parse(&text(id))?));
        ids.collect()
    }

    /// Makes sure that the image's layers are snapshots; answers the name of the last.
    pub(crate) async fn unpack(&self, client: &Client, snapshotter: &str) -> Result<String> {
        let ids = self.diff_ids()?;
        if ids.len() != self.layers.len() {
            bail!("mismatched image rootfs and manifest layers");
        }
        let mut parent = String::new();
        for (layer, name) in self.layers.iter().zip(oci_image::digest::chain_ids(&ids)) {
            let name = name.to_string();
            let stat = snapshots::StatSnapshotRequest {
                snapshotter: snapshotter.to_owned(),
                key: name.clone(),
            };
            match answer(client.snapshots().stat(stat).await) {
                Ok(_) => {}
                Err(error) if refused(&error, tonic::Code::NotFound) => {
                    self.apply(client, snapshotter, layer, &parent, &name).await?;
                }
                Err(error) => return Err(error),
            }
            parent = name;
        }
        Ok(parent)
    }

    async fn apply(
        &self,
        client: &Client,
        snapshotter: &str,
        layer: &Descriptor,
        parent: &str,
        name: &str,
    ) -> Result<()> {
        let key = format!("extract-{}-{}", crate::io::unique()?, name);
        let mut service = client.snapshots();
        let prepare = snapshots::PrepareSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.clone(),
            parent: parent.to_owned(),
            ..Default::default()
        };
        let mounts = answer(service.prepare(prepare).await)?.mounts;
        let apply = ApplyRequest { diff: Some(layer.clone()), mounts, ..ApplyRequest::default() };
        if let Err(error) = answer(client.diff().apply(apply).await) {
            let snapshotter = snapshotter.to_owned();
            let remove = snapshots::RemoveSnapshotRequest { snapshotter, key };
            // The first failure is the one to tell.
            service.remove(remove).await.map(drop).unwrap_or_default();
            return Err(error.context(format!("apply layer {}", layer.digest)));
        }
        let commit = snapshots::CommitSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            name: name.to_owned(),
            key,
            ..Default::default()
        };
        match answer(service.commit(commit).await) {
            // Someone else was quicker.
            Err(error) if refused(&error, tonic::Code::AlreadyExists) => Ok(()),
            result => result.map(drop),
        }
    }
}

async fn json(client: &Client, digest: &str) -> Result<Value> {
    let data = content::read(client, digest).await?;
    serde_json::from_slice(&data).with_context(|| format!("content {digest}"))
}

fn descriptor(value: &Value) -> Descriptor {
    Descriptor {
        media_type: text(&value["mediaType"]),
        digest: text(&value["digest"]),
        size: value["size"].as_i64().unwrap_or(0),
        ..Descriptor::default()
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn a_manifest_that_boasts_has_a_size(
            sizes in proptest::collection::vec(any::<i64>(), 0..4),
            own: i64,
            kind in 0_usize..3,
        ) {
            let layers: Vec<Descriptor> = sizes
                .iter()
                .map(|size| descriptor(&json!({"mediaType": "m", "digest": "d", "size": size})))
                .collect();
            let config = descriptor(&[json!({"size": own}), json!(null), json!({"size": "x", "digest": 1})][kind]);
            let wanted = sizes.iter().map(|size| i128::from(*size)).sum::<i128>() + i128::from(config.size);
            if let Ok(wanted) = i64::try_from(wanted)
                && sizes.iter().all(|size| *size >= 0)
            {
                prop_assert_eq!(total(0, &config, &layers), wanted);
            }
            total(9, &config, &layers);
        }

        #[test]
        fn a_broken_config_has_no_layers_of_its_own(
            ids in proptest::collection::vec("(sha256:)?[0-9a-f]{0,64}", 0..4),
            odd in 0_usize..4,
        ) {
            let odd = [json!(null), json!([]), json!({"diff_ids": 1}), json!({"diff_ids": ids})][odd].clone();
            let resolved = Resolved { config: json!({"rootfs": odd}), layers: Vec::new(), size: 0 };
            if let Ok(read) = resolved.diff_ids() {
                prop_assert!(read.iter().map(ToString::to_string).eq(ids.iter().take(read.len()).cloned()));
            }
        }
    }
}
