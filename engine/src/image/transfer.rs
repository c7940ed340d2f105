//! containerd's Transfer service with its streams: progress to us, data and credentials from us.
//!
//! A stream is opened by naming it; the transfer then refers to the name. Data flows against credit: the
//! receiver sends `WindowUpdate`, the sender never more `Data` than that.

use std::collections::HashMap;

use bytes::Bytes;
use docker_api::image::AuthConfig;
use futures_util::{Stream, StreamExt};
use oci_image::platform::Platform;
use prost_types::Any;
use proto::any::{pack, unpack};
use proto::containerd::services::leases::v1::{CreateRequest, DeleteRequest};
use proto::containerd::services::streaming::v1::StreamInit;
use proto::containerd::services::transfer::v1::{TransferOptions, TransferRequest};
use proto::containerd::types::transfer::{
    AuthRequest, AuthResponse, AuthType, Data, ImageImportStream, ImageReference, ImageStore,
    OciRegistry, Progress, RegistryResolver, UnpackConfiguration, WindowUpdate,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::ImageError;
use super::catalog::DANGLING;
use crate::containerd::{Containerd, SNAPSHOTTER};

/// One end of a stream.
struct Pipe {
    id: String,
    out: mpsc::Sender<Any>,
    incoming: tonic::Streaming<Any>,
}

impl Pipe {
    async fn open(containerd: &Containerd) -> Result<Self, ImageError> {
        let id = crate::sys::dirs::random_id().map_err(|_error| ImageError::Random)?;
        let (out, requests) = mpsc::channel(8);
        // The channel is new and empty: there is room.
        drop(out.send(pack(&StreamInit { id: id.clone() })).await);
        let answer = containerd.streaming().stream(ReceiverStream::new(requests)).await?;
        let mut incoming = answer.into_inner();
        // The empty acknowledgement: from now on a transfer may name the stream.
        incoming.message().await?;
        Ok(Self { id, out, incoming })
    }
}

/// What a transfer makes is held by this: streams, too, are taken by containerd's garbage collector
/// when nothing holds them.
struct Lease {
    /// Requests under the lease.
    containerd: Containerd,
    id: String,
}

impl Lease {
    async fn take(containerd: &Containerd) -> Result<Self, ImageError> {
        let expires = (jiff::Timestamp::now() + LEASE).to_string();
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expires)]);
        let request = CreateRequest { labels, ..CreateRequest::default() };
        let id = containerd.leases().create(request).await?.into_inner().lease;
        let id = id.unwrap_or_default().id;
        Ok(Self { containerd: containerd.with_lease(&id)?, id })
    }

    /// What nothing else holds goes with it; after a failure before the answer.
    async fn end<T>(mut self, outcome: Result<T, ImageError>) -> Result<T, ImageError> {
        let request = DeleteRequest { id: std::mem::take(&mut self.id), sync: outcome.is_err() };
        if let Err(error) = self.containerd.leases().delete(request).await {
            tracing::warn!("a lease stays until it expires: {error}");
        }
        outcome
    }
}

impl Drop for Lease {
    /// The client left before the end.
    fn drop(&mut self) {
        if self.id.is_empty() {
            return;
        }
        let request = DeleteRequest { id: std::mem::take(&mut self.id), sync: false };
        let mut leases = self.containerd.leases();
        tokio::spawn(async move { drop(leases.delete(request).await) });
    }
}

/// Upstream's clients hold theirs as long.
const LEASE: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// What a pull is asked for.
#[derive(Debug)]
pub(crate) struct Pull {
    /// Normalised, with tag or digest.
    pub(crate) reference: String,
    pub(crate) platform: Platform,
    pub(crate) auth: Option<AuthConfig>,
    /// Headers forwarded to the registry (`X-Meta-*`).
    pub(crate) headers: HashMap<String, String>,
    /// A directory of `hosts.toml` files; empty for none.
    pub(crate) hosts: String,
}

/// Registry to image store, unpacked. Progress goes to `progress` until the transfer ends.
pub(crate) async fn pull(
    containerd: &Containerd,
    pull: Pull,
    progress: mpsc::Sender<Progress>,
) -> Result<(), ImageError> {
    let lease = Lease::take(containerd).await?;
    let outcome = pull_held(&lease.containerd, pull, progress).await;
    lease.end(outcome).await
}

async fn pull_held(
    containerd: &Containerd,
    pull: Pull,
    progress: mpsc::Sender<Progress>,
) -> Result<(), ImageError> {
    let mut resolver = RegistryResolver {
        headers: pull.headers,
        host_dir: pull.hosts,
        ..RegistryResolver::default()
    };
    let credentials = match pull.auth.filter(has_credentials) {
        Some(auth) => {
            let pipe = Pipe::open(containerd).await?;
            resolver.auth_stream.clone_from(&pipe.id);
            Some(answer_auth(pipe, auth))
        }
        None => None,
    };
    let source = OciRegistry { reference: pull.reference.clone(), resolver: Some(resolver) };
    let platform = wire_platform(&pull.platform);
    let destination = ImageStore {
        name: pull.reference,
        platforms: vec![platform.clone()],
        unpacks: vec![unpack_with(platform)],
        ..ImageStore::default()
    };
    let transfer = transfer(containerd, pack(&source), pack(&destination), progress);
    match credentials {
        None => transfer.await,
        Some(answering) => {
            tokio::select! {
                outcome = transfer => outcome,
                never = answering => match never {},
            }
        }
    }
}

/// An archive (docker-archive or OCI layout, perhaps compressed) to image store, unpacked.
pub(crate) async fn import<S, E>(
    containerd: &Containerd,
    archive: S,
    platform: &Platform,
    progress: mpsc::Sender<Progress>,
) -> Result<(), ImageError>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: std::fmt::Display,
{
    let lease = Lease::take(containerd).await?;
    let outcome = import_held(&lease.containerd, archive, platform, progress).await;
    lease.end(outcome).await
}

async fn import_held<S, E>(
    containerd: &Containerd,
    archive: S,
    platform: &Platform,
    progress: mpsc::Sender<Progress>,
) -> Result<(), ImageError>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: std::fmt::Display,
{
    let pipe = Pipe::open(containerd).await?;
    let source = ImageImportStream { stream: pipe.id.clone(), ..ImageImportStream::default() };
    let platform = wire_platform(platform);
    let destination = ImageStore {
        platforms: vec![platform.clone()],
        unpacks: vec![unpack_with(platform)],
        // Names as the archive has them; what has none is kept as dangling.
        extra_references: vec![ImageReference {
            name: DANGLING.to_owned(),
            is_prefix: true,
            allow_overwrite: true,
            add_digest: true,
            skip_named_digest: true,
        }],
        ..ImageStore::default()
    };
    let transfer = transfer(containerd, pack(&source), pack(&destination), progress);
    let sending = send(pipe, archive);
    tokio::pin!(transfer, sending);
    tokio::select! {
        outcome = &mut transfer => outcome,
        sent = &mut sending => {
            sent?;
            transfer.await
        }
    }
}

async fn transfer(
    containerd: &Containerd,
    source: Any,
    destination: Any,
    progress: mpsc::Sender<Progress>,
) -> Result<(), ImageError> {
    let mut pipe = Pipe::open(containerd).await?;
    let request = TransferRequest {
        source: Some(source),
        destination: Some(destination),
        options: Some(TransferOptions { progress_stream: pipe.id.clone() }),
    };
    let mut client = containerd.transfer();
    let done = client.transfer(request);
    tokio::pin!(done);
    loop {
        tokio::select! {
            biased;
            item = pipe.incoming.message() => match item {
                Ok(Some(any)) => {
                    if let Ok(event) = unpack::<Progress>(&any) {
                        // Nobody listens any more: the transfer goes on to its end.
                        drop(progress.send(event).await);
                    }
                }
                // The stream may end before the answer comes.
                Ok(None) | Err(_) => break,
            },
            outcome = &mut done => {
                outcome?;
                // What was told before the answer and is still on its way.
                let rest = async {
                    while let Ok(Some(any)) = pipe.incoming.message().await {
                        if let Ok(event) = unpack::<Progress>(&any) {
                            drop(progress.send(event).await);
                        }
                    }
                };
                drop(tokio::time::timeout(LATE_PROGRESS, rest).await);
                return Ok(());
            }
        }
    }
    done.await?;
    Ok(())
}

/// containerd ends the stream with the transfer; an older one forgets to.
const LATE_PROGRESS: std::time::Duration = std::time::Duration::from_millis(200);

/// Sends the archive as credit comes. Ends when everything is sent, or with the archive's own failure.
async fn send<S, E>(pipe: Pipe, archive: S) -> Result<(), ImageError>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: std::fmt::Display,
{
    let Pipe { out, mut incoming, .. } = pipe;
    let mut credit = 0usize;
    tokio::pin!(archive);
    while let Some(chunk) = archive.next().await {
        let mut chunk = chunk.map_err(|error| ImageError::Archive(error.to_string()))?;
        while !chunk.is_empty() {
            while credit == 0 {
                match incoming.message().await {
                    Ok(Some(any)) => {
                        if let Ok(update) = unpack::<WindowUpdate>(&any) {
                            credit += usize::try_from(update.update).unwrap_or(0);
                        }
                    }
                    // The other side has read enough (or failed): its answer says which.
                    Ok(None) | Err(_) => return Ok(()),
                }
            }
            let part = chunk.split_to(chunk.len().min(credit).min(MAX_FRAME));
            credit -= part.len();
            if out.send(pack(&Data { data: part.to_vec() })).await.is_err() {
                return Ok(());
            }
        }
    }
    drop(out);
    // Kept until the other side is done: dropping it would cancel the stream under the last frames.
    while let Ok(Some(_)) = incoming.message().await {}
    Ok(())
}

const MAX_FRAME: usize = 32 << 10;

fn has_credentials(auth: &AuthConfig) -> bool {
    ![&auth.username, &auth.password, &auth.auth, &auth.identitytoken, &auth.registrytoken]
        .iter()
        .all(|text| text.is_empty())
}

/// Answers every question of the registry client; ends only by being dropped.
async fn answer_auth(mut pipe: Pipe, auth: AuthConfig) -> std::convert::Infallible {
    while let Ok(Some(any)) = pipe.incoming.message().await {
        let Ok(request) = unpack::<AuthRequest>(&any) else { continue };
        let answer = credentials_for(&request.host, &auth);
        if pipe.out.send(pack(&answer)).await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

/// Credentials go to the registry they were given for, and to nobody else.
fn credentials_for(host: &str, auth: &AuthConfig) -> AuthResponse {
    if !auth.serveraddress.is_empty() && canonical(host) != canonical(&auth.serveraddress) {
        return AuthResponse::default();
    }
    let respond = |kind: AuthType, username: &str, secret: &str| AuthResponse {
        auth_type: kind.into(),
        username: username.to_owned(),
        secret: secret.to_owned(),
        ..AuthResponse::default()
    };
    if !auth.registrytoken.is_empty() {
        return respond(AuthType::Header, "", &format!("Bearer {}", auth.registrytoken));
    }
    if !auth.identitytoken.is_empty() {
        return respond(AuthType::Refresh, "", &auth.identitytoken);
    }
    if auth.username.is_empty() && !auth.auth.is_empty() {
        use base64::Engine;
        let decoded = base64::engine::general_purpose::STANDARD.decode(&auth.auth);
        let text = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        if let Some((username, password)) = text.split_once(':') {
            return respond(AuthType::Credentials, username, password.trim_end_matches('\0'));
        }
    }
    respond(AuthType::Credentials, &auth.username, &auth.password)
}

/// The many names of one registry.
fn canonical(host: &str) -> String {
    let host = host.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default();
    match host {
        "index.docker.io" | "registry-1.docker.io" | "docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

fn wire_platform(platform: &Platform) -> proto::containerd::types::Platform {
    proto::containerd::types::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        ..Default::default()
    }
}

fn unpack_with(platform: proto::containerd::types::Platform) -> UnpackConfiguration {
    UnpackConfiguration { platform: Some(platform), snapshotter: SNAPSHOTTER.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_their_registry_only() {
        let auth = AuthConfig {
            username: "u".into(),
            password: "p".into(),
            serveraddress: "https://index.docker.io/v1/".into(),
            ..AuthConfig::default()
        };
        let answer = credentials_for("registry-1.docker.io", &auth);
        assert_eq!((answer.username.as_str(), answer.secret.as_str()), ("u", "p"));
        assert_eq!(answer.auth_type, i32::from(AuthType::Credentials));
        assert_eq!(credentials_for("evil.example", &auth), AuthResponse::default());
        let packed = AuthConfig { auth: "dTpwOnE=".into(), ..AuthConfig::default() };
        assert_eq!(credentials_for("any", &packed).secret, "p:q");
        let token = AuthConfig { identitytoken: "t".into(), ..AuthConfig::default() };
        assert_eq!(credentials_for("any", &token).auth_type, i32::from(AuthType::Refresh));
        assert!(has_credentials(&token) && !has_credentials(&AuthConfig::default()));
    }
}
