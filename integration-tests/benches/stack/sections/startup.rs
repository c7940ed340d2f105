//! Second daemons, the engine in a network of its own, from exec to the first answer.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::sections::Run;
use crate::stack::{Stack, answers_grpc, answers_ping, end, until};

pub(super) fn section(run: &mut Run) -> anyhow::Result<()> {
    let rounds = run.rounds;
    let work = run.work.clone();
    run.interleave("startup", "boot-engine", rounds, |stack, _| boot_engine(stack, &work, true))?;
    run.interleave("startup", "boot-both", rounds.div_ceil(3), |stack, _| {
        boot_engine(stack, &work, false)
    })?;
    run.interleave("startup", "boot-supervisor", rounds, |stack, _| {
        boot_supervisor(stack, &work, false)
    })?;
    run.interleave("startup", "boot-supervisor-killed", rounds.div_ceil(3), |stack, _| {
        boot_supervisor(stack, &work, true)
    })
}

/// An engine with an empty root, over the supervisor that runs, or one of its own.
fn boot_engine(stack: &Stack, work: &Path, supervisor: bool) -> anyhow::Result<Duration> {
    let directory = work.join(stack.side.name()).join("boot");
    fs::create_dir_all(&directory)?;
    let mut command = stack.another_engine(&directory)?;
    if supervisor {
        command.arg("--containerd").arg(stack.containerd_socket());
    }
    let took = time(stack, || {
        let (child, started) = stack.world.spawn(&mut command, true)?;
        until("the engine answers", || answers_ping(&directory.join("d.sock")))?;
        Ok((child, started))
    })?;
    fs::remove_dir_all(&directory)?;
    Ok(took)
}

/// From the moment that `boot` tells to its return; the daemon is ended.
fn time(
    stack: &Stack,
    boot: impl FnOnce() -> anyhow::Result<(Child, Instant)>,
) -> anyhow::Result<Duration> {
    stack.world.charge(|| {
        let (mut child, started) = boot()?;
        let took = started.elapsed();
        end(&mut child, Signal::SIGTERM)?;
        Ok(took)
    })
}

/// The time until a supervisor speaks HTTP/2: with an empty root, or with an image, killed before.
fn boot_supervisor(stack: &Stack, work: &Path, killed: bool) -> anyhow::Result<Duration> {
    let directory = work.join(stack.side.name()).join("boot-c");
    fs::create_dir_all(&directory)?;
    let socket = directory.join("c.sock");
    let boot = || -> anyhow::Result<(Child, Instant)> {
        let mut command = stack.another_supervisor(&directory)?;
        // It uses no network: making it one would only disturb the clock.
        let (child, started) = stack.world.spawn(&mut command, false)?;
        until("containerd answers", || answers_grpc(&socket))?;
        Ok((child, started))
    };
    if killed {
        let (mut child, _) = stack.world.charge(boot)?;
        let mut ctr = stack.peers.command("ctr");
        ctr.arg("-a").arg(&socket).args(["images", "import"]).arg(work.join("busybox.tar"));
        stack.world.run(&mut ctr)?;
        end(&mut child, Signal::SIGKILL)?;
    }
    let took = time(stack, boot)?;
    fs::remove_dir_all(&directory)?;
    Ok(took)
}
