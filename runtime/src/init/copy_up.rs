//! `tmpcopyup`: a tmpfs starts with what it covers. Everything by descriptor.

#![allow(
    clippy::disallowed_methods,
    reason = "a door: one name each, as readdir told it, below a handle; links are not followed"
)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};

/// Copies the contents of `from` into the empty directory `to`, owners and modes too.
pub(super) fn copy(from: &OwnedFd, to: BorrowedFd<'_>) -> io::Result<()> {
    let to = reopen(to)?;
    copy_directory(from, &to)
}

fn reopen(path: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(path, c".", flags, Mode::empty())?)
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    own(to.as_fd(), c"", &stat, AtFlags::EMPTY_PATH)?;
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        copy_entry(from, to, name)?;
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> io::Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let open = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let below = OFlags::RDONLY | OFlags::DIRECTORY | open;
            let source = rustix::fs::openat(from, name, below, Mode::empty())?;
            let target = rustix::fs::openat(to, name, below, Mode::empty())?;
            return copy_directory(&source, &target);
        }
        FileType::RegularFile => {
            let source = rustix::fs::openat(from, name, OFlags::RDONLY | open, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | open;
            let target = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
            io::copy(
                &mut std::fs::File::from(source),
                &mut std::fs::File::from(target.try_clone()?),
            )?;
            own(to.as_fd(), name, &stat, AtFlags::SYMLINK_NOFOLLOW)?;
            // The mode last: a change of owner clears set-id bits.
            rustix::fs::fchmod(&target, mode)?;
            return Ok(());
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(link, to, name)?;
        }
        kind => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?,
    }
    own(to.as_fd(), name, &stat, AtFlags::SYMLINK_NOFOLLOW)
}

fn own(
    dir: BorrowedFd<'_>,
    name: &CStr,
    stat: &rustix::fs::Stat,
    flags: AtFlags,
) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    Ok(rustix::fs::chownat(dir, name, Some(uid), Some(gid), flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_copied_with_links_and_modes() {
        use std::os::unix::fs::PermissionsExt;
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(from.path().join("d")).unwrap();
        std::fs::write(from.path().join("d/f"), "text").unwrap();
        std::fs::set_permissions(from.path().join("d/f"), PermissionsExt::from_mode(0o640))
            .unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.path().join("l")).unwrap();
        let open = |dir: &tempfile::TempDir| {
            rustix::fs::open(dir.path(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .unwrap()
        };
        copy(&open(&from), open(&to).as_fd()).unwrap();
        assert_eq!(std::fs::read_to_string(to.path().join("d/f")).unwrap(), "text");
        let mode = std::fs::metadata(to.path().join("d/f")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        let link = std::fs::read_link(to.path().join("l")).unwrap();
        assert_eq!(link, std::path::Path::new("/etc/passwd"));
    }
}
