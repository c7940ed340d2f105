//! A connection that turned from HTTP into a byte stream in both directions: attach and exec.

use std::io::{self, Read, Write};

use bytes::Bytes;
use docker_api::frame::{Decoder, Stream};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::{Client, empty, full};
use crate::error::CliError;
use crate::terminal::DetachKeys;
use crate::ui::Ui;

/// A hijacked stream.
pub(crate) struct Session {
    stream: TokioIo<Upgraded>,
    /// With a terminal the stream is raw, otherwise it comes in frames.
    raw: bool,
}

/// Why the copying ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The other side closed.
    Closed,
    /// The user typed the detach keys.
    Detached,
}

impl Client {
    /// Sends the request and takes the connection over.
    pub(crate) async fn hijack(
        &self,
        path: &str,
        document: Option<&(impl Serialize + Sync)>,
        raw: bool,
    ) -> Result<Session, CliError> {
        let mut headers = HeaderMap::new();
        headers.insert("Connection", HeaderValue::from_static("Upgrade"));
        headers.insert("Upgrade", HeaderValue::from_static("tcp"));
        headers.insert("Content-Type", HeaderValue::from_static("application/json"));
        let body = match document {
            Some(document) => full(serde_json::to_vec(document).map_err(CliError::Answer)?),
            None => empty(),
        };
        let answer = self.send_with(Method::POST, path, headers, body).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(CliError::Daemon {
                status: answer.status().as_u16(),
                message: format!(
                    "the daemon answered {} where it should have switched to a stream",
                    answer.status()
                ),
            });
        }
        let upgraded = hyper::upgrade::on(answer).await.map_err(CliError::Http)?;
        Ok(Session { stream: TokioIo::new(upgraded), raw })
    }
}

impl Session {
    /// Copies until the container's side ends. `input` is read to its end and then closed
    /// towards the container; `keys` in it end the session.
    pub(crate) async fn copy(
        self,
        input: bool,
        keys: Option<DetachKeys>,
        ui: &mut Ui,
    ) -> Result<Ended, CliError> {
        let raw = self.raw;
        let (reader, writer) = tokio::io::split(self.stream);
        // Both directions go on at once: a container that must write before it reads on would
        // otherwise wait for us, and we for it.
        tokio::select! {
            ended = receive(reader, raw, ui) => ended,
            () = send(writer, input, keys) => Ok(Ended::Detached),
        }
    }
}

/// Copies what the container writes, to its end.
async fn receive(
    mut reader: ReadHalf<TokioIo<Upgraded>>,
    raw: bool,
    ui: &mut Ui,
) -> Result<Ended, CliError> {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let count = match reader.read(&mut buffer).await {
            Ok(0) => return Ok(Ended::Closed),
            Ok(count) => count,
            Err(problem) if problem.kind() == io::ErrorKind::ConnectionReset => {
                return Ok(Ended::Closed);
            }
            Err(source) => return Err(CliError::io("read from the container", source)),
        };
        let Some(piece) = buffer.get(..count) else { continue };
        if raw {
            ui.out.write_all(piece)?;
        } else {
            demultiplex(&mut decoder, piece, ui)?;
        }
        ui.out.flush()?;
    }
}

/// Copies our input and closes it towards the container at its end. Comes back only when the
/// user typed the detach keys.
async fn send(mut writer: WriteHalf<TokioIo<Upgraded>>, input: bool, mut keys: Option<DetachKeys>) {
    if input {
        let mut typed = stdin();
        while let Some(piece) = typed.recv().await {
            let (piece, detached) = match &mut keys {
                Some(keys) => keys.filter(&piece),
                None => (piece.to_vec(), false),
            };
            // The container may be gone already; then the reader sees the end.
            if writer.write_all(&piece).await.is_err() {
                break;
            }
            if detached {
                return;
            }
        }
        drop(writer.shutdown().await);
    }
    std::future::pending::<()>().await;
}

/// Writes each complete frame to its stream.
pub(crate) fn demultiplex(
    decoder: &mut Decoder,
    piece: &[u8],
    ui: &mut Ui,
) -> Result<(), CliError> {
    decoder.push(piece);
    loop {
        match decoder.next_frame() {
            Ok(None) => return Ok(()),
            Ok(Some((Stream::Stdout, payload))) => ui.out.write_all(&payload)?,
            Ok(Some((Stream::SystemError, payload))) => {
                return Err(CliError::Usage(format!(
                    "error from daemon in stream: {}",
                    String::from_utf8_lossy(&payload)
                )));
            }
            Ok(Some((_, payload))) => ui.err.write_all(&payload)?,
            Err(problem) => return Err(CliError::Usage(problem.to_string())),
        }
    }
}

/// Our standard input, read by a thread of its own: a read from a terminal cannot be called off.
fn stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 32 * 1024];
        let mut input = io::stdin().lock();
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    let Some(piece) = buffer.get(..count) else { return };
                    if sender.blocking_send(Bytes::copy_from_slice(piece)).is_err() {
                        return;
                    }
                }
                Err(problem) if problem.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}
