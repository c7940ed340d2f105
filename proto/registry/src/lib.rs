//! The distribution protocol as a client: which hosts speak for a name, how to be let in, resolving
//! names, fetching manifests and blobs. Document: distribution-spec 1.1, and for tokens the
//! "Token Authentication Specification" of the Docker registry.
//!
//! Nothing is stored here. Manifests are verified (digest, size limit) before they are handed out;
//! blobs are streamed, resumed where the connection was cut, and counted, and are verified by who
//! stores them.

mod auth;
mod blob;
mod client;
mod error;
mod hosts;
mod http1;
mod repository;
#[cfg(test)]
mod tests;
mod tls;

pub use auth::{Credential, CredentialRequest, Credentials};
pub use blob::BlobReader;
pub use client::{Client, Options, Timeouts};
pub use error::RegistryError;
pub use hosts::{Host, Hosts, HostsError, Scheme};
pub use repository::{Repository, Resolved};
