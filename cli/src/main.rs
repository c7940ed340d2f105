//! docker-rs.

fn main() {}
