//! The harness: finds the programs under test, and starts private stacks of them.
//!
//! It sees only binaries and protocols, never our programs' code. `README.md` has a tour.

pub mod client;
mod daemons;
pub mod disk;
pub mod image;
pub mod leaks;
pub mod output;
pub mod parts;
pub mod pool;
pub mod registry;
pub mod sandbox;
pub mod stack;
pub mod stream;
pub mod terminal;

pub use output::Output;
pub use stack::Stack;
