//! The gRPC face: one file a service, conversion only.

mod wire;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::Router;

use crate::app::App;

/// The listening socket and the services behind it.
pub(crate) struct Services {
    listener: UnixListener,
    router: Router,
}

impl Services {
    /// Listens and wires the services; nothing is answered yet.
    pub(crate) fn start(app: &App) -> anyhow::Result<Self> {
        let grpc = &app.config.grpc;
        let listener = listen(&grpc.address, grpc.uid, grpc.gid)?;
        Ok(Self { listener, router: router(app) })
    }

    /// Serves until shutdown; streams that never end are cut then.
    pub(crate) async fn serve(self, app: &App) -> anyhow::Result<()> {
        let address = app.config.grpc.address.clone();
        tracing::info!(address = %address.display(), "serving");
        let incoming = UnixListenerStream::new(self.listener);
        let end = app.shutdown.clone();
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
        drop(std::fs::remove_file(&address));
        served
    }
}

fn router(app: &App) -> Router {
    let limit = (app.config.grpc.max_recv_message_size, app.config.grpc.max_send_message_size);
    let _ = limit;
    todo_router(app)
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
