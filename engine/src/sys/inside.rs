//! Paths of a container or image: resolved below a directory, symlinks never leave it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Has openat2 walk again where somebody's rename or mount, anywhere, made a `..` uncertain.
pub(crate) fn walk(mut openat2: impl FnMut() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    for _ in 0..1024 {
        match openat2() {
            Err(Errno::AGAIN) => {}
            walked => return walked,
        }
    }
    openat2()
}

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
        Ok(walk(|| rustix::fs::openat2(&self.0, path, flags, mode, ResolveFlags::IN_ROOT))?)
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
        let mut done = PathBuf::new();
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

    /// Bytes of the files below. Compat: directories count nothing, and the names of one file once.
    /// So does what vanishes while we look.
    pub(crate) fn size(&self) -> u64 {
        let mut total = 0;
        let mut seen = HashSet::new();
        let mut waiting = vec![PathBuf::from(".")];
        while let Some(path) = waiting.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let Ok(directory) = self.resolve(&path, flags, Mode::empty()) else { continue };
            let Ok(entries) = Dir::read_from(&directory) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let Ok(found) = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
                else {
                    continue;
                };
                if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                    waiting.push(path.join(OsStr::from_bytes(name.to_bytes())));
                } else if found.st_nlink < 2 || seen.insert((found.st_dev, found.st_ino)) {
                    total += u64::try_from(found.st_size).unwrap_or_default();
                }
            }
        }
        total
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

    #[test]
    fn what_a_rename_made_uncertain_is_walked_again() {
        let (mut left, here) = (3, tempfile::tempfile().unwrap());
        let walked = walk(|| {
            left -= 1;
            if left > 0 { Err(Errno::AGAIN) } else { Ok(here.try_clone().unwrap().into()) }
        });
        assert!(walked.is_ok());
        assert_eq!((walk(|| Err(Errno::NOENT)).unwrap_err(), left), (Errno::NOENT, 0));
    }

    #[test]
    fn the_size_is_that_of_files_each_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let inside = Inside::open(dir.path()).unwrap();
        assert_eq!(inside.size(), 0);
        inside.make_dirs("/a/b", 0o755).unwrap();
        std::fs::write(dir.path().join("a/b/f"), "0123456789").unwrap();
        std::fs::hard_link(dir.path().join("a/b/f"), dir.path().join("twin")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("a/link")).unwrap();
        let sparse = std::fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(dir.path().join("sparse"))
            .unwrap();
        sparse.set_len(1_000_000).unwrap();
        assert_eq!(inside.size(), 10 + 4 + 1_000_000);
    }
}
