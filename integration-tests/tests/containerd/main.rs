//! containerd-rs through its public API: each test starts a private daemon in directories of its own.
//!
//! Needs root, the programs in `BIN_DIR` (`make build`) and a static busybox (`make fetch`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod ctr;
mod daemon;
mod metadata;
mod registry;
mod tasks;
