//! guest.

fn main() {}
