//! The native snapshotter: each snapshot a full copy. For file systems that cannot carry overlays.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::tree::{Numbered, measure};
use super::{Kind, Mount, Snapshotter, Usage};
use crate::error::{Error, Result};
use crate::sys::copy;

pub(super) struct Native {
    root: PathBuf,
    trees: Numbered,
}

impl Native {
    pub(super) fn open(root: &Path) -> Result<Self> {
        Ok(Self { root: root.to_owned(), trees: Numbered::open(root)? })
    }
}

impl Snapshotter for Native {
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
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(directory, mode)
                .map_err(Error::io("change mode of", directory))?;
            match parents.first() {
                // A view of a committed snapshot is mounted straight from its parent.
                Some(parent) if kind != Kind::View => {
                    copy_tree(&self.trees.path(*parent), directory, &mut HashMap::new())
                }
                _ => Ok(()),
            }
        })
    }

    fn mounts(&self, id: u64, kind: Kind, parents: &[u64]) -> Vec<Mount> {
        let (source, access) = match (kind, parents.first()) {
            (Kind::View, Some(parent)) => (*parent, "ro"),
            (Kind::View, None) => (id, "ro"),
            _ => (id, "rw"),
        };
        vec![Mount {
            kind: "bind".to_owned(),
            source: self.trees.path(source).to_string_lossy().into_owned(),
            target: String::new(),
            options: vec!["rbind".to_owned(), access.to_owned()],
        }]
    }

    fn usage(&self, id: u64) -> Result<Usage> {
        measure(&self.trees.path(id))
    }

    fn remove(&self, id: u64) -> Result<()> {
        self.trees.remove(id)
    }

    fn cleanup(&self, known: &dyn Fn() -> Result<HashSet<u64>>) -> Result<()> {
        self.trees.cleanup(known)
    }
}

/// Copies contents and the attributes of the root itself; hard links stay hard links.
fn copy_tree(from: &Path, to: &Path, linked: &mut HashMap<(u64, u64), PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(from).map_err(Error::io("read", from))? {
        let entry = entry.map_err(Error::io("read", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let found = entry.metadata().map_err(Error::io("stat", &source))?;
        if !found.is_dir() && found.nlink() > 1 {
            if let Some(first) = linked.get(&(found.dev(), found.ino())) {
                std::fs::hard_link(first, &target).map_err(Error::io("link", &target))?;
                continue;
            }
            linked.insert((found.dev(), found.ino()), target.clone());
        }
        copy::node(&source, &target, &found).map_err(Error::io("copy", &source))?;
        if found.is_dir() {
            copy_tree(&source, &target, linked)?;
            copy::attributes(&source, &target, &found).map_err(Error::io("copy", &source))?;
        }
    }
    let found = std::fs::symlink_metadata(from).map_err(Error::io("stat", from))?;
    copy::attributes(from, to, &found).map_err(Error::io("copy", from))
}
