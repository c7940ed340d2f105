//! Paths of a container or image: resolved below a directory, symlinks never leave it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// A root directory that names are looked up in.
#[derive(Debug)]
pub(crate) struct Inside(OwnedFd);

impl Inside {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(root, flags, Mode::empty())?))
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let path = path.strip_prefix("/").unwrap_or(path);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = flags | OFlags::CLOEXEC;
        Ok(rustix::fs::openat2(self.0.as_fd(), path, flags, mode, ResolveFlags::IN_ROOT)?)
    }

    /// A small text file, up to 1 MiB.
    pub(crate) fn read(&self, path: &str) -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(self.resolve(Path::new(path), flags, Mode::empty())?);
        let mut bytes = Vec::new();
        file.take(1 << 20).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Makes a directory and its parents.
    pub(crate) fn make_dirs(&self, path: &str, mode: u32) -> io::Result<()> {
        let mut done = std::path::PathBuf::new();
        for part in Path::new(path).components() {
            let Component::Normal(name) = part else { continue };
            let parent = done.clone();
            done.push(name);
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            match self.resolve(&done, flags, Mode::empty()) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let parent = self.resolve(&parent, flags, Mode::empty())?;
                    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes an empty file if nothing is there; its directory is made too.
    pub(crate) fn touch(&self, path: &str, mode: u32) -> io::Result<()> {
        if let Some(parent) = Path::new(path).parent() {
            self.make_dirs(&parent.to_string_lossy(), 0o755)?;
        }
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW;
        match self.resolve(Path::new(path), flags, Mode::from_raw_mode(mode)) {
            // A symlink or a directory there stays as it is.
            Ok(_) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EISDIR)) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a symlink if nothing is there.
    pub(crate) fn symlink(&self, target: &str, path: &str) -> io::Result<()> {
        let path = Path::new(path);
        let parent = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let parent = self.resolve(parent, flags, Mode::empty())?;
        match rustix::fs::symlinkat(target, &parent, name) {
            Err(rustix::io::Errno::EXIST) => Ok(()),
            other => Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/../../..", dir.path().join("out")).unwrap();
        let inside = Inside::open(dir.path()).unwrap();
        inside.make_dirs("/out/a/b", 0o755).unwrap();
        inside.touch("/out/a/b/f", 0o644).unwrap();
        assert!(dir.path().join("a/b/f").exists());
        assert_eq!(inside.read("/a/b/f").unwrap(), "");
    }
}
