//! `guest time COMMAND… [';' COMMAND…]`: runs commands one after the other, each timed from spawn to
//! reaped, as a small process whose own memory does not show in the commands' `ru_maxrss`.
//!
//! Orphans become its children, so that a container's process too is on the bill; the command `reap`
//! waits for all of them. Prints `WALL_NS CPU_US` a command, and at last `CPU_US MAXRSS_KIB` of all; what
//! the commands print goes to standard error.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::sys::wait::wait;

pub(crate) fn time(out: &mut impl Write, words: &[String]) -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    for words in words.split(|word| word == ";") {
        let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        if program == "reap" {
            while wait() != Err(Errno::ECHILD) {}
            continue;
        }
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(io::stderr());
        let before = cpu(&spent()?);
        let started = Instant::now();
        let status = command.spawn()?.wait()?;
        let took = started.elapsed();
        if !status.success() {
            return Err(io::Error::other(format!("{}: {status}", words.join(" "))));
        }
        writeln!(out, "{} {}", took.as_nanos(), cpu(&spent()?) - before)?;
    }
    let usage = spent()?;
    writeln!(out, "{} {}", cpu(&usage), usage.max_rss())
}

fn spent() -> io::Result<Usage> {
    Ok(getrusage(UsageWho::RUSAGE_CHILDREN)?)
}

fn cpu(usage: &Usage) -> i64 {
    usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
}
