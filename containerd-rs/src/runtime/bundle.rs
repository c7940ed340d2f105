//! The directory a shim works in, laid out as containerd does:
//!
//! ```text
//! <state>/io.containerd.runtime.v2.task/<namespace>/<id>/   0700
//!     config.json         the specification, verbatim
//!     rootfs/             where the shim mounts what the request brings
//!     work -> <root>/io.containerd.runtime.v2.task/<namespace>/<id>
//!     log                 fifo; the shim's own log, read by us
//!     shim-binary-path    the binary to run for `delete`
//!     bootstrap.json      how to reach the shim; `address` is the shim's own copy
//! ```
//!
//! All calls here wait for the disk: callers run them on the blocking pool.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use serde::Deserialize;

use super::{TaskError, TaskKey};

/// The plugin's name, and so the directory's, under both root and state.
pub(crate) const DIRECTORY: &str = "io.containerd.runtime.v2.task";

/// A bundle on disk.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    pub(crate) path: PathBuf,
    work: PathBuf,
}

impl Bundle {
    /// Names the directories of `key` without touching them.
    pub(crate) fn locate(root: &Path, state: &Path, key: &TaskKey) -> Self {
        let place = |top: &Path| top.join(DIRECTORY).join(&key.namespace).join(&key.id);
        Self { path: place(state), work: place(root) }
    }

    /// Creates the bundle with `spec` as its config.json. What is half made is removed again.
    pub(crate) fn create(&self, spec: &[u8]) -> Result<(), TaskError> {
        let failed =
            |step| move |source| TaskError::Bundle { step, path: self.path.clone(), source };
        for parent in [self.path.parent(), self.work.parent()].into_iter().flatten() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(parent)
                .map_err(failed("create parent"))?;
        }
        // Only what this call has made is removed: an existing directory belongs to somebody.
        fs::DirBuilder::new().mode(0o700).create(&self.path).map_err(failed("create"))?;
        let made = self.fill(spec);
        if made.is_err() {
            self.remove().ok();
        }
        made
    }

    fn fill(&self, spec: &[u8]) -> Result<(), TaskError> {
        let failed =
            |step| move |source| TaskError::Bundle { step, path: self.path.clone(), source };
        if let Some(group) = remapped_group(spec) {
            chown(&self.path, None, Some(group)).map_err(failed("chown"))?;
            let mode = fs::Permissions::from_mode(0o710);
            fs::set_permissions(&self.path, mode).map_err(failed("chmod"))?;
        }
        let mut directory = fs::DirBuilder::new();
        directory.mode(0o711);
        directory.create(self.path.join("rootfs")).map_err(failed("create rootfs of"))?;
        match directory.create(&self.work) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Left over: no task of this name lives, or the bundle would exist.
                fs::remove_dir_all(&self.work)
                    .and_then(|()| directory.create(&self.work))
                    .map_err(failed("renew work directory of"))?;
            }
            made => made.map_err(failed("create work directory of"))?,
        }
        symlink(&self.work, self.path.join("work")).map_err(failed("link work directory of"))?;
        fs::write(self.path.join("config.json"), spec).map_err(failed("write config.json of"))?;
        nix::unistd::mkfifo(&self.log(), Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| failed("make log fifo of")(errno.into()))
    }

    /// The fifo that carries the shim's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Remembers which binary serves this bundle.
    pub(crate) fn save_shim(&self, binary: &Path) -> io::Result<()> {
        fs::write(self.path.join("shim-binary-path"), binary.as_os_str().as_bytes())
    }

    /// The binary that serves this bundle, if the bundle got that far.
    pub(crate) fn shim(&self) -> Option<PathBuf> {
        let text = fs::read_to_string(self.path.join("shim-binary-path")).ok()?;
        Some(PathBuf::from(text.trim_end())).filter(|path| path.is_absolute())
    }

    /// The pid of the container's first process, as the shim noted it.
    pub(crate) fn init_pid(&self) -> Option<u32> {
        fs::read_to_string(self.path.join("init.pid")).ok()?.trim().parse().ok()
    }

    /// Unmounts the root file system and removes the directories. Runs to the end and tells the first failure.
    pub(crate) fn remove(&self) -> Result<(), TaskError> {
        let failed =
            |step| move |source| TaskError::Bundle { step, path: self.path.clone(), source };
        let rootfs = self.path.join("rootfs");
        detach(&rootfs).map_err(failed("unmount rootfs of"))?;
        // Never recursive: if something is still mounted here, its files are not ours to delete.
        absent_is_fine(fs::remove_dir(&rootfs)).map_err(failed("remove rootfs of"))?;
        let work = discard(&self.work).map_err(failed("remove work directory of"));
        discard(&self.path).map_err(failed("remove")).and(work)
    }
}

/// Detaches every mount stacked on `path`, with all below it.
fn detach(path: &Path) -> io::Result<()> {
    const STACK: usize = 64;
    for _ in 0..STACK {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // EINVAL: not, or no longer, a mount point.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Renames out of the way, so that a crash leaves nothing that looks like a bundle, and removes.
fn discard(path: &Path) -> io::Result<()> {
    let Some(name) = path.file_name() else { return Ok(()) };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let hidden = path.with_file_name(hidden);
    // What an interrupted removal left under the hidden name would block the rename.
    absent_is_fine(fs::remove_dir_all(&hidden))?;
    absent_is_fine(fs::rename(path, &hidden))?;
    absent_is_fine(fs::remove_dir_all(&hidden))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The host's group for the container's group 0, when a user namespace maps it.
fn remapped_group(spec: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        linux: Option<Linux>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Linux {
        #[serde(default)]
        gid_mappings: Option<Vec<Mapping>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Mapping {
        #[serde(rename = "containerID")]
        container_id: u32,
        #[serde(rename = "hostID")]
        host_id: u32,
    }
    let spec: Spec = serde_json::from_slice(spec).ok()?;
    let mappings = spec.linux?.gid_mappings?;
    mappings.iter().find(|mapping| mapping.container_id == 0).map(|mapping| mapping.host_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bundle(top: &Path) -> Bundle {
        let key = TaskKey { namespace: "ns".to_owned(), id: "c1".to_owned() };
        Bundle::locate(&top.join("root"), &top.join("state"), &key)
    }

    #[test]
    fn a_bundle_is_laid_out_as_containerd_does_and_removed_whole() {
        let top = tempfile::tempdir().unwrap();
        let bundle = bundle(top.path());
        assert!(bundle.path.ends_with("state/io.containerd.runtime.v2.task/ns/c1"));
        bundle.create(b"{}").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&bundle.path), 0o700);
        assert_eq!(mode(&bundle.path.join("rootfs")), 0o711);
        assert_eq!(fs::read(bundle.path.join("config.json")).unwrap(), b"{}");
        assert_eq!(fs::read_link(bundle.path.join("work")).unwrap(), bundle.work);
        assert!(bundle.work.is_dir());
        bundle.save_shim(Path::new("/bin/shim")).unwrap();
        assert_eq!(bundle.shim().unwrap(), Path::new("/bin/shim"));
        bundle.remove().unwrap();
        assert!(!bundle.path.exists() && !bundle.work.exists());
        bundle.remove().unwrap();
    }

    #[test]
    fn an_existing_bundle_is_not_touched() {
        let top = tempfile::tempdir().unwrap();
        let bundle = bundle(top.path());
        bundle.create(b"first").unwrap();
        assert!(matches!(bundle.create(b"second"), Err(TaskError::Bundle { step: "create", .. })));
        assert_eq!(fs::read(bundle.path.join("config.json")).unwrap(), b"first");
    }

    #[test]
    fn files_under_a_busy_rootfs_are_never_deleted() {
        let top = tempfile::tempdir().unwrap();
        let bundle = bundle(top.path());
        bundle.create(b"{}").unwrap();
        let precious = bundle.path.join("rootfs/precious");
        fs::write(&precious, "").unwrap();
        assert!(bundle.remove().is_err());
        assert!(precious.exists());
    }

    #[test]
    fn the_remapped_group_is_found() {
        let spec = br#"{"linux":{"gidMappings":[{"containerID":1,"hostID":7,"size":1},{"containerID":0,"hostID":1000,"size":9}]}}"#;
        assert_eq!(remapped_group(spec), Some(1000));
        assert_eq!(remapped_group(b"{\"linux\":{}}"), None);
        assert_eq!(remapped_group(b"no json"), None);
    }

    const SPEC: &str = r#"{"ociVersion":"1.0.2","linux":{"uidMappings":null,"gidMappings":[{"containerID":0,"hostID":7,"size":1},
{"containerID":1,"hostID":8,"size":1}],"namespaces":[{"type":"user"}]},"process":{"args":["a"]}}"#;
    const WORDS: &[&str] =
        &["null", "[]", "{}", "\"\"", "-1", ",", "\"", "0", "4294967296", "[[[[", "\0"];

    proptest! {
        #[test]
        fn the_group_is_that_of_the_first_mapping_of_root(
            mappings in proptest::collection::vec((0_u32..3, any::<u32>()), 0..5),
        ) {
            let wire: Vec<_> = mappings
                .iter()
                .map(|(inner, outer)| serde_json::json!({"containerID": inner, "hostID": outer, "size": 1}))
                .collect();
            let spec = serde_json::json!({"linux": {"gidMappings": wire}}).to_string();
            let wanted = mappings.iter().find(|(inner, _)| *inner == 0).map(|(_, outer)| *outer);
            prop_assert_eq!(remapped_group(spec.as_bytes()), wanted);
        }

        #[test]
        fn a_damaged_specification_has_no_group_that_it_does_not_name(
            edits in proptest::collection::vec((any::<usize>(), 0_usize..9, 0..WORDS.len()), 0..4),
        ) {
            let mut spec = SPEC.as_bytes().to_vec();
            for (at, cut, word) in edits {
                let at = at % (spec.len() + 1);
                spec.splice(at..(at + cut).min(spec.len()), WORDS[word].bytes());
            }
            if let Some(group) = remapped_group(&spec) {
                let value: serde_json::Value = serde_json::from_slice(&spec).unwrap();
                let mappings = value["linux"]["gidMappings"].as_array().unwrap();
                prop_assert!(mappings.iter().any(|one| one["containerID"] == 0 && one["hostID"] == group));
            }
        }
    }
}
