//! One channel, and a client of each service that carries the namespace.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use proto::containerd::services::leases::v1 as leases;
use proto::containerd::services::{
    containers::v1::containers_client::ContainersClient,
    content::v1::content_client::ContentClient, diff::v1::diff_client::DiffClient,
    events::v1::events_client::EventsClient, images::v1::images_client::ImagesClient,
    introspection::v1::introspection_client::IntrospectionClient,
    leases::v1::leases_client::LeasesClient, namespaces::v1::namespaces_client::NamespacesClient,
    snapshots::v1::snapshots_client::SnapshotsClient,
    streaming::v1::streaming_client::StreamingClient, tasks::v1::tasks_client::TasksClient,
    transfer::v1::transfer_client::TransferClient, version::v1::version_client::VersionClient,
};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};

/// Adds the namespace, and the lease where one is held, to every request.
#[derive(Clone)]
pub(crate) struct Scope {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl tonic::service::Interceptor for Scope {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> std::result::Result<tonic::Request<()>, tonic::Status> {
        let metadata = request.metadata_mut();
        metadata.insert(proto::namespace::GRPC_KEY, self.namespace.clone());
        if let Some(lease) = &self.lease {
            metadata.insert(proto::namespace::LEASE_KEY, lease.clone());
        }
        Ok(request)
    }
}

pub(crate) type Service = InterceptedService<Channel, Scope>;

#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    scope: Scope,
}

macro_rules! services {
    ($($name:ident: $client:ident),* $(,)?) => {
        impl Client {
            $(pub(crate) fn $name(&self) -> $client<Service> {
                $client::with_interceptor(self.channel.clone(), self.scope.clone())
                    .max_decoding_message_size(MESSAGE_LIMIT)
                    .max_encoding_message_size(MESSAGE_LIMIT)
            })*
        }
    };
}

services! {
    containers: ContainersClient,
    content: ContentClient,
    diff: DiffClient,
    events: EventsClient,
    images: ImagesClient,
    introspection: IntrospectionClient,
    leases: LeasesClient,
    namespaces: NamespacesClient,
    snapshots: SnapshotsClient,
    streaming: StreamingClient,
    tasks: TasksClient,
    transfer: TransferClient,
    version: VersionClient,
}

impl Client {
    pub(crate) async fn connect(
        address: &str,
        namespace: &str,
        within: Option<Duration>,
    ) -> Result<Self> {
        let path = PathBuf::from(address.strip_prefix("unix://").unwrap_or(address));
        let endpoint = Endpoint::from_static("http://localhost")
            .connect_timeout(within.unwrap_or(CONNECT_TIMEOUT));
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .with_context(|| format!("failed to dial {address:?}"))?;
        let namespace = namespace
            .parse()
            .with_context(|| format!("namespace {namespace:?}: invalid argument"))?;
        Ok(Self { channel, scope: Scope { namespace, lease: None } })
    }

    pub(crate) fn namespace(&self) -> &str {
        // It was made from a string.
        self.scope.namespace.to_str().unwrap_or_default()
    }

    /// Runs work whose requests hold what they make by a lease, until it is done.
    pub(crate) async fn leased<T>(&self, work: impl AsyncFnOnce(&Self) -> Result<T>) -> Result<T> {
        let day = jiff::SignedDuration::from_hours(24);
        let expires = jiff::Timestamp::now().checked_add(day)?.to_string();
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expires)]);
        let request = leases::CreateRequest { labels, ..Default::default() };
        let lease = answer(self.leases().create(request).await)?.lease.unwrap_or_default().id;
        let mut client = self.clone();
        client.scope.lease = Some(lease.parse()?);
        let result = work(&client).await;
        // What failed leaves nothing, when its end is told.
        let release = leases::DeleteRequest { id: lease, sync: result.is_err() };
        self.leases().delete(release).await.map(drop).unwrap_or_default();
        result
    }
}

/// The message of an answer, or the server's sentence.
pub(crate) fn answer<T>(
    response: std::result::Result<tonic::Response<T>, tonic::Status>,
) -> Result<T> {
    response.map(tonic::Response::into_inner).map_err(failure)
}

pub(crate) fn failure(status: tonic::Status) -> anyhow::Error {
    let text = match (status.message(), status.code()) {
        ("", code) => code.to_string(),
        (text, tonic::Code::Unimplemented) => format!("{text}: not implemented"),
        (text, _) => text.to_owned(),
    };
    Refusal { code: status.code(), text }.into()
}

/// Compat: Go's words where a file is missing or closed to us.
pub(crate) fn file_error(
    verb: &str,
    path: &std::path::Path,
    error: &std::io::Error,
) -> anyhow::Error {
    let reason = match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    anyhow::anyhow!("{verb} {}: {reason}", path.display())
}

/// What ctr says of one of several things before it goes on with the next, in its log's form.
pub(crate) fn log_line(level: &str, message: &str, error: Option<&anyhow::Error>) {
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let error = error.map(|error| format!("{error:#}"));
    let error = error.map(|error| format!(" error={error:?}")).unwrap_or_default();
    let line = format!("time=\"{time}\" level={level} msg={message:?}{error}\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap_or_default();
}

/// Whether the server refused with this code.
pub(crate) fn refused(error: &anyhow::Error, code: tonic::Code) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.code == code)
}

#[derive(Debug)]
struct Refusal {
    code: tonic::Code,
    text: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refusal {}

/// A whole image list or a long specification fits.
const MESSAGE_LIMIT: usize = 16 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
