//! The tokio client: many calls in flight over one unix socket.
//!
//! A reader and a writer task belong to the connection and end with it, or when the last clone of the
//! client is dropped. Losing the connection fails every call in flight and resolves [`Client::closed`].

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::receive::receive;
use crate::{Decoder, FrameError, FrameKind, KeyValue, Request, Response, Status, encode};

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The server answered with an error.
    #[error("{0}")]
    Status(Status),
    /// The connection is gone, before or during the call.
    #[error("ttrpc: closed")]
    Closed,
    #[error("{service}/{method}: no answer within {timeout:?}")]
    Timeout { service: String, method: String, timeout: Duration },
    #[error("{service}/{method}: {source}")]
    Frame { service: String, method: String, source: FrameError },
    #[error("{service}/{method}: decode the answer: {source}")]
    Decode { service: String, method: String, source: prost::DecodeError },
}

type Answer = oneshot::Receiver<Result<Response, FrameError>>;
type Pending = HashMap<u32, oneshot::Sender<Result<Response, FrameError>>>;

/// A connection to a ttrpc server; clones share it.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    state: Arc<Mutex<State>>,
    outgoing: mpsc::Sender<Vec<u8>>,
    closed: watch::Receiver<bool>,
    tasks: [AbortHandle; 2],
}

#[derive(Default)]
struct State {
    next_stream: u32,
    closed: bool,
    pending: Pending,
}

impl Client {
    /// Connects to the unix socket at `path`; a leading `unix://` is accepted.
    pub async fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let bare = path.to_str().and_then(|text| text.strip_prefix("unix://"));
        Ok(Self::new(UnixStream::connect(bare.map_or(path, Path::new)).await?))
    }

    /// Takes over a connected socket. Must be called inside a tokio runtime.
    pub fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        let state = Arc::new(Mutex::new(State::default()));
        let (outgoing, queue) = mpsc::channel(64);
        let (closing, closed) = watch::channel(false);
        let closing = Arc::new(closing);
        let reader = tokio::spawn(read_answers(read, Arc::clone(&state), Arc::clone(&closing)));
        let writer = tokio::spawn(write_requests(write, queue, Arc::clone(&state), closing));
        let tasks = [reader.abort_handle(), writer.abort_handle()];
        Self { inner: Arc::new(Inner { state, outgoing, closed, tasks }) }
    }

    /// Calls with ready-made bytes. Without `timeout` the call waits as long as the connection lives.
    /// Dropping the future forgets the call; the server is not told.
    pub async fn call(
        &self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
        metadata: &[(&str, &str)],
        timeout: Option<Duration>,
    ) -> Result<Vec<u8>, CallError> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload,
            timeout_nano: timeout.map_or(0, |t| i64::try_from(t.as_nanos()).unwrap_or(i64::MAX)),
            metadata: metadata
                .iter()
                .map(|(key, value)| KeyValue { key: (*key).to_owned(), value: (*value).to_owned() })
                .collect(),
        };
        let frame_error = |source| CallError::Frame {
            service: service.to_owned(),
            method: method.to_owned(),
            source,
        };
        let request = request.encode_to_vec();
        let exchange = async {
            let place = self.inner.outgoing.reserve().await.map_err(|_| CallError::Closed)?;
            let (stream, answer) = self.begin(place, &request, frame_error)?;
            let _forget = Forget { state: &self.inner.state, stream };
            match answer.await {
                Ok(Ok(response)) => response.into_result().map_err(CallError::Status),
                Ok(Err(source)) => Err(frame_error(source)),
                Err(_) => Err(CallError::Closed),
            }
        };
        match timeout {
            None => exchange.await,
            Some(limit) => tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
                Err(CallError::Timeout {
                    service: service.to_owned(),
                    method: method.to_owned(),
                    timeout: limit,
                })
            }),
        }
    }

    /// Compat: upstream's server refuses ids that do not grow, so under one lock the call gets its id and its
    /// place among those to be written.
    fn begin(
        &self,
        place: mpsc::Permit<'_, Vec<u8>>,
        request: &[u8],
        frame_error: impl Fn(FrameError) -> CallError,
    ) -> Result<(u32, Answer), CallError> {
        let mut state = lock(&self.inner.state);
        if state.closed {
            return Err(CallError::Closed);
        }
        // Clients use odd ids.
        let stream = state.next_stream | 1;
        let bytes = encode(stream, FrameKind::Request, request).map_err(frame_error)?;
        state.next_stream = stream.wrapping_add(2);
        let (sender, answer) = oneshot::channel();
        state.pending.insert(stream, sender);
        place.send(bytes);
        Ok((stream, answer))
    }

    /// Calls with protobuf messages.
    pub async fn call_message<Q: Message, A: Message + Default>(
        &self,
        service: &str,
        method: &str,
        request: &Q,
        metadata: &[(&str, &str)],
        timeout: Option<Duration>,
    ) -> Result<A, CallError> {
        let bytes = self.call(service, method, request.encode_to_vec(), metadata, timeout).await?;
        A::decode(bytes.as_slice()).map_err(|source| CallError::Decode {
            service: service.to_owned(),
            method: method.to_owned(),
            source,
        })
    }

    /// Resolves when the connection is gone, at once if it already is.
    pub async fn closed(&self) {
        let mut closed = self.inner.closed.clone();
        // An error means that both tasks ended, which is the same news.
        closed.wait_for(|closed| *closed).await.ok();
    }

    pub fn is_closed(&self) -> bool {
        lock(&self.inner.state).closed
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Removes the waiting place of a call whose caller went away.
struct Forget<'a> {
    state: &'a Mutex<State>,
    stream: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.state).pending.remove(&self.stream);
    }
}

async fn read_answers(
    socket: OwnedReadHalf,
    state: Arc<Mutex<State>>,
    closing: Arc<watch::Sender<bool>>,
) {
    let mut decoder = Decoder::new();
    while let Ok(1..) = receive(&socket, &mut decoder).await {
        while let Some(item) = decoder.next() {
            let (stream, result) = match item {
                Ok(frame) if frame.kind == FrameKind::Response => {
                    let Ok(response) = Response::decode(frame.payload.as_slice()) else {
                        return close(&state, &closing);
                    };
                    (frame.stream, Ok(response))
                }
                Ok(_) => continue,
                Err(error @ FrameError::TooLarge { stream, .. }) => (stream, Err(error)),
            };
            if let Some(waiter) = lock(&state).pending.remove(&stream) {
                // The caller may have gone meanwhile.
                waiter.send(result).ok();
            }
        }
    }
    close(&state, &closing);
}

async fn write_requests(
    mut socket: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Vec<u8>>,
    state: Arc<Mutex<State>>,
    closing: Arc<watch::Sender<bool>>,
) {
    while let Some(bytes) = queue.recv().await {
        if socket.write_all(&bytes).await.is_err() {
            break;
        }
    }
    close(&state, &closing);
}

fn close(state: &Mutex<State>, closing: &watch::Sender<bool>) {
    let mut state = lock(state);
    state.closed = true;
    state.pending.clear();
    closing.send_replace(true);
}

/// The state is valid between any two statements, so a poisoned lock is still good.
fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    use tokio::io::AsyncReadExt;
    use tokio::task::coop::{consume_budget, has_budget_remaining};

    async fn ids(mut socket: UnixStream, count: usize) -> Vec<u32> {
        let (mut decoder, mut buffer) = (Decoder::new(), [0; 1024]);
        let mut ids = Vec::new();
        while ids.len() < count {
            let read = socket.read(&mut buffer).await.unwrap();
            decoder.push(&buffer[..read]);
            while let Some(frame) = decoder.next() {
                ids.push(frame.unwrap().stream);
            }
        }
        ids
    }

    #[tokio::test]
    async fn a_call_that_is_overtaken_gets_the_later_id() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let client = Client::new(ours);
        let calls: Vec<_> = [true, false]
            .map(|waits| {
                let client = client.clone();
                tokio::spawn(async move {
                    // Its turn is over when it comes to the queue: the other goes first.
                    while waits && has_budget_remaining() {
                        consume_budget().await;
                    }
                    client.call("s", "m", vec![], &[], None).await
                })
            })
            .into();
        assert_eq!(ids(theirs, 2).await, [1, 3]);
        for call in calls {
            assert!(matches!(call.await.unwrap(), Err(CallError::Closed)));
        }
    }
}
