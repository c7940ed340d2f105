//! One file a command. A command reads its flags, finds the container, does its part and answers
//! the exit code; errors go up to `main`, which logs them once.

pub(super) mod admission;
mod caches;
pub(crate) mod checkpoint;
pub(crate) mod create;
pub(crate) mod delete;
mod devices;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod features;
pub(crate) mod help;
pub(crate) mod kill;
pub(crate) mod list;
mod mount_source;
pub(crate) mod mounts;
mod outside;
pub(crate) mod pause;
pub(crate) mod restore;
pub(crate) mod run;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod update;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::args::{Flag, FlagError, Order, Parsed};
use crate::cgroup::Driver;
use crate::container::{Container, write_by_rename};
use crate::log::Log;
use crate::sys::regex::Regex;
use crate::trace::Timings;

/// The global options.
#[derive(Debug)]
pub(crate) struct Globals {
    pub(crate) root: PathBuf,
    /// By the caller; else it is the usual place.
    pub(crate) root_given: bool,
    pub(crate) log: Log,
    /// Whether the caller's cgroups may be out of reach; `None`: to be found out.
    pub(crate) rootless: Option<bool>,
    pub(crate) cgroup_driver: Driver,
    /// Descriptors from 3 on, without a gap, that the caller left open.
    pub(crate) inherited: u32,
    /// When the program began, by [`trace_log::now`].
    pub(crate) started: u64,
    pub(crate) timings: Timings,
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

/// The containers meant: one by its id, or all whose ids match.
pub(crate) fn ids(globals: &Globals, parsed: &Parsed, named: &str) -> anyhow::Result<Vec<String>> {
    if !parsed.is_set("regex") {
        return Ok(vec![named.to_owned()]);
    }
    let Ok(regex) = Regex::new(named) else { bail!("invalid regular expression {named:?}") };
    let all = Container::list(&globals.root)?.into_iter().map(|container| container.record.id);
    Ok(all.filter(|id| regex.is_match(id)).collect())
}

/// The last ones are done too when one fails; the first failure is told.
pub(crate) fn each<T>(
    all: Vec<T>,
    work: impl FnMut(T) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    all.into_iter().map(work).fold(Ok(()), Result::and)
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
