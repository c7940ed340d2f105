//! What goes on beside an attached stream: waiting for the exit, signals, the size of the terminal.

use std::future::Future;
use std::pin::pin;

use docker_api::container::WaitResponse;
use http::Method;
use http_body_util::BodyExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::{Client, Ended, empty, escape};
use crate::error::CliError;
use crate::terminal;

/// A wait that the daemon has accepted, so that no exit is missed.
pub(super) struct Wait {
    answer: hyper::Response<hyper::body::Incoming>,
}

impl Wait {
    /// Asks before the container is started; the headers say that the daemon watches.
    pub(super) async fn begin(
        client: &Client,
        id: &str,
        condition: &str,
    ) -> Result<Self, CliError> {
        let path = format!("/containers/{}/wait?condition={condition}", escape(id));
        Ok(Self { answer: client.send(Method::POST, &path, empty()).await? })
    }

    /// The container's exit code, once there is one.
    pub(super) async fn exit_code(self) -> Result<u8, CliError> {
        let text = self.answer.into_body().collect().await.map_err(CliError::Http)?.to_bytes();
        let answer: WaitResponse = serde_json::from_slice(&text).map_err(CliError::Answer)?;
        if let Some(error) = answer.error {
            return Err(CliError::Daemon { status: 500, message: error.message });
        }
        Ok(u8::try_from(answer.status_code).unwrap_or(u8::MAX))
    }
}

/// Where the size of the terminal is told.
pub(super) enum Target<'a> {
    Container(&'a str),
    Exec(&'a str),
}

/// Signals for the client that mean something for the container.
pub(super) struct Signals<'a> {
    id: Target<'a>,
    resize: Option<Signal>,
    proxied: Vec<(&'static str, Signal)>,
}

impl<'a> Signals<'a> {
    /// Watches the size of the terminal, and what is to be passed on.
    pub(super) fn of(id: Target<'a>, tty: bool, proxy: bool) -> Result<Self, CliError> {
        let watch = |kind| signal(kind).map_err(|source| CliError::io("watch signals", source));
        let mut proxied = Vec::new();
        if proxy {
            // Compat: everything that can be caught but SIGCHLD, SIGPIPE and SIGURG, which are
            // about the client itself.
            for (name, kind) in [
                ("HUP", SignalKind::hangup()),
                ("INT", SignalKind::interrupt()),
                ("QUIT", SignalKind::quit()),
                ("ABRT", SignalKind::from_raw(libc::SIGABRT)),
                ("USR1", SignalKind::user_defined1()),
                ("USR2", SignalKind::user_defined2()),
                ("ALRM", SignalKind::alarm()),
                ("TERM", SignalKind::terminate()),
                ("CONT", SignalKind::from_raw(libc::SIGCONT)),
                ("TSTP", SignalKind::from_raw(libc::SIGTSTP)),
                ("WINCH", SignalKind::window_change()),
            ] {
                if !(tty && name == "WINCH") {
                    proxied.push((name, watch(kind)?));
                }
            }
        }
        let resize = if tty { Some(watch(SignalKind::window_change())?) } else { None };
        Ok(Self { id, resize, proxied })
    }

    async fn resize(&self, client: &Client) {
        let Some((rows, columns)) = terminal::size() else { return };
        let path = match self.id {
            Target::Container(id) => format!("/containers/{id}/resize?h={rows}&w={columns}"),
            Target::Exec(id) => format!("/exec/{id}/resize?h={rows}&w={columns}"),
        };
        // A process that has not started or has ended has no terminal; the next change tells again.
        drop(client.act(&path).await);
    }

    async fn next(&mut self) -> Option<&'static str> {
        let Self { resize, proxied, .. } = self;
        let names: Vec<_> = proxied.iter().map(|(name, _)| *name).collect();
        let mut waits: Vec<_> =
            proxied.iter_mut().map(|(_, signal)| Box::pin(signal.recv())).collect();
        let resized = async {
            match resize {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        if waits.is_empty() {
            resized.await;
            return None;
        }
        tokio::select! {
            _ = resized => None,
            (_, index, _) = futures_util::future::select_all(waits.drain(..)) => names.get(index).copied(),
        }
    }
}

/// Copies, and meanwhile passes signals and sizes on.
pub(super) async fn watch(
    copying: impl Future<Output = Result<Ended, CliError>>,
    client: &Client,
    mut signals: Signals<'_>,
) -> Result<Ended, CliError> {
    if signals.resize.is_some() {
        signals.resize(client).await;
    }
    let mut copying = pin!(copying);
    loop {
        tokio::select! {
            ended = &mut copying => return ended,
            signal = signals.next() => match (signal, &signals.id) {
                (None, _) => signals.resize(client).await,
                (Some(name), Target::Container(id)) => {
                    // The container may have ended a moment ago; the stream tells.
                    drop(client.act(&format!("/containers/{id}/kill?signal={name}")).await);
                }
                (Some(_), Target::Exec(_)) => {}
            },
        }
    }
}
