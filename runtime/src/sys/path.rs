//! Paths inside a container, resolved by the kernel below a root descriptor (openat2(2)).
//!
//! Nothing here takes an absolute path of the host. A component that does not exist is made
//! beneath the directory that was opened, never by a joined string.

#![allow(clippy::disallowed_methods, reason = "the door: names below a handle")]

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, Uid,
};

pub(crate) const PROC_MAGIC: i64 = 0x9fa0;
pub(crate) const DEVPTS_MAGIC: i64 = 0x1cd1;

/// The container's root directory; all its paths start here.
#[derive(Debug)]
pub(crate) struct RootFd(OwnedFd);

impl RootFd {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// An `O_PATH` handle on what `path` names, links followed inside the root.
    pub(crate) fn resolve(&self, path: &str) -> io::Result<OwnedFd> {
        self.open(path, OFlags::PATH, ResolveFlags::IN_ROOT)
    }

    /// The same, but a symbolic link anywhere on the way is an error (`ELOOP`).
    pub(crate) fn resolve_no_links(&self, path: &str) -> io::Result<OwnedFd> {
        self.open(path, OFlags::PATH, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
    }

    pub(crate) fn open(
        &self,
        path: &str,
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> io::Result<OwnedFd> {
        let relative = relative(path);
        let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
        retry(|| openat2(self.0.as_fd(), relative, flags | OFlags::CLOEXEC, 0, resolve))
    }

    /// Makes a directory and its parents; an `O_PATH` handle on it.
    pub(crate) fn mkdir_all(&self, path: &str, mode: u32) -> io::Result<OwnedFd> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::IN_ROOT) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            result => return result,
        }
        let Way { existing, missing } = self.way(path)?;
        self.make_missing(&existing, &missing, mode)
    }

    /// Step by step beneath what exists; a link that comes up meanwhile is an error.
    fn make_missing(
        &self,
        existing: &[String],
        missing: &[String],
        mode: u32,
    ) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut current = self.open(
            &existing.join("/"),
            flags,
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
        )?;
        for name in missing {
            current = mkdir_beneath(current.as_fd(), Name::new(name)?, mode)?;
        }
        Ok(current)
    }

    /// The path from the root to what `path` names, links resolved, whether it is there or not.
    pub(crate) fn place(&self, path: &str) -> io::Result<String> {
        let Way { existing, missing } = self.way(path)?;
        let names: Vec<String> = existing.into_iter().chain(missing).collect();
        Ok(format!("/{}", names.join("/")))
    }

    /// Compat: a link that dangles stands for the place it names, inside the root. Images have
    /// such links where a running system would have the file, as `/etc/resolv.conf`.
    fn way(&self, path: &str) -> io::Result<Way> {
        let mut ahead: Vec<String> =
            components(path)?.into_iter().rev().map(str::to_owned).collect();
        let mut way = Way::default();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == ".." {
                drop(way.missing.pop().or_else(|| way.existing.pop()));
                continue;
            }
            if !way.missing.is_empty() {
                way.missing.push(name);
                continue;
            }
            let mut candidate = way.existing.clone();
            candidate.push(name);
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
            let found =
                match self.open(&candidate.join("/"), OFlags::PATH | OFlags::NOFOLLOW, resolve) {
                    Ok(found) => found,
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                        way.missing.extend(candidate.pop());
                        continue;
                    }
                    Err(error) => return Err(error),
                };
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
            if kind != FileType::Symlink {
                way.existing = candidate;
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            let target = rustix::fs::readlinkat(&found, "", Vec::new())?;
            let target = target.to_str().map_err(|_| io::ErrorKind::InvalidInput)?.to_owned();
            if target.starts_with('/') {
                way.existing.clear();
            }
            let names = target.split('/').filter(|name| !matches!(*name, "" | "."));
            ahead.extend(names.rev().map(str::to_owned));
        }
        Ok(way)
    }

    /// Makes an empty file where nothing is, its parents too; an `O_PATH` handle on it.
    pub(crate) fn create_file(&self, path: &str) -> io::Result<OwnedFd> {
        match self.resolve(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            result => return result,
        }
        let Way { existing, missing } = self.way(path)?;
        let Some((name, parents)) = missing.split_last() else {
            // It has come up meanwhile.
            return self.resolve(path);
        };
        let parent = self.make_missing(&existing, parents, 0o755)?;
        create_beneath(parent.as_fd(), Name::new(name)?)
    }
}

/// Where a path leads, links resolved: the part that is there, and what is to be made below it.
#[derive(Debug, Default)]
struct Way {
    existing: Vec<String>,
    missing: Vec<String>,
}

/// As many as the kernel follows.
const MOST_LINKS: u32 = 40;

/// One name in a directory: no way to anywhere else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name<'a>(&'a str);

impl<'a> Name<'a> {
    pub(super) fn as_str(&self) -> &'a str {
        self.0
    }

    pub(crate) fn new(text: &'a str) -> io::Result<Self> {
        if matches!(text, "" | "." | "..") || text.contains(['/', '\0']) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self(text))
    }
}

/// Makes a directory in `dir` unless it is there; an `O_PATH` handle on it.
pub(crate) fn mkdir_beneath(dir: BorrowedFd<'_>, name: Name<'_>, mode: u32) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(dir, name.0, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    open_beneath(dir, name.0, OFlags::PATH | OFlags::DIRECTORY)
}

/// Makes a node in `dir` and gives it to an owner; whether it was not there.
pub(crate) fn mknod_beneath(
    dir: BorrowedFd<'_>,
    name: Name<'_>,
    kind: FileType,
    mode: u32,
    device: u64,
    owner: (u32, u32),
) -> io::Result<bool> {
    match rustix::fs::mknodat(dir, name.0, kind, Mode::from_raw_mode(mode), device) {
        Err(rustix::io::Errno::EXIST) => return Ok(false),
        result => result?,
    }
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    // Whatever has the name by now: if it is another node, it is not a link.
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(dir, name.0, Some(uid), Some(gid), flags)?;
    Ok(true)
}

/// Makes a link in `dir` unless something is there.
pub(crate) fn link_beneath(dir: BorrowedFd<'_>, name: Name<'_>, target: &str) -> io::Result<()> {
    match rustix::fs::symlinkat(target, dir, name.0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes a file or a link out of `dir`, if it is there.
pub(crate) fn unlink_beneath(dir: BorrowedFd<'_>, name: Name<'_>) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name.0, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Changes the mode of a directory, which may be an `O_PATH` handle.
pub(crate) fn set_directory_mode(dir: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, c".", flags, Mode::empty())?;
    Ok(rustix::fs::fchmod(&opened, Mode::from_raw_mode(mode))?)
}

pub(crate) fn mount_id(fd: BorrowedFd<'_>) -> io::Result<u64> {
    mount_at(fd).map(|mount| mount.id)
}

/// The mount that something is on.
#[derive(Debug)]
pub(crate) struct MountAt {
    pub(crate) id: u64,
    /// Whether it is what is mounted.
    pub(crate) is_its_root: bool,
}

pub(crate) fn mount_at(fd: BorrowedFd<'_>) -> io::Result<MountAt> {
    let found = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    let is_its_root = found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    Ok(MountAt { id: found.stx_mnt_id, is_its_root })
}

/// Makes `name` an empty file in `dir` unless it is there; an `O_PATH` handle on it.
pub(crate) fn create_beneath(dir: BorrowedFd<'_>, name: Name<'_>) -> io::Result<OwnedFd> {
    let Name(name) = name;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o755)) {
        Ok(_) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    open_beneath(dir, name, OFlags::PATH)
}

/// Opens below `dir` without following any link.
pub(crate) fn open_beneath(dir: BorrowedFd<'_>, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    retry(|| openat2(dir, OsStr::new(path), flags | OFlags::CLOEXEC, 0, resolve))
}

/// Opens a file of a procfs for writing: no links, no other mount on top, and really a procfs.
pub(crate) fn open_proc(proc: BorrowedFd<'_>, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let fd = retry(|| openat2(proc, OsStr::new(path), flags | OFlags::CLOEXEC, 0, resolve))?;
    if fs_magic(fd.as_fd())? != PROC_MAGIC {
        return Err(io::Error::from_raw_os_error(libc::EXDEV));
    }
    Ok(fd)
}

pub(crate) fn fs_magic(fd: BorrowedFd<'_>) -> io::Result<i64> {
    Ok(rustix::fs::fstatfs(fd)?.f_type)
}

pub(crate) fn is_dir(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// Whether this is the character device `major`:`minor`.
pub(crate) fn is_char_device(fd: BorrowedFd<'_>, major: u32, minor: u32) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(major, minor))
}

/// `path` without its leading slashes; `.` for the root itself.
fn relative(path: &str) -> &OsStr {
    let trimmed = path.trim_start_matches('/');
    if trimmed.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(trimmed.as_bytes()) }
}

/// The names of a path; `..` is taken out by text, as runc cleans destinations.
fn components(path: &str) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => {
                let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
                names.push(name);
            }
            Component::ParentDir => drop(names.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(names)
}

fn openat2(
    dir: BorrowedFd<'_>,
    path: &OsStr,
    flags: OFlags,
    mode: u32,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat2(dir, path, flags, Mode::from_raw_mode(mode), resolve)?)
}

/// openat2 answers EAGAIN when a rename raced with the walk; then the walk is done again.
fn retry(mut call: impl FnMut() -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    for _ in 0..128 {
        match call() {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            result => return result,
        }
    }
    call()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(dir: &tempfile::TempDir) -> RootFd {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        RootFd::new(rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap())
    }

    #[test]
    fn links_stay_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("outside")).unwrap();
        root(&dir).mkdir_all("/outside/made/here", 0o755).unwrap();
        assert!(dir.path().join("etc/made/here").is_dir());
    }

    #[test]
    fn parent_components_do_not_leave_the_root() {
        let dir = tempfile::tempdir().unwrap();
        root(&dir).create_file("/a/../../../b/file").unwrap();
        assert!(dir.path().join("b/file").is_file());
    }

    #[test]
    fn a_dangling_link_stands_for_the_place_it_names_inside_the_root() {
        for (link, made) in [
            ("/nowhere", "nowhere"),
            ("../../../up/file", "up/file"),
            ("a/../b/./file", "etc/b/file"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("etc")).unwrap();
            std::os::unix::fs::symlink(link, dir.path().join("etc/link")).unwrap();
            root(&dir).create_file("/etc/link").unwrap();
            assert!(dir.path().join(made).is_file(), "{link}");
        }
    }

    #[test]
    fn a_place_has_no_links_in_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("real/conf")).unwrap();
        std::os::unix::fs::symlink("/real/conf", dir.path().join("conf")).unwrap();
        for (path, place) in
            [("/conf", "/real/conf"), ("conf/a/../b", "/real/conf/b"), ("//x/./y", "/x/y")]
        {
            assert_eq!(root(&dir).place(path).unwrap(), place);
        }
    }

    #[test]
    fn links_in_a_circle_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("two", dir.path().join("one")).unwrap();
        std::os::unix::fs::symlink("one", dir.path().join("two")).unwrap();
        let error = root(&dir).mkdir_all("/one/below", 0o755).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn a_name_is_no_way() {
        for text in ["", ".", "..", "a/b", "/a", "a/", "a\0"] {
            assert!(Name::new(text).is_err(), "{text:?}");
        }
        assert!(Name::new("...").is_ok());
    }

    #[test]
    fn a_link_is_refused_where_none_may_be() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("proc")).unwrap();
        let error = root(&dir).resolve_no_links("/proc").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }
}
