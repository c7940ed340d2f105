//! ctr-rs.

fn main() {}
