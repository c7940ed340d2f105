//! `/exec`.

use std::sync::Arc;

use docker_api::exec::ExecStartRequest;
use http::StatusCode;
use proto::containerd::services::tasks::v1::ResizePtyRequest;
use tokio::io::AsyncWriteExt;

use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::hijack::{hijack, stream_type};
use crate::api::reply::{self, Reply};
use crate::app::App;
use crate::container::attach::{self, Wanted};

pub(crate) async fn route(app: &Arc<App>, call: Call) -> Result<Reply, ApiError> {
    match call.key() {
        ("GET", segments) if matches!(segments[..], [_, _, "json"]) => {
            Ok(reply::ok(&app.execs.get(&call.segments[1])?.inspect()))
        }
        ("POST", segments) if matches!(segments[..], [_, _, "start"]) => start(app, call).await,
        ("POST", segments) if matches!(segments[..], [_, _, "resize"]) => resize(app, call).await,
        _ => Err(ApiError::page_not_found()),
    }
}

async fn start(app: &Arc<App>, mut call: Call) -> Result<Reply, ApiError> {
    let exec = app.execs.get(&call.segments[1])?;
    // A body in chunks may be the input.
    let chunked = call.headers().contains_key(http::header::TRANSFER_ENCODING);
    let request: ExecStartRequest =
        if chunked { ExecStartRequest::default() } else { call.json().await? };
    let container = app.containers.get(&exec.container_id)?;
    let keys = attach::detach_keys(&exec.request.detach_keys)?;
    exec.claim(&container)?;
    if request.detach {
        // The client may leave; the start does not.
        let app = Arc::clone(app);
        let started = tokio::spawn(async move { exec.start(&app, &container).await });
        drop(started.await.map_err(|error| ApiError::internal(error.to_string()))??);
        return Ok(super::status(StatusCode::OK));
    }
    let tty = exec.request.tty;
    let content_type = stream_type(call.version, tty);
    let app = Arc::clone(app);
    Ok(hijack(call.request, content_type, move |mut reader, mut writer| async move {
        match exec.start(&app, &container).await {
            Ok(output) => {
                let wanted = Wanted {
                    stdin: exec.request.attach_stdin,
                    stdout: exec.request.attach_stdout,
                    stderr: exec.request.attach_stderr,
                };
                let input = exec.input(&app, &container, keys);
                let mut state = exec.state.subscribe();
                let end = attach::session(
                    Arc::clone(&app),
                    output,
                    input,
                    wanted,
                    tty,
                    0,
                    reader,
                    Held(&mut writer),
                )
                .await;
                if end == attach::End::Detached {
                    let more = [("execID", exec.id.clone())];
                    container.event(&app, "exec_detach", &more);
                } else {
                    // The client asks for the exit code as soon as the stream ends.
                    let wait = state.wait_for(|state| state.exit_code.is_some());
                    drop(tokio::time::timeout(std::time::Duration::from_secs(10), wait).await);
                }
            }
            Err(error) => {
                // Compat: an exec that cannot start tells so in the stream.
                let text = format!("{error}\r\n");
                let bytes = if tty {
                    text.into_bytes().into()
                } else {
                    docker_api::frame::encode(docker_api::frame::Stream::Stdout, text.as_bytes())
                };
                drop(writer.write_all(&bytes).await);
                drop(writer.shutdown().await);
                // Input that nobody read would turn the close into a reset, and lose the text.
                let mut nowhere = tokio::io::sink();
                let rest = tokio::io::copy(&mut reader, &mut nowhere);
                drop(tokio::time::timeout(std::time::Duration::from_secs(1), rest).await);
            }
        }
        drop(writer.shutdown().await);
    }))
}

/// Keeps `session` from closing the connection before the exit code is known.
struct Held<'a, W>(&'a mut W);

impl<W: tokio::io::AsyncWrite + Unpin> tokio::io::AsyncWrite for Held<'_, W> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut *self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.poll_flush(context)
    }
}

async fn resize(app: &Arc<App>, call: Call) -> Result<Reply, ApiError> {
    let exec = app.execs.get(&call.segments[1])?;
    let (width, height) = super::containers::size(&call)?;
    let mut state = exec.state.subscribe();
    let running = state.wait_for(|state| state.running || state.exit_code.is_some());
    let started = tokio::time::timeout(std::time::Duration::from_secs(10), running).await.is_ok();
    if !started || !exec.state.borrow().running {
        return Err(ApiError::internal("timeout waiting for exec session ready"));
    }
    let request = ResizePtyRequest {
        container_id: exec.container_id.clone(),
        exec_id: exec.id.clone(),
        width,
        height,
    };
    app.containerd.tasks().resize_pty(request).await?;
    Ok(super::status(StatusCode::OK))
}
