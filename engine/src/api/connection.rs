//! One connection: HTTP, until an attach or exec takes it over (see [`super::hijack`]).

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::io::StreamReader;

use super::hijack::{Answer, Line, Takeover};
use super::reply;
use super::watched::Watched;
use crate::app::App;

/// Answers the requests of a connection to its end. `permit` is given back when it stops being HTTP.
pub(super) async fn answer(app: Arc<App>, connection: Watched, permit: OwnedSemaphorePermit) {
    let (line, mut takeovers) = tokio::sync::mpsc::channel(1);
    let (watched, peer) = (connection.clone(), connection.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Line(line.clone()));
        let (app, watched) = (Arc::clone(&app), watched.clone());
        Box::pin(async move {
            let reply = super::handle(app, request).await;
            Ok::<_, Infallible>(reply::until(reply, async move { watched.gone().await }))
        })
    });
    let mut shared = Shared(Arc::new(Mutex::new(connection)));
    let muted = Arc::new(AtomicBool::new(false));
    let side = Http { shared: shared.clone(), muted: Arc::clone(&muted) };
    let mut http = http1::Builder::new()
        .half_close(true)
        .title_case_headers(true)
        .timer(TokioTimer::new())
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(side), service);
    let mut asked = None;
    loop {
        tokio::select! {
            Some(takeover) = takeovers.recv(), if asked.is_none() => {
                let now = matches!(takeover.answer, Answer::Raw { .. });
                asked = Some(takeover);
                if now {
                    break;
                }
            }
            served = std::future::poll_fn(|context| http.poll_without_shutdown(context)) => {
                if let Err(error) = served {
                    tracing::debug!("connection: {error}");
                }
                asked = asked.or_else(|| takeovers.try_recv().ok());
                break;
            }
        }
    }
    let Some(Takeover { work, answer }) = asked else {
        drop(shared.shutdown().await);
        // Compat: as Go's server does. A client that is still sending when we close finds its pipe
        // broken, and does not look for the answer.
        let rest = async {
            let mut nowhere = tokio::io::sink();
            let mut some = (&mut shared).take(UNHEARD);
            if tokio::io::copy(&mut some, &mut nowhere).await.is_ok_and(|read| read == UNHEARD) {
                peer.gone().await;
            }
        };
        drop(tokio::time::timeout(LINGER, rest).await);
        return;
    };
    drop(permit);
    let mut writer = Box::pin(shared.clone());
    let (head, mut body, chunked) = match answer {
        Answer::Http => {
            let sent = io::Cursor::new(http.into_parts().read_buf);
            return work(Box::pin(sent.chain(shared)), writer).await;
        }
        Answer::Raw { head, body, chunked } => (head, body, chunked),
    };
    if writer.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    if chunked {
        muted.store(true, Ordering::Relaxed);
        let input = body.into_data_stream().map(|chunk| chunk.map_err(io::Error::other));
        let mut work = work(Box::pin(StreamReader::new(input)), writer);
        tokio::select! {
            () = &mut work => return,
            // The input has ended, or is broken.
            _ = std::future::poll_fn(|context| http.poll_without_shutdown(context)) => {}
        }
        return work.await;
    }
    let unread = http.into_parts().read_buf;
    let mut sent = BytesMut::new();
    // hyper is gone: this ends with what it had read.
    while let Some(Ok(frame)) = body.frame().await {
        sent.extend_from_slice(&frame.into_data().unwrap_or_default());
    }
    sent.extend_from_slice(&unread);
    work(Box::pin(io::Cursor::new(sent).chain(shared)), writer).await;
}

/// How long a client may be busy sending before it hears that nobody listens, and how much of that is
/// read.
const LINGER: Duration = Duration::from_millis(500);
const UNHEARD: u64 = 256 << 10;

/// A connection that hyper reads while somebody else writes.
#[derive(Clone)]
struct Shared(Arc<Mutex<Watched>>);

/// hyper's side of it: once muted, what hyper says goes nowhere.
struct Http {
    shared: Shared,
    muted: Arc<AtomicBool>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_read(context, into)
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(context)
    }
}

impl AsyncRead for Http {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.shared).poll_read(context, into)
    }
}

impl AsyncWrite for Http {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.muted.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.shared).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.muted.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        Pin::new(&mut self.shared).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.shared.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.shared).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.muted.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.shared).poll_shutdown(context)
    }
}
