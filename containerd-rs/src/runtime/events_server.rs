//! Where shims hand in their events: ttrpc `containerd.services.events.ttrpc.v1.Events` on a socket beside
//! the gRPC one.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use ttrpc_wire::{Code, Request, Service, Status, serve_connection};

use super::{Runtime, TaskError};

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
/// One connection a shim, and some to spare.
const CONNECTIONS: usize = 16 << 10;

/// The listening socket.
pub(crate) struct EventsServer {
    listener: UnixListener,
    path: PathBuf,
}

impl EventsServer {
    /// Listens at `path`, in the place of a dead socket there.
    pub(crate) fn bind(path: &Path) -> Result<Self, TaskError> {
        let failed = |source| TaskError::Listen { path: path.to_owned(), source };
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves until told to end.
    pub(crate) async fn serve(self, runtime: Runtime, end: CancellationToken) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let service = Arc::new(Events { runtime });
        let mut connections = JoinSet::new();
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                () = end.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let service = Arc::clone(&service);
                    connections.spawn(async move {
                        // A shim that ends cuts its connection; that is no news.
                        serve_connection(stream, service).await.ok();
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, path = %self.path.display(), "accept");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }
}

struct Events {
    runtime: Runtime,
}

impl Service for Events {
    async fn call(&self, request: Request) -> Result<Vec<u8>, Status> {
        if request.service != SERVICE || request.method != "Forward" {
            let text = format!("/{}/{} is not implemented", request.service, request.method);
            return Err(Status::new(Code::Unimplemented, text));
        }
        let invalid = |text: &str| Status::new(Code::InvalidArgument, text);
        let forward = ForwardRequest::decode(request.payload.as_slice())
            .map_err(|error| invalid(&error.to_string()))?;
        let envelope = forward.envelope.ok_or_else(|| invalid("envelope is missing"))?;
        if envelope.namespace.is_empty() {
            return Err(invalid("namespace is required: invalid argument"));
        }
        if !envelope.topic.starts_with('/') {
            return Err(invalid("topic must start with '/': invalid argument"));
        }
        if envelope.timestamp.is_none() {
            return Err(invalid("timestamp must be set: invalid argument"));
        }
        self.runtime.forward(envelope);
        Ok(Vec::new())
    }
}
