//! Image store to archive: an OCI layout that also holds Docker's `manifest.json`, so that either
//! reader finds what it knows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use oci_image::manifest::{Descriptor, Document, Index, media};
use oci_image::{Digest, Platform, Reference};
use serde::Serialize;

use super::archive::to_json;
use super::destination::{IMAGE_NAME, ImageStore, REF_NAME};
use super::error::{Result, TransferError as Error};
use super::progress::Reporter;
use super::{from_record, leased};
use crate::app::App;
use crate::context::Context;
use crate::filter::Filters;

/// Where the archive goes; for a blocking thread.
pub(crate) type ArchiveWriter = Box<dyn Write + Send>;

#[derive(Debug, Clone, Default)]
pub(crate) struct ExportOptions {
    pub(crate) platforms: Vec<Platform>,
    pub(crate) all_platforms: bool,
    pub(crate) skip_docker_manifest: bool,
    pub(crate) skip_foreign: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// What goes into the archive: blobs by digest (each once), and what they are called.
#[derive(Default)]
struct Plan {
    blobs: BTreeMap<Digest, u64>,
    index: Vec<Descriptor>,
    docker: BTreeMap<Digest, DockerImage>,
}

pub(crate) async fn export(
    app: &App,
    context: Context,
    source: ImageStore,
    options: ExportOptions,
    output: ArchiveWriter,
    report: Reporter,
) -> Result<()> {
    leased(app, context, async |context| {
        report.note("Exporting".to_owned()).await;
        let (reader, app) = (app.clone(), app.clone());
        let plan = tokio::task::spawn_blocking(move || {
            let plan = plan(&reader, &context, &source, &options)?;
            write(&app, &context, &plan, &options, output)
        });
        plan.await.map_err(|_| Error::Abandoned)??;
        report.note("Completed export".to_owned()).await;
        Ok(())
    })
    .await
}

fn plan(
    app: &App,
    context: &Context,
    source: &ImageStore,
    options: &ExportOptions,
) -> Result<Plan> {
    let mut plan = Plan::default();
    let mut images = Vec::new();
    let exact = source
        .extra
        .iter()
        .filter(|extra| !extra.is_prefix)
        .map(|extra| &extra.name)
        .chain(Some(&source.name).filter(|name| !name.is_empty()));
    for name in exact {
        let found = app.images.get(&context.namespace, name);
        images.push(found.map_err(|_| Error::NoImage(name.clone()))?);
    }
    let prefixes: Vec<&String> =
        source.extra.iter().filter(|extra| extra.is_prefix).map(|extra| &extra.name).collect();
    if !prefixes.is_empty() {
        let all = Filters::parse::<String>(&[])
            .and_then(|every| app.images.list(&context.namespace, &every))
            .map_err(Error::store("list images"))?;
        images.extend(
            all.into_iter().filter(|image| {
                prefixes.iter().any(|prefix| image.name.starts_with(prefix.as_str()))
            }),
        );
    }
    if images.is_empty() {
        return Err(Error::NoName);
    }
    for image in images {
        let mut target = from_record(&image.target)?;
        plan.walk(app, context, options, &target, &image.name, 0)?;
        target.annotations.insert(IMAGE_NAME.to_owned(), image.name.clone());
        let short = Reference::parse(&image.name).ok();
        let tag = short.as_ref().and_then(Reference::tag).unwrap_or(&image.name);
        target.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        plan.index.push(target);
    }
    Ok(plan)
}

impl Plan {
    fn walk(
        &mut self,
        app: &App,
        context: &Context,
        options: &ExportOptions,
        descriptor: &Descriptor,
        name: &str,
        depth: usize,
    ) -> Result<()> {
        if depth > DEPTH {
            return Err(Error::Invalid(format!(
                "index {} is nested too deeply",
                descriptor.digest
            )));
        }
        let bytes = app
            .content
            .read_all(&context.namespace, descriptor.digest.as_str(), DOCUMENT_MAX)
            .map_err(Error::store("read manifest"))?;
        self.blobs.insert(descriptor.digest.clone(), bytes.len() as u64);
        let document = Document::parse(&descriptor.media_type, &bytes)
            .map_err(|source| Error::Manifest { digest: descriptor.digest.clone(), source })?;
        match document {
            Document::Index(index) => {
                let mut found = 0;
                for child in &index.manifests {
                    if !wanted(options, child.platform.as_ref()) {
                        continue;
                    }
                    // Platforms that were never pulled are listed, but not here.
                    if app.content.info(&context.namespace, child.digest.as_str()).is_ok() {
                        self.walk(app, context, options, child, name, depth + 1)?;
                        found += 1;
                    }
                }
                if found == 0 {
                    return Err(Error::Platform(descriptor.digest.clone()));
                }
            }
            Document::Manifest(manifest) => {
                let mut layers = Vec::new();
                for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                    if options.skip_foreign && media::is_foreign(&blob.media_type) {
                        continue;
                    }
                    let info = app
                        .content
                        .info(&context.namespace, blob.digest.as_str())
                        .map_err(Error::store("read blob"))?;
                    self.blobs.insert(blob.digest.clone(), info.size);
                    layers.push(path(&blob.digest));
                }
                if media::is_config(&manifest.config.media_type) && !layers.is_empty() {
                    let config = layers.remove(0);
                    let image = DockerImage { config, repo_tags: Vec::new(), layers };
                    let image = self.docker.entry(descriptor.digest.clone()).or_insert(image);
                    if let Ok(reference) = Reference::parse(name)
                        && reference.tag().is_some()
                        && !image.repo_tags.contains(&reference.familiar())
                    {
                        image.repo_tags.push(reference.familiar());
                    }
                }
            }
        }
        Ok(())
    }
}

fn wanted(options: &ExportOptions, platform: Option<&Platform>) -> bool {
    let Some(platform) = platform else { return true };
    options.all_platforms
        || options.platforms.is_empty() && Platform::host().rank(platform) == Some(0)
        || options.platforms.iter().any(|own| own.rank(platform) == Some(0))
}

fn write(
    app: &App,
    context: &Context,
    plan: &Plan,
    options: &ExportOptions,
    output: ArchiveWriter,
) -> Result<()> {
    let mut archive = tar::Builder::new(output);
    let mut directories = BTreeSet::new();
    for (digest, size) in &plan.blobs {
        for directory in ["blobs/".to_owned(), format!("blobs/{}/", digest.algorithm())] {
            if directories.insert(directory.clone()) {
                let header = header(&directory, tar::EntryType::Directory, 0o755, 0)?;
                archive.append(&header, io::empty()).map_err(Error::Write)?;
            }
        }
        let reader = app
            .content
            .reader(&context.namespace, digest.as_str())
            .map_err(Error::store("read blob"))?;
        let header = header(&path(digest), tar::EntryType::Regular, 0o444, *size)?;
        archive.append(&header, reader.file.take(*size)).map_err(Error::Write)?;
    }
    let index = Index {
        schema_version: 2,
        media_type: media::OCI_INDEX.to_owned(),
        manifests: plan.index.clone(),
        annotations: BTreeMap::new(),
    };
    let mut documents = vec![("index.json", to_json(&index)?)];
    if !options.skip_docker_manifest && !plan.docker.is_empty() {
        let images: Vec<&DockerImage> = plan.docker.values().collect();
        documents.push(("manifest.json", to_json(&images)?));
    }
    documents.push(("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    for (name, bytes) in documents {
        let header = header(name, tar::EntryType::Regular, 0o644, bytes.len() as u64)?;
        archive.append(&header, bytes.as_slice()).map_err(Error::Write)?;
    }
    archive.into_inner().and_then(|mut output| output.flush()).map_err(Error::Write)
}

/// Compat: no times, so that the same image makes the same archive.
fn header(name: &str, kind: tar::EntryType, mode: u32, size: u64) -> Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).map_err(Error::Write)?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}

fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

const DOCUMENT_MAX: u64 = 8 << 20;
const DEPTH: usize = 4;
