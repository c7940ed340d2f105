//! Network namespaces with a name: made on a thread that ends with the work, pinned by a bind mount.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;

/// A namespace could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetnsError {
    #[error("network namespace {path}: {step}: {source}")]
    Step { path: PathBuf, step: &'static str, source: std::io::Error },
    #[error("network namespace {0}: the thread that makes it died")]
    Thread(PathBuf),
}

/// Makes a new network namespace and binds it to `path`. Blocking.
pub(crate) fn create(path: &Path) -> Result<(), NetnsError> {
    let fail = |step: &'static str| {
        let path = path.to_owned();
        move |source: std::io::Error| NetnsError::Step { path, step, source }
    };
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(fail("create file"))?;
    let target = path.to_owned();
    let made = std::thread::Builder::new()
        .name("netns".to_owned())
        .stack_size(64 << 10)
        .spawn(move || -> Result<(), (&'static str, nix::Error)> {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).map_err(|error| ("unshare", error))?;
            nix::mount::mount(
                Some("/proc/thread-self/ns/net"),
                &target,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .map_err(|error| ("bind", error))
        })
        .map_err(fail("start thread"))?
        .join()
        .map_err(|_| NetnsError::Thread(path.to_owned()))?;
    made.map_err(|(step, error)| {
        drop(std::fs::remove_file(path));
        fail(step)(error.into())
    })
}

/// Unpins the namespace; it ends with its last process. Absence is fine. Blocking.
pub(crate) fn remove(path: &Path) -> Result<(), NetnsError> {
    let fail = |step: &'static str| {
        let path = path.to_owned();
        move |source: std::io::Error| NetnsError::Step { path, step, source }
    };
    match nix::mount::umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(error) => return Err(fail("unmount")(error.into())),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(fail("remove")(error)),
        _ => Ok(()),
    }
}
