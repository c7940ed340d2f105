//! ttrpc, the small cousin of gRPC that containerd and its shims speak over a unix socket.
//!
//! [`frame`] cuts a byte stream into frames and glues frames together, without any I/O; [`message`] holds
//! the four protobuf messages of the protocol. A synchronous server (the shim) drives these from its own
//! loop. Feature `tokio` adds [`Client`] and [`serve_connection`] for daemons that run tokio anyway.
//!
//! Protocol: <https://github.com/containerd/ttrpc/blob/main/PROTOCOL.md>. Unary calls only: frames of type
//! data are recognised and left to the caller.

mod frame;
mod message;

#[cfg(feature = "tokio")]
mod client;
#[cfg(feature = "tokio")]
mod receive;
#[cfg(feature = "tokio")]
mod server;

pub use frame::{Decoder, Frame, FrameError, FrameKind, HEADER_LEN, MAX_MESSAGE, encode};
pub use message::{Code, KeyValue, Request, Response, Status};

#[cfg(feature = "tokio")]
pub use client::{CallError, Client};
#[cfg(feature = "tokio")]
pub use server::{Service, serve_connection};

/// The metadata key that carries containerd's namespace in every request.
pub const NAMESPACE_KEY: &str = "containerd-namespace-ttrpc";
