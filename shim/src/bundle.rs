//! What the shim keeps in a bundle, so that `delete` finds it after the server died.
//!
//! ```text
//! config.json  the OCI specification, written by containerd
//! rootfs/      where the shim mounts what Create brings
//! address      the server's socket            options.json  the runtime options of Create
//! runtime      the runtime's path             init.pid      written by the runtime
//! log.json     the runtime's own log          log           fifo that containerd reads
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use proto::containerd::runc::v1::Options;
use serde::{Deserialize, Serialize};
use trace_log::{ANNOTATION, Place};

use crate::error::{TaskError, path_error};

/// The options a runtime call depends on, under the names stock writes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RuntimeOptions {
    pub(crate) no_pivot_root: bool,
    pub(crate) no_new_keyring: bool,
    pub(crate) shim_cgroup: String,
    pub(crate) io_uid: u32,
    pub(crate) io_gid: u32,
    pub(crate) binary_name: String,
    pub(crate) root: String,
    pub(crate) systemd_cgroup: bool,
}

impl RuntimeOptions {
    pub(crate) fn from_wire(options: Options) -> Self {
        Self {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shim_cgroup: options.shim_cgroup,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            binary_name: options.binary_name,
            root: options.root,
            systemd_cgroup: options.systemd_cgroup,
        }
    }

    /// Where the runtime keeps the states of this namespace.
    pub(crate) fn root_of(&self, namespace: &str) -> PathBuf {
        let root = if self.root.is_empty() { "/run/containerd/runc" } else { &self.root };
        Path::new(root).join(namespace)
    }

    pub(crate) fn load(bundle: &Path) -> Self {
        fs::read(bundle.join("options.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    pub(crate) fn store(&self, bundle: &Path) -> Result<(), TaskError> {
        let path = bundle.join("options.json");
        let text = serde_json::to_vec(self).map_err(|error| TaskError::Path {
            call: "encode",
            path: path.clone(),
            source: error.into(),
        })?;
        replace(&path, &text)
    }
}

/// The parts of config.json the shim looks at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SpecExcerpt {
    #[serde(deserialize_with = "or_default")]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    linux: LinuxExcerpt,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LinuxExcerpt {
    #[serde(deserialize_with = "or_default")]
    namespaces: Vec<NamespaceExcerpt>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamespaceExcerpt {
    #[serde(rename = "type", deserialize_with = "or_default")]
    kind: String,
    #[serde(deserialize_with = "or_default")]
    path: String,
}

/// Go writes `null` for what is empty.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl SpecExcerpt {
    pub(crate) fn load(bundle: &Path) -> Result<Self, TaskError> {
        let path = bundle.join("config.json");
        let text = fs::read(&path).map_err(path_error("read", &path))?;
        serde_json::from_slice(&text).map_err(|error| TaskError::Path {
            call: "parse",
            path,
            source: error.into(),
        })
    }

    /// Where the container's spans go, if it is part of a trace.
    pub(crate) fn trace(&self) -> Option<Place> {
        self.annotations.get(ANNOTATION).and_then(|text| Place::parse(text))
    }

    /// Containers with the same group share one shim.
    pub(crate) fn group(&self) -> Option<&str> {
        ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"]
            .iter()
            .find_map(|key| self.annotations.get(*key).map(String::as_str))
    }

    /// With a pid namespace of its own the kernel ends all processes with the init.
    pub(crate) fn has_own_pid_namespace(&self) -> bool {
        self.linux.namespaces.iter().any(|ns| ns.kind == "pid" && ns.path.is_empty())
    }
}

/// Finds the runtime to call for a new container.
pub(crate) fn resolve_runtime(
    binary_name: &str,
    under_stock_name: bool,
) -> Result<PathBuf, TaskError> {
    if binary_name.contains('/') {
        return Ok(binary_name.into());
    }
    if !binary_name.is_empty() {
        return in_path(binary_name).ok_or_else(|| not_in_path(binary_name));
    }
    if under_stock_name {
        return in_path("runc").ok_or_else(|| not_in_path("runc"));
    }
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("runc-rs"));
    beside
        .filter(|path| is_executable(path))
        .or_else(|| in_path("runc-rs"))
        .or_else(|| in_path("runc"))
        .ok_or_else(|| not_in_path("runc-rs"))
}

fn not_in_path(name: &str) -> TaskError {
    TaskError::Runtime(format!("exec: {name:?}: executable file not found in $PATH"))
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Replaces a small file by rename.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), TaskError> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".tmp");
    let fresh = PathBuf::from(fresh);
    fs::write(&fresh, content)
        .and_then(|()| fs::rename(&fresh, path))
        .map_err(path_error("write", path))
}

pub(crate) fn read_pid(path: &Path) -> Result<u32, TaskError> {
    let text = fs::read_to_string(path).map_err(path_error("read", path))?;
    text.trim().parse().map_err(|_| TaskError::Path {
        call: "parse",
        path: path.to_owned(),
        source: io::ErrorKind::InvalidData.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pod_shares_a_group() {
        let spec: SpecExcerpt =
            serde_json::from_str(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"p"}}"#)
                .unwrap();
        assert_eq!(spec.group(), Some("p"));
        assert!(!spec.has_own_pid_namespace());
    }

    #[test]
    fn a_joined_pid_namespace_is_not_the_containers_own() {
        let own = r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#;
        let joined = r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#;
        assert!(serde_json::from_str::<SpecExcerpt>(own).unwrap().has_own_pid_namespace());
        assert!(!serde_json::from_str::<SpecExcerpt>(joined).unwrap().has_own_pid_namespace());
    }

    #[test]
    fn null_is_as_good_as_absent() {
        for text in [
            r#"{"annotations":null,"linux":null}"#,
            r#"{"linux":{"namespaces":null}}"#,
            r#"{"linux":{"namespaces":[{"type":null,"path":null}]}}"#,
        ] {
            let spec: SpecExcerpt = serde_json::from_str(text).unwrap();
            assert_eq!((spec.group(), spec.has_own_pid_namespace()), (None, false), "{text}");
        }
    }

    #[test]
    fn options_survive_the_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let options = RuntimeOptions { root: "/x".into(), io_uid: 7, ..Default::default() };
        options.store(dir.path()).unwrap();
        let loaded = RuntimeOptions::load(dir.path());
        assert_eq!((loaded.root.as_str(), loaded.io_uid), ("/x", 7));
        assert_eq!(loaded.root_of("moby"), Path::new("/x/moby"));
        assert_eq!(
            RuntimeOptions::default().root_of("k8s.io"),
            Path::new("/run/containerd/runc/k8s.io")
        );
    }

    const SPEC: &str = r#"{"ociVersion":"1.0.2","annotations":{"io.kubernetes.cri.sandbox-id":"p"},
"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/n"}]},"process":{"args":["a"]}}"#;
    const OPTIONS: &str =
        r#"{"no_pivot_root":true,"io_uid":7,"binary_name":"b","root":"/x","systemd_cgroup":false}"#;
    const WORDS: &[&str] = &["null", "[]", "{}", "\"\"", "-1", ",", "\"", "4294967296", "\0"];

    proptest! {
        #[test]
        fn any_options_survive_the_bundle(
            bools: [bool; 3], ids: [u32; 2], texts in proptest::array::uniform3("\\PC{0,9}"),
        ) {
            let [shim_cgroup, binary_name, root] = texts;
            let wire = Options {
                no_pivot_root: bools[0],
                no_new_keyring: bools[1],
                systemd_cgroup: bools[2],
                io_uid: ids[0],
                io_gid: ids[1],
                shim_cgroup,
                binary_name,
                root,
                ..Options::default()
            };
            let dir = tempfile::tempdir().unwrap();
            let options = RuntimeOptions::from_wire(proto::any::unpack(&proto::any::pack(&wire)).unwrap());
            options.store(dir.path()).unwrap();
            prop_assert_eq!(format!("{:?}", RuntimeOptions::load(dir.path())), format!("{options:?}"));
            let again = (options.no_pivot_root, options.no_new_keyring, options.systemd_cgroup);
            prop_assert_eq!(again, (wire.no_pivot_root, wire.no_new_keyring, wire.systemd_cgroup));
            prop_assert_eq!((options.io_uid, options.io_gid), (wire.io_uid, wire.io_gid));
            prop_assert_eq!((options.shim_cgroup, options.binary_name, options.root), (wire.shim_cgroup, wire.binary_name, wire.root));
        }

        #[test]
        fn a_damaged_bundle_is_told_or_read(
            edits in proptest::collection::vec((any::<usize>(), 0_usize..9, 0..WORDS.len()), 0..4),
            pid in "[-+0-9 \n]{0,12}",
        ) {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in [("config.json", SPEC), ("options.json", OPTIONS)] {
                let mut text = text.as_bytes().to_vec();
                for (at, cut, word) in &edits {
                    let at = at % (text.len() + 1);
                    text.splice(at..(at + cut).min(text.len()), WORDS[*word].bytes());
                }
                fs::write(dir.path().join(name), text).unwrap();
            }
            match SpecExcerpt::load(dir.path()) {
                Ok(spec) => drop(spec.group().map(str::to_owned)),
                Err(error) => prop_assert!(error.to_string().contains("config.json"), "{}", error),
            }
            let options = RuntimeOptions::load(dir.path());
            options.store(dir.path()).unwrap();
            prop_assert_eq!(RuntimeOptions::load(dir.path()).root_of("n"), options.root_of("n"));
            fs::write(dir.path().join("init.pid"), &pid).unwrap();
            prop_assert_eq!(read_pid(&dir.path().join("init.pid")).ok(), pid.trim().parse().ok());
        }
    }
}
