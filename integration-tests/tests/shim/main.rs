//! The shim as containerd drives it: the program, its ttrpc services, fifos, logs and events.
//!
//! Needs root, the shim and `runc-rs` in `BIN_DIR` (`make build`) and a static busybox (`make fetch`).
#![allow(clippy::unwrap_used, reason = "tests")]

mod client;
mod lifecycle;
mod output;
mod streams;
