//! From a runtime name to the shim's binary: `io.containerd.runc.v2` → `containerd-shim-runc-v2`.
//!
//! Rule of names: containerd `core/runtime/v2/README.md`. Binaries are looked for beside our own executable
//! first and then in `PATH`. A name may be given another binary by configuration; without one,
//! [`STOCK`] means our own shim where it is installed, so that clients which name it (dockerd does) get it.

use std::collections::BTreeMap;
use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::TaskError;

/// The runtime type that upstream's clients ask for by default.
pub(crate) const STOCK: &str = "io.containerd.runc.v2";

/// Our shim's binary.
const OURS: &str = "containerd-shim-runc-rs-v2";

/// Where shims are found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolver {
    configured: BTreeMap<String, PathBuf>,
    beside: Option<PathBuf>,
    path: Vec<PathBuf>,
}

impl Resolver {
    /// Takes over the configured binaries by runtime name, and looks at this process for the rest.
    pub(crate) fn new(configured: BTreeMap<String, PathBuf>) -> Self {
        let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
        let path = env::var_os("PATH").map(|path| env::split_paths(&path).collect());
        Self { configured, beside, path: path.unwrap_or_default() }
    }

    /// Finds the binary of `runtime`, a name or an absolute path.
    pub(crate) fn resolve(&self, runtime: &str) -> Result<PathBuf, TaskError> {
        let path = Path::new(runtime);
        if path.is_absolute() {
            return if executable(path) {
                Ok(path.to_owned())
            } else {
                Err(TaskError::RuntimeBinary { path: path.to_owned() })
            };
        }
        if let Some(configured) = self.configured.get(runtime) {
            return match configured.components().count() {
                1 => self.find(configured),
                _ => Some(configured.clone()).filter(|path| executable(path)),
            }
            .ok_or_else(|| TaskError::RuntimeBinary { path: configured.clone() });
        }
        let invalid = || TaskError::RuntimeName { name: runtime.to_owned() };
        let binary = binary_name(runtime).ok_or_else(invalid)?;
        let ours = if runtime == STOCK { self.find(Path::new(OURS)) } else { None };
        ours.or_else(|| self.find(Path::new(&binary)))
            .ok_or_else(|| TaskError::RuntimeMissing { name: runtime.to_owned(), binary })
    }

    /// Whether the stock runtime name leads to our own shim, whose extensions may then be announced.
    pub(crate) fn is_ours(&self) -> bool {
        self.resolve(STOCK).is_ok_and(|path| path.file_name().is_some_and(|name| name == OURS))
    }

    fn find(&self, binary: &Path) -> Option<PathBuf> {
        self.beside
            .iter()
            .chain(&self.path)
            .map(|directory| directory.join(binary))
            .find(|path| executable(path))
    }
}

/// `io.containerd.NAME.VERSION` → `containerd-shim-NAME-VERSION`; the last two parts count.
fn binary_name(runtime: &str) -> Option<String> {
    if runtime.contains('/') {
        return None;
    }
    let (rest, version) = runtime.rsplit_once('.')?;
    let name = rest.rsplit_once('.').map_or(rest, |(_, name)| name);
    let valid = !name.is_empty() && !version.is_empty();
    valid.then(|| format!("containerd-shim-{name}-{version}"))
}

fn executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn install(directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn names_follow_the_rule() {
        for (runtime, binary) in [
            ("io.containerd.runc.v2", Some("containerd-shim-runc-v2")),
            ("io.containerd.runc-rs.v2", Some("containerd-shim-runc-rs-v2")),
            ("runc.v2", Some("containerd-shim-runc-v2")),
            ("runc", None),
            ("io.containerd..v2", None),
            ("bin/shim.v2", None),
            ("", None),
        ] {
            assert_eq!(binary_name(runtime).as_deref(), binary, "{runtime}");
        }
    }

    #[test]
    fn our_shim_serves_the_stock_name_where_it_is_installed() {
        let beside = tempfile::tempdir().unwrap();
        let path = tempfile::tempdir().unwrap();
        let stock = install(path.path(), "containerd-shim-runc-v2");
        let mut resolver = Resolver {
            configured: BTreeMap::new(),
            beside: Some(beside.path().to_owned()),
            path: vec![path.path().to_owned()],
        };
        assert_eq!(resolver.resolve(STOCK).unwrap(), stock);
        assert!(!resolver.is_ours());
        let ours = install(beside.path(), OURS);
        assert_eq!(resolver.resolve(STOCK).unwrap(), ours);
        assert!(resolver.is_ours());
        resolver.configured.insert(STOCK.to_owned(), stock.clone());
        assert_eq!(resolver.resolve(STOCK).unwrap(), stock);
        resolver.configured.insert(STOCK.to_owned(), "containerd-shim-runc-v2".into());
        assert_eq!(resolver.resolve(STOCK).unwrap(), stock);
    }

    #[test]
    fn an_absolute_path_is_taken_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let shim = install(directory.path(), "any-name");
        let resolver = Resolver::default();
        assert_eq!(resolver.resolve(shim.to_str().unwrap()).unwrap(), shim);
        let missing = directory.path().join("missing");
        assert!(matches!(
            resolver.resolve(missing.to_str().unwrap()),
            Err(TaskError::RuntimeBinary { .. })
        ));
    }

    #[test]
    fn a_missing_binary_is_named_in_the_error() {
        let error = Resolver::default().resolve("io.containerd.kata.v2").unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to resolve runtime path: runtime \"io.containerd.kata.v2\" binary not installed \
             \"containerd-shim-kata-v2\": file does not exist: unknown"
        );
    }

    proptest! {
        #[test]
        fn a_runtime_is_a_shim_in_one_directory(name in "[a-z./ \0]{0,12}") {
            if let Some(binary) = binary_name(&name) {
                prop_assert!(binary.starts_with("containerd-shim-") && !binary.contains('/'));
                prop_assert_eq!(Path::new("/bin").join(&binary).components().count(), 3);
            }
        }
    }
}
