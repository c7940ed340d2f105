//! dockerd-rs.

fn main() {}
