//! File-system operations confined to one directory: every path is resolved by openat2 with
//! `RESOLVE_IN_ROOT`, the last component never followed.

use super::path::{show, split};
use super::{LayerError, Missing};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, XattrFlags, fchmod, fchown,
    fgetxattr, flistxattr, fsetxattr, mkdirat, openat, openat2, statat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(super) struct Root<'a> {
    fd: BorrowedFd<'a>,
    pub(super) missing: Missing,
    /// The directory used last; tars list a directory's files one after the other.
    last: Option<(PathBuf, OwnedFd)>,
}

pub(super) fn failed(operation: &'static str, path: &Path) -> impl FnOnce(Errno) -> LayerError {
    move |errno| LayerError::Write {
        operation,
        path: show(path.as_os_str().as_bytes()),
        source: errno.into(),
    }
}

impl<'a> Root<'a> {
    pub(super) fn new(fd: BorrowedFd<'a>) -> Self {
        Self { fd, missing: Missing::new(), last: None }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'a> {
        self.fd
    }

    /// Opens the directory at `path`, making what is missing of it.
    pub(super) fn directory(&mut self, path: &Path) -> Result<&OwnedFd, LayerError> {
        let hit = self.last.as_ref().is_some_and(|(last, _)| last == path);
        if !hit {
            let fd = match self.open(path) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => {
                    self.make_all(path)?;
                    self.open(path).map_err(failed("open directory", path))?
                }
                Err(errno) => return Err(failed("open directory", path)(errno)),
            };
            self.last = Some((path.to_owned(), fd));
        }
        match &self.last {
            Some((_, fd)) => Ok(fd),
            None => Err(failed("open directory", path)(Errno::NOENT)),
        }
    }

    /// Opens the directory at `path` if it is there.
    pub(super) fn existing(&self, path: &Path) -> Result<Option<OwnedFd>, LayerError> {
        match self.open(path) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(failed("open directory", path)(errno)),
        }
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        open_in(self.fd, path, OFlags::DIRECTORY)
    }

    fn make_all(&mut self, path: &Path) -> Result<(), LayerError> {
        let mut done = PathBuf::new();
        for part in path {
            let parent = self.open(&done).map_err(failed("open directory", &done))?;
            done.push(part);
            match mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
                Ok(()) => drop(self.missing.insert(done.clone())),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed("make directory", &done)(errno)),
            }
        }
        Ok(())
    }

    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// Removes whatever is at `name` in `parent`, to any depth, following nothing.
    pub(super) fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
        // Depth by depth with an explicit stack: a hostile tree must not overflow ours.
        let mut stack: Vec<(OwnedFd, Vec<std::ffi::CString>, std::ffi::CString)> = Vec::new();
        let top = std::ffi::CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
        let fd = open_directory(parent, name)?;
        let children = list(&fd)?;
        stack.push((fd, children, top));
        while let Some((fd, children, _)) = stack.last_mut() {
            let Some(child) = children.pop() else {
                let Some((_, _, name)) = stack.pop() else { break };
                let above = stack.last().map_or(parent, |(fd, _, _)| fd.as_fd());
                unlinkat(above, name.as_c_str(), AtFlags::REMOVEDIR)?;
                continue;
            };
            match unlinkat(&*fd, child.as_c_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    let below = open_directory(fd.as_fd(), OsStr::from_bytes(child.as_bytes()))?;
                    let children = list(&below)?;
                    stack.push((below, children, child));
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// The directory that holds `path`, existing, and the last name; for hard-link targets.
    pub(super) fn locate<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), LayerError> {
        let (parent, name) = split(path).ok_or_else(|| LayerError::Entry {
            path: show(path.as_os_str().as_bytes()),
            reason: "link to the root",
        })?;
        let fd = self.open(parent).map_err(failed("open directory", parent))?;
        Ok((fd, name))
    }
}

/// Gives the directory at `path`, if there still is one, the looks it has in the layers below.
pub(super) fn inherit(
    root: BorrowedFd<'_>,
    path: &Path,
    below: &[OwnedFd],
) -> Result<(), LayerError> {
    let error = |errno| failed("copy attributes of", path)(errno);
    let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for lower in below {
        let found = match resolve(lower.as_fd(), path, readable) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => continue,
            // A file or link there: it was replaced, nothing to take over.
            Err(_) => return Ok(()),
        };
        let own = match resolve(root, path, readable) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            own => own.map_err(error)?,
        };
        let stat = rustix::fs::fstat(&found).map_err(error)?;
        fchown(&own, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
            .map_err(error)?;
        fchmod(&own, Mode::from_raw_mode(stat.st_mode)).map_err(error)?;
        return copy_xattrs(&found, &own).map_err(error);
    }
    Ok(())
}

pub(super) fn lookup(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Stat>, Errno> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Opens a directory for reading (attributes are set through it), itself not a symlink.
pub(super) fn open_directory(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// The names in a directory.
pub(super) fn list(fd: &OwnedFd) -> Result<Vec<std::ffi::CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(fd)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

fn open_in(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    resolve(root, path, flags | OFlags::PATH | OFlags::CLOEXEC)
}

/// Walks below `root`; again where somebody's rename or mount, anywhere, made a `..` uncertain.
fn resolve(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let walk = || openat2(root, path, flags, Mode::empty(), CONFINED);
    (0..WALKS)
        .map(|_| walk())
        .find(|walked| !matches!(walked, Err(Errno::AGAIN)))
        .unwrap_or_else(walk)
}

/// Until a host that does nothing but rename is taken for hostile.
const WALKS: usize = 1024;

fn copy_xattrs(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let mut names = vec![0u8; 64 * 1024];
    let length = match flistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let mut value = vec![0u8; 64 * 1024];
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if super::entry::is_overlay_private(name) {
            continue;
        }
        let size = fgetxattr(from, name, &mut value[..])?;
        match fsetxattr(to, name, &value[..size], XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

const CONFINED: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
