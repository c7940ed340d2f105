//! runc-rs.

fn main() {}
