//! criu as a child of ours: descriptors where it looks for them, standard streams, and what is to be
//! done in it before it becomes criu.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{Mode, OFlags};

use super::Running;
use crate::sys::clone::{Side, clone, exit_now};
use crate::sys::{self, errno_of, errno_text};

/// Done in the child, with its own mount namespace if it makes one: what it hands back, for
/// [`Running::handed`], or the sentence of what failed.
type Prepare<'a> = &'a dyn Fn() -> Result<Option<OwnedFd>, String>;

pub(crate) struct Child<'a> {
    /// From 4 on; 3 is the socket.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Has our standard streams, which become the container's.
    pub(crate) streams: bool,
    pub(crate) prepare: Prepare<'a>,
}

impl Child<'_> {
    /// One that only answers.
    pub(crate) fn quiet() -> Self {
        Child { descriptors: Vec::new(), streams: false, prepare: &|| Ok(None) }
    }

    pub(super) fn spawn(self, program: &Path) -> anyhow::Result<Running> {
        let (ours, theirs) = sys::socket::message_pair().context("socket")?;
        let strings = |texts: Vec<Vec<u8>>| -> Vec<CString> {
            texts.into_iter().filter_map(|text| CString::new(text).ok()).collect()
        };
        let path = sys::c_string(program.as_os_str().as_bytes())?;
        let arguments =
            strings(["criu", "swrk", "3"].map(|word| word.as_bytes().to_vec()).to_vec());
        let environment = strings(
            std::env::vars_os()
                .map(|(name, value)| [name.as_bytes(), value.as_bytes()].join(&b'='))
                .collect(),
        );
        match clone(0, false).context("clone")? {
            Side::Child => {
                drop(ours);
                let told = rustix::io::fcntl_dupfd_cloexec(&theirs, 16);
                let Err(text) = self.become_criu(theirs, &path, &arguments, &environment);
                if let Ok(told) = told {
                    drop(sys::socket::send(&told, &[&[0], text.as_bytes()].concat()));
                }
                exit_now(127)
            }
            Side::Parent(pid) => {
                drop((theirs, self.descriptors));
                Ok(Running { pid, socket: ours, ended: false })
            }
        }
    }

    fn become_criu(
        self,
        socket: OwnedFd,
        path: &CString,
        arguments: &[CString],
        environment: &[CString],
    ) -> Result<std::convert::Infallible, String> {
        let handed = (self.prepare)()?;
        let failed = |error: io::Error| format!("prepare criu: {}", errno_text(errno_of(&error)));
        if let Some(handed) = handed {
            sys::socket::send_fds(socket.as_fd(), b"handed", &[handed.as_fd()]).map_err(failed)?;
        }
        if !self.streams {
            let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| failed(error.into()))?;
            sys::process::become_stdio(null.as_fd()).map_err(failed)?;
        }
        place(socket, self.descriptors).map_err(failed)?;
        sys::process::reset_signals().map_err(failed)?;
        let error = sys::process::exec(path, arguments, environment);
        Err(format!("exec {}: {}", path.to_string_lossy(), errno_text(errno_of(&error))))
    }
}

/// The socket at 3, the others behind it, to stay open over the exec.
fn place(socket: OwnedFd, descriptors: Vec<OwnedFd>) -> io::Result<()> {
    // Clear of all the numbers they are to have.
    let high = std::iter::once(socket)
        .chain(descriptors)
        .map(|fd| rustix::io::fcntl_dupfd_cloexec(&fd, 16))
        .collect::<Result<Vec<_>, _>>()?;
    for (fd, number) in high.into_iter().zip(3..) {
        sys::process::duplicate_to(fd.as_fd(), number)?;
        // Closed by the exec; its owner may not close what has taken its first number.
        let _ = fd.into_raw_fd();
    }
    Ok(())
}

/// Compat: Go's words where it is not to be found.
pub(super) fn program() -> anyhow::Result<PathBuf> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let runs = |path: &PathBuf| {
        std::fs::metadata(path)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let Some(found) = std::env::split_paths(&search).map(|dir| dir.join("criu")).find(runs) else {
        bail!("exec: \"criu\": executable file not found in $PATH");
    };
    Ok(found)
}

pub(super) const GOOD: &str = "exit status 0";

/// Compat: as Go tells the end of a process.
pub(super) fn ending(status: i32) -> String {
    if libc::WIFSIGNALED(status) {
        format!("signal: {}", libc::WTERMSIG(status))
    } else {
        format!("exit status {}", libc::WEXITSTATUS(status))
    }
}
