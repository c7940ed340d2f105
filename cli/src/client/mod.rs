//! One engine, reached over a unix socket or TCP. Each request has its own connection, as long
//! answers and hijacked streams would hold up others.

mod hijack;
mod lines;
mod trace;

use bytes::Bytes;
use futures_util::stream::Stream;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};

pub(crate) use hijack::{Ended, Session, demultiplex};
pub(crate) use lines::Lines;
pub(crate) use trace::Trace;

use crate::error::CliError;

/// The newest version we speak.
const NEWEST: (u16, u16) = (1, 51);
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// What a request carries.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

enum Endpoint {
    Unix(String),
    Tcp(String),
}

/// A client that knows which version the engine speaks.
pub(crate) struct Client {
    endpoint: Endpoint,
    host: String,
    version: String,
    /// From when to when the version was agreed upon.
    connected: (u64, u64),
    trace: Option<Trace>,
}

impl Client {
    /// Finds the engine (`-H`, `DOCKER_HOST`, the default socket) and agrees on a version.
    pub(crate) async fn connect(host: Option<&str>) -> Result<Self, CliError> {
        let host = host
            .map(str::to_owned)
            .or_else(|| std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()))
            .unwrap_or_else(|| DEFAULT_HOST.to_owned());
        let endpoint = parse_host(&host)?;
        let start = trace::now();
        let (version, connected) = (String::new(), (start, start));
        let mut client = Self { endpoint, host, version, connected, trace: None };
        client.version = match std::env::var("DOCKER_API_VERSION") {
            Ok(version) if !version.is_empty() => version,
            _ => client.negotiate().await?,
        };
        client.connected.1 = trace::now();
        Ok(client)
    }

    /// From now on the requests of a run are part of a trace.
    pub(crate) fn begin_trace(&mut self) {
        self.trace = Some(Trace::begin(self.connected));
    }

    pub(crate) fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Whether requests are made in this version or a newer one.
    pub(crate) fn speaks(&self, version: (u16, u16)) -> bool {
        parse_version(&self.version).is_some_and(|spoken| spoken >= version)
    }

    /// Refuses what an older engine would not understand.
    pub(crate) fn require(&self, what: &str, version: (u16, u16)) -> Result<(), CliError> {
        if self.speaks(version) {
            return Ok(());
        }
        Err(CliError::Usage(format!(
            "{what:?} requires API version {}.{}, but the Docker daemon API version is {}",
            version.0, version.1, self.version
        )))
    }

    async fn negotiate(&self) -> Result<String, CliError> {
        let answer = self.exchange(Method::GET, "/_ping", HeaderMap::new(), empty()).await?;
        let theirs = answer
            .headers()
            .get("Api-Version")
            .and_then(|value| value.to_str().ok())
            .and_then(parse_version)
            .unwrap_or((1, 24));
        let (major, minor) = theirs.min(NEWEST);
        Ok(format!("{major}.{minor}"))
    }

    /// `GET`, answered by JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.json(self.send(Method::GET, path, empty()).await?).await
    }

    /// `GET`, as it comes.
    pub(crate) async fn bytes(&self, path: &str) -> Result<Bytes, CliError> {
        read(self.send(Method::GET, path, empty()).await?).await
    }

    /// `POST` of a JSON document, answered by JSON.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        document: &impl Serialize,
    ) -> Result<T, CliError> {
        let answer = self.send_json(Method::POST, path, document).await?;
        self.json(answer).await
    }

    /// `POST` without a document; the answer is only checked.
    pub(crate) async fn act(&self, path: &str) -> Result<StatusCode, CliError> {
        let answer = self.send(Method::POST, path, empty()).await?;
        Ok(answer.status())
    }

    /// `POST` of a JSON document whose answer is only checked.
    pub(crate) async fn post_only(
        &self,
        path: &str,
        document: &impl Serialize,
    ) -> Result<(), CliError> {
        self.send_json(Method::POST, path, document).await.map(drop)
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, path: &str) -> Result<Bytes, CliError> {
        let answer = self.send(Method::DELETE, path, empty()).await?;
        read(answer).await
    }

    /// A request whose answer is read piece by piece.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Response<Incoming>, CliError> {
        self.send_with(method, path, HeaderMap::new(), body).await
    }

    /// The same, with headers.
    pub(crate) async fn send_with(
        &self,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Incoming>, CliError> {
        let trace = self.trace.as_ref();
        let step = trace.and_then(|trace| trace.request(&method, path, &mut headers));
        let path = format!("/v{}{path}", self.version);
        let answer = self.exchange(method, &path, headers, body).await;
        if let Some((trace, step)) = trace.zip(step) {
            trace.answered(step);
        }
        check(answer?).await
    }

    async fn send_json(
        &self,
        method: Method,
        path: &str,
        document: &impl Serialize,
    ) -> Result<Response<Incoming>, CliError> {
        let text = serde_json::to_vec(document).map_err(CliError::Answer)?;
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", http::HeaderValue::from_static("application/json"));
        self.send_with(method, path, headers, full(text)).await
    }

    async fn json<T: DeserializeOwned>(&self, answer: Response<Incoming>) -> Result<T, CliError> {
        docker_api::from_json(&read(answer).await?).map_err(CliError::Answer)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Incoming>, CliError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "docker")
            .header("User-Agent", concat!("Docker-Client/", env!("CARGO_PKG_VERSION"), " (linux)"))
            .body(body)
            .map_err(CliError::Request)?;
        request.headers_mut().extend(headers);
        match &self.endpoint {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|e| self.refused(e))?;
                talk(stream, request).await
            }
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(|e| self.refused(e))?;
                talk(stream, request).await
            }
        }
    }

    fn refused(&self, source: std::io::Error) -> CliError {
        if source.kind() == std::io::ErrorKind::PermissionDenied {
            return CliError::Denied { host: self.host.clone() };
        }
        CliError::Connect { host: self.host.clone(), source }
    }
}

async fn talk<S>(stream: S, request: Request<Body>) -> Result<Response<Incoming>, CliError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(CliError::Http)?;
    tokio::spawn(async move {
        // Whoever reads the answer sees the same failure.
        drop(connection.with_upgrades().await);
    });
    sender.send_request(request).await.map_err(CliError::Http)
}

/// Turns an answer of 400 and above into an error with the daemon's own words.
async fn check(answer: Response<Incoming>) -> Result<Response<Incoming>, CliError> {
    let status = answer.status();
    if status.as_u16() < 400 {
        return Ok(answer);
    }
    let text = read(answer).await?;
    let message = serde_json::from_slice::<docker_api::error::ErrorBody>(&text)
        .map(|body| body.message.trim().to_owned())
        .unwrap_or_else(|_| String::from_utf8_lossy(&text).trim().to_owned());
    let message = if message.is_empty() { format!("status {status}") } else { message };
    Err(CliError::Daemon { status: status.as_u16(), message })
}

async fn read(answer: Response<Incoming>) -> Result<Bytes, CliError> {
    read_up_to(answer.into_body(), ANSWER_MAX).await
}

async fn read_up_to(
    body: impl hyper::body::Body<Data = Bytes, Error = impl Into<Problem>>,
    limit: usize,
) -> Result<Bytes, CliError> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(problem) if problem.is::<LengthLimitError>() => {
            Err(CliError::Usage(format!("the daemon's answer is longer than {limit} bytes")))
        }
        Err(problem) => Err(match problem.downcast::<hyper::Error>() {
            Ok(problem) => CliError::Http(*problem),
            Err(problem) => CliError::io("read the answer", std::io::Error::other(problem)),
        }),
    }
}

type Problem = Box<dyn std::error::Error + Send + Sync>;
/// A list of a hundred thousand containers has room in it.
const ANSWER_MAX: usize = 256 << 20;

/// No body.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn full(bytes: Vec<u8>) -> Body {
    Full::from(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is sent as it comes.
pub(crate) fn streamed<S>(pieces: S) -> Body
where
    S: Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send + 'static,
{
    StreamBody::new(pieces).boxed_unsync()
}

fn parse_version(text: &str) -> Option<(u16, u16)> {
    let (major, minor) = text.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn parse_host(host: &str) -> Result<Endpoint, CliError> {
    // Compat: an address alone is one of TCP.
    let (scheme, rest) = host.split_once("://").unwrap_or(("tcp", host));
    match scheme {
        "unix" => Ok(Endpoint::Unix(if rest.is_empty() {
            "/var/run/docker.sock".to_owned()
        } else {
            rest.to_owned()
        })),
        "tcp" | "http" => {
            let rest = rest.trim_end_matches('/');
            let address =
                if rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
                    rest.to_owned()
                } else {
                    format!("{rest}:2375")
                };
            Ok(Endpoint::Tcp(address))
        }
        "ssh" | "npipe" | "https" => Err(CliError::Usage(format!(
            "not supported: docker host with scheme {scheme:?}; use unix:// or tcp://"
        ))),
        _ => Err(CliError::Usage(format!(
            "Failed to initialize: unable to resolve docker endpoint: invalid bind address format: {host}"
        ))),
    }
}

/// Text inside a path or a query.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A query string of what has a value.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        out.push(if out.is_empty() { '?' } else { '&' });
        out.push_str(&format!("{name}={}", escape(value)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::lines::LINE_MAX;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse_version("1.9").unwrap().min(NEWEST), (1, 9));
        assert_eq!(parse_version("1.100").unwrap().min(NEWEST), NEWEST);
        assert_eq!(parse_version("x"), None);
    }

    #[test]
    fn a_query_leaves_out_what_is_empty() {
        assert_eq!(query(&[("a", "1 2"), ("b", ""), ("c", "x/y")]), "?a=1%202&c=x%2Fy");
        assert_eq!(query(&[("a", "")]), "");
    }

    #[tokio::test]
    async fn an_answer_without_end_is_refused() {
        let pieces = futures_util::stream::iter(
            (0..9).map(|_| Ok(Frame::data(Bytes::from(vec![b'x'; 1000])))),
        );
        let error = read_up_to(streamed(pieces), 5000).await.unwrap_err();
        assert_eq!(error.to_string(), "the daemon's answer is longer than 5000 bytes");
        let pieces = futures_util::stream::iter(
            (0..5).map(|_| Ok(Frame::data(Bytes::from(vec![b'x'; 1000])))),
        );
        assert_eq!(read_up_to(streamed(pieces), 5000).await.unwrap().len(), 5000);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..LINE_MAX / piece.len() + 1).find_map(|_| lines.push(&piece).err());
        assert_eq!(
            refused.unwrap().to_string(),
            "the daemon sent a line of more than 16777216 bytes"
        );
    }

    proptest! {
        #[test]
        fn a_host_is_a_path_or_an_address(
            text in "((unix|tcp|http|ssh|npipe|x)://)?[a-z0-9./:\\[\\]-]{0,14}",
        ) {
            match parse_host(&text) {
                Ok(Endpoint::Unix(path)) => prop_assert!(!path.is_empty()),
                Ok(Endpoint::Tcp(address)) => {
                    let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
                    prop_assert!(matches!(port, Some(Ok(_))), "{}", address);
                }
                Err(_) => prop_assert!(text.contains("://")),
            }
        }

        #[test]
        fn what_is_escaped_is_one_name_of_a_path(text in "\\PC{0,12}") {
            let uri: http::Uri = format!("http://h/{}?{}", escape(&text), escape(&text)).parse().unwrap();
            prop_assert!(!uri.path()[1..].contains('/'));
            let mut bytes = Vec::new();
            let mut rest = uri.query().unwrap_or_default().split('%');
            bytes.extend(rest.next().unwrap().bytes());
            for part in rest {
                bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
                bytes.extend(part[2..].bytes());
            }
            prop_assert_eq!(bytes, text.as_bytes());
        }

        #[test]
        fn lines_survive_any_cut(
            lines in proptest::collection::vec("[a-z\\r]{0,8}", 0..8),
            last in "[a-z]{0,3}",
            cut in 1_usize..20,
        ) {
            let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>() + &last;
            let mut seen = Vec::new();
            let mut cutter = Lines::default();
            for piece in text.as_bytes().chunks(cut) {
                cutter.push(piece).unwrap();
                while let Some(line) = cutter.next_line() {
                    seen.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
            let wanted: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
            prop_assert_eq!(seen, wanted);
            let rest = cutter.rest();
            prop_assert_eq!(&rest[..], last.as_bytes());
        }
    }
}
