//! The client against servers that misbehave: each fake answers every request by a function of
//! (method, path, headers) and may cut the connection in the middle of a body.

use crate::*;
use oci_image::manifest::{Descriptor, media};
use oci_image::{Digest, Reference};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
    body: String,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Send only so much of the body, then close.
    cut: Option<usize>,
    delay: Duration,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![], body: body.into(), cut: None, delay: Duration::ZERO }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

struct Fake {
    address: String,
    log: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    async fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (answer, shared) = (Arc::new(answer), log.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer.clone(), shared.clone()));
            }
        });
        Self { address, log, task }
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    fn repository(&self, options: Options) -> Repository {
        let reference = Reference::parse(&format!("{}/a/b:tag", self.address)).unwrap();
        Client::new(options).repository(&reference).unwrap()
    }
}

async fn serve(
    mut stream: tokio::net::TcpStream,
    answer: Arc<impl Fn(&Request) -> Answer>,
    log: Arc<Mutex<Vec<String>>>,
) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            // The start of a TLS handshake is not for us.
            if stream.read_buf(&mut buffer).await.ok()? == 0 || buffer[0] == 0x16 {
                return None;
            }
        };
        let head = String::from_utf8(buffer[..end].to_vec()).ok()?;
        buffer.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers: HashMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length: usize = headers.get("content-length").map_or(0, |l| l.parse().unwrap());
        while buffer.len() < length {
            stream.read_buf(&mut buffer).await.ok()?;
        }
        let body = String::from_utf8(buffer.drain(..length).collect()).ok()?;
        log.lock().unwrap().push(format!("{method} {path}"));
        let request = Request { method, path, headers, body };
        let reply = answer(&request);
        tokio::time::sleep(reply.delay).await;
        let mut text = format!("HTTP/1.1 {} x\r\n", reply.status);
        for (name, value) in &reply.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !reply.headers.iter().any(|(name, _)| *name == "Content-Length") {
            text.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
        }
        text.push_str("\r\n");
        stream.write_all(text.as_bytes()).await.ok()?;
        if request.method != "HEAD" {
            let end = reply.cut.unwrap_or(reply.body.len());
            stream.write_all(&reply.body[..end]).await.ok()?;
        }
        if reply.cut.is_some() {
            return None;
        }
    }
}

fn quick() -> Options {
    Options {
        hosts: Hosts { directory: None, default_scheme: Some(Scheme::Http) },
        backoff: Duration::from_millis(1),
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            response: Duration::from_millis(500),
            stall: Duration::from_millis(300),
        },
        ..Options::default()
    }
}

const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;

fn manifest_answer() -> Answer {
    Answer::new(200, MANIFEST)
        .with("Content-Type", media::OCI_MANIFEST)
        .with("Docker-Content-Digest", Digest::of(MANIFEST).to_string())
}

async fn read_all(mut reader: BlobReader) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_tag_is_resolved_by_head_and_fetched_by_digest() {
    let fake = Fake::start(|_| manifest_answer()).await;
    let repository = fake.repository(quick());
    let resolved = repository.resolve().await.unwrap();
    assert_eq!(resolved.descriptor, Descriptor::of(media::OCI_MANIFEST, MANIFEST));
    assert_eq!(resolved.bytes, None);
    let bytes = repository.manifest(&resolved.descriptor).await.unwrap();
    assert_eq!(bytes, MANIFEST);
    let by_digest = format!("GET /v2/a/b/manifests/{}", Digest::of(MANIFEST));
    assert_eq!(fake.log(), ["HEAD /v2/a/b/manifests/tag".to_owned(), by_digest]);
}

#[tokio::test]
async fn a_registry_without_head_or_digest_header_is_asked_with_get() {
    let fake = Fake::start(|request| match request.method.as_str() {
        "HEAD" => Answer::new(405, ""),
        _ => Answer::new(200, MANIFEST).with("Content-Type", media::OCI_MANIFEST),
    })
    .await;
    let resolved = fake.repository(quick()).resolve().await.unwrap();
    assert_eq!(resolved.descriptor.digest, Digest::of(MANIFEST));
    assert_eq!(resolved.bytes.as_deref(), Some(MANIFEST));
}

#[tokio::test]
async fn a_name_nobody_knows_is_not_found() {
    let fake = Fake::start(|_| Answer::new(404, "")).await;
    let error = fake.repository(quick()).resolve().await.unwrap_err();
    assert_eq!(error.to_string(), format!("{}/a/b:tag: not found", fake.address));
}

#[tokio::test]
async fn a_manifest_that_does_not_match_its_digest_is_refused() {
    let fake = Fake::start(|_| Answer::new(200, &b"{\"schemaVersion\":3}"[..])).await;
    let wanted = Descriptor::of(media::OCI_MANIFEST, MANIFEST);
    let error = fake.repository(quick()).manifest(&wanted).await.unwrap_err();
    assert!(matches!(error, RegistryError::Digest { .. }), "{error}");
    let mut longer = wanted;
    longer.size += 1;
    let error = fake.repository(quick()).manifest(&longer).await.unwrap_err();
    assert!(matches!(error, RegistryError::Size { .. }), "{error}");
}

#[tokio::test]
async fn a_manifest_without_end_is_refused() {
    let fake = Fake::start(|_| Answer::new(200, vec![b' '; 9 << 20])).await;
    let wanted = Descriptor::of(media::OCI_MANIFEST, MANIFEST);
    let error = fake.repository(quick()).manifest(&wanted).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
}

fn blob() -> Vec<u8> {
    (0..200_000u32).flat_map(|n| n.to_le_bytes()).collect()
}

fn blob_descriptor() -> Descriptor {
    Descriptor::of(media::OCI_LAYER, &blob())
}

fn start_of(request: &Request) -> usize {
    request.headers.get("range").map_or(0, |range| {
        range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap()
    })
}

#[tokio::test]
async fn a_blob_cut_again_and_again_is_resumed_where_it_stopped() {
    let fake = Fake::start(|request| {
        let start = start_of(request);
        let rest = blob()[start..].to_vec();
        let range = format!("bytes {start}-{}/{}", blob().len() - 1, blob().len());
        let status = if start > 0 { 206 } else { 200 };
        let cut = (rest.len() > 100_000).then_some(100_000);
        Answer { cut, ..Answer::new(status, rest).with("Content-Range", range) }
    })
    .await;
    let reader = fake.repository(quick()).blob(&blob_descriptor(), 0).await.unwrap();
    assert!(read_all(reader).await.unwrap() == blob());
    assert_eq!(fake.log().len(), 8);
}

#[tokio::test]
async fn a_server_without_ranges_is_read_past_what_we_have() {
    let fake = Fake::start(|_| Answer::new(200, blob())).await;
    let reader = fake.repository(quick()).blob(&blob_descriptor(), 123_457).await.unwrap();
    assert!(read_all(reader).await.unwrap() == blob()[123_457..]);
}

#[tokio::test]
async fn a_blob_that_never_comes_is_given_up_with_its_position() {
    let fake = Fake::start(|_| Answer { cut: Some(0), ..Answer::new(200, blob()) }).await;
    let reader = fake.repository(quick()).blob(&blob_descriptor(), 0).await.unwrap();
    let error = read_all(reader).await.unwrap_err();
    assert!(matches!(error, RegistryError::Blob { .. }), "{error}");
    assert_eq!(fake.log().len(), 5);
}

#[tokio::test]
async fn a_blob_longer_than_announced_is_refused() {
    let fake = Fake::start(|_| Answer::new(200, blob())).await;
    let mut short = blob_descriptor();
    short.size = 10;
    let reader = fake.repository(quick()).blob(&short, 0).await.unwrap();
    assert!(matches!(read_all(reader).await, Err(RegistryError::Size { want: 10, .. })));
}

#[tokio::test]
async fn a_server_that_goes_silent_is_not_waited_for_for_ever() {
    let fake =
        Fake::start(|_| Answer { delay: Duration::from_secs(30), ..manifest_answer() }).await;
    let error = fake.repository(quick()).resolve().await.unwrap_err();
    assert!(error.to_string().contains("timed out"), "{error}");
}

#[tokio::test]
async fn server_errors_are_tried_again_and_then_told() {
    let fake = Fake::start(|_| Answer::new(503, "")).await;
    let error = fake.repository(quick()).resolve().await.unwrap_err();
    let text = format!(
        "unexpected status from HEAD request to http://{}/v2/a/b/manifests/tag: 503 Service Unavailable",
        fake.address
    );
    assert_eq!(error.to_string(), text);
    assert_eq!(fake.log().len(), 5);
}

#[tokio::test]
async fn too_many_requests_are_followed_by_patience() {
    let tries = Mutex::new(0);
    let fake = Fake::start(move |_| {
        let mut tries = tries.lock().unwrap();
        *tries += 1;
        if *tries < 3 { Answer::new(429, "").with("Retry-After", "0") } else { manifest_answer() }
    })
    .await;
    fake.repository(quick()).resolve().await.unwrap();
    assert_eq!(fake.log().len(), 3);
}

#[tokio::test]
async fn nobody_listening_is_told_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let reference = Reference::parse(&format!("{address}/a:tag")).unwrap();
    let error = Client::new(quick()).repository(&reference).unwrap().resolve().await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("failed to do request: Head \"http://"), "{text}");
    assert!(text.ends_with("connect: connection refused"), "{text}");
}

#[tokio::test]
async fn plain_http_is_found_out_on_loopback() {
    let fake = Fake::start(|_| manifest_answer()).await;
    let options = Options { hosts: Hosts::default(), ..quick() };
    fake.repository(options).resolve().await.unwrap();
}

/// Tells what it was asked, and answers with what it was given.
struct Keyring(Mutex<Vec<CredentialRequest>>, Option<Credential>);

impl Credentials for Keyring {
    fn credential(
        &self,
        request: CredentialRequest,
    ) -> Pin<Box<dyn Future<Output = Option<Credential>> + Send + '_>> {
        self.0.lock().unwrap().push(request);
        Box::pin(async { self.1.clone() })
    }
}

fn with_credential(credential: Credential) -> (Arc<Keyring>, Options) {
    let keyring = Arc::new(Keyring(Mutex::new(Vec::new()), Some(credential)));
    (keyring.clone(), Options { credentials: Some(keyring), ..quick() })
}

fn basic() -> Credential {
    Credential::Basic { username: "user".into(), secret: "pass".into() }
}

#[tokio::test]
async fn basic_credentials_are_asked_for_once_and_remembered() {
    let fake = Fake::start(|request| match request.headers.get("authorization") {
        Some(header) if header == "Basic dXNlcjpwYXNz" => manifest_answer(),
        _ => Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
    })
    .await;
    let (keyring, options) = with_credential(basic());
    let repository = fake.repository(options);
    repository.resolve().await.unwrap();
    repository.resolve().await.unwrap();
    let asked = keyring.0.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].host, fake.address);
    assert_eq!(asked[0].challenges, ["Basic realm=\"x\""]);
    assert_eq!(fake.log().len(), 3);
}

#[tokio::test]
async fn without_credentials_the_refusal_is_dockers() {
    let fake =
        Fake::start(|_| Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\"")).await;
    let error = fake.repository(quick()).resolve().await.unwrap_err();
    assert_eq!(error.to_string(), "authorization failed: no basic auth credentials");
}

async fn token_server(accept: fn(&Request) -> bool) -> Fake {
    let address = Arc::new(Mutex::new(String::new()));
    let own = address.clone();
    let fake = Fake::start(move |request| {
        if request.path.starts_with("/token") {
            return if accept(request) {
                Answer::new(200, &br#"{"token":"T","expires_in":300}"#[..])
            } else {
                Answer::new(401, "")
            };
        }
        match request.headers.get("authorization") {
            Some(header) if header == "Bearer T" => manifest_answer(),
            _ => Answer::new(401, "").with(
                "WWW-Authenticate",
                format!(
                    "Bearer realm=\"http://{}/token\",service=\"s\",scope=\"repository:a/b:pull\",error=\"insufficient_scope\"",
                    own.lock().unwrap()
                ),
            ),
        }
    })
    .await;
    address.lock().unwrap().push_str(&fake.address);
    fake
}

#[tokio::test]
async fn an_anonymous_token_is_fetched() {
    let fake = token_server(|request| {
        request.path == "/token?service=s&scope=repository:a/b:pull"
            && !request.headers.contains_key("authorization")
    })
    .await;
    fake.repository(quick()).resolve().await.unwrap();
    assert_eq!(fake.log().len(), 3);
}

#[tokio::test]
async fn a_token_for_a_named_user_and_by_identity_token() {
    let named = |request: &Request| {
        request.path.contains("account=user")
            && request.headers.get("authorization").is_some_and(|h| h == "Basic dXNlcjpwYXNz")
    };
    let fake = token_server(named).await;
    fake.repository(with_credential(basic()).1).resolve().await.unwrap();
    let refreshed = |request: &Request| {
        request.method == "POST"
            && request.body.contains("grant_type=refresh_token&refresh_token=id%3D1")
            && request.body.contains("scope=repository:a/b:pull")
    };
    let fake = token_server(refreshed).await;
    let identity = Credential::Refresh { token: "id=1".into() };
    fake.repository(with_credential(identity).1).resolve().await.unwrap();
}

#[tokio::test]
async fn a_refused_token_is_pull_access_denied() {
    let fake = token_server(|_| false).await;
    let error = fake.repository(quick()).resolve().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "pull access denied, repository does not exist or may require authorization: \
         server message: insufficient_scope: authorization failed"
    );
}

#[tokio::test]
async fn redirects_do_not_carry_authorisation_to_another_server() {
    let other = Fake::start(|request| {
        let leaked = ["authorization", "x-secret"].iter().any(|h| request.headers.contains_key(*h));
        if leaked { Answer::new(500, "") } else { Answer::new(200, blob()) }
    })
    .await;
    let target = format!("http://{}/elsewhere?sig=1", other.address);
    let fake = Fake::start(move |request| match request.headers.get("authorization") {
        Some(_) => Answer::new(307, "").with("Location", target.clone()),
        None => Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
    })
    .await;
    let (_, mut options) = with_credential(basic());
    options.headers.push(("X-Secret".into(), "1".into()));
    let reader = fake.repository(options).blob(&blob_descriptor(), 0).await.unwrap();
    assert!(read_all(reader).await.unwrap() == blob());
    assert_eq!(other.log(), ["GET /elsewhere?sig=1"]);
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let fake = Fake::start(|_| Answer::new(302, "").with("Location", "/v2/round")).await;
    let error = fake.repository(quick()).resolve().await.unwrap_err();
    assert!(error.to_string().contains("stopped after 10 redirects"), "{error}");
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_the_origin_when_it_fails() {
    let origin = Fake::start(|_| manifest_answer()).await;
    let mirror = Fake::start(|_| Answer::new(404, "")).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("r.example")).unwrap();
    let text =
        format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", origin.address, mirror.address);
    std::fs::write(dir.path().join("r.example/hosts.toml"), text).unwrap();
    let hosts = Hosts { directory: Some(dir.path().to_owned()), default_scheme: None };
    let reference = Reference::parse("r.example/a/b:tag").unwrap();
    let client = Client::new(Options { hosts, ..quick() });
    client.repository(&reference).unwrap().resolve().await.unwrap();
    assert_eq!(mirror.log(), ["HEAD /v2/a/b/manifests/tag?ns=r.example"]);
    assert_eq!(origin.log(), ["HEAD /v2/a/b/manifests/tag"]);
}
