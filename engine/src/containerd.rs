//! containerd below us: one channel, one client a service, every call in the engine's namespace.

mod process;
mod pulse;

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Endpoint, Uri};

use proto::containerd::services;
use proto::containerd::services::version::v1::VersionResponse;

use crate::config::Config;

/// Adds the namespace to every request, the lease where one is held, and the trace of who asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Scope {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        let metadata = request.metadata_mut();
        metadata.insert(proto::namespace::GRPC_KEY, self.namespace.clone());
        if let Some(lease) = &self.lease {
            metadata.insert(proto::namespace::LEASE_KEY, lease.clone());
        }
        if let Some(here) = trace_log::task::current() {
            let place = here.place();
            let log = place.log.path().to_string_lossy().parse();
            if let (Ok(caller), Ok(log)) = (place.caller.to_string().parse(), log) {
                metadata.insert(trace_log::CALLER_KEY, caller);
                metadata.insert(trace_log::LOG_KEY, log);
            }
        }
        Ok(request)
    }
}

pub(crate) type Service = InterceptedService<pulse::Watched, Scope>;

/// A connection to containerd; cheap to clone, reconnects by itself.
#[derive(Clone, Debug)]
pub(crate) struct Containerd {
    channel: pulse::Watched,
    scope: Scope,
    pub(crate) address: PathBuf,
    pub(crate) namespace: String,
    /// Schemes of log URIs that the shim below understands.
    pub(crate) log_schemes: Vec<String>,
    told: Arc<Mutex<Option<(Socket, VersionResponse)>>>,
}

/// A socket in the file system, of one process: number and time of its node.
type Socket = (u64, i64, i64);

macro_rules! clients {
    ($($name:ident => $module:ident :: $package:ident :: $client:ident;)*) => {
        impl Containerd {
            $(
                pub(crate) fn $name(&self)
                    -> services::$module::v1::$package::$client<Service> {
                    let (channel, scope) = (self.channel.clone(), self.scope.clone());
                    services::$module::v1::$package::$client::with_interceptor(channel, scope)
                        .max_decoding_message_size(MAX_MESSAGE)
                        .max_encoding_message_size(MAX_MESSAGE)
                }
            )*
        }
    };
}

clients! {
    containers => containers::containers_client::ContainersClient;
    content => content::content_client::ContentClient;
    images => images::images_client::ImagesClient;
    introspection => introspection::introspection_client::IntrospectionClient;
    leases => leases::leases_client::LeasesClient;
    snapshots => snapshots::snapshots_client::SnapshotsClient;
    streaming => streaming::streaming_client::StreamingClient;
    tasks => tasks::tasks_client::TasksClient;
    transfer => transfer::transfer_client::TransferClient;
    version => version::version_client::VersionClient;
}

/// Connects; one that is just being started again is waited for, so that only what was under way fails.
async fn reach(socket: &Path) -> io::Result<UnixStream> {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    let end = tokio::time::Instant::now() + RETURN;
    loop {
        match UnixStream::connect(socket).await {
            Err(error)
                if matches!(error.kind(), ConnectionRefused | NotFound)
                    && tokio::time::Instant::now() < end => {}
            Err(error) => {
                let text = format!("connect to containerd at {}: {error}", socket.display());
                return Err(io::Error::new(error.kind(), text));
            }
            connected => return connected,
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Below what `pulse` gives a containerd that does not answer.
const RETURN: std::time::Duration = std::time::Duration::from_secs(3);
const MAX_MESSAGE: usize = 16 << 20;
/// The snapshotter of all our objects.
pub(crate) const SNAPSHOTTER: &str = "overlayfs";

impl Containerd {
    /// Reaches the containerd of `--containerd`, or starts (or finds again) our own.
    pub(crate) async fn start(
        config: &Config,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let address = match &config.containerd {
            Some(address) => address.clone(),
            None => process::ensure(config).await?,
        };
        let mut client = Self::connect(address, &config.containerd_namespace)?;
        client.wait_ready().await?;
        client.log_schemes = client.read_log_schemes().await;
        if config.containerd.is_none() {
            tokio::spawn(process::watch(config.clone(), shutdown.clone()));
        }
        Ok(client)
    }

    fn connect(address: PathBuf, namespace: &str) -> anyhow::Result<Self> {
        let path = address.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { reach(&path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://containerd")
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .connect_with_connector_lazy(connector);
        let scope = Scope { namespace: namespace.parse()?, lease: None };
        let channel = pulse::Watched::new(channel);
        Ok(Self {
            channel,
            scope,
            address,
            namespace: namespace.to_owned(),
            log_schemes: Vec::new(),
            told: Arc::default(),
        })
    }

    /// The version that containerd says it is; each is asked once.
    pub(crate) async fn told_version(&self) -> Option<VersionResponse> {
        let node = std::fs::metadata(&self.address).ok()?;
        let socket = (node.ino(), node.ctime(), node.ctime_nsec());
        let told = || self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, version)) = &*told()
            && *of == socket
        {
            return Some(version.clone());
        }
        let version = self.version().version(()).await.ok()?.into_inner();
        *told() = Some((socket, version.clone()));
        Some(version)
    }

    /// The same connection, whose requests hold what they make by this lease.
    pub(crate) fn with_lease(&self, lease: &str) -> Result<Self, tonic::Status> {
        let lease = lease.parse().map_err(|_| tonic::Status::internal("a lease without a name"))?;
        let mut leased = self.clone();
        leased.scope.lease = Some(lease);
        Ok(leased)
    }

    async fn wait_ready(&self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(15);
        loop {
            match self.version().version(()).await {
                Ok(_) => return Ok(()),
                Err(status) if tokio::time::Instant::now() > deadline => {
                    anyhow::bail!("{}: {}", self.address.display(), status.message())
                }
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        }
    }

    async fn read_log_schemes(&self) -> Vec<String> {
        let request = services::introspection::v1::PluginsRequest::default();
        let Ok(answer) = self.introspection().plugins(request).await else { return Vec::new() };
        answer
            .into_inner()
            .plugins
            .into_iter()
            .filter(|plugin| plugin.r#type == "io.containerd.runtime.v2" && plugin.id == "task")
            .find_map(|plugin| plugin.exports.get("log-uri-schemes").cloned())
            .map(|schemes| schemes.split(',').map(|scheme| scheme.trim().to_owned()).collect())
            .unwrap_or_default()
    }

    /// True when the shim below writes json-file logs itself.
    pub(crate) fn shim_writes_logs(&self) -> bool {
        self.log_schemes.iter().any(|scheme| scheme == "json-file")
    }

    /// What `stop` leaves behind: a containerd of our own ends when no container needs it.
    pub(crate) async fn release(&self, config: &Config) {
        if config.containerd.is_some() {
            return;
        }
        let tasks = self.tasks().list(services::tasks::v1::ListTasksRequest::default()).await;
        if tasks.is_ok_and(|answer| answer.into_inner().tasks.is_empty()) {
            process::stop(config).await;
        }
    }
}
