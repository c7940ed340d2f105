//! `make bench`: our stack beside stock docker.io, interleaved in one process, with the same client,
//! image and kind of network. Prints medians, minima, the ninetieth percentile, the CPU time of all
//! processes of a stack until it is quiet, and each line of `budgets.toml` as MET or NOT MET; raw
//! samples and the programs that ran go to `target/bench/*.csv`.
//!
//! Started as root by `scripts/bench.sh`, which makes the directory `BENCH_WORK` and removes it and
//! cgroups of its name at any end. `N` sets the rounds; arguments name sections.

mod budgets;
mod http;
mod leaks;
mod programs;
mod samples;
mod sections;
mod stack;
mod world;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use samples::Samples;
use stack::Stack;

const SECTIONS: [&str; 5] = ["run", "api", "memory", "startup", "logs"];

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
    let wanted = wanted_sections()?;
    let rounds = match std::env::var("N") {
        Ok(text) => text.parse().with_context(|| format!("N={text}"))?,
        Err(_) => 30,
    };
    let work = PathBuf::from(std::env::var_os("BENCH_WORK").context("start it by make bench")?);
    let mut stacks =
        [Stack::start(stack::Kind::Ours, &work)?, Stack::start(stack::Kind::Stock, &work)?];
    let mut samples = Samples::default();
    let run = sections::Run { stacks: &mut stacks, samples: &mut samples, rounds, work: &work };
    let programs = run.all(&wanted)?;

    let mut clean = true;
    for stack in &stacks {
        let left = leaks::wait_until_clean(stack)?;
        for line in &left {
            say(&format!("LEFT BEHIND by {}: {line}", stack.kind.name()))?;
        }
        clean &= left.is_empty() || stack.kind == stack::Kind::Stock;
    }
    for stack in &mut stacks {
        stack.stop();
    }
    let out = output_directory();
    samples.write_csv(&out)?;
    programs::write_csv(&programs, &out)?;

    say("")?;
    for program in &programs {
        say(&program.line())?;
    }
    say("")?;
    for line in samples.table() {
        say(&line)?;
    }
    say("")?;
    for line in budgets::judge(&samples)? {
        say(&line)?;
    }
    say(&format!("\nraw samples: {}", out.display()))?;
    Ok(clean)
}

fn wanted_sections() -> anyhow::Result<Vec<String>> {
    // `cargo bench` adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let Some(unknown) = wanted.iter().find(|name| !SECTIONS.contains(&name.as_str())) {
        bail!("no section {unknown:?}; there are {}", SECTIONS.join(", "));
    }
    if wanted.is_empty() {
        return Ok(SECTIONS.iter().map(|&name| name.to_owned()).collect());
    }
    Ok(wanted)
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
