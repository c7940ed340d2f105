//! Programs run to their end.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

/// How a program that was run to its end did.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output();
        Self::from(output.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Gives stdout of what must have succeeded.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Self {
        let signal = || output.status.signal().map_or(-1, |signal| 128 + signal);
        Self {
            code: output.status.code().unwrap_or_else(signal),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
