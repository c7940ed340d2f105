//! One tar entry becomes one file. Order within an entry matters: create, owner, attributes
//! (a change of owner drops capabilities), mode (it also drops setuid), times.

use super::path::{clean, show, split};
use super::root::{Root, failed, kind, list, lookup, open_directory};
use super::{LayerError, Missing, Whiteouts, sparse};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fsetxattr, ftruncate, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, symlinkat,
    utimensat,
};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tar::EntryType;

pub(super) struct Writer<'a> {
    root: Root<'a>,
    whiteouts: Whiteouts,
    /// Times of directories, set at the end: writing into a directory changes them.
    directories: Vec<(PathBuf, Timestamps)>,
    /// What this layer brought; whiteouts speak only of the layers below.
    unpacked: HashSet<PathBuf>,
    buffer: Vec<u8>,
}

/// What an entry's headers say, PAX records applied.
struct Meta {
    path: PathBuf,
    link: Option<Vec<u8>>,
    kind: EntryType,
    mode: Mode,
    uid: u32,
    gid: u32,
    device: u64,
    times: Timestamps,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Option<u64>,
    size: u64,
}

impl<'a> Writer<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, whiteouts: Whiteouts) -> Self {
        Self {
            root: Root::new(root),
            whiteouts,
            directories: Vec::new(),
            unpacked: HashSet::new(),
            buffer: vec![0; 256 * 1024],
        }
    }

    pub(super) fn entry<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
    ) -> Result<(), LayerError> {
        let Some(meta) = Meta::read(entry)? else { return Ok(()) };
        // Compat: what a layer says of the root itself is passed over, as containerd does.
        let Some((parent, name)) = split(&meta.path) else { return Ok(()) };
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.whiteout(parent, hidden, &meta);
        }
        let dir = self.root.directory(parent)?.try_clone().map_err(|source| LayerError::Write {
            operation: "duplicate descriptor of",
            path: show(parent.as_os_str().as_bytes()),
            source,
        })?;
        let dir = dir.as_fd();
        let existing = lookup(dir, name).map_err(failed("stat", &meta.path))?;
        let mut was_whiteout = false;
        let keep = match &existing {
            Some(stat) => meta.kind == EntryType::Directory && kind(stat) == FileType::Directory,
            None => false,
        };
        if let Some(stat) = existing.as_ref().filter(|_| !keep) {
            was_whiteout = self.whiteouts == Whiteouts::Overlay
                && kind(stat) == FileType::CharacterDevice
                && stat.st_rdev == 0;
            Root::remove(dir, name).map_err(failed("replace", &meta.path))?;
            self.root.forget();
        }
        self.create(dir, name, &meta, keep, entry)?;
        if was_whiteout && meta.kind == EntryType::Directory {
            // The layer hid what was here and then made a directory: the old content stays hidden.
            set_opaque(dir, name, &meta.path)?;
        }
        if self.whiteouts == Whiteouts::Remove {
            self.unpacked.insert(meta.path);
        }
        Ok(())
    }

    /// Answers what the layer needed and did not carry.
    pub(super) fn finish(mut self) -> Result<Missing, LayerError> {
        // Later entries of the same name win.
        let mut seen: HashMap<PathBuf, Timestamps> = HashMap::new();
        for (path, times) in self.directories.drain(..) {
            seen.insert(path, times);
        }
        for (path, times) in seen {
            let Some((parent, name)) = split(&path) else { continue };
            let Some(dir) = self.root.existing(parent)? else { continue };
            match open_directory(dir.as_fd(), name) {
                Ok(fd) => rustix::fs::futimens(&fd, &times),
                // It was replaced later in the same layer.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(errno) => Err(errno),
            }
            .map_err(failed("set times of", &path))?;
        }
        Ok(self.root.missing)
    }

    fn create<R: Read>(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        meta: &Meta,
        keep: bool,
        data: &mut tar::Entry<'_, R>,
    ) -> Result<(), LayerError> {
        let path = &meta.path;
        match meta.kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                return self.file(dir, name, meta, data);
            }
            EntryType::Directory => {
                if !keep {
                    mkdirat(dir, name, Mode::from_raw_mode(0o700))
                        .map_err(failed("make directory", path))?;
                }
                let fd = open_directory(dir, name).map_err(failed("open directory", path))?;
                return self.directory_meta(fd.as_fd(), meta);
            }
            EntryType::Link => return self.hard_link(dir, name, meta),
            EntryType::Symlink => {
                let target =
                    meta.link.as_deref().filter(|link| !link.is_empty()).ok_or_else(|| {
                        LayerError::Entry {
                            path: show(path.as_os_str().as_bytes()),
                            reason: "symlink without a target",
                        }
                    })?;
                symlinkat(target, dir, name).map_err(failed("make symlink", path))?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let kind = match meta.kind {
                    EntryType::Char => FileType::CharacterDevice,
                    EntryType::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = if kind == FileType::Fifo { 0 } else { meta.device };
                mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device)
                    .map_err(failed("make node", path))?;
            }
            other => {
                return Err(LayerError::Kind {
                    path: show(path.as_os_str().as_bytes()),
                    kind: char::from(other.as_byte()),
                });
            }
        }
        chownat(dir, name, Some(meta.owner()), Some(meta.group()), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("change owner of", path))?;
        for (key, value) in &meta.xattrs {
            // There is no setxattrat before Linux 6.13; the descriptor's own entry in /proc is as
            // safe, and the last component is not followed.
            let mut link = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
            link.push(name);
            let result = lsetxattr(&link, key.as_slice(), value, XattrFlags::empty());
            tolerate(key, result, path)?;
        }
        if meta.kind != EntryType::Symlink {
            chmodat(dir, name, meta.mode, AtFlags::empty())
                .map_err(failed("change mode of", path))?;
        }
        utimensat(dir, name, &meta.times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set times of", path))
    }

    fn file<R: Read>(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        meta: &Meta,
        data: &mut tar::Entry<'_, R>,
    ) -> Result<(), LayerError> {
        let path = &meta.path;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            openat(dir, name, flags, Mode::from_raw_mode(0o600)).map_err(failed("create", path))?;
        let mut file = File::from(fd);
        let writing = |source| LayerError::Write {
            operation: "write",
            path: show(path.as_os_str().as_bytes()),
            source,
        };
        if let Some(real_size) = meta.sparse {
            let map = sparse::read_map(data, real_size).map_err(LayerError::Read)?;
            for chunk in map {
                file.seek(SeekFrom::Start(chunk.offset)).map_err(writing)?;
                self.copy(data, &mut file, chunk.length, path)?;
            }
            ftruncate(&file, real_size).map_err(failed("write", path))?;
        } else if meta.kind == EntryType::GNUSparse {
            self.copy_with_holes(data, &mut file, meta.size, path)?;
        } else {
            self.copy(data, &mut file, meta.size, path)?;
        }
        rustix::fs::fchown(&file, Some(meta.owner()), Some(meta.group()))
            .map_err(failed("change owner of", path))?;
        for (key, value) in &meta.xattrs {
            let result = fsetxattr(&file, key.as_slice(), value, XattrFlags::empty());
            tolerate(key, result, path)?;
        }
        rustix::fs::fchmod(&file, meta.mode).map_err(failed("change mode of", path))?;
        rustix::fs::futimens(&file, &meta.times).map_err(failed("set times of", path))
    }

    fn copy(
        &mut self,
        data: &mut impl Read,
        file: &mut File,
        mut left: u64,
        path: &Path,
    ) -> Result<(), LayerError> {
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = read_some(data, &mut self.buffer[..want])?;
            file.write_all(&self.buffer[..count]).map_err(|source| LayerError::Write {
                operation: "write",
                path: show(path.as_os_str().as_bytes()),
                source,
            })?;
            left -= count as u64;
        }
        Ok(())
    }

    /// Copies an expanded old-style sparse member, leaving zero runs as holes.
    fn copy_with_holes(
        &mut self,
        data: &mut impl Read,
        file: &mut File,
        size: u64,
        path: &Path,
    ) -> Result<(), LayerError> {
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(4096);
            let count = read_some(data, &mut self.buffer[..want])?;
            let chunk = &self.buffer[..count];
            let done = if chunk.iter().all(|b| *b == 0) {
                file.seek(SeekFrom::Current(i64::try_from(count).unwrap_or(0))).map(|_| ())
            } else {
                file.write_all(chunk)
            };
            done.map_err(|source| LayerError::Write {
                operation: "write",
                path: show(path.as_os_str().as_bytes()),
                source,
            })?;
            left -= count as u64;
        }
        ftruncate(&*file, size).map_err(failed("write", path))
    }

    fn hard_link(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        meta: &Meta,
    ) -> Result<(), LayerError> {
        let target = clean(meta.link.as_deref().unwrap_or_default())?;
        let (from, from_name) = self.root.locate(&target)?;
        linkat(&from, from_name, dir, name, AtFlags::empty())
            .map_err(failed("make hard link", &meta.path))
    }

    fn directory_meta(&mut self, fd: BorrowedFd<'_>, meta: &Meta) -> Result<(), LayerError> {
        let path = &meta.path;
        rustix::fs::fchown(fd, Some(meta.owner()), Some(meta.group()))
            .map_err(failed("change owner of", path))?;
        for (key, value) in &meta.xattrs {
            let result = fsetxattr(fd, key.as_slice(), value, XattrFlags::empty());
            tolerate(key, result, path)?;
        }
        rustix::fs::fchmod(fd, meta.mode).map_err(failed("change mode of", path))?;
        self.root.missing.remove(path);
        self.directories.push((path.clone(), meta.times.clone()));
        Ok(())
    }

    fn whiteout(&mut self, parent: &Path, hidden: &[u8], meta: &Meta) -> Result<(), LayerError> {
        if hidden == OPAQUE {
            return self.opaque(parent);
        }
        // aufs' own bookkeeping carries nothing for us.
        if hidden.starts_with(WHITEOUT) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(LayerError::Entry {
                path: show(meta.path.as_os_str().as_bytes()),
                reason: "whiteout of no file",
            });
        }
        let name = OsStr::from_bytes(hidden);
        let path = parent.join(name);
        let own = self.unpacked.contains(&path);
        match self.whiteouts {
            Whiteouts::Remove => {
                let Some(dir) = self.root.existing(parent)? else { return Ok(()) };
                if !own {
                    Root::remove(dir.as_fd(), name).map_err(failed("remove", &path))?;
                    self.root.forget();
                }
                Ok(())
            }
            Whiteouts::Overlay => {
                let dir = self.root.directory(parent)?.as_fd();
                match lookup(dir, name).map_err(failed("stat", &path))? {
                    // Brought by this layer: the whiteout means only what lies below it.
                    Some(stat) if kind(&stat) == FileType::Directory => {
                        set_opaque(dir, name, &path)
                    }
                    Some(_) => Ok(()),
                    None => {
                        let mode = Mode::empty();
                        mknodat(dir, name, FileType::CharacterDevice, mode, makedev(0, 0))
                            .map_err(failed("make whiteout", &path))?;
                        let (uid, gid) = (Some(meta.owner()), Some(meta.group()));
                        chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                            .map_err(failed("change owner of", &path))
                    }
                }
            }
        }
    }

    fn opaque(&mut self, path: &Path) -> Result<(), LayerError> {
        match self.whiteouts {
            Whiteouts::Overlay => {
                self.root.directory(path)?;
                match split(path) {
                    Some((parent, name)) => {
                        let Some(dir) = self.root.existing(parent)? else { return Ok(()) };
                        set_opaque(dir.as_fd(), name, path)
                    }
                    None => set_opaque(self.root.fd(), OsStr::new("."), path),
                }
            }
            Whiteouts::Remove => {
                let Some(dir) = self.root.existing(path)? else { return Ok(()) };
                let readable = open_directory(dir.as_fd(), OsStr::new("."))
                    .map_err(failed("open directory", path))?;
                for name in list(&readable).map_err(failed("list", path))? {
                    let name = OsStr::from_bytes(name.as_bytes());
                    let child = path.join(name);
                    if !self.unpacked.iter().any(|own| own.starts_with(&child)) {
                        Root::remove(readable.as_fd(), name).map_err(failed("remove", &child))?;
                    }
                }
                self.root.forget();
                Ok(())
            }
        }
    }
}

impl Meta {
    /// `None` for entries that make no file.
    fn read<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Option<Self>, LayerError> {
        let mut name = entry.path_bytes().into_owned();
        let mut link = entry.link_name_bytes().map(std::borrow::Cow::into_owned);
        let header = entry.header();
        let mut kind = header.entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(None);
        }
        if kind == EntryType::Regular && name.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        let fields = header.as_old();
        let mode = number(&fields.mode, || header.mode())? & 0o7777;
        let mut uid = number(&fields.uid, || header.uid())?;
        let mut gid = number(&fields.gid, || header.gid())?;
        let seconds = number(&fields.mtime, || header.mtime())?;
        let device = if matches!(kind, EntryType::Char | EntryType::Block) {
            // GNU's header has them at the same place.
            let bytes = header.as_bytes();
            let major = number(&bytes[DEVICE_MAJOR], || header.device_major())?;
            let minor = number(&bytes[DEVICE_MINOR], || header.device_minor())?;
            makedev(major.unwrap_or(0), minor.unwrap_or(0))
        } else {
            0
        };
        let size = entry.size();
        let mut modified = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(0), tv_nsec: 0 };
        let mut accessed = None;
        let mut xattrs = Vec::new();
        let mut gnu: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        if let Some(records) = entry.pax_extensions().map_err(LayerError::Read)? {
            for record in records {
                let record = record.map_err(LayerError::Read)?;
                let (key, value) = (record.key_bytes(), record.value_bytes());
                match key {
                    b"path" => name = value.to_vec(),
                    b"linkpath" => link = Some(value.to_vec()),
                    b"uid" => uid = decimal(value).unwrap_or(uid),
                    b"gid" => gid = decimal(value).unwrap_or(gid),
                    b"mtime" => modified = timestamp(value).unwrap_or(modified),
                    b"atime" => accessed = timestamp(value),
                    _ if key.starts_with(b"GNU.sparse.") => {
                        gnu.insert(key.to_vec(), value.to_vec());
                    }
                    _ => {
                        if let Some(key) = key.strip_prefix(b"SCHILY.xattr.")
                            && !is_overlay_private(key)
                        {
                            xattrs.push((key.to_vec(), value.to_vec()));
                        }
                    }
                }
            }
        }
        let mut sparse = None;
        if !gnu.is_empty() {
            let refuse = |reason| LayerError::Entry { path: show(&name), reason };
            if gnu.get(&b"GNU.sparse.major"[..]).map(Vec::as_slice) != Some(b"1") {
                return Err(refuse("this form of sparse file is not supported"));
            }
            let real = gnu.get(&b"GNU.sparse.realsize"[..]).and_then(|v| decimal(v));
            sparse = Some(real.ok_or_else(|| refuse("sparse file without its size"))?);
            if let Some(real_name) = gnu.get(&b"GNU.sparse.name"[..]) {
                name.clone_from(real_name);
            }
        }
        let owner = |id: u64| {
            u32::try_from(id).map_err(|_| LayerError::Entry {
                path: show(&name),
                reason: "owner is out of range",
            })
        };
        // Compat: the later of both, as containerd does.
        let accessed = accessed.filter(|time| time.tv_sec > modified.tv_sec).unwrap_or(modified);
        Ok(Some(Self {
            path: clean(&name)?,
            link,
            kind,
            mode: Mode::from_raw_mode(mode),
            uid: owner(uid)?,
            gid: owner(gid)?,
            device,
            times: Timestamps { last_access: accessed, last_modification: modified },
            xattrs,
            sparse,
            size,
        }))
    }

    fn owner(&self) -> Uid {
        Uid::from_raw(self.uid)
    }

    fn group(&self) -> Gid {
        Gid::from_raw(self.gid)
    }
}

/// Attributes by which overlay speaks to itself; from an image they would redirect lookups.
pub(super) fn is_overlay_private(key: &[u8]) -> bool {
    key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.")
}

fn set_opaque(dir: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<(), LayerError> {
    let fd = open_directory(dir, name).map_err(failed("open directory", path))?;
    fsetxattr(&fd, "trusted.overlay.opaque", b"y", XattrFlags::empty())
        .map_err(failed("make opaque", path))
}

/// File systems without attributes, and `user.` ones on anything but files and directories, are no
/// reason to refuse an image.
fn tolerate(key: &[u8], result: Result<(), Errno>, path: &Path) -> Result<(), LayerError> {
    match result {
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::PERM) if key.starts_with(b"user.") => Ok(()),
        Err(errno) => Err(failed("set attribute of", path)(errno)),
    }
}

fn read_some(data: &mut impl Read, buffer: &mut [u8]) -> Result<usize, LayerError> {
    loop {
        match data.read(buffer) {
            Ok(0) => return Err(LayerError::Read(std::io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(LayerError::Read(error)),
        }
    }
}

/// A header's number. Compat: Go's reader takes a field that nobody filled for nought.
fn number<N: Default>(
    field: &[u8],
    read: impl FnOnce() -> std::io::Result<N>,
) -> Result<N, LayerError> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(N::default());
    }
    read().map_err(LayerError::Read)
}

fn decimal(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// A PAX time: seconds with an optional fraction, perhaps negative.
fn timestamp(value: &[u8]) -> Option<Timespec> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut seconds: i64 = whole.parse().ok()?;
    let mut nanos: i64 = 0;
    if !fraction.is_empty() {
        if !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        nanos = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
        if whole.starts_with('-') && nanos > 0 {
            seconds = seconds.checked_sub(1)?;
            nanos = 1_000_000_000 - nanos;
        }
    }
    Some(Timespec { tv_sec: seconds, tv_nsec: nanos })
}

const DEVICE_MAJOR: std::ops::Range<usize> = 329..337;
const DEVICE_MINOR: std::ops::Range<usize> = 337..345;
const WHITEOUT: &[u8] = b".wh.";
/// What follows the prefix in the marker of an opaque directory.
const OPAQUE: &[u8] = b".wh..opq";
