//! Copies single file-system nodes with owner, mode, times and extended attributes.

use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// Makes `to` like `from`; a directory comes empty and without its attributes.
pub(crate) fn node(from: &Path, to: &Path, found: &Metadata) -> io::Result<()> {
    let kind = found.file_type();
    if kind.is_dir() {
        return std::fs::create_dir(to);
    }
    if kind.is_symlink() {
        std::os::unix::fs::symlink(std::fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        let mut source = OpenOptions::new().read(true).open(from)?;
        let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        // std uses copy_file_range, and with it reflinks where the file system has them.
        io::copy(&mut source, &mut target)?;
    } else {
        let node = if kind.is_fifo() {
            FileType::Fifo
        } else if kind.is_char_device() {
            FileType::CharacterDevice
        } else if kind.is_block_device() {
            FileType::BlockDevice
        } else {
            FileType::Socket
        };
        rustix::fs::mknodat(CWD, to, node, Mode::from_raw_mode(0o600), found.rdev())?;
    }
    attributes(from, to, found)
}

/// Owner before mode (chown clears set-id bits), extended attributes after the owner
/// (chown clears capabilities), times last.
pub(crate) fn attributes(from: &Path, to: &Path, found: &Metadata) -> io::Result<()> {
    std::os::unix::fs::lchown(to, Some(found.uid()), Some(found.gid()))?;
    if !found.file_type().is_symlink() {
        let mode = Mode::from_raw_mode(found.mode() & 0o7777);
        rustix::fs::chmodat(CWD, to, mode, AtFlags::empty())?;
    }
    extended(from, to)?;
    let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps {
        last_access: time(found.atime(), found.atime_nsec()),
        last_modification: time(found.mtime(), found.mtime_nsec()),
    };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn extended(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = vec![0_u8; 64 << 10];
    let count = match rustix::fs::llistxattr(from, names.as_mut_slice()) {
        Ok(count) => count,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for name in names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = std::ffi::CString::new(name)?;
        let mut value = vec![0_u8; 64 << 10];
        let size = rustix::fs::lgetxattr(from, name.as_c_str(), value.as_mut_slice())?;
        rustix::fs::lsetxattr(to, name.as_c_str(), &value[..size], XattrFlags::empty())?;
    }
    Ok(())
}
