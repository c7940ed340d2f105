//! The source of an id-mapped mount that an earlier mount of the container has brought, where the
//! container has a user namespace: init sees the source but may not map it, the runtime may but does
//! not see it. A short-lived child of ours goes and gets it.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, anyhow, bail};
use rustix::fs::{Mode, OFlags};

use crate::spec::mounts::{MountAction, PlannedMount, Tree};
use crate::spec::plan::Plan;
use crate::sys::clone::{Side, clone, exit_now, setns, wait};
use crate::sys::host::Host;
use crate::sys::{self, errno_of, errno_text};

/// Opened in the mount namespace of `pid`, with our rights.
pub(super) fn open_inside(
    planned: &PlannedMount,
    plan: &Plan,
    pid: i32,
) -> anyhow::Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/mnt");
    let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context("open the mount namespace of init")?;
    let (ours, theirs) = sys::socket::message_pair().context("socket")?;
    let child = match clone(0, false).context("clone")? {
        Side::Child => {
            drop(ours);
            let opened =
                setns(namespace.as_fd(), libc::CLONE_NEWNS).and_then(|()| open(planned, plan));
            let told = match opened {
                Ok(tree) => sys::socket::send_fds(theirs.as_fd(), b"T", &[tree.as_fd()]),
                Err(error) => sys::socket::send(&theirs, &errno_of(&error).to_ne_bytes()),
            };
            exit_now(i32::from(told.is_err()))
        }
        Side::Parent(child) => child,
    };
    drop(theirs);
    let (bytes, tree) = sys::socket::receive_with_fd(ours.as_fd()).context("receive")?;
    wait(child, true).context("wait")?;
    let PlannedMount { source, destination, .. } = planned;
    match (tree, <[u8; 4]>::try_from(bytes)) {
        (Some(tree), _) => Ok(tree),
        (None, Ok(errno)) => Err(anyhow!(
            "unable to start container process: error during container init: error mounting \
             {source:?} to rootfs at {destination:?}: id-mapped mount {source}: {}",
            errno_text(i32::from_ne_bytes(errno))
        )),
        (None, Err(_)) => bail!("nobody opened the source of the mount on {destination}"),
    }
}

fn open(planned: &PlannedMount, plan: &Plan) -> std::io::Result<Tree> {
    let MountAction::Bind { source, ids: Some(ids), .. } = &planned.action else {
        return Err(std::io::Error::from_raw_os_error(libc::EINVAL));
    };
    // Before the pivot: the root is the host's still.
    let host = Host::of_the_runtime();
    let tree = Tree::open(&host, source, &planned.options, plan.propagation, true)?;
    tree.map_ids(planned.options.recursive_idmap, ids.as_fd())?;
    Ok(tree)
}
