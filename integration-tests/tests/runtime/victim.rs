//! The judge of an attack: a directory of the host that must look as before.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(crate) struct Victim {
    place: PathBuf,
    before: Vec<String>,
}

impl Victim {
    /// A file and a directory below `parent`.
    pub(crate) fn new(parent: &Path) -> Self {
        let place = parent.join("victim");
        fs::create_dir(&place).unwrap();
        fs::create_dir(place.join("directory")).unwrap();
        fs::write(place.join("file"), "unharmed\n").unwrap();
        let before = look(&place);
        Self { place, before }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.place
    }

    #[track_caller]
    pub(crate) fn is_unharmed(&self, what: &str) {
        assert_eq!(look(&self.place), self.before, "{what}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.place.to_str().unwrap()), "{what}: {mounts}");
    }
}

/// Names, kinds, owners, modes and contents.
fn look(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let text =
            if metadata.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
        let (mode, owner) = (metadata.mode(), (metadata.uid(), metadata.gid()));
        found.push(format!("{} {mode:o} {owner:?} {text}", path.display()));
        if metadata.is_dir() {
            found.extend(look(&path));
        }
    }
    found.sort();
    found
}
