//! The terminal: a pair from the container's own devpts, its master sent to whoever asked.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;

use super::handshake::{Context as _, Failure, Step};
use crate::spec::process::ProcessPlan;
use crate::sys;
use crate::sys::path::{DEVPTS_MAGIC, RootFd, fs_magic, open_beneath};

/// Opens the pair, sends the master through `socket`, answers the other end.
pub(super) fn open(
    root: &RootFd,
    process: &ProcessPlan,
    socket: Option<&OwnedFd>,
) -> Result<OwnedFd, Failure> {
    // `/dev/ptmx` is a link into this directory; asking for the directory itself leaves no name
    // that an image could have redirected.
    let pts = root.resolve_no_links("/dev/pts").step(Step::Console, "open /dev/pts")?;
    if fs_magic(pts.as_fd()).step(Step::Console, "/dev/pts")? != DEVPTS_MAGIC {
        let detail = "/dev/pts is not a devpts".to_owned();
        return Err(Failure { step: Step::Console, errno: 0, detail });
    }
    let master = open_beneath(pts.as_fd(), "ptmx", OFlags::RDWR | OFlags::NOCTTY)
        .step(Step::Console, "open /dev/pts/ptmx")?;
    let terminal = sys::terminal::open_peer(master.as_fd()).step(Step::Console, "open terminal")?;
    if let Some(size) = process.console_size {
        sys::terminal::set_size(master.as_fd(), size.height, size.width)
            .step(Step::Console, "set terminal size")?;
    }
    if let Some(socket) = socket {
        // Compat: the payload is the master's name, as runc sends it.
        sys::socket::send_fds(socket.as_fd(), b"/dev/ptmx", &[master.as_fd()])
            .step(Step::Console, "send terminal to console socket")?;
    }
    Ok(terminal)
}

/// Makes the terminal ours: standard descriptors and controlling terminal.
pub(super) fn take(terminal: OwnedFd) -> Result<(), Failure> {
    sys::process::become_stdio(terminal.as_fd()).step(Step::Console, "dup terminal")?;
    sys::terminal::make_controlling(rustix::stdio::stdin())
        .step(Step::Console, "set controlling terminal")
}
