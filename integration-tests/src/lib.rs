//! The harness: finds the programs under test, and starts private stacks of them.
//!
//! It sees only binaries and protocols, never our programs' code.

pub mod parts;
