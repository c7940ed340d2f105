//! One file a command. A command reads its flags, finds the container, does its part and answers
//! the exit code; errors go up to `main`, which logs them once.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod features;
pub(crate) mod help;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod pause;
pub(crate) mod run;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod update;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::args::{Flag, FlagError, Order, Parsed};
use crate::container::write_by_rename;
use crate::log::Log;

/// The global options.
#[derive(Debug)]
pub(crate) struct Globals {
    pub(crate) root: PathBuf,
    pub(crate) log: Log,
    pub(crate) systemd_cgroup: bool,
    /// Descriptors from 3 on, without a gap, that the caller left open.
    pub(crate) inherited: u32,
    /// When the program began, by [`trace_log::now`].
    pub(crate) started: u64,
}

impl Globals {
    /// How many descriptors from 3 on the process keeps. One that the caller did not open would be
    /// ours by now.
    pub(crate) fn preserved(&self, parsed: &Parsed) -> anyhow::Result<u32> {
        let count = parsed.number("preserve-fds")?.saturating_add(listen_fds());
        if count > self.inherited {
            bail!("preserved file descriptor {} is not open", self.inherited + 3);
        }
        Ok(count)
    }
}

/// Parses the flags of a command that takes exactly one container id.
pub(crate) fn parse_one(
    command: &str,
    arguments: Vec<String>,
    flags: &[Flag],
) -> anyhow::Result<(Parsed, String)> {
    let parsed = parse(arguments, flags, Order::Mixed)?;
    match parsed.words.as_slice() {
        [id] => {
            let id = id.clone();
            Ok((parsed, id))
        }
        [id, file] if command == "run" && file.ends_with("config.json") => {
            let bundle = Path::new(file).parent().unwrap_or(Path::new("."));
            bail!("run takes a bundle, not a file: runc-rs run --bundle {} {id}", bundle.display())
        }
        _ => bail!(Usage(format!("{}: \"{command}\" requires exactly 1 argument(s)", program()))),
    }
}

/// A command line that cannot be meant. Compat: runc's sentences, which start with its own name.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

pub(crate) fn no_words(command: &str, parsed: &Parsed) -> Result<(), Usage> {
    if parsed.words.is_empty() {
        return Ok(());
    }
    Err(Usage(format!("{}: \"{command}\" requires exactly 0 argument(s)", program())))
}

pub(crate) fn program() -> String {
    std::env::args().next().unwrap_or_default()
}

pub(crate) fn parse(
    arguments: Vec<String>,
    flags: &[Flag],
    order: Order,
) -> Result<Parsed, FlagError> {
    Parsed::new(arguments, flags, order)
}

pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_bytes()).context("write to stdout")
}

/// The pid alone, without a newline, complete when it appears.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> anyhow::Result<()> {
    Ok(write_by_rename(path, pid.to_string().as_bytes(), 0o644)?)
}

/// `LISTEN_FDS` of socket activation counts as preserved too.
pub(crate) fn listen_fds() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0)
}
