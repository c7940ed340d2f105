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
    #[error("{what}: {}", os_text(.source))]
    Io { what: String, source: io::Error },
    #[error("{}", os_text(.0))]
    Output(#[from] io::Error),
    /// Compat: docker 28's words, an empty line first.
    #[error("\ngot 3 SIGTERM/SIGINTs, forcefully exiting")]
    Impatient,
    #[error("signal {0}")]
    Signal(i32),
    #[error("{text}")]
    Template { text: String, code: u8 },
    #[error("docker: {source}\n\nRun 'docker {verb} --help' for more information")]
    WithHelp { verb: &'static str, source: Box<Self> },
}

impl CliError {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// The exit code of what has no words: an end by a signal, as a shell sees it, and whoever
    /// read our output having left. Compat: SIGPIPE is what the stock client dies of then.
    pub(crate) fn silent_code(&self) -> Option<u8> {
        let number = match self {
            Self::Signal(number) => *number,
            Self::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => libc::SIGPIPE,
            _ => return None,
        };
        u8::try_from(128 + number).ok()
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Daemon { status: 404, .. })
    }

    /// The same, as `run` and `create` tell it: a failure of theirs, not of the container.
    pub(crate) fn with_help(self, verb: &'static str) -> Self {
        if matches!(self, Self::Signal(_) | Self::Impatient) {
            return self;
        }
        Self::WithHelp { verb, source: Box::new(self) }
    }

    /// `docker run` tells a missing command (127), one that may not run (126) and everything
    /// else (125) apart; the other commands say 1.
    pub(crate) fn exit_code(&self) -> u8 {
        let text = match self {
            Self::Template { code, .. } => return *code,
            Self::WithHelp { source, .. } => match &**source {
                // Compat: by the words of the daemon, also of those about its socket.
                Self::Daemon { .. } | Self::Denied { .. } => source.to_string(),
                _ => return 125,
            },
            _ => return 1,
        };
        let says = |any: &[&str]| any.iter().any(|part| text.contains(part));
        if says(&[
            "executable file not found",
            "no such file or directory",
            "system cannot find the file specified",
        ]) {
            127
        } else if says(&["permission denied", "is a directory"]) {
            126
        } else {
            125
        }
    }
}

/// An `io::Error` in the words of Go, which scripts know: no number, a small letter first.
pub(crate) fn os_text(problem: &io::Error) -> String {
    let text = problem.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_tells_missing_and_forbidden_commands_apart() {
        let daemon = |message: &str| CliError::Daemon { status: 400, message: message.into() };
        for (text, code) in [
            ("exec: \"x\": executable file not found in $PATH", 127),
            ("exec /etc: permission denied", 126),
            ("Conflict", 125),
        ] {
            assert_eq!(daemon(text).with_help("run").exit_code(), code);
            assert_eq!(daemon(text).exit_code(), 1);
        }
        assert_eq!(
            daemon("Conflict").with_help("run").to_string(),
            "docker: Error response from daemon: Conflict\n\nRun 'docker run --help' for more information"
        );
    }

    #[test]
    fn system_errors_read_as_in_go() {
        let problem = io::Error::from_raw_os_error(2);
        assert_eq!(
            CliError::io("open /x", problem).to_string(),
            "open /x: no such file or directory"
        );
    }
}
