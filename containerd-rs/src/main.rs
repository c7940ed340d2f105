//! containerd-rs.

fn main() {}
