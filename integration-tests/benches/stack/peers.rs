//! Upstream's programs that ours are measured against: unpacked below `.cache`, never installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;
use integration_tests::parts;

/// Those of the distribution's release; with `PEERS=new` the newest it has.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    programs: parts::Peers,
    /// What stock dockerd makes its rules with.
    tables: PathBuf,
    /// `PEERS=podman`: podman of the release as one more client.
    pub(crate) podman: bool,
}

impl Peers {
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let word = std::env::var("PEERS").unwrap_or_default();
        let programs = match word.as_str() {
            "" | "podman" => parts::Peers::of_the_release(),
            "new" => parts::Peers::newest(),
            _ => bail!("PEERS={word}: there are new and podman"),
        };
        Ok(Self { programs, tables: cache("iptables"), podman: word == "podman" })
    }

    /// # Panics
    /// When it is not there: no peer is left out silently.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs.program(name)
    }

    /// One of the programs, in an environment where it finds the others and its libraries.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.program(name));
        self.environment(&mut command);
        command
    }

    pub(crate) fn environment(&self, command: &mut Command) {
        let libraries = format!("{}:{}", self.programs.libraries(), libraries(&self.tables));
        let path = format!(
            "{0}/usr/bin:{0}/usr/sbin:{1}:{2}",
            self.programs.directory().display(),
            self.tables.join("path").display(),
            std::env::var("PATH").unwrap_or_default()
        );
        command
            .env("PATH", path)
            .env("LD_LIBRARY_PATH", libraries)
            .env("XTABLES_LIBDIR", self.tables.join("usr/lib").join(triplet()).join("xtables"));
    }

    /// The libraries of one program that needs no others.
    pub(crate) fn libraries(&self) -> String {
        self.programs.libraries()
    }

    /// Files of a newer C library with those of the host whose place they take in a world.
    pub(crate) fn c_library(&self) -> Vec<(PathBuf, PathBuf)> {
        self.programs.c_library()
    }
}

/// Debian's registry, the same whatever the peers are.
pub(crate) fn registry() -> PathBuf {
    cache("registry/usr/bin/docker-registry")
}

fn cache(name: &str) -> PathBuf {
    crate::top().join(".cache").join(name)
}

fn libraries(root: &Path) -> String {
    format!("{0}/usr/lib/{1}:{0}/lib/{1}", root.display(), triplet())
}

fn triplet() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}
