//! runc-rs as its callers drive it: the command line, a bundle, files and exit codes.
//!
//! Needs root, `runc-rs` in `BIN_DIR` (`make build`) and a static busybox (`make fetch`).
//! `RUNTIME=/path/to/runc` runs the same tests against another runtime; what fails there is a
//! mistake of the test until explained (tests of what we do better are marked `ours_only`).
#![allow(clippy::unwrap_used, reason = "tests")]

mod adversary;
mod binds;
mod bundle;
mod caches;
mod cgroup;
mod checkpoint;
mod criu;
mod escapes;
mod events;
mod exec;
mod fields;
mod holder;
mod hostile;
mod killed;
mod landlock;
mod lifecycle;
mod mounts;
mod network;
mod notify;
mod options;
mod process;
mod races;
mod red_team;
mod robustness;
mod rootfs;
mod rootless;
mod systemd;
mod terminal;
mod timings;
mod update;
mod victim;
