//! The gRPC face: one file a service, conversion only.

mod containers;
mod content;
mod diff;
mod events;
mod finish;
mod images;
mod introspection;
mod leases;
mod namespaces;
mod snapshots;
mod streaming;
mod tasks;
mod traced;
mod transfer;
mod version;
mod wire;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use proto::containerd::services::containers::v1::containers_server::ContainersServer;
use proto::containerd::services::content::v1::content_server::ContentServer;
use proto::containerd::services::diff::v1::diff_server::DiffServer;
use proto::containerd::services::events::v1::events_server::EventsServer;
use proto::containerd::services::images::v1::images_server::ImagesServer;
use proto::containerd::services::introspection::v1::introspection_server::IntrospectionServer;
use proto::containerd::services::leases::v1::leases_server::LeasesServer;
use proto::containerd::services::namespaces::v1::namespaces_server::NamespacesServer;
use proto::containerd::services::snapshots::v1::snapshots_server::SnapshotsServer;
use proto::containerd::services::streaming::v1::streaming_server::StreamingServer;
use proto::containerd::services::tasks::v1::tasks_server::TasksServer;
use proto::containerd::services::transfer::v1::transfer_server::TransferServer;
use proto::containerd::services::version::v1::version_server::VersionServer;
use proto::grpc::health::v1::health_server::HealthServer;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::Router;

use self::containers::ContainersService;
use self::content::ContentService;
use self::diff::DiffService;
use self::events::EventsService;
use self::images::ImagesService;
use self::introspection::IntrospectionService;
use self::leases::LeasesService;
use self::namespaces::NamespacesService;
use self::snapshots::SnapshotsService;
use self::streaming::{StreamingService, Streams};
use self::tasks::TasksService;
use self::transfer::TransferService;
use self::version::{HealthService, VersionService};
pub(crate) use self::wire::{context, to_status};
use crate::app::App;
use crate::runtime::{self, Runtime, Settings};

/// The listening socket and the services behind it.
pub(crate) struct Services {
    listener: UnixListener,
    router: Router<Finishing>,
    shims: runtime::EventsServer,
    runtime: Runtime,
}

impl Services {
    /// Listens and wires the services; nothing is answered yet.
    pub(crate) fn start(app: &App) -> anyhow::Result<Self> {
        let grpc = &app.config.grpc;
        let listener = listen(&grpc.address, grpc.uid, grpc.gid)?;
        let shims = runtime::EventsServer::bind(&app.config.ttrpc_address())
            .context("listen for events of shims")?;
        let runtime = start_runtime(app);
        let router = router(app, &runtime);
        Ok(Self { listener, router, shims, runtime })
    }

    /// Serves until shutdown; streams that never end are cut then.
    pub(crate) async fn serve(self, app: &App) -> anyhow::Result<()> {
        let address = app.config.grpc.address.clone();
        tracing::info!(address = %address.display(), "serving");
        let incoming = UnixListenerStream::new(self.listener);
        let end = app.shutdown.clone();
        let shims = tokio::spawn(self.shims.serve(self.runtime.clone(), end.clone()));
        // Shims that outlived us are found again; nobody sees tasks before that is done.
        self.runtime.reload().await;
        let serving =
            self.router.serve_with_incoming_shutdown(incoming, end.clone().cancelled_owned());
        let cut = async {
            end.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let served = tokio::select! {
            served = serving => served.context("serve gRPC"),
            () = cut => Ok(()),
        };
        shims.abort();
        drop(std::fs::remove_file(&address));
        drop(std::fs::remove_file(app.config.ttrpc_address()));
        served
    }
}

type Finishing = tower::layer::util::Stack<finish::FinishLayer, tower::layer::util::Identity>;

/// Every service with containerd's message limits.
fn router(app: &App, runtime: &Runtime) -> Router<Finishing> {
    let (receive, send) =
        (app.config.grpc.max_recv_message_size, app.config.grpc.max_send_message_size);
    macro_rules! limited {
        ($server:ident, $service:expr) => {
            $server::new($service)
                .max_decoding_message_size(receive)
                .max_encoding_message_size(send)
        };
    }
    let introspection = IntrospectionService { app: app.clone(), runtime: runtime.clone() };
    let tasks = TasksService::new(runtime.clone(), app.containers.clone());
    let streams = Streams::default();
    let transfer = TransferService { app: app.clone(), streams: streams.clone() };
    Server::builder()
        .layer(finish::FinishLayer)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_service(VersionServer::new(VersionService))
        .add_service(HealthServer::new(HealthService(app.clone())))
        .add_service(limited!(IntrospectionServer, introspection))
        .add_service(limited!(NamespacesServer, NamespacesService(app.clone())))
        .add_service(limited!(LeasesServer, LeasesService(app.clone())))
        .add_service(limited!(ContentServer, ContentService(app.clone())))
        .add_service(limited!(ImagesServer, ImagesService(app.clone())))
        .add_service(limited!(SnapshotsServer, SnapshotsService(app.clone())))
        .add_service(limited!(DiffServer, DiffService(app.clone())))
        .add_service(limited!(ContainersServer, ContainersService(app.clone())))
        .add_service(limited!(EventsServer, EventsService(app.clone())))
        .add_service(limited!(StreamingServer, StreamingService(streams)))
        .add_service(limited!(TransferServer, transfer))
        .add_service(limited!(TasksServer, tasks))
}

/// The tasks' side of the daemon; what it publishes goes on our bus.
fn start_runtime(app: &App) -> Runtime {
    let config = &app.config;
    let settings = Settings {
        root: config.root.clone(),
        state: config.state.clone(),
        address: config.grpc.address.clone(),
        ttrpc_address: config.ttrpc_address(),
        shims: config.shims(),
        debug: config.level().is_ok_and(|level| level >= tracing::Level::DEBUG),
    };
    let bus = app.events.clone();
    Runtime::new(
        settings,
        Arc::new(move |envelope| {
            let forwarded = events::from_wire(envelope)
                .and_then(|envelope| bus.forward(envelope).map_err(to_status));
            if let Err(error) = forwarded {
                tracing::warn!(%error, "event of a shim");
            }
        }),
    )
}

/// A socket only its owner and group may use. One that answers belongs to a living daemon.
fn listen(path: &Path, uid: u32, gid: u32) -> anyhow::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("create {}", directory.display()))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!("{} is served by another daemon", path.display());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", path.display()));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .and_then(|()| std::os::unix::fs::chown(path, Some(uid), Some(gid)))
        .with_context(|| format!("set owner of {}", path.display()))?;
    Ok(listener)
}

/// How long answers under way may take once we are to end.
const GRACE: std::time::Duration = std::time::Duration::from_millis(500);
