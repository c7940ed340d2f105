//! create, start, wait and delete over the API, each on its own clock too; and how often the
//! supervisor waits for the disk meanwhile.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;

use crate::samples::{Sample, Samples};
use crate::sections::Run;
use crate::stack::{Stack, end};

const BODY: &str = r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"none"}}"#;

pub(super) fn section(run: &mut Run) -> anyhow::Result<()> {
    run.interleave("api", "api-none", run.rounds, |stack, samples| {
        let started = Instant::now();
        one(stack, samples)?;
        Ok(started.elapsed())
    })?;
    for stack in &run.stacks {
        let count = syncs(stack)?;
        run.samples.add("api", "syncs-supervisor", stack.side, Sample::count(count));
    }
    Ok(())
}

fn one(stack: &Stack, samples: &mut Samples) -> anyhow::Result<()> {
    let mut connection = stack.connect()?;
    let mut last = Instant::now();
    let mut lap = |measure: &str| {
        samples.add("api", measure, stack.side, Sample::time(last.elapsed()));
        last = Instant::now();
    };
    let id = connection.create("/containers/create", BODY)?;
    lap("api-create");
    connection.request("POST", &format!("/containers/{id}/start"), "")?;
    lap("api-start");
    connection.request("POST", &format!("/containers/{id}/wait"), "")?;
    lap("api-wait");
    connection.request("DELETE", &format!("/containers/{id}"), "")?;
    lap("api-delete");
    Ok(())
}

/// Once, under strace, and never in a timed round.
fn syncs(stack: &Stack) -> anyhow::Result<f64> {
    let file = stack.directory.join("syncs");
    let pid = stack.supervisor_pid()?.to_string();
    let mut strace = Command::new("strace")
        .args(["-f", "-e", "trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync", "-o"])
        .arg(&file)
        .args(["-p", &pid])
        .stderr(Stdio::piped())
        .spawn()
        .context("strace")?;
    let mut said = String::new();
    let mut stderr = BufReader::new(strace.stderr.take().context("strace's errors")?);
    stderr.read_line(&mut said)?;
    ensure!(said.contains("attached"), "strace: {said}");
    let done = one(stack, &mut Samples::default());
    stack.world.quiet()?;
    end(&mut strace, Signal::SIGINT)?;
    done?;
    let text = fs::read_to_string(&file)?;
    // A call that another thread's interrupted stands there twice.
    let calls = text.lines().filter(|line| line.contains("sync") && !line.contains("resumed"));
    Ok(calls.count() as f64)
}
