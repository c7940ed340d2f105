//! Copy-up: an empty volume mounted over a directory of the image gets that directory's content.
//!
//! The path comes from the image or the client and is resolved inside the root file system by `openat2`;
//! below it nothing is followed. Kept: owner, mode, times, extended attributes, hard links, devices, fifos.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use crate::sys::inside::walk;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("{call} {name}: {errno}")]
    Call { call: &'static str, name: String, errno: Errno },
    #[error("copy {name}: {source}")]
    Data { name: String, source: std::io::Error },
    #[error("{0} is nested too deeply")]
    Depth(String),
}

fn call(call: &'static str, name: &CStr) -> impl FnOnce(Errno) -> CopyError {
    let name = name.to_string_lossy().into_owned();
    move |errno| CopyError::Call { call, name, errno }
}

/// Deeper than any path the kernel takes in one piece.
const MAX_DEPTH: usize = 2048;

/// Fills a volume. Nothing happens when it holds anything, or the image has no directory there.
pub(crate) fn copy_up(rootfs: &Path, path: &str, volume: &Path) -> Result<(), CopyError> {
    let Some((source, target)) = open(rootfs, path, volume)? else { return Ok(()) };
    let empty = is_empty(&source)?;
    fill(&source, &target)?;
    if empty { Ok(()) } else { sync(&target) }
}

/// Makes what would fill it in a directory `beside`, on the disk when this returns; false when there is
/// nothing to fill it with.
pub(crate) fn draft(
    rootfs: &Path,
    path: &str,
    volume: &Path,
    beside: &Path,
) -> Result<bool, CopyError> {
    let Some((source, _)) = open(rootfs, path, volume)? else { return Ok(false) };
    if is_empty(&source)? {
        return Ok(false);
    }
    let data = |source| CopyError::Data { name: path.to_owned(), source };
    match std::fs::remove_dir_all(beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(data(error)),
        _ => std::fs::create_dir(beside).map_err(data)?,
    }
    let made = open_volume(beside).and_then(|target| {
        fill(&source, &target)?;
        sync(&target)
    });
    if made.is_err() {
        drop(std::fs::remove_dir_all(beside));
    }
    made.map(|()| true)
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What is to be copied, and where to.
fn open(rootfs: &Path, path: &str, volume: &Path) -> Result<Option<(OwnedFd, OwnedFd)>, CopyError> {
    let top = CString::new(path.replace('\0', "")).unwrap_or_default();
    let root =
        rustix::fs::open(rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(call("open", c"rootfs"))?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let relative = if path.is_empty() { c"/" } else { top.as_c_str() };
    let openat2 = || rustix::fs::openat2(&root, relative, DIRECTORY, Mode::empty(), resolve);
    let source = match walk(openat2) {
        Ok(source) => source,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(call("openat2", &top)(errno)),
    };
    let target = open_volume(volume)?;
    Ok(is_empty(&target)?.then_some((source, target)))
}

fn open_volume(path: &Path) -> Result<OwnedFd, CopyError> {
    rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty()).map_err(call("open", c"volume"))
}

fn fill(source: &OwnedFd, target: &OwnedFd) -> Result<(), CopyError> {
    let top = target
        .try_clone()
        .map_err(|source| CopyError::Data { name: "volume".to_owned(), source })?;
    Copy { links: HashMap::new(), top }.directory(source, target, &mut Vec::new())
}

fn sync(target: &OwnedFd) -> Result<(), CopyError> {
    rustix::fs::syncfs(target).map_err(call("syncfs", c"volume"))
}

fn is_empty(directory: &OwnedFd) -> Result<bool, CopyError> {
    let entries = Dir::read_from(directory).map_err(call("read", c"volume"))?;
    for entry in entries {
        let entry = entry.map_err(call("read", c"volume"))?;
        // What mkfs leaves in a fresh file system is nothing of the user's.
        if ![c".", c"..", c"lost+found"].contains(&entry.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

struct Copy {
    /// Inodes with several names, to where the first was put (from the top).
    links: HashMap<(u64, u64), CString>,
    top: OwnedFd,
}

impl Copy {
    fn directory(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        at: &mut Vec<CString>,
    ) -> Result<(), CopyError> {
        if at.len() > MAX_DEPTH {
            return Err(CopyError::Depth(joined(at).to_string_lossy().into_owned()));
        }
        let entries = Dir::read_from(source).map_err(call("read", &joined(at)))?;
        for entry in entries {
            let entry = entry.map_err(call("read", &joined(at)))?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                at.push(name.to_owned());
                self.entry(source, target, name, at)?;
                at.pop();
            }
        }
        // Last: filling it changed its times, and a read-only mode is no obstacle to root only.
        let stat = rustix::fs::fstat(source).map_err(call("fstat", &joined(at)))?;
        attributes(source.as_fd(), target.as_fd(), &stat, &joined(at))
    }

    fn entry(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &CStr,
        at: &mut Vec<CString>,
    ) -> Result<(), CopyError> {
        let stat = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(call("stat", name))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mode = Mode::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                return rustix::fs::linkat(&self.top, first, target, name, AtFlags::empty())
                    .map_err(call("link", name));
            }
            self.links.insert((stat.st_dev, stat.st_ino), joined(at));
        }
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match kind {
            FileType::Directory => {
                rustix::fs::mkdirat(target, name, Mode::RWXU).map_err(call("mkdir", name))?;
                let flags = read | OFlags::DIRECTORY;
                let open = |at| rustix::fs::openat(at, name, flags, Mode::empty());
                let from = open(source).map_err(call("open", name))?;
                let into = open(target).map_err(call("open", name))?;
                return self.directory(&from, &into, at);
            }
            FileType::RegularFile => {
                let from = rustix::fs::openat(source, name, read, Mode::empty())
                    .map_err(call("open", name))?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let into = rustix::fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)
                    .map_err(call("create", name))?;
                let (mut from, mut into) = (std::fs::File::from(from), std::fs::File::from(into));
                std::io::copy(&mut from, &mut into).map_err(|source| CopyError::Data {
                    name: name.to_string_lossy().into_owned(),
                    source,
                })?;
                return attributes(from.as_fd(), into.as_fd(), &stat, name);
            }
            FileType::Symlink => {
                let to = rustix::fs::readlinkat(source, name, Vec::new())
                    .map_err(call("readlink", name))?;
                rustix::fs::symlinkat(to, target, name).map_err(call("symlink", name))?;
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                rustix::fs::mknodat(target, name, kind, mode, stat.st_rdev)
                    .map_err(call("mknod", name))?;
            }
            // A socket without its server is nothing.
            _ => return Ok(()),
        }
        rustix::fs::chownat(
            target,
            name,
            owner(&stat).0,
            owner(&stat).1,
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(call("chown", name))?;
        if kind != FileType::Symlink {
            rustix::fs::chmodat(target, name, mode, AtFlags::empty())
                .map_err(call("chmod", name))?;
        }
        rustix::fs::utimensat(target, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(call("utimensat", name))
    }
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Owner before mode and attributes: chown clears set-id bits and capabilities.
fn attributes(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    stat: &Stat,
    name: &CStr,
) -> Result<(), CopyError> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(target, uid, gid).map_err(call("fchown", name))?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(stat.st_mode)).map_err(call("fchmod", name))?;
    extended_attributes(source, target, name)?;
    rustix::fs::futimens(target, &times(stat)).map_err(call("futimens", name))
}

fn extended_attributes(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    name: &CStr,
) -> Result<(), CopyError> {
    let mut names = vec![0u8; 64 * 1024];
    let length = match rustix::fs::flistxattr(source, &mut names) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(errno) => return Err(call("flistxattr", name)(errno)),
    };
    let mut value = vec![0u8; 64 * 1024];
    for key in names.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
        // overlayfs' own marks say nothing about the content.
        if key.is_empty() || key.starts_with(b"trusted.overlay.") {
            continue;
        }
        let Ok(key) = CString::new(key) else { continue };
        let size = match rustix::fs::fgetxattr(source, &key, &mut value) {
            Ok(size) => size,
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(call("fgetxattr", name)(errno)),
        };
        let bytes = value.get(..size).unwrap_or_default();
        match rustix::fs::fsetxattr(target, &key, bytes, rustix::fs::XattrFlags::empty()) {
            // The volume's file system has none: as cp -a, go on.
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(errno) => return Err(call("fsetxattr", name)(errno)),
        }
    }
    Ok(())
}

fn joined(at: &[CString]) -> CString {
    if at.is_empty() {
        return c".".to_owned();
    }
    let bytes = at.iter().map(|part| part.to_bytes()).collect::<Vec<_>>().join(&b'/');
    CString::new(bytes).unwrap_or_default()
}
