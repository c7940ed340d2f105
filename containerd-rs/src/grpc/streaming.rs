//! `containerd.services.streaming.v1.Streaming`: a client opens a stream under a name, a later
//! request of another service uses it. And what travels over such streams: data under a window,
//! progress, questions for credentials.

use std::collections::HashMap;
use std::future::Future;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, Bytes};
use oci_registry::{Credential, CredentialRequest, Credentials};
use prost_types::Any;
use proto::any::{pack, unpack};
use proto::containerd::services::streaming::v1::StreamInit;
use proto::containerd::services::streaming::v1::streaming_server::Streaming;
use proto::containerd::types::transfer::{
    AuthRequest, AuthResponse, AuthType, Data, Progress as WireProgress, WindowUpdate,
};
use proto::errdefs::Kind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::wire::{Answer, context, signed};
use crate::context::Namespace;
use crate::transfer::{Progress, Reporter};

type Outgoing = mpsc::Sender<Result<Any, Status>>;
type Key = (Namespace, String);

/// The streams that wait for their use.
#[derive(Clone, Default)]
pub(crate) struct Streams(Arc<Mutex<HashMap<Key, Connection>>>);

/// Both directions of an open stream. Dropping it ends the stream.
pub(crate) struct Connection {
    incoming: tonic::Streaming<Any>,
    outgoing: Outgoing,
    /// Cancelled when everything that was sent has been handed to the connection.
    ended: CancellationToken,
}

impl Streams {
    /// Takes a stream for use; each serves once.
    pub(crate) fn take(&self, namespace: &Namespace, id: &str) -> Result<Connection, Status> {
        let taken = self.lock().remove(&(namespace.clone(), id.to_owned()));
        taken.ok_or_else(|| Kind::NotFound.status(format!("stream \"{id}\": not found")))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct StreamingService(pub(crate) Streams);

#[tonic::async_trait]
impl Streaming for StreamingService {
    type StreamStream = Registered;

    async fn stream(&self, request: Request<tonic::Streaming<Any>>) -> Answer<Registered> {
        let namespace = context(&request)?.namespace;
        let mut incoming = request.into_inner();
        let first = incoming
            .message()
            .await?
            .ok_or_else(|| Kind::InvalidArgument.status("stream ended before its first message"))?;
        let init: StreamInit =
            unpack(&first).map_err(|error| Kind::InvalidArgument.status(error.to_string()))?;
        if init.id.is_empty() {
            return Err(Kind::InvalidArgument.status("stream id is required"));
        }
        let (outgoing, answers) = mpsc::channel(QUEUE);
        let ended = CancellationToken::new();
        let key = (namespace, init.id);
        {
            let mut all = self.0.lock();
            if all.contains_key(&key) {
                return Err(
                    Kind::AlreadyExists.status(format!("stream \"{}\": already exists", key.1))
                );
            }
            // The answer that says: it may be used now.
            let ready = Any { type_url: "google.protobuf.Empty".to_owned(), value: Vec::new() };
            drop(outgoing.try_send(Ok(ready)));
            let connection = Connection { incoming, outgoing, ended: ended.clone() };
            all.insert(key.clone(), connection);
        }
        let streams = self.0.clone();
        let answers = ReceiverStream::new(answers);
        Ok(Response::new(Registered { answers, streams, key, ended }))
    }
}

/// The answering half. When the client goes away, so does a stream nobody has used.
pub(crate) struct Registered {
    answers: ReceiverStream<Result<Any, Status>>,
    streams: Streams,
    key: Key,
    ended: CancellationToken,
}

impl tokio_stream::Stream for Registered {
    type Item = Result<Any, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        Pin::new(&mut self.answers).poll_next(context)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        drop(self.streams.lock().remove(&self.key));
        self.ended.cancel();
    }
}

impl Connection {
    /// The client's data as a reader for a blocking thread.
    pub(crate) fn reader(mut self) -> impl Read + Send + 'static {
        let (sender, chunks) = mpsc::channel::<io::Result<Bytes>>(QUEUE);
        // Ends with the stream, or with the reader.
        tokio::spawn(async move {
            let mut window = 0;
            loop {
                if window < WINDOW / 2 {
                    let update = pack(&WindowUpdate { update: WINDOW });
                    if self.outgoing.send(Ok(update)).await.is_err() {
                        break;
                    }
                    window += WINDOW;
                }
                let message = tokio::select! {
                    message = self.incoming.message() => message,
                    () = sender.closed() => break,
                };
                let chunk = match message {
                    Ok(None) => break,
                    Ok(Some(any)) => match unpack::<Data>(&any) {
                        Ok(data) => Ok(Bytes::from(data.data)),
                        Err(error) => Err(io::Error::other(error)),
                    },
                    Err(status) => Err(io::Error::other(status.message().to_owned())),
                };
                let failed = chunk.is_err();
                if let Ok(chunk) = &chunk {
                    window -= i32::try_from(chunk.len()).unwrap_or(i32::MAX).min(window);
                }
                if sender.send(chunk).await.is_err() || failed {
                    break;
                }
            }
        });
        Reader { chunks, current: Bytes::new() }
    }

    /// A writer to the client, for a blocking thread.
    pub(crate) fn writer(self) -> impl Write + Send + 'static {
        let (chunks, mut received) = mpsc::channel::<Bytes>(QUEUE);
        tokio::spawn(async move {
            let Self { mut incoming, outgoing, .. } = self;
            let mut window: usize = 0;
            while let Some(mut chunk) = received.recv().await {
                while !chunk.is_empty() {
                    while window == 0 {
                        let Ok(Some(any)) = incoming.message().await else { return };
                        if let Ok(update) = unpack::<WindowUpdate>(&any) {
                            window += usize::try_from(update.update).unwrap_or(0);
                        }
                    }
                    let piece = chunk.split_to(chunk.len().min(window).min(FRAME));
                    window -= piece.len();
                    let data = pack(&Data { data: piece.to_vec() });
                    if outgoing.send(Ok(data)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Writer { chunks }
    }

    /// Where a transfer reports its progress, and what is cancelled when all of it is told.
    pub(crate) fn reporter(self) -> (Reporter, CancellationToken) {
        let (sender, mut events) = mpsc::channel::<Progress>(QUEUE);
        let ended = self.ended.clone();
        tokio::spawn(async move {
            let Self { mut incoming, outgoing, .. } = self;
            loop {
                tokio::select! {
                    event = events.recv() => {
                        let Some(event) = event else { return };
                        if outgoing.send(Ok(pack(&to_wire(event)))).await.is_err() {
                            return;
                        }
                    }
                    // Nothing is said in this direction; its end alone does not matter.
                    message = incoming.message() => match message {
                        Ok(Some(_)) => {}
                        Ok(None) | Err(_) => break,
                    }
                }
            }
            while let Some(event) = events.recv().await {
                if outgoing.send(Ok(pack(&to_wire(event)))).await.is_err() {
                    return;
                }
            }
        });
        (Reporter::new(sender), ended)
    }

    /// The client as the one who knows credentials.
    pub(crate) fn credentials(self) -> Arc<dyn Credentials> {
        Arc::new(Asking(tokio::sync::Mutex::new(self)))
    }
}

struct Reader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => self.current = chunk?,
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

struct Writer {
    chunks: mpsc::Sender<Bytes>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.chunks.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One question at a time.
struct Asking(tokio::sync::Mutex<Connection>);

impl Credentials for Asking {
    fn credential(
        &self,
        request: CredentialRequest,
    ) -> Pin<Box<dyn Future<Output = Option<Credential>> + Send + '_>> {
        Box::pin(async move {
            let mut connection = self.0.lock().await;
            let question = AuthRequest {
                host: request.host,
                reference: request.reference,
                wwwauthenticate: request.challenges,
            };
            connection.outgoing.send(Ok(pack(&question))).await.ok()?;
            let answer = connection.incoming.message().await.ok()??;
            from_wire(unpack(&answer).ok()?)
        })
    }
}

fn from_wire(answer: AuthResponse) -> Option<Credential> {
    match answer.auth_type() {
        AuthType::None => None,
        AuthType::Credentials => {
            Some(Credential::Basic { username: answer.username, secret: answer.secret })
        }
        AuthType::Refresh => Some(Credential::Refresh { token: answer.secret }),
        AuthType::Header => Some(Credential::Header(answer.secret)),
    }
}

fn to_wire(progress: Progress) -> WireProgress {
    let descriptor = progress.descriptor.map(|descriptor| proto::containerd::types::Descriptor {
        media_type: descriptor.media_type,
        digest: descriptor.digest.to_string(),
        size: signed(descriptor.size),
        annotations: descriptor.annotations.into_iter().collect(),
    });
    WireProgress {
        event: progress.event,
        name: progress.name,
        parents: progress.parents,
        progress: signed(progress.progress),
        total: signed(progress.total),
        desc: descriptor,
    }
}

/// What a client may send ahead. Upstream grants 64 KiB; more keeps the pipe full.
const WINDOW: i32 = 1 << 20;
/// Compat: the largest frame upstream sends.
const FRAME: usize = 32 << 10;
const QUEUE: usize = 64;
