//! CVE-2019-5736: a container must not get at our own file for writing.
//!
//! What is born into a container shows, for a moment, our binary as its `/proc/<pid>/exe`, and an
//! interpreter line `#!/proc/self/exe` runs it again. So the commands that make such processes
//! first execute themselves from a read-only mount of the file that is attached nowhere, or from
//! a sealed copy in memory where that mount cannot be made.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use anyhow::anyhow;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};

use crate::log::Log;
use crate::sys::host::Host;
use crate::sys::{self, errno_of, errno_text, mount};

const SELF: &str = "/proc/self/exe";

/// Returns when this process runs from a protected file; else executes itself from one.
pub(crate) fn ensure(log: &Log) -> anyhow::Result<()> {
    if is_protected() {
        return Ok(());
    }
    let fd = read_only_mount().or_else(|error| {
        log.debug(&format!("read-only mount of {SELF}: {error}"));
        sealed_copy()
    });
    let fd = fd.map_err(|error| {
        anyhow!("protect {SELF} from the container: {}", errno_text(errno_of(&error)))
    })?;
    let strings = |texts: Vec<Vec<u8>>| -> Vec<CString> {
        texts.into_iter().filter_map(|text| CString::new(text).ok()).collect()
    };
    let arguments = strings(std::env::args_os().map(OsStringExt::into_vec).collect());
    let environment = strings(
        std::env::vars_os()
            .map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='))
            .collect(),
    );
    let error = sys::process::exec_fd(fd.as_fd(), &arguments, &environment);
    Err(anyhow!("execute {SELF} from its protected copy: {}", errno_text(errno_of(&error))))
}

fn is_protected() -> bool {
    let Ok(file) = rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return false;
    };
    let sealed = rustix::fs::fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SEALS));
    let read_only = rustix::fs::fstatvfs(&file)
        .is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY));
    sealed || read_only && is_attached_nowhere()
}

/// A mount that has a place may be made writable there. One of a single file that has none is its own
/// root.
fn is_attached_nowhere() -> bool {
    rustix::fs::readlink(SELF, Vec::new()).is_ok_and(|path| path.as_bytes() == b"/")
}

const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

fn read_only_mount() -> io::Result<OwnedFd> {
    let tree = Host::of_the_runtime().tree(Path::new(SELF), false)?;
    mount::set_attributes(tree.as_fd(), mount::ATTR_RDONLY, 0, mount::Target::Detached)?;
    Ok(tree)
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create(c"runc-rs", flags)?;
    let mut from = std::fs::File::from(rustix::fs::open(
        SELF,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?);
    let mut to = std::fs::File::from(copy.try_clone()?);
    io::copy(&mut from, &mut to)?;
    rustix::fs::fcntl_add_seals(&copy, SEALS)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_copy_cannot_be_written() {
        use std::io::Write as _;
        let copy = sealed_copy().unwrap();
        let error = std::fs::File::from(copy).write(b"x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
}
