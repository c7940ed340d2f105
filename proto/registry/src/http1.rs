//! HTTP/1.1 over TCP and TLS with connections kept for the next request, deadlines for every wait,
//! and bodies read chunk by chunk.

use crate::client::Timeouts;
use crate::error::Transport;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// Where a connection leads; requests with the same endpoint may share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Endpoint {
    pub(crate) fn of(url: &http::Uri) -> Result<Self, Transport> {
        let unusable = || Transport::Url(url.to_string());
        let tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(unusable()),
        };
        let host = url.host().map(|host| host.trim_start_matches('[').trim_end_matches(']'));
        let host = host.filter(|host| !host.is_empty()).ok_or_else(unusable)?.to_owned();
        Ok(Self { tls, host, port: url.port_u16().unwrap_or(if tls { 443 } else { 80 }) })
    }
}

type Sender = SendRequest<Full<Bytes>>;
/// An endpoint and the TLS settings it was reached with.
type Key = (Endpoint, usize);

pub(crate) struct Http {
    idle: Mutex<HashMap<Key, Vec<Sender>>>,
    timeouts: Timeouts,
}

impl Http {
    pub(crate) fn new(timeouts: Timeouts) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::new(HashMap::new()), timeouts })
    }

    /// Sends one request; no redirects, no authorisation, no second thoughts.
    pub(crate) async fn send(
        self: &Arc<Self>,
        tls: &Arc<ClientConfig>,
        request: &http::Request<Bytes>,
    ) -> Result<(http::response::Parts, Body), Transport> {
        let endpoint = Endpoint::of(request.uri())?;
        let key = (endpoint, Arc::as_ptr(tls).addr());
        while let Some(mut sender) = self.take(&key) {
            let ready = timeout(Duration::from_millis(200), sender.ready()).await;
            if !matches!(ready, Ok(Ok(()))) {
                continue;
            }
            // The server may have closed an idle connection while our request was on its way.
            if let Ok(answer) = self.exchange(&key, sender, request).await {
                return Ok(answer);
            }
            break;
        }
        let sender = self.connect(&key.0, tls).await?;
        self.exchange(&key, sender, request).await
    }

    async fn exchange(
        self: &Arc<Self>,
        key: &Key,
        mut sender: Sender,
        request: &http::Request<Bytes>,
    ) -> Result<(http::response::Parts, Body), Transport> {
        let mut wire = http::Request::builder()
            .method(request.method())
            .uri(request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str));
        if let Some(authority) = request.uri().authority() {
            wire = wire.header(http::header::HOST, authority.as_str());
        }
        for (name, value) in request.headers() {
            wire = wire.header(name, value);
        }
        let wire = wire
            .body(Full::new(request.body().clone()))
            .map_err(|error| Transport::Http(error.to_string()))?;
        let answer = timeout(self.timeouts.response, sender.send_request(wire))
            .await
            .map_err(|_| Transport::Timeout { what: "awaiting response headers" })?
            .map_err(|error| Transport::Http(chain(&error)))?;
        let (parts, incoming) = answer.into_parts();
        let body = Body {
            incoming,
            sender: Some(sender),
            key: key.clone(),
            http: self.clone(),
            stall: self.timeouts.stall,
        };
        Ok((parts, body))
    }

    async fn connect(
        &self,
        endpoint: &Endpoint,
        tls: &Arc<ClientConfig>,
    ) -> Result<Sender, Transport> {
        let stream = timeout(self.timeouts.connect, dial(endpoint))
            .await
            .map_err(|_| Transport::Timeout { what: "connecting" })??;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "set TCP_NODELAY");
        }
        if !endpoint.tls {
            return start(stream).await;
        }
        let name = ServerName::try_from(endpoint.host.clone())
            .map_err(|_| Transport::Name(endpoint.host.clone()))?;
        let stream =
            timeout(self.timeouts.connect, TlsConnector::from(tls.clone()).connect(name, stream))
                .await
                .map_err(|_| Transport::Timeout { what: "TLS handshake" })?
                .map_err(Transport::Tls)?;
        start(stream).await
    }

    fn take(&self, key: &Key) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = idle.get_mut(key)?;
        while let Some(sender) = senders.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn put(&self, key: Key, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = idle.entry(key).or_default();
        if senders.len() < KEPT && !sender.is_closed() {
            senders.push(sender);
        }
    }
}

/// Tries every address of the name; the first failure is told.
async fn dial(endpoint: &Endpoint) -> Result<TcpStream, Transport> {
    let host = endpoint.host.clone();
    let missing = |source| Transport::Lookup { host: host.clone(), source };
    let addresses = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await;
    let mut first = None;
    for address in addresses.map_err(missing)? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(source) => {
                first.get_or_insert(Transport::Dial { address: address.to_string(), source });
            }
        }
    }
    Err(first.unwrap_or_else(|| missing(std::io::ErrorKind::NotFound.into())))
}

async fn start<S>(stream: S) -> Result<Sender, Transport>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| Transport::Http(chain(&error)))?;
    // Ends with the connection, which ends when its sender is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %chain(&error), "registry connection ended");
        }
    });
    Ok(sender)
}

/// The body of an answer.
pub(crate) struct Body {
    incoming: Incoming,
    sender: Option<Sender>,
    key: Key,
    http: Arc<Http>,
    stall: Duration,
}

impl Body {
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Transport> {
        loop {
            let frame = timeout(self.stall, self.incoming.frame())
                .await
                .map_err(|_| Transport::Timeout { what: "reading the response" })?;
            match frame {
                None => {
                    if let Some(sender) = self.sender.take() {
                        self.http.put(self.key.clone(), sender);
                    }
                    return Ok(None);
                }
                Some(Err(error)) => {
                    self.sender = None;
                    return Err(Transport::Http(chain(&error)));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body, unless it is longer than `limit`.
    pub(crate) async fn all(mut self, limit: usize) -> Result<Option<Vec<u8>>, Transport> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if bytes.len() + chunk.len() > limit {
                return Ok(None);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }
}

/// hyper keeps the reason in the source.
fn chain(error: &hyper::Error) -> String {
    use std::error::Error;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// Idle connections kept to one endpoint.
const KEPT: usize = 8;
