//! Where the programs under test are.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

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

/// The distribution's static busybox: `BUSYBOX`, else the one `make run` unpacks.
///
/// # Panics
/// When neither is there.
pub fn busybox() -> PathBuf {
    if let Some(path) = std::env::var_os("BUSYBOX") {
        return PathBuf::from(path);
    }
    let cache = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/busybox"));
    ["bin/busybox", "usr/bin/busybox"]
        .iter()
        .map(|path| cache.join(path))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("no busybox below {}; run `make fetch`", cache.display()))
}

/// Fills an empty directory with a root file system: busybox under the given names and `/tmp`. The
/// runtime makes the directories of a container's mounts.
///
/// # Panics
/// When a file cannot be made.
pub fn root_file_system(root: &Path, applets: &[&str]) {
    let bin = root.join("bin");
    for directory in ["bin", "tmp"] {
        let path = root.join(directory);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    fs::copy(busybox(), bin.join("busybox")).expect("copying busybox");
    for applet in applets {
        symlink("busybox", bin.join(applet)).expect("a link to busybox");
    }
}

/// The directory with upstream's programs: `PEERS_DIR`, else the one that `make fetch` fills.
#[must_use]
pub fn peers() -> PathBuf {
    std::env::var_os("PEERS_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/peers")),
        PathBuf::from,
    )
}

/// One of upstream's programs. A missing one fails the test that asks for it.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn peer(name: &str) -> PathBuf {
    let peers = peers();
    ["usr/bin", "usr/sbin", "bin", "sbin"]
        .iter()
        .map(|directory| peers.join(directory).join(name))
        .find_map(|path| fs::canonicalize(path).ok())
        .unwrap_or_else(|| panic!("no {name} below {}; run `make fetch`", peers.display()))
}

/// What `LD_LIBRARY_PATH` has to say for upstream's programs.
#[must_use]
pub fn peer_libraries() -> String {
    let lib = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    let peers = peers();
    format!("{}:{}", peers.join("usr").join(&lib).display(), peers.join(&lib).display())
}
