//! Connections that stop being HTTP: `Upgrade: tcp` (101), or, for older clients, an ordinary
//! exchange whose request body is the input and whose answer is the output.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{ReaderStream, StreamReader};

use super::reply::{self, Reply};

pub(crate) type Reader = Pin<Box<dyn AsyncRead + Send>>;
pub(crate) type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// Answers, and runs `work` on the raw stream once the answer is out.
pub(crate) fn hijack<F, Fut>(
    request: Request<Incoming>,
    content_type: &'static str,
    work: F,
) -> Reply
where
    F: FnOnce(Reader, Writer) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut request = request;
    if request.headers().contains_key(http::header::UPGRADE) {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            match upgrade.await {
                Ok(upgraded) => {
                    let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
                    work(Box::pin(reader), Box::pin(writer)).await;
                }
                Err(error) => tracing::debug!("upgrade: {error}"),
            }
        });
        let mut answer = Response::new(reply::no_body());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        // Compat: the words of dockerd's status line.
        answer.extensions_mut().insert(hyper::ext::ReasonPhrase::from_static(b"UPGRADED"));
        let headers = answer.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(http::header::UPGRADE, HeaderValue::from_static("tcp"));
        return answer;
    }
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (_, body) = request.into_parts();
    let input = body.into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other));
    tokio::spawn(work(Box::pin(StreamReader::new(input)), Box::pin(ours)));
    let output = ReaderStream::with_capacity(theirs, 32 << 10)
        .filter_map(|chunk| async move { chunk.ok() as Option<Bytes> });
    let mut answer = reply::stream(content_type, output);
    answer.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// The content type of a stream, by API version and terminal.
pub(crate) fn stream_type(version: docker_api::version::ApiVersion, tty: bool) -> &'static str {
    if tty || version.below(42) {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    }
}
