//! Failures, as the user reads them, and the exit codes scripts know.

use std::io;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("Cannot connect to the Docker daemon at {host}. Is the docker daemon running?")]
    Connect { host: String, source: io::Error },
    #[error(
        "permission denied while trying to connect to the docker API at {host}; \
         run as root or join the group of the socket"
    )]
    Denied { host: String },
    #[error("Error response from daemon: {message}")]
    Daemon { status: u16, message: String },
    #[error("error during connect: {0}")]
    Http(#[source] hyper::Error),
    #[error("request: {0}")]
    Request(#[source] http::Error),
    #[error("unexpected answer of the daemon: {0}")]
    Answer(#[source] serde_json::Error),
    #[error("{0}")]
    Usage(String),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{0}")]
    Output(#[from] io::Error),
    #[error("template parsing error: {0}")]
    Template(String),
}

impl CliError {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// Whoever read our output has left.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(source) if source.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Daemon { status: 404, .. })
    }

    /// `docker run` tells a missing command (127), one that may not run (126) and everything
    /// else (125) apart; the other commands say 1.
    pub(crate) fn exit_code(&self, from_run: bool) -> u8 {
        if !from_run {
            return if matches!(self, Self::Usage(_)) { 125 } else { 1 };
        }
        let Self::Daemon { message, .. } = self else { return 125 };
        let missing = [
            "executable file not found",
            "no such file or directory",
            "system cannot find the file specified",
        ];
        if missing.iter().any(|text| message.contains(text)) {
            127
        } else if message.contains("permission denied") || message.contains("is a directory") {
            126
        } else {
            125
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_tells_missing_and_forbidden_commands_apart() {
        let daemon = |message: &str| CliError::Daemon { status: 400, message: message.into() };
        assert_eq!(daemon("exec: \"x\": executable file not found in $PATH").exit_code(true), 127);
        assert_eq!(daemon("exec /etc: permission denied").exit_code(true), 126);
        assert_eq!(daemon("Conflict").exit_code(true), 125);
        assert_eq!(daemon("Conflict").exit_code(false), 1);
    }
}
