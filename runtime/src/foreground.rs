//! Stays with a process to its end: signals forwarded, the terminal copied, children reaped.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags};
use rustix::termios::{OptionalActions, OutputModes, Termios};

use crate::notify::Forward;
use crate::sys;

#[derive(Debug)]
pub(crate) struct Foreground {
    signals: OwnedFd,
    /// Both ends until the process is born, ours after.
    console: Option<(OwnedFd, Option<OwnedFd>)>,
    terminal: Option<Terminal>,
    /// Until the container has told that it is ready.
    readiness: Option<Forward>,
}

#[derive(Debug)]
struct Terminal {
    master: OwnedFd,
    _raw: Option<RawMode>,
    stdin_open: bool,
}

/// Puts the caller's terminal back when it goes.
#[derive(Debug)]
struct RawMode(Termios);

impl RawMode {
    fn new() -> io::Result<Option<Self>> {
        let stdin = rustix::stdio::stdin();
        if !rustix::termios::isatty(stdin) {
            return Ok(None);
        }
        let before = rustix::termios::tcgetattr(stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        // Compat: what the container writes still starts its lines at the left.
        raw.output_modes |= OutputModes::OPOST;
        rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let stdin = rustix::stdio::stdin();
        rustix::termios::tcsetattr(stdin, OptionalActions::Now, &self.0).ok();
    }
}

impl Foreground {
    /// Signals are held back from now on, so that none is lost before the process exists.
    pub(crate) fn new(terminal: bool) -> anyhow::Result<Self> {
        let console = if terminal {
            let (ours, theirs) = sys::socket::stream_pair().context("console socket")?;
            Some((ours, Some(theirs)))
        } else {
            None
        };
        let signals = sys::process::signal_fd().context("signalfd")?;
        Ok(Self { signals, console, terminal: None, readiness: None })
    }

    /// The end that init sends its master through.
    pub(crate) fn console(&mut self) -> Option<OwnedFd> {
        self.console.as_mut().and_then(|console| console.1.take())
    }

    pub(crate) fn take_terminal(&mut self) -> anyhow::Result<()> {
        let Some((socket, _)) = self.console.take() else { return Ok(()) };
        let master = sys::socket::receive_fd(socket.as_fd()).context("receive terminal")?;
        // Compat: line ends are made by the caller's terminal, once.
        let mut modes = rustix::termios::tcgetattr(&master).context("terminal")?;
        modes.output_modes &= !OutputModes::ONLCR;
        rustix::termios::tcsetattr(&master, OptionalActions::Now, &modes).context("terminal")?;
        let raw = RawMode::new().context("raw terminal")?;
        if raw.is_some() {
            resize(&master);
        }
        self.terminal = Some(Terminal { master, _raw: raw, stdin_open: true });
        Ok(())
    }

    pub(crate) fn forward_readiness(&mut self, forward: Option<Forward>) {
        self.readiness = forward;
    }

    /// The exit code of `pid`.
    pub(crate) fn wait(mut self, pid: i32) -> anyhow::Result<u8> {
        loop {
            if let Some(status) = reap(pid)? {
                if let Some(terminal) = &self.terminal {
                    terminal.drain();
                }
                return Ok(sys::clone::exit_code(status));
            }
            let signalled = self.poll()?;
            if signalled {
                self.forward(pid)?;
            }
        }
    }

    /// Waits for signals and copies what the terminal has meanwhile.
    fn poll(&mut self) -> anyhow::Result<bool> {
        let Some(terminal) = &mut self.terminal else {
            let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
            fds.extend(self.readiness.as_ref().map(readable));
            poll(&mut fds)?;
            if fds.get(1).is_some_and(|ready| !ready.revents().is_empty()) {
                self.pass_readiness();
            }
            return Ok(true);
        };
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&terminal.master, PollFlags::IN),
        ];
        if terminal.stdin_open {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        let readiness = fds.len();
        fds.extend(self.readiness.as_ref().map(readable));
        poll(&mut fds)?;
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        if ready[1].intersects(PollFlags::IN) {
            copy(terminal.master.as_fd(), rustix::stdio::stdout())?;
        } else if ready[1].intersects(PollFlags::HUP | PollFlags::ERR) && ready[0].is_empty() {
            // All other ends are closed; only the exit is left to wait for.
            let mut fds = [PollFd::new(&self.signals, PollFlags::IN)];
            poll(&mut fds)?;
            return Ok(true);
        }
        if terminal.stdin_open && !ready[2].is_empty() {
            terminal.stdin_open = copy(stdin, terminal.master.as_fd())?;
        }
        if ready.get(readiness).is_some_and(|ready| !ready.is_empty()) {
            self.pass_readiness();
        }
        Ok(!ready[0].is_empty())
    }

    /// Compat: a manager that takes nothing does not end the container.
    fn pass_readiness(&mut self) {
        if self.readiness.as_ref().is_some_and(|forward| forward.pass().unwrap_or(true)) {
            self.readiness = None;
        }
    }

    fn forward(&self, pid: i32) -> anyhow::Result<()> {
        while let Some(signal) = sys::process::next_signal(self.signals.as_fd())? {
            match signal {
                libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG => {}
                libc::SIGWINCH => {
                    if let Some(terminal) = &self.terminal {
                        resize(&terminal.master);
                    }
                }
                // It may be gone already; then its end is what comes next.
                signal => drop(sys::process::kill(pid, signal)),
            }
        }
        Ok(())
    }
}

impl Terminal {
    /// What the process wrote last is still in the terminal.
    fn drain(&self) {
        loop {
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let ready = rustix::event::poll(&mut fds, Some(&none)).unwrap_or(0);
            if ready == 0 || !fds[0].revents().intersects(PollFlags::IN) {
                return;
            }
            if !copy(self.master.as_fd(), rustix::stdio::stdout()).unwrap_or(false) {
                return;
            }
        }
    }
}

fn readable(forward: &Forward) -> PollFd<'_> {
    PollFd::from_borrowed_fd(forward.as_fd(), PollFlags::IN)
}

fn poll(fds: &mut [PollFd<'_>]) -> anyhow::Result<()> {
    match rustix::event::poll(fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("poll"),
    }
}

fn resize(master: &OwnedFd) {
    if let Ok((rows, columns)) = sys::terminal::size(rustix::stdio::stdin()) {
        drop(sys::terminal::set_size(master.as_fd(), rows, columns));
    }
}

/// One read's worth; false at the end.
fn copy(
    from: std::os::fd::BorrowedFd<'_>,
    to: std::os::fd::BorrowedFd<'_>,
) -> anyhow::Result<bool> {
    let mut buffer = [0_u8; 16 * 1024];
    let length = match rustix::io::read(from, &mut buffer) {
        Ok(length) => length,
        // A terminal without other ends reads as EIO.
        Err(rustix::io::Errno::IO | rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
            return Ok(true);
        }
        Err(error) => return Err(error).context("read terminal"),
    };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Ok(false),
        }
    }
    Ok(length > 0)
}

/// Reaps all that is dead; the status of `pid` once it is among them.
fn reap(pid: i32) -> anyhow::Result<Option<i32>> {
    loop {
        match sys::clone::wait(-1, false) {
            Ok(None) => return Ok(None),
            Ok(Some((dead, status))) if dead == pid => return Ok(Some(status)),
            Ok(Some(_)) => {}
            Err(error) => return Err(error).context("wait"),
        }
    }
}
