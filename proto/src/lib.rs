//! What containerd, its clients and its shims agree on: messages, services, type URLs, classes of
//! failure, and the rules for namespaces. No policy and no daemon code.
//!
//! The definitions in `api/` are our own text, wire-compatible with containerd's API (packages,
//! services, names and numbers are the same; `api/VERSION` says which release). Clients and servers
//! come with feature `grpc`.

pub mod any;
pub mod errdefs;
pub mod namespace;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::use_self,
    reason = "generated"
)]
mod api {
    include!(concat!(env!("OUT_DIR"), "/api.rs"));
}

pub use api::containerd;
pub use api::google;
pub use api::grpc;
pub use api::io::containerd::cgroups;
pub use api::runtimeoptions;
