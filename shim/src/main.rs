//! containerd-shim-runc-rs-v2.

fn main() {}
