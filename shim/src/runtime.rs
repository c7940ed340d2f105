//! Calls a runc-compatible runtime: the command line, and its failure in the words stock uses.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::wait::WaitStatus;
use serde::Deserialize;

use crate::error::{TaskError, call_error, path_error};
use crate::sys;

/// The runtime of one container, as resolved when it was created.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) path: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) systemd_cgroup: bool,
}

impl Runtime {
    /// The call up to the verb; `log` receives the runtime's JSON log.
    pub(crate) fn command(&self, log: Option<&Path>) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(&self.root);
        if let Some(log) = log {
            command.arg("--log").arg(log).args(["--log-format", "json"]);
        }
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// A runtime call under way: where its complaints are found.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) pid: i32,
    runtime: String,
    log: PathBuf,
    /// Length of the log before the call.
    log_start: u64,
    /// What it printed, where its output is not the container's.
    output: Option<File>,
}

impl Call {
    /// Spawns `command`. With `capture` its stdout and stderr are kept for the error text. The child is
    /// reaped by the loop.
    pub(crate) fn spawn(
        runtime: &Runtime,
        mut command: Command,
        log: &Path,
        capture: bool,
    ) -> Result<Self, TaskError> {
        let log_start = fs::metadata(log).map_or(0, |meta| meta.len());
        let output = if capture {
            let flags = rustix::fs::MemfdFlags::CLOEXEC;
            let file = File::from(
                rustix::fs::memfd_create("runtime", flags).map_err(call_error("memfd_create"))?,
            );
            let other = file.try_clone().map_err(call_error("dup"))?;
            command.stdout(other.try_clone().map_err(call_error("dup"))?).stderr(other);
            Some(file)
        } else {
            None
        };
        sys::unblock_signals(&mut command);
        let child = command.spawn().map_err(path_error("exec", &runtime.path))?;
        Ok(Self {
            pid: i32::try_from(child.id()).unwrap_or(i32::MAX),
            runtime: runtime.name(),
            log: log.to_owned(),
            log_start,
            output,
        })
    }

    /// The failure in one sentence, or nothing if it succeeded.
    pub(crate) fn failure(mut self, status: WaitStatus, what: &str) -> Option<String> {
        let status = match status {
            WaitStatus::Exited(_, 0) => return None,
            WaitStatus::Exited(_, code) => format!("exit status {code}"),
            WaitStatus::Signaled(_, signal, _) => format!("signal: {}", signal.as_str()),
            other => format!("{other:?}"),
        };
        let mut printed = Vec::new();
        if let Some(output) = &mut self.output {
            output.seek(SeekFrom::Start(0)).ok();
            output.take(64 * 1024).read_to_end(&mut printed).ok();
        }
        let printed = String::from_utf8_lossy(&printed);
        let printed = printed.trim();
        let ended = format!("{} did not terminate successfully: {status}: {printed}", self.runtime);
        Some(match last_error(&self.log, self.log_start) {
            Ok(Some(message)) => format!("{what}: {message}"),
            Ok(None) => format!("{what}: {ended}"),
            Err(error) => {
                format!("{what}: unable to retrieve OCI runtime error ({error}): {ended}")
            }
        })
    }
}

/// The last message of level error in the runtime's JSON log.
fn last_error(log: &Path, start: u64) -> Result<Option<String>, String> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(default)]
        level: String,
        #[serde(default)]
        msg: String,
    }
    // Compat: the words Go uses for a missing file.
    let say = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("open {}: no such file or directory", log.display()),
        _ => format!("open {}: {error}", log.display()),
    };
    let mut file = File::open(log).map_err(say)?;
    let end = file.metadata().map_err(say)?.len();
    file.seek(SeekFrom::Start(start.max(end.saturating_sub(LOG_MAX)))).map_err(say)?;
    let mut text = Vec::new();
    file.take(LOG_MAX).read_to_end(&mut text).map_err(say)?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_str::<Line>(&String::from_utf8_lossy(line)).ok())
        .rfind(|line| line.level == "error")
        .map(|line| line.msg.trim().to_owned()))
}

/// How much of the end of a log is searched.
const LOG_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::Pid;
    use proptest::prelude::*;

    fn call(log: &Path, log_start: u64) -> Call {
        Call { pid: 1, runtime: "runc".into(), log: log.into(), log_start, output: None }
    }

    #[test]
    fn the_last_logged_error_is_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.json");
        fs::write(&log, "{\"level\":\"error\",\"msg\":\"old\"}\n").unwrap();
        let start = fs::metadata(&log).unwrap().len();
        let failed = WaitStatus::Exited(Pid::from_raw(1), 1);
        let text = call(&log, start).failure(failed, "OCI runtime create failed").unwrap();
        assert_eq!(
            text,
            "OCI runtime create failed: runc did not terminate successfully: exit status 1: "
        );
        let more = "{\"level\":\"error\",\"msg\":\"old\"}\n{\"level\":\"error\",\"msg\":\" why \\n\"}\n{\"level\":\"warning\",\"msg\":\"w\"}\nx";
        fs::write(&log, more).unwrap();
        let text = call(&log, start).failure(failed, "OCI runtime create failed").unwrap();
        assert_eq!(text, "OCI runtime create failed: why");
        assert_eq!(call(&log, 0).failure(WaitStatus::Exited(Pid::from_raw(1), 0), "x"), None);
    }

    #[test]
    fn without_a_log_the_status_is_told() {
        let failed = WaitStatus::Exited(Pid::from_raw(1), 127);
        let text = call(Path::new("/none/log.json"), 0).failure(failed, "x").unwrap();
        assert_eq!(
            text,
            "x: unable to retrieve OCI runtime error (open /none/log.json: no such file or directory): \
             runc did not terminate successfully: exit status 127: "
        );
    }

    #[test]
    fn a_runtime_that_says_too_much_is_heard_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.json");
        let mut text = "{\"level\":\"warning\",\"msg\":\"again\"}\n".repeat(100_000);
        text.push_str("{\"level\":\"error\",\"msg\":\"the reason\"}\n");
        fs::write(&log, text).unwrap();
        assert_eq!(last_error(&log, 0), Ok(Some("the reason".to_owned())));
    }

    #[test]
    fn what_is_not_utf8_is_told_as_far_as_it_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.json");
        fs::write(&log, b"{\"level\":\"error\",\"msg\":\"exec \xff: no\"}\n").unwrap();
        assert_eq!(last_error(&log, 0), Ok(Some("exec \u{fffd}: no".to_owned())));
        let printed = dir.path().join("printed");
        fs::write(&printed, b"bad flag \xff\n").unwrap();
        let mut call = call(Path::new("/none/log.json"), 0);
        call.output = Some(File::open(printed).unwrap());
        let text = call.failure(WaitStatus::Exited(Pid::from_raw(1), 1), "x").unwrap();
        assert!(text.ends_with("exit status 1: bad flag \u{fffd}"), "{text}");
    }

    proptest! {
        #[test]
        fn the_last_whole_error_is_found_in_any_log(
            noise in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            message in proptest::option::of("[a-z \"\\\\é]{1,20}"),
            torn in "(|\\{\"level\":\"error\",\"msg\":\"tor)",
        ) {
            let dir = tempfile::tempdir().unwrap();
            let log = dir.path().join("log.json");
            let mut text = noise.concat();
            text.push(b'\n');
            if let Some(message) = &message {
                text.extend(serde_json::json!({"level": "error", "msg": message}).to_string().bytes());
                text.push(b'\n');
            }
            text.extend(torn.bytes());
            fs::write(&log, text).unwrap();
            let wanted = message.map(|message| message.trim().to_owned());
            prop_assert_eq!(last_error(&log, 0).unwrap(), wanted);
        }
    }
}
