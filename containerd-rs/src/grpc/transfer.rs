//! `containerd.services.transfer.v1.Transfer`: source and destination are messages of many types;
//! the pair decides what is done.

use oci_image::Platform;
use oci_registry::Scheme;
use prost_types::Any;
use proto::any::{is, type_name, unpack};
use proto::containerd::services::transfer::v1::TransferRequest;
use proto::containerd::services::transfer::v1::transfer_server::Transfer;
use proto::containerd::types::Platform as WirePlatform;
use proto::containerd::types::transfer as wire;
use proto::errdefs::Kind;
use tonic::{Request, Response, Status};

use super::streaming::Streams;
use super::wire::{Answer, context, from_labels, required};
use crate::app::App;
use crate::context::Context;
use crate::transfer::{
    self, ExportOptions, ExtraReference, ImageStore, RegistrySource, Reporter,
    TransferError as Error, Unpack,
};

pub(crate) struct TransferService {
    pub(crate) app: App,
    pub(crate) streams: Streams,
}

#[tonic::async_trait]
impl Transfer for TransferService {
    async fn transfer(&self, request: Request<TransferRequest>) -> Answer<()> {
        let context = context(&request)?;
        let request = request.into_inner();
        let source = required(request.source, "source")?;
        let destination = required(request.destination, "destination")?;
        let stream = request.options.map(|options| options.progress_stream).unwrap_or_default();
        let mut telling = None;
        let mut report = Reporter::default();
        if !stream.is_empty() {
            let (reporter, ended) = self.streams.take(&context.namespace, &stream)?.reporter();
            (report, telling) = (reporter, Some(ended));
        }
        let outcome = self.run(context, &source, &destination, report).await?;
        // What was told last should arrive before the answer.
        if let Some(ended) = telling
            && tokio::time::timeout(LAST_WORDS, ended.cancelled()).await.is_err()
        {
            tracing::debug!("the progress was not read to its end");
        }
        outcome.map_err(to_status)?;
        Ok(Response::new(()))
    }
}

impl TransferService {
    /// The outer result is for requests that cannot be read.
    async fn run(
        &self,
        context: Context,
        source: &Any,
        destination: &Any,
        report: Reporter,
    ) -> Result<Result<(), Error>, Status> {
        let app = &self.app;
        if is::<wire::OciRegistry>(source) && is::<wire::ImageStore>(destination) {
            let store = image_store(message(destination)?)?;
            let source = self.registry(&context, message(source)?)?;
            return Ok(transfer::pull(app, context, source, store, report).await);
        }
        if is::<wire::ImageImportStream>(source) && is::<wire::ImageStore>(destination) {
            let store = image_store(message(destination)?)?;
            let source: wire::ImageImportStream = message(source)?;
            if source.force_compress {
                let what = "compressing layers while importing".to_owned();
                return Ok(Err(Error::Unimplemented(what)));
            }
            let data = self.streams.take(&context.namespace, &source.stream)?.reader();
            return Ok(transfer::import(app, context, data, store, report).await);
        }
        if is::<wire::ImageStore>(source) && is::<wire::ImageStore>(destination) {
            let (source, store) = (message(source)?, message(destination)?);
            let (source, store) = (image_store(source)?, image_store(store)?);
            return Ok(transfer::tag(app, context, source, store).await);
        }
        if is::<wire::ImageStore>(source) && is::<wire::ImageExportStream>(destination) {
            let source = image_store(message(source)?)?;
            let destination: wire::ImageExportStream = message(destination)?;
            let output = self.streams.take(&context.namespace, &destination.stream)?.writer();
            let options = ExportOptions {
                platforms: destination.platforms.into_iter().map(platform).collect(),
                all_platforms: destination.all_platforms,
                skip_docker_manifest: destination.skip_compatibility_manifest,
                skip_foreign: destination.skip_non_distributable,
            };
            let output: transfer::ArchiveWriter = Box::new(output);
            return Ok(transfer::export(app, context, source, options, output, report).await);
        }
        Ok(Err(Error::Unimplemented(format!(
            "transfer from {} to {}",
            type_name(source),
            type_name(destination)
        ))))
    }

    fn registry(
        &self,
        context: &Context,
        registry: wire::OciRegistry,
    ) -> Result<RegistrySource, Status> {
        let resolver = registry.resolver.unwrap_or_default();
        let default_scheme = match resolver.default_scheme.as_str() {
            "" => None,
            "http" => Some(Scheme::Http),
            "https" => Some(Scheme::Https),
            other => {
                return Err(Kind::InvalidArgument.status(format!("unknown scheme {other:?}")));
            }
        };
        let credentials = if resolver.auth_stream.is_empty() {
            None
        } else {
            Some(self.streams.take(&context.namespace, &resolver.auth_stream)?.credentials())
        };
        Ok(RegistrySource {
            reference: registry.reference,
            host_directory: Some(resolver.host_dir).filter(|dir| !dir.is_empty()).map(Into::into),
            default_scheme,
            headers: resolver.headers.into_iter().collect(),
            credentials,
        })
    }
}

fn message<M: prost::Message + prost::Name + Default>(any: &Any) -> Result<M, Status> {
    unpack(any).map_err(|error| Kind::InvalidArgument.status(error.to_string()))
}

fn image_store(store: wire::ImageStore) -> Result<ImageStore, Status> {
    let unpacks = store
        .unpacks
        .into_iter()
        .map(|unpack| Unpack {
            platform: unpack.platform.map_or_else(Platform::host, platform),
            snapshotter: unpack.snapshotter,
        })
        .collect();
    let extra = store
        .extra_references
        .into_iter()
        .map(|extra| ExtraReference {
            name: extra.name,
            is_prefix: extra.is_prefix,
            allow_overwrite: extra.allow_overwrite,
            add_digest: extra.add_digest,
            skip_named_digest: extra.skip_named_digest,
        })
        .collect();
    Ok(ImageStore {
        name: store.name,
        labels: from_labels(store.labels),
        platforms: store.platforms.into_iter().map(platform).collect(),
        manifest_limit: usize::try_from(store.manifest_limit)
            .map_err(|_| Kind::InvalidArgument.status("manifest_limit"))?,
        extra,
        unpacks,
    })
}

fn platform(platform: WirePlatform) -> Platform {
    Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant,
        os_version: platform.os_version,
        os_features: Vec::new(),
    }
}

fn to_status(error: Error) -> Status {
    tracing::info!(%error, "transfer failed");
    error.kind().status(error.to_string())
}

const LAST_WORDS: std::time::Duration = std::time::Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::any::pack;

    fn platforms() -> impl Strategy<Value = Vec<WirePlatform>> {
        let one = ("(linux|windows|)", "(amd64|arm64|\\PC{0,3})", "(v[0-9])?").prop_map(
            |(os, architecture, variant)| WirePlatform {
                os,
                architecture,
                variant,
                ..WirePlatform::default()
            },
        );
        proptest::collection::vec(one, 0..4)
    }

    prop_compose! {
        fn stores()(
            name in "\\PC{0,9}", labels in proptest::collection::hash_map("\\PC{0,4}", "\\PC{0,4}", 0..3),
            platforms in platforms(), unpacks in platforms(), manifest_limit in 0_u32..4,
            extra in proptest::collection::vec(("\\PC{0,6}", any::<[bool; 4]>()), 0..4),
        ) -> wire::ImageStore {
            wire::ImageStore {
                name,
                labels,
                platforms,
                unpacks: unpacks
                    .into_iter()
                    .map(|platform| wire::UnpackConfiguration { platform: Some(platform), snapshotter: "s".into() })
                    .collect(),
                manifest_limit,
                extra_references: extra
                    .into_iter()
                    .map(|(name, [is_prefix, allow_overwrite, add_digest, skip_named_digest])| wire::ImageReference {
                        name, is_prefix, allow_overwrite, add_digest, skip_named_digest,
                    })
                    .collect(),
                ..wire::ImageStore::default()
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, ..ProptestConfig::default() })]

        #[test]
        fn a_store_is_read_whole(given in stores()) {
            let store = image_store(message(&pack(&given)).unwrap()).unwrap();
            prop_assert_eq!((store.platforms.len(), store.unpacks.len()), (given.platforms.len(), given.unpacks.len()));
            let target = oci_image::manifest::Descriptor::of("m", b"x");
            let names = store.names(&target);
            let whole = given.extra_references.iter().filter(|extra| !extra.is_prefix);
            prop_assert_eq!(names.len(), usize::from(!given.name.is_empty()) + whole.count());
            let prefixes: Vec<&String> =
                given.extra_references.iter().filter(|extra| extra.is_prefix).map(|extra| &extra.name).collect();
            let imported = store.imported_names(&target);
            prop_assert!(imported.iter().all(|name| prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))));
        }

        #[test]
        fn a_broken_message_is_an_invalid_argument(
            given in stores(), edits in proptest::collection::vec((any::<usize>(), 0_usize..4, any::<[u8; 2]>()), 0..5),
        ) {
            let mut any = pack(&given);
            for (at, cut, bytes) in edits {
                let at = at % (any.value.len() + 1);
                any.value.splice(at..(at + cut).min(any.value.len()), bytes);
            }
            let length = any.value.len();
            match message::<wire::ImageStore>(&any).and_then(image_store) {
                Ok(store) => prop_assert!(store.extra.len() + store.platforms.len() <= length),
                Err(status) => prop_assert_eq!(status.code(), tonic::Code::InvalidArgument),
            }
            any.type_url = "containerd.types.transfer.Unknown".to_owned();
            prop_assert_eq!(message::<wire::ImageStore>(&any).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
    }
}
