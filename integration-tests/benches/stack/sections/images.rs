//! Load and pull of an image of ten layers and hundreds of megabytes, made of this host's files. Between
//! the rounds it is removed, and waited for until its bytes are gone: nothing is loaded that is there.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;

use crate::peers::registry;
use crate::samples::Sample;
use crate::sections::Run;
use crate::stack::{Stack, end, logged, until};
use crate::top;

const NAME: &str = "127.0.0.1:5000/big";
/// Each is some twenty thousand files.
const ROUNDS: usize = 3;

pub(super) fn section(run: &mut Run) -> anyhow::Result<()> {
    let archive = run.work.join("big.tar");
    let script = top().join("integration-tests/scripts/big-image.sh");
    let status = Command::new(script).arg(&archive).arg(NAME).status().context("big-image.sh")?;
    ensure!(status.success(), "big-image.sh: {status}");
    let size = archive.metadata()?.len();
    let before = run.stacks.iter().map(|stack| used(&stack.directory));
    let before: Vec<u64> = before.collect();

    let load = ["load", "-q", "-i", &archive.to_string_lossy()];
    take_turns(run, "load-big", &load, size, &before)?;

    // Each world has a network of its own, and so a registry; what they serve is one directory.
    let mut registries = Vec::new();
    for stack in &run.stacks {
        registries.push(stack.world.spawn(&mut serve(&run.work, stack)?, false)?.0);
    }
    let [_, stock] = &run.stacks;
    stock.run(&load)?;
    // The registry listens soon; the client asks once.
    wait_for_registry(stock)?;
    stock.run(&["push", "-q", NAME])?;
    forget(stock, size, before[1])?;
    wait_for_registry(&run.stacks[0])?;
    take_turns(run, "pull-big", &["pull", "-q", NAME], size, &before)?;
    for registry in &mut registries {
        end(registry, Signal::SIGTERM)?;
    }
    fs::remove_dir_all(run.work.join("registry"))?;
    fs::remove_file(&archive)?;
    Ok(())
}

fn take_turns(
    run: &mut Run,
    measure: &str,
    words: &[&str],
    size: u64,
    before: &[u64],
) -> anyhow::Result<()> {
    for round in 0..run.rounds.min(ROUNDS) {
        for turn in 0..2 {
            let number = (round + turn) % 2;
            let stack = &run.stacks[number];
            // What the other left to be written is not to slow this one down.
            nix::unistd::sync();
            let idle = stack.world.quiet()?;
            let took = stack.run(words)?;
            let cpu = stack.world.quiet()?.saturating_sub(idle);
            let sample = Sample::time(took).with_cpu(cpu);
            run.samples.add("images", measure, stack.side, sample);
            let gone = forget(stack, size, before[number])?;
            run.samples.add("images", "remove-big", stack.side, Sample::time(gone));
        }
    }
    Ok(())
}

/// Removes the image; the time of the client, not of what goes on behind it.
fn forget(stack: &Stack, size: u64, before: u64) -> anyhow::Result<Duration> {
    let took = stack.run(&["rmi", NAME])?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while used(&stack.directory) > before + size / 4 {
        ensure!(Instant::now() < deadline, "{}: the image's bytes stay", stack.side.name());
        thread::sleep(Duration::from_millis(250));
    }
    Ok(took)
}

fn serve(work: &Path, stack: &Stack) -> anyhow::Result<Command> {
    let config = work.join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: \"127.0.0.1:5000\"}}\n\
         storage: {{filesystem: {{rootdirectory: {:?}}}}}\n",
        work.join("registry"),
    );
    fs::write(&config, text)?;
    let mut command = Command::new(registry());
    command.arg("serve").arg(config);
    logged(&mut command, &stack.directory.join("registry.log"))?;
    Ok(command)
}

fn wait_for_registry(stack: &Stack) -> anyhow::Result<()> {
    stack.world.inside(|| {
        until("the registry listens", || std::net::TcpStream::connect("127.0.0.1:5000").is_ok())
    })
}

/// Bytes on the disk below a directory.
fn used(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, data)| data.blocks() * 512 + if data.is_dir() { used(&path) } else { 0 })
        .sum()
}
