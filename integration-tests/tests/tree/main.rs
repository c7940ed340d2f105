//! Who may use whom, under which licences, and in how many versions: read from `cargo metadata`. And where the
//! runtime may name a path.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Ours that each of ours may use, outside of tests.
const MAY_USE: [(&str, &[&str]); 16] = [
    ("proto", &[]),
    ("ttrpc-wire", &[]),
    ("oci-image", &[]),
    ("container-log", &[]),
    ("trace-log", &[]),
    ("idle-memory", &[]),
    ("docker-api", &["oci-image"]),
    ("oci-registry", &["oci-image"]),
    ("runtime", &["trace-log"]),
    ("shim", &["proto", "ttrpc-wire", "container-log", "trace-log", "idle-memory"]),
    (
        "containerd-rs",
        &["proto", "ttrpc-wire", "oci-image", "oci-registry", "trace-log", "idle-memory"],
    ),
    ("ctr", &["proto", "oci-image"]),
    (
        "engine",
        &[
            "docker-api",
            "proto",
            "oci-image",
            "oci-registry",
            "container-log",
            "trace-log",
            "idle-memory",
        ],
    ),
    ("cli", &["docker-api", "oci-image"]),
    ("integration-tests", &["docker-api", "proto", "oci-image"]),
    ("guest", &[]),
];

/// Foreign crates that must not be anywhere below one of ours.
const MUST_NOT_REACH: [(&str, &[&str]); 8] = [
    ("runtime", &["tokio", "tonic", "prost"]),
    ("shim", &["tokio", "tonic"]),
    ("docker-api", &["tokio", "tonic"]),
    ("oci-image", &["tokio", "tonic"]),
    ("container-log", &["tokio", "tonic"]),
    ("trace-log", &["tokio", "tonic"]),
    ("cli", &["tonic", "prost"]),
    ("guest", &["tokio", "serde"]),
];

/// One version of each of these, or the build carries two protocols' worth of code.
const ONE_VERSION: [&str; 12] = [
    "prost", "tonic", "rustls", "nix", "tokio", "hyper", "axum", "serde", "libc", "rustix", "clap",
    "redb",
];

const LICENCES: [&str; 12] = [
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "0BSD",
    "CC0-1.0",
    "Apache-2.0 WITH LLVM-exception",
    "CDLA-Permissive-2.0",
];

struct Graph {
    packages: BTreeMap<String, Value>,
    /// Package id to the ids it needs in normal builds.
    needs: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn load() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked", "--offline"])
            .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")])
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let packages = metadata["packages"]
            .as_array()
            .expect("packages")
            .iter()
            .map(|package| (text(package, "id"), package.clone()))
            .collect();
        let mut needs = BTreeMap::new();
        for node in metadata["resolve"]["nodes"].as_array().expect("nodes") {
            let normal = node["deps"]
                .as_array()
                .expect("deps")
                .iter()
                .filter(|dependency| {
                    dependency["dep_kinds"]
                        .as_array()
                        .is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
                })
                .map(|dependency| text(dependency, "pkg"))
                .collect();
            needs.insert(text(node, "id"), normal);
        }
        Self { packages, needs }
    }

    fn name(&self, id: &str) -> &str {
        self.packages[id]["name"].as_str().unwrap_or_default()
    }

    fn id(&self, name: &str) -> &str {
        self.packages
            .iter()
            .find(|(_, package)| package["name"] == name && package["source"].is_null())
            .map(|(id, _)| id.as_str())
            .unwrap_or_else(|| panic!("{name} is not a package of the workspace"))
    }

    fn below(&self, name: &str) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut open = vec![self.id(name).to_owned()];
        while let Some(id) = open.pop() {
            for need in &self.needs[&id] {
                if seen.insert(need.clone()) {
                    open.push(need.clone());
                }
            }
        }
        seen
    }

    /// What normal builds of the programs contain.
    fn shipped(&self) -> BTreeSet<String> {
        MAY_USE
            .iter()
            .filter(|(name, _)| !matches!(*name, "integration-tests" | "guest"))
            .flat_map(|(name, _)| self.below(name))
            .collect()
    }
}

#[test]
fn each_package_uses_only_whom_it_may() {
    let graph = Graph::load();
    let ours: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    for (name, may) in MAY_USE {
        for need in &graph.needs[graph.id(name)] {
            let need = graph.name(need);
            assert!(!ours.contains(need) || may.contains(&need), "{name} may not use {need}");
        }
    }
    let members = graph.packages.values().filter(|package| package["source"].is_null()).count();
    assert_eq!(members, MAY_USE.len(), "a package is missing in the table");
}

#[test]
fn small_programs_stay_without_an_executor() {
    for (name, banned) in MUST_NOT_REACH {
        // Of the one package, as it is built: `cargo metadata` joins the features of all.
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--offline", "-e", "normal", "--prefix", "none"])
            .args(["--format", "{p}", "-p", name])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let crate_name = line.split(' ').next().unwrap_or_default();
            assert!(!banned.contains(&crate_name), "{name} reaches {crate_name}");
        }
    }
}

#[test]
fn licences_are_permissive() {
    let graph = Graph::load();
    for id in graph.shipped() {
        let package = &graph.packages[&id];
        let licence = package["license"].as_str().unwrap_or_default().replace('/', " OR ");
        let permitted = licence.split(" OR ").any(|choice| {
            choice.split(" AND ").all(|part| LICENCES.contains(&part.trim_matches(['(', ')', ' '])))
        });
        assert!(permitted, "{}: {licence:?}", graph.name(&id));
    }
}

#[test]
fn crates_that_matter_come_in_one_version() {
    let graph = Graph::load();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for id in &graph.shipped() {
        let version = graph.packages[id]["version"].as_str().unwrap_or_default();
        versions.entry(graph.name(id)).or_default().insert(version);
    }
    for name in ONE_VERSION {
        let found = versions.get(name).map_or(0, BTreeSet::len);
        assert!(found <= 1, "{name}: {:?}", versions[name]);
    }
}

/// Modules of the runtime's `init` and `sys` that may name things by a path; what is not among them is held
/// to handles by `runtime/clippy.toml`, which `make check` runs.
const DOORS: [&str; 8] = [
    "init/copy_up.rs",
    "sys/clone.rs",
    "sys/file.rs",
    "sys/host.rs",
    "sys/label.rs",
    "sys/mount.rs",
    "sys/path.rs",
    "sys/process.rs",
];

#[test]
fn the_runtime_has_no_other_doors_to_paths() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/src");
    let mut doors = BTreeSet::new();
    for folder in ["init", "sys"] {
        for entry in std::fs::read_dir(source.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            if text.contains("disallowed_methods") {
                let name = path.file_name().unwrap().to_str().unwrap();
                doors.insert(format!("{folder}/{name}"));
            }
        }
    }
    assert_eq!(doors, BTreeSet::from(DOORS.map(str::to_owned)));
    // The two folders are held to it, all else is the host's side.
    let main = std::fs::read_to_string(source.join("main.rs")).unwrap();
    for folder in ["init", "sys"] {
        let lines: Vec<&str> = main.lines().collect();
        let at = lines.iter().position(|line| *line == format!("mod {folder};")).unwrap();
        assert!(lines[at - 1].starts_with("#[cfg_attr(test, "), "{folder}: {}", lines[at - 1]);
    }
    let rules = std::fs::read_to_string(source.join("../clippy.toml")).unwrap();
    for method in ["std::fs::read", "std::fs::File::open", "rustix::fs::open", "libc::mount"] {
        assert!(rules.contains(&format!("\"{method}\"")), "{method}");
    }
}
