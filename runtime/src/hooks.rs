//! Runs the programs of `hooks`: state on standard input, a deadline, output kept for the error.
//!
//! Standard streams are memory files, so a hook that leaves a grandchild behind cannot hold us.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;

use crate::spec::oci::Hook;
use crate::sys::{clone, errno_of, errno_text};

#[derive(Debug, thiserror::Error)]
pub(crate) enum HookError {
    #[error(
        "error running {kind} hook #{number}: error running hook: {what}, stdout: {stdout}, stderr: {stderr}"
    )]
    Failed { kind: String, number: usize, what: String, stdout: String, stderr: String },
    #[error(
        "error running {kind} hook #{number}: fork/exec {path}: {}",
        errno_text(errno_of(cause))
    )]
    Spawn { kind: String, number: usize, path: String, cause: io::Error },
    #[error("error running {kind} hook #{number}: hook ran past specified timeout of {seconds}s")]
    Timeout { kind: String, number: usize, seconds: i64 },
}

/// Runs them in order; the first failure ends it.
pub(crate) fn run_all(hooks: &[Hook], kind: &str, state: &[u8]) -> Result<(), HookError> {
    run_all_with(hooks, kind, state, &[])
}

/// `environment` is for those that name none of their own.
pub(crate) fn run_all_with(
    hooks: &[Hook],
    kind: &str,
    state: &[u8],
    environment: &[String],
) -> Result<(), HookError> {
    for (number, hook) in hooks.iter().enumerate() {
        let own = if hook.env.is_empty() { environment } else { &hook.env };
        run(hook, kind, number, state, own)?;
    }
    Ok(())
}

fn run(
    hook: &Hook,
    kind: &str,
    number: usize,
    state: &[u8],
    environment: &[String],
) -> Result<(), HookError> {
    let spawn_failed = |cause: io::Error| HookError::Spawn {
        kind: kind.to_owned(),
        number,
        path: hook.path.clone(),
        cause,
    };
    let mut stdin = memory_file().map_err(spawn_failed)?;
    stdin.write_all(state).and_then(|()| stdin.rewind()).map_err(spawn_failed)?;
    let (mut stdout, mut stderr) =
        (memory_file().map_err(spawn_failed)?, memory_file().map_err(spawn_failed)?);
    let share = |file: &File| file.try_clone().map_err(spawn_failed);
    let mut command = Command::new(&hook.path);
    command
        .env_clear()
        .envs(environment.iter().filter_map(|pair| pair.split_once('=')))
        .stdin(share(&stdin)?)
        .stdout(share(&stdout)?)
        .stderr(share(&stderr)?);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    let mut child = command.spawn().map_err(spawn_failed)?;
    if let Some(seconds) = hook.timeout.filter(|seconds| *seconds > 0)
        && !exits_within(&child, seconds)
    {
        drop(child.kill());
        drop(child.wait());
        return Err(HookError::Timeout { kind: kind.to_owned(), number, seconds });
    }
    let status = child.wait().map_err(spawn_failed)?;
    if status.success() {
        return Ok(());
    }
    Err(HookError::Failed {
        kind: kind.to_owned(),
        number,
        what: describe(status),
        stdout: read_back(&mut stdout),
        stderr: read_back(&mut stderr),
    })
}

fn memory_file() -> io::Result<File> {
    let name = CString::from(c"hook");
    Ok(File::from(rustix::fs::memfd_create(name.as_c_str(), MemfdFlags::CLOEXEC)?))
}

fn exits_within(child: &std::process::Child, seconds: i64) -> bool {
    let Ok(pid) = i32::try_from(child.id()) else { return true };
    let Ok(pidfd) = clone::pidfd_open(pid) else { return true };
    let timeout = Timespec {
        tv_sec: seconds.min(i64::try_from(Duration::MAX.as_secs()).unwrap_or(i64::MAX)),
        tv_nsec: 0,
    };
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => {
            let dumped = if status.core_dumped() { " (core dumped)" } else { "" };
            format!("signal: {}{dumped}", signal_text(signal))
        }
        (None, None) => status.to_string(),
    }
}

/// Compat: Go's texts.
fn signal_text(signal: i32) -> String {
    let known = match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGQUIT => "quit",
        libc::SIGILL => "illegal instruction",
        libc::SIGTRAP => "trace/breakpoint trap",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "floating point exception",
        libc::SIGKILL => "killed",
        libc::SIGUSR1 => "user defined signal 1",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGUSR2 => "user defined signal 2",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm clock",
        libc::SIGTERM => "terminated",
        libc::SIGXCPU => "CPU time limit exceeded",
        libc::SIGXFSZ => "file size limit exceeded",
        libc::SIGSYS => "bad system call",
        other => return format!("signal {other}"),
    };
    known.to_owned()
}

fn read_back(file: &mut File) -> String {
    let mut text = Vec::new();
    if file.rewind().is_ok() {
        drop(file.take(64 * 1024).read_to_end(&mut text));
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<i64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["WORD=here".into()],
            timeout,
        }
    }

    #[test]
    fn a_hook_gets_the_state_and_its_environment() {
        let script = "read -r line; [ \"$line\" = state ] && [ \"$WORD\" = here ]";
        run_all(&[shell(script, None)], "prestart", b"state\n").unwrap();
    }

    #[test]
    fn a_failure_carries_what_the_hook_said() {
        let hooks = [shell("exit 0", None), shell("echo out; echo no >&2; exit 3", Some(10))];
        let error = run_all(&hooks, "createRuntime", b"").unwrap_err();
        assert_eq!(
            error.to_string(),
            "error running createRuntime hook #1: error running hook: exit status 3, \
             stdout: out\n, stderr: no\n"
        );
    }

    #[test]
    fn a_signal_is_told_as_go_tells_it() {
        let error = run_all(&[shell("kill -SYS $$", None)], "poststart", b"").unwrap_err();
        assert!(error.to_string().contains("running hook: signal: bad system call"), "{error}");
    }

    #[test]
    fn a_hook_past_its_time_is_killed() {
        let error = run_all(&[shell("exec sleep 60", Some(1))], "poststop", b"").unwrap_err();
        assert!(matches!(error, HookError::Timeout { seconds: 1, .. }));
    }
}
