//! What goes wrong between us and a registry, in the words users of Docker and containerd know.

use crate::hosts::HostsError;
use oci_image::Digest;
use oci_image::manifest::ManifestError;

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Compat: containerd's text for a name no host knows.
    #[error("{reference}: not found")]
    NotFound { reference: String },
    /// Compat: the text Docker users search for.
    #[error("pull access denied, repository does not exist or may require authorization: {detail}")]
    AccessDenied { detail: String },
    #[error("authorization failed: {0}")]
    Unauthorized(String),
    #[error("failed to do request: {} \"{url}\": {source}", word(method))]
    Request { method: &'static str, url: String, source: Transport },
    #[error("unexpected status from {method} request to {url}: {status}{detail}")]
    Status { method: &'static str, url: String, status: http::StatusCode, detail: String },
    #[error("failed to fetch anonymous token: unexpected status from {url}: {status}{detail}")]
    Token { url: String, status: http::StatusCode, detail: String },
    #[error("token endpoint {url}: {reason}")]
    TokenAnswer { url: String, reason: String },
    #[error("toomanyrequests: {detail}")]
    TooManyRequests { detail: String },
    #[error("failed size validation: {got} != {want}: failed precondition")]
    Size { got: u64, want: u64 },
    #[error("unexpected commit digest {got}, expected {want}: failed precondition")]
    Digest { got: Digest, want: Digest },
    #[error("manifest of {reference} is larger than {limit} bytes")]
    TooLarge { reference: String, limit: usize },
    #[error("blob {digest}: {reason}")]
    Blob { digest: Digest, reason: String },
    #[error("no host of {domain} may be used for pulling")]
    NoHost { domain: String },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Hosts(#[from] HostsError),
}

/// Failures below HTTP.
#[derive(Debug, thiserror::Error)]
pub enum Transport {
    // Compat: Go's words, which users search for.
    #[error("dial tcp {address}: connect: {}", plain(source))]
    Dial { address: String, source: std::io::Error },
    #[error("dial tcp: lookup {host}: no such host")]
    Lookup { host: String, source: std::io::Error },
    #[error("tls: {0}")]
    Tls(std::io::Error),
    #[error("{0} is no server name")]
    Name(String),
    #[error("{0}")]
    Http(String),
    #[error("{what} timed out")]
    Timeout { what: &'static str },
    #[error("stopped after 10 redirects")]
    Redirects,
    #[error("unusable address {0}")]
    Url(String),
}

/// An error of the system without its number, in lower case.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}

/// Compat: Go writes the method like a word.
fn word(method: &str) -> String {
    let mut characters = method.chars();
    let first: String = characters.next().into_iter().collect();
    first + &characters.as_str().to_lowercase()
}

impl RegistryError {
    /// Whether asking again may help.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Request { source, .. } => {
                !matches!(source, Transport::Url(_) | Transport::Redirects | Transport::Name(_))
            }
            Self::Status { status, .. } | Self::Token { status, .. } => {
                status.is_server_error() || *status == http::StatusCode::REQUEST_TIMEOUT
            }
            Self::TooManyRequests { .. } => true,
            _ => false,
        }
    }
}
