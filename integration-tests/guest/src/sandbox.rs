//! The floor of a private stack: namespaces and cgroups of its own under a reaping init that ends
//! with the test.
//!
//! ```text
//! test ──pipe──► guest sandbox            stays in the host's namespaces; ends last, clears cgroups
//!                  └─► guest init         and the directory away
//!                        └─► daemons      init is pid 1 of the new pid namespace: when its stdin
//!                                         ends, it ends, and the kernel ends all that is in there
//! ```
//! Lines on stdin, fields parted by tabs, one answer line each:
//! `spawn LOG NAME=VALUE… -- PROGRAM ARGUMENT…` → `started PID`; `signal PID NUMBER`, `bind FROM TO`
//! → `ok`; `failed WHY`. In between `exited PID exit|signal NUMBER` as processes end, orphans too.
//! The first lines are `outer PID` (of init, in the caller's namespace) and `ready`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::cgroup::{TOP, hierarchies, thaw};

/// `guest sandbox`: makes the cgroups and the namespaces, and clears up when init has ended.
pub(crate) fn outer(name: &str, root: &str, layout: &str) -> io::Result<u8> {
    let all = hierarchies(layout).inspect_err(|error| {
        fs::remove_dir(root).unwrap_or_default();
        tell(&format!("failed\t{error}"));
    })?;
    let made = all.iter().try_for_each(|hierarchy| hierarchy.make(name));
    let ended = made.and_then(|()| {
        let new = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
        unshare(new)?;
        let mut init =
            Command::new("/proc/self/exe").arg0("guest").args(["init", name, layout]).spawn()?;
        tell(&format!("outer\t{}", init.id()));
        init.wait()
    });
    for hierarchy in &all {
        if let Err(error) = hierarchy.remove(name) {
            drop(writeln!(io::stderr(), "sandbox {name}: {error}"));
        }
    }
    if let Err(error) = fs::remove_dir_all(root) {
        drop(writeln!(io::stderr(), "sandbox {name}: {root}: {error}"));
    }
    ended.inspect_err(|error| tell(&format!("failed\t{error}")))?;
    Ok(0)
}

/// `guest init`: pid 1 of the sandbox.
pub(crate) fn init(name: &str, layout: &str) -> io::Result<u8> {
    world(name, layout).inspect_err(|error| tell(&format!("failed\t{error}")))?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    let signals = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    tell("ready");
    // Unbuffered: what lies in a buffer, poll does not see.
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut pending = Vec::new();
    loop {
        let (asked, child) = {
            let mut both = [
                PollFd::new(input.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut both, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            (both[0].any().unwrap_or(false), both[1].any().unwrap_or(false))
        };
        if child {
            while signals.read_signal()?.is_some() {}
            reap();
        }
        if asked {
            let mut part = [0; 4096];
            let count = input.read(&mut part)?;
            if count == 0 {
                thaw(Path::new(TOP));
                return Ok(0);
            }
            pending.extend_from_slice(&part[..count]);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line[..end]).into_owned();
                let answer = obey(&line).unwrap_or_else(|error| format!("failed\t{error}"));
                tell(&answer);
            }
        }
    }
}

/// Mounts of our own: /proc and /sys of the new namespaces, the cgroup view, an empty /run.
fn world(name: &str, layout: &str) -> io::Result<()> {
    let all = hierarchies(layout)?;
    for hierarchy in &all {
        hierarchy.join(name)?;
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), flags, none)?;
    if layout != "v2" && all.iter().any(|hierarchy| !hierarchy.is_top()) {
        mount(Some("tmpfs"), TOP, Some("tmpfs"), flags, Some("mode=755"))?;
    }
    for hierarchy in &all {
        hierarchy.show(layout == "v2")?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), flags, Some("mode=755"))?;
    Ok(())
}

fn obey(line: &str) -> io::Result<String> {
    let fields: Vec<&str> = line.split('\t').collect();
    match fields.as_slice() {
        ["spawn", log, rest @ ..] => spawn(log, rest),
        ["signal", pid, signal] => {
            let pid = Pid::from_raw(crate::number(pid)?);
            let signal = Signal::try_from(crate::number::<i32>(signal)?)?;
            kill(pid, signal)?;
            Ok("ok".to_owned())
        }
        ["bind", from, to] => {
            let none = None::<&str>;
            mount(Some(*from), *to, none, MsFlags::MS_BIND, none)?;
            Ok("ok".to_owned())
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("what is {line:?}?"))),
    }
}

fn spawn(log: &str, rest: &[&str]) -> io::Result<String> {
    let bad = || io::Error::new(io::ErrorKind::InvalidInput, "no program");
    let gap = rest.iter().position(|word| *word == "--").ok_or_else(bad)?;
    let (variables, command) = (&rest[..gap], &rest[gap + 1..]);
    let (program, arguments) = command.split_first().ok_or_else(bad)?;
    let log = OpenOptions::new().append(true).create(true).open(log)?;
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(variables.iter().filter_map(|variable| variable.split_once('=')))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Ok(format!("started\t{}", child.id()))
}

fn reap() {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => tell(&format!("exited\t{pid}\texit\t{code}")),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                tell(&format!("exited\t{pid}\tsignal\t{}", signal as i32));
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// One line in one write. Nobody may be listening any more; then stdin has ended, too.
fn tell(line: &str) {
    drop(io::stdout().write_all(format!("{line}\n").as_bytes()));
}
