//! Sockets: `unix://` and `tcp://`, one task a connection.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;

use super::connection;
use super::watched::Watched;
use crate::app::App;
use crate::config::Config;

/// A bound socket.
pub(crate) enum Socket {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            drop(std::fs::remove_file(path));
        }
    }
}

/// Binds every `-H`.
pub(crate) fn bind(config: &Config) -> anyhow::Result<Vec<Socket>> {
    config.hosts.iter().map(|host| bind_one(host, &config.group)).collect()
}

fn bind_one(host: &str, group: &str) -> anyhow::Result<Socket> {
    if let Some(path) = host.strip_prefix("unix://") {
        let path = PathBuf::from(path);
        return bind_unix(&path, group)
            .map(|listener| Socket::Unix(listener, path))
            .with_context(|| format!("can't create unix socket for {host}"));
    }
    if let Some(address) = host.strip_prefix("tcp://") {
        tracing::warn!(
            "[!] DON'T BIND ON ANY IP ADDRESS WITHOUT setting --tlsverify IF YOU DON'T KNOW WHAT YOU'RE DOING [!]"
        );
        let listener = std::net::TcpListener::bind(address).with_context(|| host.to_owned())?;
        listener.set_nonblocking(true)?;
        return Ok(Socket::Tcp(TcpListener::from_std(listener)?));
    }
    bail!("invalid bind address format or protocol not supported: {host}")
}

fn bind_unix(path: &Path, group: &str) -> anyhow::Result<UnixListener> {
    if let Ok(old) = std::fs::symlink_metadata(path) {
        if !old.file_type().is_socket() {
            bail!("{} is not a socket", path.display());
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            bail!("{} is in use by another daemon", path.display());
        }
        std::fs::remove_file(path)?;
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    if let Ok(Some(found)) = nix::unistd::Group::from_name(group) {
        nix::unistd::chown(path, None, Some(found.gid))?;
    }
    Ok(listener)
}

/// What asks the engine to stop. Caught before anything is started that only a stop ends.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Answers until a signal asks to stop.
pub(crate) async fn serve(
    app: &Arc<App>,
    sockets: Vec<Socket>,
    mut signals: Signals,
) -> anyhow::Result<()> {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = tokio::task::JoinSet::new();
    for socket in sockets {
        let (app, permits) = (Arc::clone(app), Arc::clone(&permits));
        tasks.spawn(async move {
            loop {
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                let accepted = match &socket {
                    Socket::Unix(listener, _) => {
                        listener.accept().await.map(|(stream, _)| Watched::from(stream))
                    }
                    Socket::Tcp(listener) => {
                        listener.accept().await.map(|(stream, _)| Watched::from(stream))
                    }
                };
                let stream = match accepted {
                    Ok(stream) => stream,
                    Err(error) => {
                        pause_after(&error).await;
                        continue;
                    }
                };
                let app = Arc::clone(&app);
                tokio::spawn(connection::answer(app, stream, permit));
            }
        });
    }
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hangup.recv() => tracing::info!("reload by SIGHUP is not there yet; nothing changed"),
        }
    }
    tracing::info!("Processing signal, shutting down");
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn pause_after(error: &std::io::Error) {
    tracing::warn!("accept: {error}");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
}

const MAX_CONNECTIONS: usize = 4096;
