//! Images as the API shows them: list, inspect, history.

use std::collections::BTreeMap;

use docker_api::filters::Filters;
use docker_api::image as api;
use oci_image::digest::Digest;
use oci_image::reference::Reference;

use super::catalog::{Content, Named};
use super::{ImageError, Images, glob};

/// The records of one target.
pub(super) struct Group {
    pub(super) target: Digest,
    pub(super) names: Vec<Named>,
}

impl Group {
    pub(super) fn first(&self) -> &Named {
        // Groups are made from their first member.
        &self.names[0]
    }

    pub(super) fn references(&self) -> Vec<Reference> {
        let mut references: Vec<_> = self.names.iter().filter_map(Named::reference).collect();
        references.sort();
        references
    }

    fn tags(&self) -> Vec<String> {
        let tagged = self.references().into_iter().filter(|r| r.digest().is_none());
        tagged.map(|reference| reference.familiar()).collect()
    }

    fn digests(&self) -> Vec<String> {
        let mut digests: Vec<_> = self
            .references()
            .into_iter()
            .map(|reference| format!("{}@{}", reference.familiar_name(), self.target))
            .collect();
        digests.sort();
        digests.dedup();
        digests
    }
}

pub(super) fn grouped(images: Vec<Named>) -> Vec<Group> {
    let mut groups: BTreeMap<Digest, Vec<Named>> = BTreeMap::new();
    for image in images {
        groups.entry(image.target.clone()).or_default().push(image);
    }
    groups.into_iter().map(|(target, names)| Group { target, names }).collect()
}

/// What the query of `GET /images/json` says besides filters.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ListOptions {
    pub(crate) shared_size: bool,
    /// API 1.43 and older: `<none>:<none>` and VirtualSize.
    pub(crate) old: bool,
    /// API 1.48: the target's descriptor.
    pub(crate) descriptor: bool,
}

impl Images {
    /// `GET /images/json`, newest first. `users` counts the containers of an image id.
    pub(crate) async fn list(
        &self,
        filters: &Filters,
        options: ListOptions,
        users: impl Fn(&str) -> i64,
    ) -> Result<Vec<api::ImageSummary>, ImageError> {
        filters.only(&["before", "dangling", "label", "reference", "since", "until"])?;
        let dangling = filters.flag("dangling")?;
        if !filters.get("reference").all(glob::is_pattern) {
            return Err(ImageError::Pattern);
        }
        let bounds = self.bounds(filters).await?;
        let mut found = Vec::new();
        for mut group in grouped(self.catalog.list().await?) {
            let references = group.references();
            if dangling.is_some_and(|wanted| wanted != references.is_empty())
                || !matches_reference(filters, &references)
            {
                continue;
            }
            // Only the names that were asked for are shown.
            if filters.contains("reference") {
                group.names.retain(|name| {
                    name.reference().is_some_and(|one| matches_reference(filters, &[one]))
                });
            }
            // An image whose blobs are missing (being pulled, or another platform's) is not shown.
            let content = match self.catalog.content(group.first()).await {
                Ok(content) => content,
                Err(error) => {
                    tracing::debug!(image = group.first().name, %error, "not shown");
                    continue;
                }
            };
            let created = created_seconds(&content);
            let labels = content.container.labels.clone().unwrap_or_default();
            if !bounds.contain(created) || !filters.labels("label", &labels) {
                continue;
            }
            let size = self.catalog.size(&content).await;
            let id = group.target.to_string();
            let (mut tags, mut digests) = (group.tags(), group.digests());
            if options.old && tags.is_empty() {
                tags.push("<none>:<none>".to_owned());
                if digests.is_empty() {
                    digests.push("<none>@<none>".to_owned());
                }
            }
            found.push(api::ImageSummary {
                containers: users(&id),
                created,
                labels: content.container.labels.clone(),
                parent_id: String::new(),
                descriptor: options.descriptor.then(|| descriptor(group.first())),
                repo_digests: Some(digests),
                repo_tags: Some(tags),
                shared_size: if options.shared_size { 0 } else { -1 },
                size,
                virtual_size: options.old.then_some(size),
                id,
            });
        }
        if options.shared_size {
            self.add_shared_sizes(&mut found).await?;
        }
        found.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(found)
    }

    /// Unpacked layers that several of the images stand on.
    async fn add_shared_sizes(&self, found: &mut [api::ImageSummary]) -> Result<(), ImageError> {
        let mut users: BTreeMap<Digest, u32> = BTreeMap::new();
        let mut chains = BTreeMap::new();
        for group in grouped(self.catalog.list().await?) {
            let Ok(content) = self.catalog.content(group.first()).await else { continue };
            for chain_id in &content.chain {
                *users.entry(chain_id.clone()).or_default() += 1;
            }
            chains.insert(group.target.to_string(), content);
        }
        for image in found {
            let Some(content) = chains.get(&image.id) else { continue };
            for chain_id in content.chain.iter().filter(|id| users.get(*id).is_some_and(|n| *n > 1))
            {
                image.shared_size += self.catalog.layer_usage(chain_id).await;
            }
        }
        Ok(())
    }

    async fn bounds(&self, filters: &Filters) -> Result<Bounds, ImageError> {
        let mut bounds = Bounds { after: i64::MIN, before: i64::MAX };
        for name in filters.get("before") {
            let image = self.catalog.find(name).await?;
            let created = created_seconds(&*self.catalog.content(&image).await?);
            bounds.before = bounds.before.min(created);
        }
        for name in filters.get("since") {
            let image = self.catalog.find(name).await?;
            let created = created_seconds(&*self.catalog.content(&image).await?);
            bounds.after = bounds.after.max(created);
        }
        for text in filters.get("until") {
            bounds.before = bounds.before.min(super::remove::until(text)?);
        }
        Ok(bounds)
    }

    /// `GET /images/{name}/json`.
    pub(crate) async fn inspect(
        &self,
        wanted: &str,
        options: ListOptions,
    ) -> Result<api::ImageInspect, ImageError> {
        let image = self.catalog.find(wanted).await?;
        let content = self.catalog.content(&image).await?;
        let names = self.catalog.list().await?;
        let group = Group {
            target: image.target.clone(),
            names: names.into_iter().filter(|other| other.target == image.target).collect(),
        };
        let updated = group.names.iter().map(|name| name.updated).max().unwrap_or(image.updated);
        let size = self.catalog.size(&content).await;
        let layers = content.config.rootfs.diff_ids.iter().map(Digest::to_string).collect();
        let comment = content.details.history.last().map(|entry| entry.comment.clone());
        Ok(api::ImageInspect {
            id: image.target.to_string(),
            repo_tags: group.tags(),
            repo_digests: group.digests(),
            comment: comment.unwrap_or_default(),
            created: content.config.created.clone(),
            container_config: options.old.then(Default::default),
            author: content.details.author.clone(),
            config: Some(content.container.clone()),
            architecture: content.config.platform.architecture.clone(),
            variant: content.config.platform.variant.clone(),
            os: content.config.platform.os.clone(),
            os_version: content.config.platform.os_version.clone(),
            size,
            virtual_size: options.old.then_some(size),
            graph_driver: api::DriverData {
                data: None,
                name: crate::containerd::SNAPSHOTTER.to_owned(),
            },
            root_fs: api::RootFs { kind: "layers".to_owned(), layers },
            metadata: api::ImageMetadata {
                last_tag_time: docker_api::time::rfc3339_nano(updated.0, updated.1),
            },
            descriptor: options.descriptor.then(|| descriptor(&image)),
            ..api::ImageInspect::default()
        })
    }

    /// `GET /images/{name}/history`, newest first.
    pub(crate) async fn history(&self, wanted: &str) -> Result<Vec<api::HistoryItem>, ImageError> {
        let image = self.catalog.find(wanted).await?;
        let content = self.catalog.content(&image).await?;
        let mut chain = content.chain.iter();
        let mut items = Vec::with_capacity(content.details.history.len());
        for entry in &content.details.history {
            let size =
                match (entry.empty_layer, if entry.empty_layer { None } else { chain.next() }) {
                    (false, Some(chain_id)) => self.catalog.layer_usage(chain_id).await,
                    _ => 0,
                };
            items.push(api::HistoryItem {
                comment: entry.comment.clone(),
                created: docker_api::time::parse_rfc3339(&entry.created)
                    .map(|(seconds, _)| seconds)
                    .unwrap_or_default(),
                created_by: entry.created_by.clone(),
                id: "<missing>".to_owned(),
                size,
                tags: None,
            });
        }
        items.reverse();
        if let Some(newest) = items.first_mut() {
            newest.id = image.target.to_string();
            let names = self.catalog.list().await?;
            let here = names.into_iter().filter(|other| other.target == image.target);
            let group = Group { target: image.target.clone(), names: here.collect() };
            newest.tags = Some(group.tags()).filter(|tags| !tags.is_empty());
        }
        Ok(items)
    }
}

struct Bounds {
    after: i64,
    before: i64,
}

impl Bounds {
    fn contain(&self, created: i64) -> bool {
        created > self.after && created < self.before
    }
}

/// Compat: with and without the tag, familiar and in full.
fn matches_reference(filters: &Filters, references: &[Reference]) -> bool {
    filters.any("reference", |pattern| {
        references.iter().any(|reference| {
            [
                reference.familiar(),
                reference.familiar_name(),
                reference.to_string(),
                reference.name(),
            ]
            .iter()
            .any(|text| glob::matches(pattern, text))
        })
    })
}

pub(super) fn created_seconds(content: &Content) -> i64 {
    let created = content.config.created.as_deref();
    created.and_then(docker_api::time::parse_rfc3339).map_or(0, |(seconds, _)| seconds)
}

fn descriptor(image: &Named) -> serde_json::Value {
    serde_json::json!({
        "mediaType": image.media_type,
        "digest": image.target.to_string(),
        "size": image.size,
    })
}
