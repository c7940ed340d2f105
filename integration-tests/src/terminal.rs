//! Programs on a pseudo-terminal of their own: what a user sees who sits at one.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::Stack;
use crate::sandbox::PATIENCE;

/// A client on a pseudo-terminal of its own.
pub struct Terminal {
    master: File,
    child: Child,
    /// What it has written and nobody has looked for yet.
    seen: String,
}

impl Terminal {
    /// The docker CLI of a stack.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn docker(stack: &Stack, arguments: &[&str], rows: u16, columns: u16) -> Self {
        Self::of(&stack.docker_command(arguments), rows, columns)
    }

    /// Any program, with the environment that the command names.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn of(client: &Command, rows: u16, columns: u16) -> Self {
        let (master, slave) = pair();
        resize(&master, rows, columns);
        // In a session of its own, so that the terminal can send signals.
        let mut command = Command::new("setsid");
        command
            .arg("-c")
            .arg(client.get_program())
            .args(client.get_args())
            .env_clear()
            .env("TERM", "xterm");
        for (name, value) in client.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let slave = || Stdio::from(slave.try_clone().expect("a descriptor"));
        let child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn();
        Self { master, child: child.expect("setsid runs"), seen: String::new() }
    }

    /// # Panics
    /// When the other side is gone.
    pub fn send(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).expect("somebody reads");
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        resize(&self.master, rows, columns);
    }

    /// Reads until the text comes; gives everything up to its end.
    ///
    /// # Panics
    /// When the end comes before, or nothing more.
    #[track_caller]
    pub fn until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.seen.find(text) {
                return self.seen.drain(..at + text.len()).collect();
            }
            assert!(self.more(), "the end came before {text:?}: {:?}", self.seen);
        }
    }

    /// The client's pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether lines are edited and `^C` is a signal, as outside of a session.
    ///
    /// # Panics
    /// When the terminal does not tell.
    #[must_use]
    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.master).expect("its modes").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ISIG | LocalModes::ECHO)
    }

    /// Everything to the end, and the exit code as a shell tells it.
    ///
    /// # Panics
    /// When the end does not come.
    pub fn until_end(&mut self) -> (String, i32) {
        while self.more() {}
        let status = self.child.wait().expect("our child");
        let code = status.code().or(status.signal().map(|number| 128 + number));
        (std::mem::take(&mut self.seen), code.expect("an end"))
    }

    /// False at the end, which for a terminal is an error of its own.
    #[track_caller]
    fn more(&mut self) -> bool {
        let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
        let count = poll(&mut ready, Some(&patience)).expect("poll");
        assert_ne!(count, 0, "nothing more after {:?}", self.seen);
        let mut buffer = [0; 4096];
        match self.master.read(&mut buffer) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
                true
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The two ends.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn pair() -> (File, File) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).expect("a pseudo-terminal");
    grantpt(&master).expect("grantpt");
    unlockpt(&master).expect("unlockpt");
    let name = ptsname(&master, Vec::new()).expect("ptsname").into_string().expect("a path");
    let slave = OpenOptions::new().read(true).write(true).open(name).expect("the other end");
    (File::from(master), slave)
}

fn resize(master: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).expect("a size");
}
