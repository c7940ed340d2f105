//! `NOTIFY_SOCKET`: the container tells that it is ready, and the caller's service manager hears it
//! (sd_notify(3)).
//!
//! ```text
//!   container                       create, run, start                     systemd
//!   /run/notify/notify.sock  --->   <root>/<id>/notify/notify.sock
//!                                   READY=1, MAINPID=n, BARRIER=1  --->    $NOTIFY_SOCKET
//! ```
//! `create` makes the directory and its read-only mount, who starts listens. Of what the container
//! says only `READY=` goes on, once: the rest would be taken for the caller's own words.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, Mode};

use crate::container::Container;
use crate::log::Log;
use crate::spec::plan::Plan;
use crate::sys::clone::pidfd_open;
use crate::sys::host::Host;
use crate::sys::path::{Name, unlink_beneath};
use crate::sys::{self, errno_of, errno_text};

const INSIDE: &str = "/run/notify";
const NAME: &str = "notify.sock";

/// Compat: how long systemd may take to see that we have spoken.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// The caller's socket, if it has one.
pub(crate) fn host() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())
}

/// A place for the socket in the container, where the caller has one.
pub(crate) fn prepare(plan: &mut Plan, container: &Container) -> anyhow::Result<()> {
    if host().is_none() {
        return Ok(());
    }
    let directory = container.notify_dir();
    DirBuilder::new().mode(0o755).create(&directory).map_err(|error| {
        anyhow!("mkdir {}: {}", directory.display(), errno_text(errno_of(&error)))
    })?;
    // The umask is the caller's.
    std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .with_context(|| format!("chmod {}", directory.display()))?;
    plan.bind_own(&directory, INSIDE, &["bind", "nosuid", "noexec", "nodev", "ro"])?;
    plan.process.env.retain(|pair| !pair.starts_with("NOTIFY_SOCKET="));
    plan.process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{NAME}"));
    Ok(())
}

/// A socket for everyone, whatever another left there.
fn bind(directory: &Path) -> io::Result<OwnedFd> {
    let directory = Host::of_the_runtime().directory(directory)?;
    let name = Name::new(NAME)?;
    unlink_beneath(directory.as_fd(), name)?;
    let socket = sys::socket::bind_datagram(directory.as_fd(), name)?;
    let mode = Mode::from_raw_mode(0o777);
    rustix::fs::chmodat(&directory, NAME, mode, AtFlags::empty())?;
    Ok(socket)
}

/// The container's end.
#[derive(Debug)]
pub(crate) struct Notify {
    socket: OwnedFd,
    host: OsString,
}

impl Notify {
    /// Listens, where the caller has a socket; before the container runs, which may speak at once.
    pub(crate) fn listen(container: &Container) -> anyhow::Result<Option<Self>> {
        let Some(host) = host() else { return Ok(None) };
        let directory = container.notify_dir();
        let socket = bind(&directory).map_err(|error| {
            // Compat: Go's words.
            let path = directory.join(NAME);
            anyhow!("listen unixgram {}: bind: {}", path.display(), errno_text(errno_of(&error)))
        })?;
        Ok(Some(Self { socket, host }))
    }

    /// The way to the caller's socket.
    pub(crate) fn connect(self) -> anyhow::Result<Forward> {
        let host = sys::socket::connect_datagram(&self.host).map_err(|error| {
            // Compat: Go's words.
            let path = Path::new(&self.host);
            anyhow!("dial unixgram {}: connect: {}", path.display(), errno_text(errno_of(&error)))
        })?;
        Ok(Forward { from: self.socket, to: host })
    }
}

/// From the container to the caller.
#[derive(Debug)]
pub(crate) struct Forward {
    from: OwnedFd,
    to: OwnedFd,
}

impl Forward {
    /// Until the container is ready, or dead.
    pub(crate) fn wait(&self, log: &Log, pid: i32) -> anyhow::Result<()> {
        let Ok(pidfd) = pidfd_open(pid) else { return Ok(()) };
        loop {
            let mut fds =
                [PollFd::new(&self.from, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
            match rustix::event::poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result.context("poll")?,
            };
            let [said, dead] = fds.map(|fd| fd.revents().intersects(PollFlags::IN));
            if said && let Some(line) = self.ready_line()? {
                let barrier = self.tell(&line, pid)?;
                return wait_for_close(log, &barrier);
            }
            if dead && !said {
                return Ok(());
            }
        }
    }

    /// Readable when [`Self::pass`] has something to do.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }

    /// For a caller that is the main process itself and goes on; true once all is said.
    pub(crate) fn pass(&self) -> anyhow::Result<bool> {
        let Some(line) = self.ready_line()? else { return Ok(false) };
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        // Systemd finds us whenever it looks: nothing to wait for.
        self.tell(&line, own).map(|_barrier| true)
    }

    fn ready_line(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let message = sys::socket::receive_now(&self.from).context("read notify socket")?;
        Ok(ready_line(&message).map(<[u8]>::to_vec))
    }

    /// The end of a pipe that closes once systemd has read all before.
    fn tell(&self, ready: &[u8], main: i32) -> anyhow::Result<OwnedFd> {
        let failed = "write notify socket";
        sys::socket::send(&self.to, &[ready, b"\n"].concat()).context(failed)?;
        sys::socket::send(&self.to, format!("MAINPID={main}\n").as_bytes()).context(failed)?;
        let (ours, theirs) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("pipe")?;
        sys::socket::send_fds(self.to.as_fd(), b"BARRIER=1", &[theirs.as_fd()]).context(failed)?;
        Ok(ours)
    }
}

fn ready_line(message: &[u8]) -> Option<&[u8]> {
    message.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="))
}

/// Compat: a manager that knows no barrier is waited for, and passed over.
fn wait_for_close(log: &Log, barrier: &OwnedFd) -> anyhow::Result<()> {
    loop {
        let mut fds = [PollFd::new(barrier, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&PATIENCE)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => {
                log.warn("Timeout after waiting 30s for barrier. Ignored.");
                return Ok(());
            }
            result => return result.map(drop).context("poll"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_of_readiness_goes_on() {
        assert_eq!(ready_line(b"STATUS=x\nREADY=1\nMAINPID=7"), Some(&b"READY=1"[..]));
        assert_eq!(ready_line(b"READY=1"), Some(&b"READY=1"[..]));
        for other in [&b"STATUS=READY=1"[..], b"", b"\n", b"ready=1\n"] {
            assert_eq!(ready_line(other), None);
        }
    }
}
