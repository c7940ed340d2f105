//! Images: containerd's, seen as Docker shows them.
//!
//! containerd keeps names, blobs and snapshots; this asks it by its public services only. Pull, load and
//! import are its Transfer service (`transfer.rs`), everything else reads records and blobs
//! (`catalog.rs`). As in dockerd's containerd mode an image's id is its target's digest.

mod catalog;
mod changes;
mod glob;
mod hosts;
mod import;
mod keep;
mod progress;
mod remove;
mod transfer;
mod view;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use docker_api::StringMap;
use docker_api::container::Config as ImageConfig;
use docker_api::image::AuthConfig;
use docker_api::progress::Message;
use futures_util::Stream;
use oci_image::digest::Digest;
use oci_image::manifest::ManifestError;
use oci_image::platform::Platform;
use oci_image::reference::Reference;
use proto::containerd::services::images::v1 as wire;
use proto::errdefs::Kind;
use tokio::sync::mpsc;

use crate::api::error::Classified;
use crate::config::Config;
use crate::containerd::Containerd;
use crate::events::Events;
use catalog::{Catalog, Named};

pub(crate) use view::ListOptions;

/// All images.
#[derive(Debug)]
pub(crate) struct Images {
    catalog: Catalog,
    events: Events,
    /// Rendered `hosts.toml` files; empty where the configuration says nothing of registries.
    hosts: String,
    spool: PathBuf,
}

/// What a container needs of its image.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    /// Digest of the target: manifest or index.
    pub(crate) id: String,
    pub(crate) config: ImageConfig,
    /// Key of the committed snapshot the container's starts from; empty for an image without layers.
    pub(crate) chain_id: String,
    /// Descriptor of the manifest, as the API shows it.
    pub(crate) manifest: serde_json::Value,
}

/// Where progress lines go; the receiver may leave at any time.
pub(crate) type Lines = mpsc::Sender<Message>;

/// An image call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    // Compat: clients match these sentences.
    #[error("No such image: {0}")]
    NotFound(String),
    #[error("invalid reference format")]
    Reference(String),
    #[error("refusing to create {0}")]
    BadTag(&'static str),
    #[error("{0}")]
    Malformed(#[from] oci_image::reference::ReferenceError),
    #[error("ambiguous reference: {0} is the beginning of several image ids")]
    Ambiguous(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{image}: {source}")]
    Document { image: String, source: ManifestError },
    #[error("parse the configuration of {image}: {source}")]
    Json { image: String, source: serde_json::Error },
    // Compat: dockerd's words; the client pulls when it reads 404.
    #[error(
        "image with reference {name} was found but does not match the specified platform: wanted {wanted}, actual: {actual}"
    )]
    OtherPlatform { name: String, wanted: String, actual: String },
    #[error("no suitable image for this platform in {0}")]
    NoPlatform(String),
    #[error("blob {0} is too large for a manifest or configuration")]
    TooLarge(String),
    #[error("image {0} is not unpacked here; pull or load it again")]
    NotUnpacked(String),
    #[error(
        "pull access denied for {name}, repository does not exist or may require 'docker login': {reason}"
    )]
    Denied { name: String, reason: String },
    #[error("{0} is not supported yet")]
    NotYet(&'static str),
    #[error("read the archive: {0}")]
    Archive(String),
    #[error("keep the archive in {path}: {source}")]
    Spool { path: PathBuf, source: std::io::Error },
    #[error("{line:?}: {reason}")]
    Change { line: String, reason: String },
    #[error("{0}")]
    Platform(#[from] oci_image::platform::PlatformError),
    #[error("render the registries' configuration in {path}: {source}")]
    Hosts { path: PathBuf, source: std::io::Error },
    #[error("the kernel gives no random bytes")]
    Random,
    #[error("the engine is ending")]
    Interrupted,
    // Compat: Go's words.
    #[error("syntax error in pattern")]
    Pattern,
    #[error(transparent)]
    Filter(#[from] docker_api::filters::FilterError),
    #[error("{}", .0.message())]
    Containerd(Box<tonic::Status>),
}

impl From<tonic::Status> for ImageError {
    fn from(status: tonic::Status) -> Self {
        Self::Containerd(Box::new(status))
    }
}

impl Classified for ImageError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_)
            | Self::Denied { .. }
            | Self::OtherPlatform { .. }
            | Self::NoPlatform(_) => Kind::NotFound,
            Self::Conflict(_) => Kind::AlreadyExists,
            Self::Reference(_)
            | Self::Malformed(_)
            | Self::BadTag(_)
            | Self::Pattern
            | Self::Ambiguous(_)
            | Self::Archive(_)
            | Self::Change { .. }
            | Self::Platform(_)
            | Self::Filter(_) => Kind::InvalidArgument,
            Self::NotYet(_) => Kind::Unimplemented,
            Self::Containerd(status) => status.kind(),
            _ => Kind::Internal,
        }
    }
}

/// What `POST /images/create` asks for with `fromImage`.
#[derive(Debug, Default)]
pub(crate) struct PullRequest {
    pub(crate) image: String,
    /// Tag or digest; may be empty.
    pub(crate) tag: String,
    pub(crate) platform: String,
    pub(crate) auth: Option<AuthConfig>,
    pub(crate) headers: HashMap<String, String>,
}

/// What `POST /images/create` asks for with `fromSrc=-`.
#[derive(Debug, Default)]
pub(crate) struct ImportRequest {
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) message: String,
    pub(crate) changes: Vec<String>,
    pub(crate) platform: String,
}

impl Images {
    pub(crate) async fn load(
        config: &Config,
        containerd: Containerd,
        events: Events,
    ) -> Result<Self, ImageError> {
        let hosts = hosts::render(
            &config.exec_root.join("hosts"),
            &config.insecure_registries,
            &config.registry_mirrors,
        )?;
        let spool = config.data_root.join("tmp");
        Ok(Self { catalog: Catalog::new(containerd), events, hosts, spool })
    }

    /// Finds by name, digest or id prefix; makes sure that it is unpacked, and for the platform if
    /// one is asked for.
    pub(crate) async fn resolve(
        &self,
        name: &str,
        platform: &str,
    ) -> Result<Arc<Image>, ImageError> {
        let platform = if platform.is_empty() { None } else { Some(parse_platform(platform)?) };
        let named = self.catalog.find(name).await?;
        let content = self.catalog.content(&named).await?;
        if let Some(wanted) = platform {
            let actual = content.config.platform.clone().normalised();
            if (&actual.os, &actual.architecture) != (&wanted.os, &wanted.architecture)
                || (!wanted.variant.is_empty() && actual.variant != wanted.variant)
            {
                return Err(ImageError::OtherPlatform {
                    name: name.to_owned(),
                    wanted: wanted.to_string(),
                    actual: actual.to_string(),
                });
            }
        }
        if let Some(chain_id) = content.chain.last()
            && !self.catalog.is_unpacked(chain_id).await?
        {
            return Err(ImageError::NotUnpacked(name.to_owned()));
        }
        Ok(Arc::new(Image {
            id: named.target.to_string(),
            config: content.container.clone(),
            chain_id: content.chain.last().map(Digest::to_string).unwrap_or_default(),
            manifest: content.manifest.clone(),
        }))
    }

    /// The uppermost chain id of every image.
    pub(crate) async fn chains(&self) -> BTreeSet<String> {
        let mut chains = BTreeSet::new();
        for named in self.catalog.list().await.unwrap_or_default() {
            if let Ok(content) = self.catalog.content(&named).await {
                chains.extend(content.chain.last().map(Digest::to_string));
            }
        }
        chains
    }

    /// How many there are.
    pub(crate) async fn count(&self) -> usize {
        let Ok(mut images) = self.catalog.list().await else { return 0 };
        images.sort_by(|a, b| a.target.cmp(&b.target));
        images.dedup_by(|a, b| a.target == b.target);
        images.len()
    }

    /// What a reference meant before a pull. A digest is known by whatever name of its repository.
    async fn had(&self, reference: &Reference) -> Result<Option<Digest>, ImageError> {
        let Some(digest) = reference.digest() else {
            return Ok(self.catalog.get(&reference.to_string()).await?.map(|image| image.target));
        };
        let images = self.catalog.list().await?;
        let known = images.into_iter().find(|image| {
            image.target == *digest
                && image.reference().is_some_and(|own| own.name() == reference.name())
        });
        Ok(known.map(|image| image.target))
    }

    /// `docker pull`. Lines as dockerd writes them; an error before the first line is the answer's own.
    pub(crate) async fn pull(&self, request: PullRequest, lines: &Lines) -> Result<(), ImageError> {
        let reference = pull_reference(&request.image, &request.tag)?;
        let platform = parse_platform(&request.platform)?;
        let name = reference.to_string();
        let before = self.had(&reference).await?;
        let pull = transfer::Pull {
            reference: name.clone(),
            platform,
            auth: request.auth,
            headers: request.headers,
            hosts: self.hosts.clone(),
        };
        let (sender, events) = mpsc::channel(64);
        let shown = progress::pull(&reference, events, lines);
        let pulling = transfer::pull(self.catalog.containerd(), pull, sender);
        let (pulled, closing) =
            tokio::join!(self.keeping(|image| image.name == name, pulling), shown);
        pulled.map_err(|error| denied(&reference, error))?;
        let image =
            self.catalog.get(&name).await?.ok_or_else(|| ImageError::NotFound(name.clone()))?;
        let familiar = reference.familiar();
        let up_to_date = before.as_ref() == Some(&image.target);
        let outcome = if up_to_date {
            format!("Status: Image is up to date for {familiar}")
        } else {
            format!("Status: Downloaded newer image for {familiar}")
        };
        for message in closing {
            // Compat: of an image that was here already no layer is told.
            if !up_to_date || !progress::is_at_hand(&message) {
                drop(lines.send(message).await);
            }
        }
        // The client may have left; the image is here nevertheless.
        drop(lines.send(Message::status(None, format!("Digest: {}", image.target))).await);
        drop(lines.send(Message::status(None, outcome)).await);
        self.tell("pull", &familiar, &familiar);
        Ok(())
    }

    /// `docker load`.
    pub(crate) async fn load_archive<S, E>(
        &self,
        archive: S,
        platform: &str,
        lines: &Lines,
    ) -> Result<(), ImageError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: std::fmt::Display,
    {
        let platform = parse_platform(platform)?;
        let (sender, events) = mpsc::channel(64);
        let containerd = self.catalog.containerd();
        let import = transfer::import(containerd, archive, &platform, sender);
        let (imported, saved) =
            tokio::join!(self.keeping(|_| true, import), progress::saved(events));
        imported?;
        for name in saved {
            let Some(image) = self.catalog.get(&name).await? else { continue };
            let line = match image.reference() {
                Some(reference) => format!("Loaded image: {}\n", reference.familiar()),
                None => format!("Loaded image ID: {}\n", image.target),
            };
            drop(lines.send(Message::stream(line)).await);
            self.tell("load", &image.target.to_string(), &familiar_name(&image));
        }
        Ok(())
    }

    /// `docker import`: the id of the new image.
    pub(crate) async fn import<S, E>(
        &self,
        archive: S,
        request: ImportRequest,
    ) -> Result<String, ImageError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: std::fmt::Display,
    {
        let name = tagged(&request.repository, &request.tag)?;
        let platform = parse_platform(&request.platform)?;
        let mut config = ImageConfig::default();
        changes::apply(&mut config, &request.changes)?;
        let spool = Arc::new(import::spool(&self.spool, archive).await?);
        let text = name.as_ref().map(Reference::to_string);
        let (file, at) = (Arc::clone(&spool), platform.clone());
        let layout = tokio::task::spawn_blocking(move || {
            import::layout(&file, text.as_deref(), &request.message, &config, &at)
        })
        .await
        .map_err(|_error| ImageError::Interrupted)??;
        let (sender, events) = mpsc::channel(64);
        let archive = import::archive(&spool, &layout);
        let import = transfer::import(self.catalog.containerd(), archive, &platform, sender);
        let moving = |image: &Named| name.as_ref().is_some_and(|n| n.to_string() == image.name);
        let (imported, _saved) =
            tokio::join!(self.keeping(moving, import), progress::saved(events));
        imported?;
        let id = layout.manifest.to_string();
        let shown = name.as_ref().map_or_else(|| id.clone(), Reference::familiar);
        self.tell("import", &id, &shown);
        Ok(id)
    }

    /// `docker tag`: another name for the same target; a name in use moves.
    pub(crate) async fn tag(
        &self,
        wanted: &str,
        repository: &str,
        tag: &str,
    ) -> Result<(), ImageError> {
        let image = self.catalog.find(wanted).await?;
        let Some(name) = tagged(repository, tag)? else {
            return Err(ImageError::Reference(repository.to_owned()));
        };
        let text = name.to_string();
        self.keeping(|other| other.name == text, self.name(&image, &text)).await?;
        // A made up name has done its service.
        if image.reference().is_none() && image.name != name.to_string() {
            self.unname(&image.name).await?;
        }
        self.tell("tag", &image.target.to_string(), &name.familiar());
        Ok(())
    }

    async fn name(&self, image: &Named, name: &str) -> Result<(), ImageError> {
        let record = wire::Image {
            name: name.to_owned(),
            target: Some(proto::containerd::types::Descriptor {
                media_type: image.media_type.clone(),
                digest: image.target.to_string(),
                size: image.size,
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut client = self.catalog.containerd().images();
        let request =
            wire::CreateImageRequest { image: Some(record.clone()), source_date_epoch: None };
        match client.create(request).await {
            Err(status) if status.code() == tonic::Code::AlreadyExists => {
                let request =
                    wire::UpdateImageRequest { image: Some(record), ..Default::default() };
                client.update(request).await?;
            }
            outcome => {
                outcome?;
            }
        }
        Ok(())
    }

    /// Deletes a record; what nothing names any more is collected before the answer.
    async fn unname(&self, name: &str) -> Result<(), ImageError> {
        let request = wire::DeleteImageRequest { name: name.to_owned(), sync: true, target: None };
        match self.catalog.containerd().images().delete(request).await {
            Err(status) if status.code() != tonic::Code::NotFound => Err(status.into()),
            _ => Ok(()),
        }
    }

    fn tell(&self, action: &str, id: &str, name: &str) {
        let name = ("name".to_owned(), name.to_owned());
        self.events.publish("image", action, id, StringMap::from([name]));
    }
}

/// `repo[:tag]`, normalised; none where there is no repository.
fn tagged(repository: &str, tag: &str) -> Result<Option<Reference>, ImageError> {
    if repository.is_empty() {
        return Ok(None);
    }
    let reference = Reference::parse(repository)?;
    // Compat: dockerd refuses to make a digest a name, or what looks like the beginning of one.
    if reference.digest().is_some() {
        return Err(ImageError::BadTag("a tag with a digest reference"));
    }
    if reference.familiar_name() == "sha256" {
        return Err(ImageError::BadTag("an ambiguous tag using digest algorithm as name"));
    }
    let reference = if tag.is_empty() { reference } else { reference.with_tag(tag)? };
    Ok(Some(reference.with_default_tag()))
}

/// The image and tag (or digest) parameters of a pull.
fn pull_reference(image: &str, tag: &str) -> Result<Reference, ImageError> {
    let reference = Reference::parse(image)?;
    if tag.is_empty() {
        if reference.is_name_only() {
            return Err(ImageError::NotYet("pulling every tag of a repository"));
        }
        return Ok(reference);
    }
    if tag.contains(':') {
        let digest = Digest::parse(tag).map_err(|error| ImageError::Malformed(error.into()))?;
        return Ok(reference.without_version().with_digest(digest));
    }
    Ok(reference.with_tag(tag)?)
}

fn parse_platform(text: &str) -> Result<Platform, ImageError> {
    if text.is_empty() { Ok(Platform::host()) } else { Ok(Platform::parse(text)?.normalised()) }
}

/// Compat: a registry that hides what it has looks like one that lacks it; dockerd says both at once.
fn denied(reference: &Reference, error: ImageError) -> ImageError {
    match error {
        ImageError::Containerd(status)
            if matches!(
                status.code(),
                tonic::Code::PermissionDenied | tonic::Code::Unauthenticated
            ) =>
        {
            let reason = status.message().to_owned();
            ImageError::Denied { name: reference.familiar_name(), reason }
        }
        other => other,
    }
}

fn familiar_name(image: &Named) -> String {
    image.reference().map_or_else(|| image.target.to_string(), |reference| reference.familiar())
}

/// Now, as image configurations write it.
fn now() -> String {
    let now = jiff::Timestamp::now();
    docker_api::time::rfc3339_nano(now.as_second(), now.subsec_nanosecond())
}
