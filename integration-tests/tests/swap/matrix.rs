//! `swap.toml`: which parts a row has, and what is done with them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use integration_tests::parts::{self, Peers};
use serde::Deserialize;

/// Clients that are no programs but libraries.
pub(crate) const DOCKER_PY: &str = "docker-py";
pub(crate) const DOCKER_GO: &str = "docker-go";
pub(crate) const BOLLARD: &str = "bollard";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    release: BTreeMap<String, BTreeMap<String, String>>,
    newest: BTreeMap<String, String>,
    scenarios: BTreeMap<String, Vec<String>>,
    row: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    cli: Option<String>,
    ctr: Option<String>,
    engine: Option<String>,
    containerd: Option<String>,
    shim: Option<String>,
    runtime: Option<String>,
    rest: Option<String>,
    name: Option<String>,
    scenarios: String,
    #[serde(default)]
    smoke: bool,
}

/// Whose a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    Ours,
    Release,
    Newest,
}

/// A program in its place.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) program: String,
    pub(crate) set: Set,
    /// What its version must be, where the matrix says it.
    pub(crate) version: Option<Version>,
}

#[derive(Debug, Clone)]
pub(crate) enum Version {
    Exactly(String),
    AtLeast(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// docker's CLI, or ctr where there is no engine.
    pub(crate) client: Part,
    pub(crate) engine: Option<Part>,
    /// None under podman, whose own monitor stands in the shim's place.
    pub(crate) containerd: Option<Part>,
    pub(crate) shim: Part,
    pub(crate) runtime: Part,
    /// Our shim is asked for by the runtime type of its own name.
    pub(crate) own_name: bool,
    /// The list's name.
    pub(crate) list: String,
    pub(crate) scenarios: Vec<String>,
    pub(crate) smoke: bool,
}

/// All rows, in their order.
pub(crate) fn read() -> anyhow::Result<Vec<Row>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/swap.toml");
    let text = fs::read_to_string(path).context(path)?;
    let file: File = toml::from_str(&text).context(path)?;
    let mut rows = Vec::new();
    for (number, line) in file.row.iter().enumerate() {
        rows.push(file.row(line).with_context(|| format!("row {} of {path}", number + 1))?);
    }
    Ok(rows)
}

impl File {
    fn row(&self, line: &Line) -> anyhow::Result<Row> {
        let rest = line.rest.as_deref().map_or(Ok(Set::Ours), set)?;
        let part = |told: &Option<String>, ours: &str, stock: &str| match told {
            Some(told) => self.part(told),
            None if rest == Set::Ours => self.part(ours),
            None => Ok(Part {
                program: stock.to_owned(),
                set: rest,
                version: self.version(stock, rest),
            }),
        };
        let engine = match line.engine.as_deref() {
            Some("none") => None,
            _ => Some(part(&line.engine, "dockerd-rs", "dockerd")?),
        };
        let containerd = match line.containerd.as_deref() {
            Some("none") => None,
            _ => Some(part(&line.containerd, "containerd-rs", "containerd")?),
        };
        let client = match (&engine, &line.ctr, &line.cli) {
            (Some(_), None, cli) => part(cli, "docker-rs", "docker")?,
            (None, ctr, None) => part(ctr, "ctr-rs", "ctr")?,
            (None, None, cli) if containerd.is_none() => part(cli, "podman", "podman")?,
            _ => bail!("a client that fits nobody"),
        };
        let own_name = match line.name.as_deref() {
            None => false,
            Some("own") => true,
            Some(other) => bail!("a shim's name is \"own\" or absent, not {other:?}"),
        };
        let scenarios = self.scenarios.get(&line.scenarios);
        let row = Row {
            client,
            engine,
            containerd,
            shim: part(&line.shim, "containerd-shim-runc-rs-v2", "containerd-shim-runc-v2")?,
            runtime: part(&line.runtime, "runc-rs", "runc")?,
            own_name,
            list: line.scenarios.clone(),
            scenarios: scenarios.with_context(|| format!("no list {:?}", line.scenarios))?.clone(),
            smoke: line.smoke,
        };
        row.peers()?;
        Ok(row)
    }

    fn part(&self, told: &str) -> anyhow::Result<Part> {
        let (program, from) = told.split_once(' ').unwrap_or((told, "ours"));
        let set = if from == "ours" { Set::Ours } else { set(from)? };
        Ok(Part { program: program.to_owned(), set, version: self.version(program, set) })
    }

    fn version(&self, program: &str, set: Set) -> Option<Version> {
        match set {
            Set::Ours => None,
            Set::Release => {
                let versions = self.release.get(&host_release())?;
                Some(Version::Exactly(versions.get(program)?.clone()))
            }
            Set::Newest => Some(Version::AtLeast(self.newest.get(program)?.clone())),
        }
    }
}

impl Part {
    pub(crate) fn path(&self) -> PathBuf {
        match self.set {
            Set::Ours if self.program == BOLLARD => {
                std::env::current_exe().expect("the test's own program")
            }
            Set::Ours => parts::ours(&self.program),
            Set::Release if self.is_podman() => Peers::podman().program(&self.program),
            Set::Release if self.program == DOCKER_PY => python(),
            Set::Release if self.program == DOCKER_GO => docker_go(),
            Set::Release => Peers::of_the_release().program(&self.program),
            Set::Newest => Peers::newest().program(&self.program),
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.set == Set::Ours
    }

    pub(crate) fn is_library(&self) -> bool {
        [DOCKER_PY, DOCKER_GO, BOLLARD].contains(&&*self.program)
    }

    /// Its own package, or one that comes with it.
    pub(crate) fn is_podman(&self) -> bool {
        ["podman", "conmon"].contains(&&*self.program)
    }
}

impl Version {
    pub(crate) fn check(&self, found: &str) -> Result<(), String> {
        let numbers = |text: &str| -> Vec<u64> {
            let digits = |c: char| !c.is_ascii_digit();
            text.split(digits).map_while(|part| part.parse().ok()).collect()
        };
        let (fits, wanted) = match self {
            Self::Exactly(wanted) => (numbers(found).starts_with(&numbers(wanted)), wanted),
            Self::AtLeast(wanted) => (numbers(found) >= numbers(wanted), wanted),
        };
        if fits { Ok(()) } else { Err(format!("version {found}, and swap.toml says {wanted}")) }
    }
}

impl Row {
    /// From the client down.
    pub(crate) fn parts(&self) -> Vec<&Part> {
        let mut all = vec![&self.client];
        all.extend(&self.engine);
        all.extend(&self.containerd);
        all.extend([&self.shim, &self.runtime]);
        all
    }

    /// The set that the stock programs come from: their libraries are of one age.
    pub(crate) fn peers(&self) -> anyhow::Result<Peers> {
        let all = self.parts();
        let uses = |set| all.iter().any(|part| part.set == set);
        ensure!(!(uses(Set::Release) && uses(Set::Newest)), "programs of both sets");
        Ok(match () {
            () if self.client.is_podman() => Peers::podman(),
            () if uses(Set::Newest) => Peers::newest(),
            () => Peers::of_the_release(),
        })
    }

    pub(crate) fn title(&self) -> String {
        let name = |part: &&Part| match part.set {
            Set::Ours => part.program.clone(),
            Set::Release => format!("{} (release)", part.program),
            Set::Newest => format!("{} (newest)", part.program),
        };
        let mut title = self.parts().iter().map(name).collect::<Vec<_>>().join(" > ");
        if self.shim.is_ours() && self.containerd.as_ref().is_some_and(|part| !part.is_ours()) {
            title += if self.own_name { ", by its own name" } else { ", by the stock name" };
        }
        if self.parts().iter().all(|part| part.is_ours()) {
            title += &format!(", {}", self.list);
        }
        title
    }
}

/// The interpreter of docker-py: the host's, unless it had none.
fn python() -> PathBuf {
    let brought = Peers::docker_py().directory().join("usr/bin/python3");
    let path = if brought.exists() { brought } else { PathBuf::from("/usr/bin/python3") };
    fs::canonicalize(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Our program over Docker's client for Go, as it was built from the source that is here now.
fn docker_go() -> PathBuf {
    let path = Peers::docker_go().directory().join("docker_go");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/swap/sdk/docker_go.go");
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let (built, written) = (time(&path), time(Path::new(source)));
    assert!(built > written, "{} is missing or old; run preflight.sh swap", path.display());
    path
}

fn set(word: &str) -> anyhow::Result<Set> {
    match word {
        "release" => Ok(Set::Release),
        "newest" => Ok(Set::Newest),
        other => bail!("no set of programs is called {other:?}"),
    }
}

/// `debian 12`, as os-release has it.
fn host_release() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    format!("{} {}", value("ID"), value("VERSION_ID"))
}
