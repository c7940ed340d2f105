//! One repository: resolving tags, fetching manifests, opening blobs.

use crate::blob::BlobReader;
use crate::client::{Call, Client, DETAIL_MAX, detail, name_of};
use crate::error::RegistryError;
use crate::hosts::Host;
use crate::http1::Body;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Method, StatusCode};
use oci_image::manifest::{Descriptor, media};
use oci_image::{Digest, Reference};

#[derive(Clone)]
pub struct Repository {
    client: Client,
    reference: Reference,
    hosts: Vec<Host>,
}

/// What a reference stands for now.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    pub descriptor: Descriptor,
    /// The document itself, when resolving had to read it.
    pub bytes: Option<Bytes>,
}

impl Repository {
    pub(crate) fn new(client: Client, reference: Reference, hosts: Vec<Host>) -> Self {
        Self { client, reference, hosts }
    }

    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Asks what the reference's tag or digest names: HEAD, and GET where that says too little.
    pub async fn resolve(&self) -> Result<Resolved, RegistryError> {
        let object = match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or(oci_image::reference::DEFAULT_TAG).to_owned(),
        };
        let mut first_error = None;
        for host in self.hosts.iter().filter(|host| host.resolve) {
            match self.patiently(|| self.resolve_at(host, &object)).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) => keep(&mut first_error, error, host),
            }
        }
        Err(first_error.unwrap_or_else(|| self.no_host()))
    }

    async fn resolve_at(&self, host: &Host, object: &str) -> Result<Resolved, RegistryError> {
        let path = format!("/{}/manifests/{object}", self.reference.path());
        let call = self.manifest_call(Method::HEAD, path.clone());
        let (parts, body) = self.client.call(host, &call).await?;
        drop(body);
        match parts.status {
            StatusCode::OK => {
                if let Some(descriptor) = head_descriptor(&parts.headers)
                    && descriptor.size > 0
                {
                    self.check_pinned(&descriptor.digest)?;
                    return Ok(Resolved { descriptor, bytes: None });
                }
            }
            // Some registries have no HEAD.
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::BAD_REQUEST => {}
            status => return Err(self.refused(Method::HEAD, host, &path, status, "")),
        }
        let (media_type, bytes) = self.manifest_at(host, object).await?;
        let descriptor = Descriptor::of(&media_type, &bytes);
        self.check_pinned(&descriptor.digest)?;
        Ok(Resolved { descriptor, bytes: Some(bytes) })
    }

    fn check_pinned(&self, got: &Digest) -> Result<(), RegistryError> {
        match self.reference.digest() {
            Some(want) if want != got => {
                Err(RegistryError::Digest { got: got.clone(), want: want.clone() })
            }
            _ => Ok(()),
        }
    }

    /// The manifest or index a descriptor names, verified.
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, RegistryError> {
        let mut first_error = None;
        for host in self.hosts.iter().filter(|host| host.pull) {
            let fetch = || self.manifest_at(host, descriptor.digest.as_str());
            match self.patiently(fetch).await.and_then(|(_, bytes)| verify(descriptor, bytes)) {
                Ok(bytes) => return Ok(bytes),
                Err(error) => keep(&mut first_error, error, host),
            }
        }
        Err(first_error.unwrap_or_else(|| self.no_host()))
    }

    async fn manifest_at(
        &self,
        host: &Host,
        object: &str,
    ) -> Result<(String, Bytes), RegistryError> {
        let path = format!("/{}/manifests/{object}", self.reference.path());
        let call = self.manifest_call(Method::GET, path.clone());
        let (parts, body) = self.client.call(host, &call).await?;
        if parts.status != StatusCode::OK {
            let text = body.all(DETAIL_MAX).await.ok().flatten().unwrap_or_default();
            return Err(self.refused(Method::GET, host, &path, parts.status, &detail(&text)));
        }
        let media_type = media_type(&parts.headers);
        let url = format!("{}{}{path}", host.authority, host.path);
        let bytes = body
            .all(MANIFEST_MAX)
            .await
            .map_err(|source| RegistryError::Request { method: "GET", url, source })?
            .ok_or_else(|| RegistryError::TooLarge {
                reference: self.reference.to_string(),
                limit: MANIFEST_MAX,
            })?;
        Ok((media_type, Bytes::from(bytes)))
    }

    /// Opens a blob for reading from `offset` on. Cut connections are resumed by the reader.
    pub async fn blob(
        &self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<BlobReader, RegistryError> {
        BlobReader::open(self.clone(), descriptor.clone(), offset).await
    }

    /// One request for a blob, to the given host.
    pub(crate) async fn blob_at(
        &self,
        host: &Host,
        digest: &Digest,
        offset: u64,
    ) -> Result<(http::response::Parts, Body), RegistryError> {
        let path = format!("/{}/blobs/{digest}", self.reference.path());
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        if offset > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
        {
            headers.insert(http::header::RANGE, range);
        }
        let call =
            Call { method: Method::GET, path: path.clone(), headers, reference: &self.reference };
        let (parts, body) = self.client.call(host, &call).await?;
        match parts.status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok((parts, body)),
            status => {
                let text = body.all(DETAIL_MAX).await.ok().flatten().unwrap_or_default();
                Err(self.refused(Method::GET, host, &path, status, &detail(&text)))
            }
        }
    }

    fn manifest_call(&self, method: Method, path: String) -> Call<'_> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(MANIFEST_ACCEPT));
        Call { method, path, headers, reference: &self.reference }
    }

    fn refused(
        &self,
        method: Method,
        host: &Host,
        path: &str,
        status: StatusCode,
        detail: &str,
    ) -> RegistryError {
        if status == StatusCode::NOT_FOUND {
            return RegistryError::NotFound { reference: self.reference.to_string() };
        }
        let scheme = if host.scheme == crate::hosts::Scheme::Http { "http" } else { "https" };
        RegistryError::Status {
            method: name_of(&method),
            url: format!("{scheme}://{}{}{path}", host.authority, host.path),
            status,
            detail: detail.to_owned(),
        }
    }

    pub(crate) fn no_host(&self) -> RegistryError {
        RegistryError::NoHost { domain: self.reference.domain().to_owned() }
    }

    /// Tries again where that may help.
    pub(crate) async fn patiently<T, F, R>(&self, attempt: F) -> Result<T, RegistryError>
    where
        F: Fn() -> R,
        R: Future<Output = Result<T, RegistryError>>,
    {
        let mut tries = 1;
        loop {
            match attempt().await {
                Err(error)
                    if is_worth_another_try(&error) && tries < self.client.options().attempts =>
                {
                    tracing::debug!(%error, tries, "registry request failed, trying again");
                    tokio::time::sleep(self.client.backoff(tries)).await;
                    tries += 1;
                }
                other => return other,
            }
        }
    }
}

/// A server nobody listens on is down for longer than our patience; the user wants to know now.
fn is_worth_another_try(error: &RegistryError) -> bool {
    use crate::error::Transport;
    match error {
        RegistryError::Request {
            source:
                Transport::Dial { .. }
                | Transport::Lookup { .. }
                | Transport::Tls(_)
                | Transport::Timeout { .. },
            ..
        }
        | RegistryError::TooManyRequests { .. } => false,
        other => other.is_temporary(),
    }
}

/// The origin's word counts most; a mirror's only if the origin has nothing to say.
fn keep(first: &mut Option<RegistryError>, error: RegistryError, host: &Host) {
    tracing::debug!(host = host.authority, %error, "registry host failed");
    if first.is_none() || !host.mirror {
        *first = Some(error);
    }
}

fn verify(descriptor: &Descriptor, bytes: Bytes) -> Result<Bytes, RegistryError> {
    let length = bytes.len() as u64;
    if descriptor.size > 0 && length != descriptor.size {
        return Err(RegistryError::Size { got: length, want: descriptor.size });
    }
    let got = Digest::of(&bytes);
    // Only sha256 is computed here; another algorithm's document cannot be trusted.
    if got != descriptor.digest {
        return Err(RegistryError::Digest { got, want: descriptor.digest.clone() });
    }
    Ok(bytes)
}

fn head_descriptor(headers: &HeaderMap) -> Option<Descriptor> {
    let digest = headers.get("docker-content-digest")?.to_str().ok()?;
    let size = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    let media_type = media_type(headers);
    if media_type.is_empty() {
        return None;
    }
    Some(Descriptor::new(&media_type, Digest::parse(digest).ok()?, size))
}

fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let bare = text.split(';').next().unwrap_or_default().trim();
    // What plain file servers say about JSON tells nothing.
    match bare {
        "application/json" | "text/plain" | "application/octet-stream" => String::new(),
        bare if media::is_index(bare) || media::is_manifest(bare) => bare.to_owned(),
        bare => bare.to_owned(),
    }
}

const MANIFEST_MAX: usize = 8 << 20;
const MANIFEST_ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";
