//! containerd-rs through its public API: each test starts a private daemon in directories of its own.
//!
//! Needs root and a static busybox, and the programs built beside this test
//! (`cargo build -p containerd-rs -p shim -p runtime`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod daemon;
mod metadata;
mod tasks;
