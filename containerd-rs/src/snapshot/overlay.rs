//! The overlayfs snapshotter, with containerd's layout and mounts.
//!
//! ```text
//! <root>/io.containerd.snapshotter.v1.overlayfs/snapshots/<number>/fs      the layer
//!                                                                 /work    active ones only
//! ```

use std::collections::HashSet;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::tree::{Numbered, measure};
use super::{Kind, Mount, Snapshotter, Usage};
use crate::error::{Error, Result};

pub(super) struct Overlay {
    root: PathBuf,
    trees: Numbered,
    index_off: bool,
}

impl Overlay {
    pub(super) fn open(root: &Path) -> Result<Self> {
        let trees = Numbered::open(root)?;
        let index_off = Path::new("/sys/module/overlay/parameters/index").exists();
        Ok(Self { root: root.to_owned(), trees, index_off })
    }

    fn fs(&self, id: u64) -> PathBuf {
        self.trees.path(id).join("fs")
    }
}

impl Snapshotter for Overlay {
    fn root(&self) -> &Path {
        &self.root
    }

    fn next_id(&self) -> u64 {
        self.trees.next()
    }

    fn take_id(&self, id: u64) {
        self.trees.take(id);
    }

    fn stands(&self, id: u64) -> bool {
        self.trees.path(id).is_dir()
    }

    fn create(&self, id: u64, kind: Kind, parents: &[u64]) -> Result<()> {
        self.trees.create(id, |directory| {
            let layer = directory.join("fs");
            make_directory(&layer, 0o755)?;
            if kind == Kind::Active {
                make_directory(&directory.join("work"), 0o711)?;
            }
            if let Some(parent) = parents.first() {
                // The root of the container belongs to whom it belongs in the image.
                let below = self.fs(*parent);
                let owner = std::fs::metadata(&below).map_err(Error::io("stat", below))?;
                if (owner.uid(), owner.gid()) != (0, 0) {
                    std::os::unix::fs::chown(&layer, Some(owner.uid()), Some(owner.gid()))
                        .map_err(Error::io("change owner of", &layer))?;
                }
            }
            Ok(())
        })
    }

    fn mounts(&self, id: u64, kind: Kind, parents: &[u64]) -> Vec<Mount> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let bind = |source: PathBuf, access: &str| {
            vec![Mount {
                kind: "bind".to_owned(),
                source: text(source),
                target: String::new(),
                options: vec![access.to_owned(), "rbind".to_owned()],
            }]
        };
        if parents.is_empty() {
            return bind(self.fs(id), if kind == Kind::View { "ro" } else { "rw" });
        }
        let mut options = Vec::new();
        if self.index_off {
            options.push("index=off".to_owned());
        }
        if kind == Kind::Active {
            options.push(format!("workdir={}", text(self.trees.path(id).join("work"))));
            options.push(format!("upperdir={}", text(self.fs(id))));
        } else if let [only] = parents {
            return bind(self.fs(*only), "ro");
        }
        let lower: Vec<String> = parents.iter().map(|parent| text(self.fs(*parent))).collect();
        options.push(format!("lowerdir={}", lower.join(":")));
        vec![Mount {
            kind: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options,
        }]
    }

    fn usage(&self, id: u64) -> Result<Usage> {
        measure(&self.fs(id))
    }

    fn remove(&self, id: u64) -> Result<()> {
        self.trees.remove(id)
    }

    fn cleanup(&self, known: &dyn Fn() -> Result<HashSet<u64>>) -> Result<()> {
        self.trees.cleanup(known)
    }

    fn capabilities(&self) -> &'static [&'static str] {
        &["rebase"]
    }

    fn layer(&self, id: u64) -> Option<PathBuf> {
        Some(self.fs(id))
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<()> {
    std::fs::DirBuilder::new().mode(mode).create(path).map_err(Error::io("create", path))?;
    // The umask must not show in an image.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, mode).map_err(Error::io("change mode of", path))
}
