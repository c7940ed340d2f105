//! What both snapshotters do with directories: number them, hide and remove them, measure them.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Usage;
use crate::error::{Error, Result};

/// The numbered directories below `snapshots/`.
pub(super) struct Numbered {
    directory: PathBuf,
    last: AtomicU64,
}

impl Numbered {
    pub(super) fn open(root: &Path) -> Result<Self> {
        let directory = root.join("snapshots");
        std::fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(root, mode).map_err(Error::io("change mode of", root))?;
        let mut last = 0;
        for (name, _) in list(&directory)? {
            let digits = name.rsplit('-').next().unwrap_or_default();
            last = last.max(digits.parse().unwrap_or(0));
        }
        Ok(Self { directory, last: AtomicU64::new(last) })
    }

    pub(super) fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn take(&self, id: u64) {
        self.last.fetch_max(id, Ordering::Relaxed);
    }

    pub(super) fn path(&self, id: u64) -> PathBuf {
        self.directory.join(id.to_string())
    }

    /// Builds under a temporary name, then shows the directory under its number.
    pub(super) fn create(&self, id: u64, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let temporary = self.directory.join(format!("new-{id}"));
        let made = std::fs::create_dir(&temporary).or_else(|error| match error.kind() {
            // Half-made in an earlier life, whose number is now restored.
            std::io::ErrorKind::AlreadyExists => {
                std::fs::remove_dir_all(&temporary)?;
                std::fs::create_dir(&temporary)
            }
            _ => Err(error),
        });
        made.map_err(Error::io("create", &temporary))?;
        let built = build(&temporary).and_then(|()| {
            std::fs::rename(&temporary, self.path(id)).map_err(Error::io("rename", &temporary))
        });
        if built.is_err()
            && let Err(error) = std::fs::remove_dir_all(&temporary)
        {
            tracing::warn!(directory = %temporary.display(), %error, "remove half-made snapshot");
        }
        built
    }

    /// Renames at once, removes on a thread of its own.
    pub(super) fn remove(&self, id: u64) -> Result<()> {
        let path = self.path(id);
        let hidden = self.directory.join(format!("rm-{id}"));
        match std::fs::rename(&path, &hidden) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(Error::io("rename", path))?,
        }
        let removal = move || {
            if let Err(error) = std::fs::remove_dir_all(&hidden) {
                tracing::warn!(directory = %hidden.display(), %error, "remove snapshot");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(removal)),
            Err(_) => removal(),
        }
        Ok(())
    }

    pub(super) fn cleanup(&self, known: &dyn Fn() -> Result<HashSet<u64>>) -> Result<()> {
        // Listed first: what is made from here on is not in the list, whatever is known of it.
        let found = list(&self.directory)?;
        let known = known()?;
        for (name, path) in found {
            let number = name.parse::<u64>().ok().or_else(|| {
                // One that is being made has its number in its temporary name.
                name.strip_prefix("new-").and_then(|number| number.parse().ok())
            });
            if number.is_some_and(|number| known.contains(&number)) {
                continue;
            }
            tracing::info!(directory = %path.display(), "remove left-over snapshot");
            match std::fs::remove_dir_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(directory = %path.display(), %error, "remove left-over snapshot");
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Disk blocks and inodes below a directory; a file with several names counts once.
pub(super) fn measure(root: &Path) -> Result<Usage> {
    let mut seen = HashSet::new();
    let mut usage = Usage::default();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let found = match std::fs::symlink_metadata(&path) {
            Ok(found) => found,
            // A running container removes files while we look.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("stat", path)(error)),
        };
        if seen.insert((found.dev(), found.ino())) {
            usage.inodes += 1;
            usage.size += found.blocks() * 512;
        }
        if found.is_dir() {
            match std::fs::read_dir(&path) {
                Ok(entries) => waiting.extend(entries.flatten().map(|entry| entry.path())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("read", path)(error)),
            }
        }
    }
    Ok(usage)
}

fn list(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = std::fs::read_dir(directory).map_err(Error::io("read", directory))?;
    Ok(entries
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect())
}
