//! The daemon's pid file: refused while its process lives, removed at the end.

use std::path::{Path, PathBuf};

use anyhow::bail;

/// Removed on drop.
#[derive(Debug)]
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        if let Ok(text) = std::fs::read_to_string(path)
            && let Ok(pid) = text.trim().parse::<u32>()
            && pid != std::process::id()
            && is_engine(pid)
        {
            // Compat: dockerd's words.
            bail!("pid file found, ensure docker is not running or delete {}", path.display());
        }
        if let Some(parent) = path.parent() {
            super::dirs::make(parent, 0o755)?;
        }
        std::fs::write(path, std::process::id().to_string())?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// A pid may have been given to someone else since; a zombie has no executable any more.
fn is_engine(pid: u32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| {
        program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("dockerd"))
    })
}
