//! A shim alone, started as containerd does it: from spawn to the answer of `start`, no container.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use integration_tests::parts;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::bundle::{self, Shape};
use crate::samples::{Sample, Side};
use crate::sections::{Run, WARM_UP};
use crate::stack::{Stack, until};
use crate::stopwatch::Stopwatch;

pub(super) fn section(run: &mut Run) -> anyhow::Result<()> {
    let work = run.work.join("shim");
    fs::create_dir_all(&work)?;
    let shape = Shape::docker(&run.stacks[1], &work)?;
    let root = bundle::root(&work)?;
    let mut number = 0;
    for round in 0..run.rounds + WARM_UP {
        for turn in 0..2 {
            let stack = &run.stacks[(round + turn) % 2];
            number += 1;
            let id = format!("shim{number}");
            let bundle = work.join(&id);
            shape.bundle(&bundle, &root, &format!("/{id}"), &["true"])?;
            let before = stack.world.quiet()?;
            let (took, socket) = start(stack, &id, &bundle)?;
            let cpu = stack.world.quiet()?.saturating_sub(before);
            stop(stack, &socket)?;
            if round >= WARM_UP {
                let sample = Sample::time(took).with_cpu(cpu);
                run.samples.add("shim", "shim-start", stack.side, sample);
            }
        }
    }
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// The time, and the socket it told of. A small process inside starts it: a shim looks for its parent.
fn start(stack: &Stack, id: &str, bundle: &Path) -> anyhow::Result<(Duration, PathBuf)> {
    let (program, containerd) = match stack.side {
        Side::Ours => (parts::ours("containerd-shim-runc-rs-v2"), parts::ours("containerd-rs")),
        _ => (stack.peers.program("containerd-shim-runc-v2"), stack.peers.program("containerd")),
    };
    // Whoever starts a shim reads its log.
    let log = bundle.join("log");
    nix::unistd::mkfifo(&log, Mode::S_IRWXU)?;
    let _log = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&log)?;
    let socket = stack.containerd_socket();
    let mut stopwatch = Stopwatch::new(bundle.join("answer"));
    stack.peers.environment(&mut stopwatch.command);
    stopwatch
        .command
        .current_dir(bundle)
        .env("TTRPC_ADDRESS", format!("{}.ttrpc", socket.display()))
        .env("GOMAXPROCS", "2");
    let paths = [program, socket, containerd].map(|path| path.display().to_string());
    let [program, socket, containerd] = &paths;
    let words = [program, "-namespace", "bench", "-id", id, "-address", socket];
    let more = ["-publish-binary", containerd, "start"];
    let words = words.into_iter().chain(more).map(str::to_owned).collect();
    let timed = stack.world.charge(|| stopwatch.time(&stack.world, &[words]))?;
    let answer = stopwatch.said();
    // The newest answer with JSON.
    let address = answer.split('"').find(|word| word.trim().starts_with("unix://"));
    let address = address.with_context(|| format!("no address in {answer:?}"))?;
    let socket = PathBuf::from(address.trim().trim_start_matches("unix://"));
    stack.world.inside(|| {
        UnixStream::connect(&socket).with_context(|| socket.display().to_string())?;
        Ok(())
    })?;
    Ok((timed.laps[0].0, socket))
}

fn stop(stack: &Stack, socket: &Path) -> anyhow::Result<()> {
    let shims = stack.shims();
    ensure!(shims.len() == 1, "one shim was started, {} run", shims.len());
    kill(Pid::from_raw(shims[0]), Signal::SIGKILL)?;
    until("the shim is gone", || stack.shims().is_empty())?;
    stack.world.inside(|| Ok(fs::remove_file(socket)?))
}
