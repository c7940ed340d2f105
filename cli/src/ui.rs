//! Where output goes: handed to commands, so that it can be looked at in tests.

use std::io::{self, IsTerminal, Write};

/// The two streams of a command.
pub(crate) struct Ui {
    pub(crate) out: Box<dyn Write>,
    pub(crate) err: Box<dyn Write>,
    /// Whether `out` is a terminal.
    pub(crate) terminal: bool,
    /// Whether `err` is one.
    pub(crate) err_terminal: bool,
}

impl Ui {
    /// The process' own streams.
    pub(crate) fn standard() -> Self {
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            terminal: io::stdout().is_terminal(),
            err_terminal: io::stderr().is_terminal(),
        }
    }

    /// One line on stdout.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// One line on stderr; there is nobody to tell when that fails.
    pub(crate) fn complain(&mut self, line: &str) {
        if writeln!(self.err, "{line}").is_ok() {
            drop(self.err.flush());
        }
    }
}
