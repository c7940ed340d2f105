//! `make bench`: our programs beside upstream's, interleaved in one process, with the same client,
//! images and kind of network. Prints medians, minima, the ninetieth percentile, the CPU time of all
//! processes until they are quiet, and each line of `budgets.toml` as MET or NOT MET; raw samples and
//! the programs that ran go to `target/bench/*.csv`.
//!
//! Started as root by `scripts/bench.sh`, which makes the directory `BENCH_WORK` and removes it and
//! cgroups of its name at any end. `N` sets the rounds, `PEERS` the peers; arguments name sections.

mod bill;
mod budgets;
mod bundle;
mod http;
mod leaks;
mod peers;
mod podman;
mod programs;
mod samples;
mod sections;
mod stack;
mod stopwatch;
mod world;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use peers::Peers;
use podman::Podman;
use samples::{Samples, Side};
use stack::Stack;

fn main() -> ExitCode {
    match bench() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// False when something of ours was left behind.
fn bench() -> anyhow::Result<bool> {
    // `cargo bench` adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let wanted = sections::named(&wanted)?;
    let rounds = match std::env::var("N") {
        Ok(text) => text.parse().with_context(|| format!("N={text}"))?,
        Err(_) => 30,
    };
    let work = PathBuf::from(std::env::var_os("BENCH_WORK").context("start it by make bench")?);
    let peers = Peers::from_environment()?;
    let mut run = sections::Run {
        stacks: [
            Stack::start(Side::Ours, &peers, &work)?,
            Stack::start(Side::Stock, &peers, &work)?,
        ],
        podman: peers.podman.then(|| Podman::new(&work)).transpose()?,
        peers,
        samples: Samples::default(),
        programs: Vec::new(),
        rounds,
        work,
        clean: true,
    };
    run.all(&wanted)?;
    for stack in &mut run.stacks {
        stack.stop();
    }
    let out = output_directory();
    say("")?;
    for program in &run.programs {
        say(&program.line())?;
    }
    say("")?;
    for line in run.samples.table() {
        say(&line)?;
    }
    say("")?;
    for line in budgets::judge(&run.samples)? {
        say(&line)?;
    }
    say(&format!("\nraw samples: {}", out.display()))?;
    Ok(run.clean)
}

pub(crate) fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

pub(crate) fn output_directory() -> PathBuf {
    top().join("target/bench")
}

pub(crate) fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}
