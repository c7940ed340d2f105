//! The command line, verb by verb and flag by flag, over the real programs. What is asserted was
//! seen with docker 28.5. The same tests run over stock dockerd with `ENGINE=stock CLI=…/docker-rs`,
//! and with another client by `CLI=PATH`.
//!
//! Needs root, our programs in `BIN_DIR` (`make build`) and a static busybox (`make fetch`).
#![allow(clippy::unwrap_used, reason = "tests")]

mod beside;
mod containers;
mod exits;
mod formats;
mod images;
mod objects;
mod relay;
mod run;
mod same;
mod signals;
mod streams;
mod system;
mod terminal;
mod trace;
mod usage;

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};

use integration_tests::{Output, Stack};

/// What follows a failure of `run`.
pub(crate) const RUN_HINT: &str = "\n\nRun 'docker run --help' for more information\n";

/// A shell that says `ready`, answers signals, and waits.
pub(crate) const PATIENT: &str = "for s in HUP INT QUIT USR1 USR2 ALRM CONT WINCH; do \
     trap \"echo got $s\" $s; done; trap 'echo got TERM; exit 7' TERM; echo ready; \
     while :; do sleep 1000 & wait $!; done";

/// Exit code, stdout, stderr.
#[track_caller]
pub(crate) fn assert_output(output: &Output, code: i32, stdout: &str, stderr: &str) {
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (code, stdout, stderr)
    );
}

/// The first line of a busybox container's output, run with these flags and this command.
#[track_caller]
pub(crate) fn shown(stack: &Stack, flags: &[&str], script: &str) -> String {
    let mut arguments = vec!["run", "--rm"];
    arguments.extend(flags);
    arguments.extend(["busybox", "sh", "-c", script]);
    stack.docker_ok(&arguments)
}

/// The client with nothing on stdin and its outputs on pipes.
pub(crate) fn spawn(stack: &Stack, arguments: &[&str]) -> Child {
    let mut command = stack.docker_command(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The exit code as a shell tells it, which is the same for an end by a signal and for a client that
/// catches it and says so.
pub(crate) fn shell_code(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|number| 128 + number)).unwrap()
}

/// Whether the client is upstream's, for the few places where ours differs on purpose.
pub(crate) fn is_stock_client() -> bool {
    let cli = std::env::var("CLI").unwrap_or_default();
    let stock = std::env::var("ENGINE").is_ok_and(|engine| engine == "stock");
    if cli.is_empty() { stock } else { !cli.ends_with("docker-rs") }
}
