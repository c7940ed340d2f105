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

/// Upstream's programs of one age, unpacked below one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers(PathBuf);

impl Peers {
    /// Those of the distribution's release: `PEERS_DIR`, else the ones that `make fetch` brings.
    #[must_use]
    pub fn of_the_release() -> Self {
        Self::at("PEERS_DIR", "peers")
    }

    /// The newest ones the distribution has: `PEERS_NEW_DIR`, else what `preflight.sh peers-new` brings.
    #[must_use]
    pub fn newest() -> Self {
        Self::at("PEERS_NEW_DIR", "peers-new")
    }

    /// podman with what it needs, of the distribution's release: what `preflight.sh swap` brings.
    #[must_use]
    pub fn podman() -> Self {
        Self::at("PODMAN_DIR", "podman")
    }

    /// Docker's SDK for Python, of the distribution's release: what `preflight.sh swap` brings.
    #[must_use]
    pub fn docker_py() -> Self {
        Self::at("DOCKER_PY_DIR", "docker-py")
    }

    /// Docker's client for Go and a compiler, of the distribution's release: what `preflight.sh swap` brings.
    #[must_use]
    pub fn docker_go() -> Self {
        Self::at("DOCKER_GO_DIR", "docker-go")
    }

    fn at(variable: &str, name: &str) -> Self {
        let cache = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache");
        Self(std::env::var_os(variable).map_or_else(|| Path::new(cache).join(name), PathBuf::from))
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// One of the programs. A missing one fails the test that asks for it.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        ["usr/bin", "usr/sbin", "bin", "sbin"]
            .iter()
            .map(|directory| self.0.join(directory).join(name))
            .find_map(|path| fs::canonicalize(path).ok())
            .unwrap_or_else(|| panic!("no {name} below {}; run `make fetch`", self.0.display()))
    }

    /// What `LD_LIBRARY_PATH` has to say for them.
    #[must_use]
    pub fn libraries(&self) -> String {
        let lib = library_directory();
        format!("{}:{}", self.0.join("usr").join(&lib).display(), self.0.join(&lib).display())
    }

    /// Files of the C library that some of them need, each with the file of the host whose place it
    /// can take inside a sandbox; empty where the host's is new enough.
    #[must_use]
    pub fn c_library(&self) -> Vec<(PathBuf, PathBuf)> {
        let directory = self.0.join("libc/usr").join(library_directory());
        let host = Path::new("/usr").join(library_directory());
        let files = fs::read_dir(directory).into_iter().flatten().flatten();
        files
            .filter(|file| file.file_type().is_ok_and(|kind| kind.is_file()))
            .filter_map(|file| {
                let place = fs::canonicalize(host.join(file.file_name())).ok()?;
                Some((file.path(), place))
            })
            .collect()
    }
}

fn library_directory() -> String {
    format!("lib/{}-linux-gnu", std::env::consts::ARCH)
}

/// The directory with the release's programs of upstream.
#[must_use]
pub fn peers() -> PathBuf {
    Peers::of_the_release().0
}

/// One of the release's programs of upstream. A missing one fails the test that asks for it.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn peer(name: &str) -> PathBuf {
    Peers::of_the_release().program(name)
}
