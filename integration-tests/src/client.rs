//! A small client of the Engine API over a unix socket: blocking, one connection a request.
//!
//! Requests and streamed answers go through hyper; connections that become byte streams (attach,
//! exec) are in `stream`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::sandbox::PATIENCE;
use crate::stream::Stream;

/// Asked for where the path names no version; old enough for stock 20.10.
pub const VERSION: &str = "/v1.41";

/// The API of one engine.
#[derive(Debug, Clone)]
pub struct Api {
    socket: PathBuf,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    request: String,
}

/// An answer that is read as it comes.
pub struct Streamed {
    pub status: u16,
    pub headers: HeaderMap,
    runtime: Runtime,
    body: Incoming,
    rest: Vec<u8>,
}

impl Api {
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None)
    }

    pub fn head(&self, path: &str) -> Answer {
        self.call(Method::HEAD, path, None)
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None)
    }

    /// POST without a body.
    pub fn post(&self, path: &str) -> Answer {
        self.call(Method::POST, path, None)
    }

    pub fn post_json(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, Some(("application/json", body.to_string().into_bytes())))
    }

    pub fn post_bytes(&self, path: &str, kind: &str, body: Vec<u8>) -> Answer {
        self.call(Method::POST, path, Some((kind, body)))
    }

    pub fn put_bytes(&self, path: &str, kind: &str, body: Vec<u8>) -> Answer {
        self.call(Method::PUT, path, Some((kind, body)))
    }

    /// Any request. Paths without a version get [`VERSION`]; `/_ping` and those with one stay.
    ///
    /// # Panics
    /// When the engine does not answer.
    pub fn call(&self, method: Method, path: &str, body: Option<(&str, Vec<u8>)>) -> Answer {
        self.try_call(method, path, body).unwrap_or_else(|error| panic!("{path}: {error:#}"))
    }

    /// Any request; for engines that may be away.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn try_call(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> anyhow::Result<Answer> {
        let request = format!("{method} {path}");
        let mut streamed = self.try_open(method, path, body, &[])?;
        let whole = async { (&mut streamed.body).collect().await };
        let timed = async { tokio::time::timeout(PATIENCE, whole).await };
        let body = streamed.runtime.block_on(timed)??.to_bytes().to_vec();
        Ok(Answer { status: streamed.status, headers: streamed.headers.clone(), body, request })
    }

    /// A request whose answer is read as it comes.
    ///
    /// # Panics
    /// When the engine does not answer.
    pub fn open(&self, path: &str) -> Streamed {
        self.try_open(Method::GET, path, None, &[]).unwrap_or_else(|e| panic!("{path}: {e:#}"))
    }

    /// As [`Self::open`], with everything.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn try_open(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Streamed> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut request = Request::builder().method(method).uri(versioned(path));
        request = request.header("Host", "docker");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (kind, body) = body.unwrap_or_default();
        if !kind.is_empty() {
            request = request.header("Content-Type", kind);
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let response = runtime.block_on(async {
            let socket = tokio::net::UnixStream::connect(&self.socket).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
            tokio::spawn(connection);
            anyhow::Ok(tokio::time::timeout(PATIENCE, sender.send_request(request)).await??)
        })?;
        let (head, body) = response.into_parts();
        let (status, headers) = (head.status.as_u16(), head.headers);
        Ok(Streamed { status, headers, runtime, body, rest: Vec::new() })
    }

    /// POST for a connection that becomes a byte stream, with `Upgrade: tcp` or as old clients did.
    ///
    /// # Panics
    /// When the engine does not answer.
    pub fn hijack(&self, path: &str, body: Option<&Value>, upgrade: bool) -> Stream {
        Stream::open(&self.socket, &versioned(path), body, upgrade)
    }

    /// A request as text, for what no HTTP library sends.
    ///
    /// # Panics
    /// When the engine does not answer.
    pub fn raw(&self, request: &str) -> Stream {
        Stream::raw(&self.socket, request)
    }

    /// Waits for an engine to answer `/_ping`.
    pub fn answers(&self) -> bool {
        self.try_call(Method::GET, "/_ping", None).is_ok_and(|answer| answer.status == 200)
    }

    /// Creates a container and gives its id.
    ///
    /// # Panics
    /// When that fails.
    pub fn create(&self, name: &str, body: &Value) -> String {
        let answer = self.post_json(&format!("/containers/create?name={name}"), body).expect(201);
        answer.json()["Id"].as_str().expect("an id").to_owned()
    }

    /// Creates and starts a container, and gives its id.
    ///
    /// # Panics
    /// When that fails.
    pub fn run(&self, name: &str, body: &Value) -> String {
        let id = self.create(name, body);
        self.post(&format!("/containers/{id}/start")).expect(204);
        id
    }

    /// Waits until the container is not running and gives its exit code.
    ///
    /// # Panics
    /// When that fails.
    pub fn wait(&self, container: &str) -> i64 {
        let answer = self.post(&format!("/containers/{container}/wait")).expect(200);
        answer.json()["StatusCode"].as_i64().expect("a code")
    }

    /// What `GET /containers/…/json` says.
    #[must_use]
    pub fn inspect(&self, container: &str) -> Value {
        self.get(&format!("/containers/{container}/json")).expect(200).json()
    }
}

impl Answer {
    /// # Panics
    /// When the status is another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.request, self.text());
        self
    }

    /// # Panics
    /// When it is no JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// An error's sentence.
    #[must_use]
    #[track_caller]
    pub fn message(&self) -> String {
        let told = serde_json::from_slice::<Value>(&self.body).ok();
        let message = told.and_then(|told| Some(told["message"].as_str()?.to_owned()));
        // Where a stream was asked for, stock says it in plain text.
        message.unwrap_or_else(|| self.text().trim().to_owned())
    }

    /// JSON values one a line.
    #[must_use]
    pub fn lines(&self) -> Vec<Value> {
        let values = serde_json::Deserializer::from_slice(&self.body).into_iter();
        values.map_while(Result::ok).collect()
    }

    /// A header, empty when absent.
    #[must_use]
    pub fn header(&self, name: &str) -> String {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    }

    /// stdout and stderr of a multiplexed body.
    #[must_use]
    pub fn streams(&self) -> (String, String) {
        crate::stream::split_frames(&self.body)
    }
}

impl Streamed {
    /// The next bytes; nothing at the end.
    ///
    /// # Panics
    /// When nothing comes in time.
    pub fn chunk(&mut self) -> Option<Bytes> {
        self.chunk_within(PATIENCE).expect("something in time")
    }

    /// The next bytes, if they come in time.
    pub fn chunk_within(&mut self, patience: Duration) -> Option<Option<Bytes>> {
        let next = async { self.body.frame().await };
        let timed = async { tokio::time::timeout(patience, next).await };
        let frame = self.runtime.block_on(timed).ok()?;
        Some(frame.and_then(|frame| frame.ok()?.into_data().ok()))
    }

    /// The next JSON value; values are separated by white space or nothing.
    ///
    /// # Panics
    /// When what comes is no JSON.
    pub fn value(&mut self) -> Option<Value> {
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.rest).into_iter::<Value>();
            match values.next() {
                Some(Ok(value)) => {
                    let used = values.byte_offset();
                    self.rest.drain(..used);
                    return Some(value);
                }
                Some(Err(error)) if !error.is_eof() => panic!("{error}"),
                _ => {
                    let chunk = self.chunk()?;
                    self.rest.extend_from_slice(&chunk);
                }
            }
        }
    }

    /// Everything to the end.
    pub fn rest(mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.rest);
        while let Some(chunk) = self.chunk() {
            all.extend_from_slice(&chunk);
        }
        all
    }

    /// Reads until the text of all frames so far holds the needle; gives the text.
    ///
    /// # Panics
    /// When the stream ends without it.
    pub fn until(&mut self, needle: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.rest).into_owned();
            if text.contains(needle) {
                return text;
            }
            let chunk = self.chunk();
            self.rest.extend_from_slice(&chunk.unwrap_or_else(|| panic!("ended with {text:?}")));
        }
    }
}

fn versioned(path: &str) -> String {
    let named = path.starts_with("/_ping")
        || path
            .strip_prefix("/v")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if named { path.to_owned() } else { format!("{VERSION}{path}") }
}
