//! Where the programs under test are.

use std::path::PathBuf;

/// The directory with our programs: `BIN_DIR`, else the one `make build` fills.
pub fn directory() -> PathBuf {
    std::env::var_os("BIN_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/stack")),
        PathBuf::from,
    )
}

/// One of our programs. A missing one fails the test that asks for it.
///
/// # Panics
/// When the program has not been built.
pub fn ours(name: &str) -> PathBuf {
    let path = directory().join(name);
    assert!(path.exists(), "{} is missing; run `make build`", path.display());
    path
}
