//! Connections that stop being HTTP: attach and exec.
//!
//! With `Upgrade: tcp` the answer is a 101 and hyper lets go of the connection. Without it, as older
//! clients ask, the answer is a bare 200 after which the connection is a byte stream all the same. hyper
//! knows no such thing, so the request tells the connection's task ([`Line`]), which takes the
//! connection from hyper before an answer is written.
//!
//! ```text
//!  client          listen::answer              hyper              handler
//!    │ POST attach ────────────────────────────► │ ── request ──► │ hijack()
//!    │                  │ ◄──── Takeover by Line ─────────────────┤ (never answers)
//!    │ ◄── 200 ─────────┤ takes the connection ► │
//!    │ ◄── bytes ─────► │ work                   ✝
//! ```
//! Where the input comes as a chunked body, hyper goes on decoding it, muted.

use std::pin::Pin;

use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::call::BodyRead;
use super::reply::{self, Reply};

pub(crate) type Reader = Pin<Box<dyn AsyncRead + Send>>;
pub(crate) type Writer = Pin<Box<dyn AsyncWrite + Send>>;
pub(crate) type Work =
    Box<dyn FnOnce(Reader, Writer) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Rides on every request: how it asks for its connection.
#[derive(Clone)]
pub(crate) struct Line(pub(crate) mpsc::Sender<Takeover>);

/// A request for the connection.
pub(crate) struct Takeover {
    pub(crate) work: Work,
    pub(crate) answer: Answer,
}

/// Who answers the request.
pub(crate) enum Answer {
    /// hyper, with a 101; then the connection is free.
    Http,
    /// Nobody yet: this head is to be written. What hyper has read of the body is input; of a chunked
    /// one it is all input there is.
    Raw { head: String, body: Incoming, chunked: bool },
}

/// Answers, and runs `work` on the raw stream once the answer is out.
pub(crate) async fn hijack<F, Fut>(
    mut request: Request<Incoming>,
    content_type: &'static str,
    work: F,
) -> Reply
where
    F: FnOnce(Reader, Writer) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let line = request.extensions_mut().remove::<Line>().expect("the listener puts it there");
    let work: Work = Box::new(|reader, writer| Box::pin(work(reader, writer)));
    if request.headers().contains_key(http::header::UPGRADE) {
        // The receiver is the connection's task, which outlives its requests.
        drop(line.0.send(Takeover { work, answer: Answer::Http }).await);
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
    // Compat: no length, no encoding, no date; clients read to the end.
    let mut head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n");
    for (name, value) in reply::EVERYWHERE {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let chunked = request.headers().contains_key(http::header::TRANSFER_ENCODING)
        && request.extensions().get::<BodyRead>().is_none();
    let answer = Answer::Raw { head, body: request.into_body(), chunked };
    drop(line.0.send(Takeover { work, answer }).await);
    std::future::pending().await
}

/// The content type of a stream, by API version and terminal.
pub(crate) fn stream_type(version: docker_api::version::ApiVersion, tty: bool) -> &'static str {
    if tty || version.below(42) {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    }
}
