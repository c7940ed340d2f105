//! The shim as containerd drives it: the program, its ttrpc services, fifos, logs and events.
//!
//! The binary is `containerd-shim-runc-rs-v2` in `BIN_DIR`, or beside this test's directory in the target
//! directory, and calls the `runc-rs` beside itself. Needs root and a static busybox.
#![allow(clippy::unwrap_used, reason = "tests")]

mod client;
mod lifecycle;
mod output;
