//! The OCI image formats two programs share: digests, image references, platforms, manifests, and
//! the layer extractor. Synchronous, no policy, no sockets; who fetches and stores is up to others.

pub mod digest;
#[cfg(test)]
mod foreign;
pub mod layer;
pub mod manifest;
pub mod platform;
pub mod reference;

pub use digest::{Digest, Sha256};
pub use platform::Platform;
pub use reference::Reference;
