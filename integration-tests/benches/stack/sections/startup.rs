//! Second daemons, the engine in a network of its own, from exec to the first answer.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::sections::Run;
use crate::stack::{Stack, answers_grpc, answers_ping, end, until};

pub(super) fn section(run: &mut Run) -> anyhow::Result<()> {
    let rounds = run.rounds;
    let image = run.work.join("busybox.tar");
    let places = Places { directory: run.work.join("boots"), given: Cell::new(0) };
    run.interleave("startup", "boot-engine", rounds, |stack, _| {
        boot_engine(stack, &places.fresh()?, true)
    })?;
    run.interleave("startup", "boot-both", rounds.div_ceil(3), |stack, _| {
        boot_engine(stack, &places.fresh()?, false)
    })?;
    run.interleave("startup", "boot-supervisor", rounds, |stack, _| {
        boot_supervisor(stack, &places.fresh()?, None)
    })?;
    run.interleave("startup", "boot-supervisor-killed", rounds.div_ceil(3), |stack, _| {
        boot_supervisor(stack, &places.fresh()?, Some(&image))
    })?;
    fs::remove_dir_all(&places.directory)?;
    Ok(())
}

/// A directory for each boot, removed when all have been measured: ext4 gives an inode number again only
/// minutes after it was freed, and whoever makes a directory meanwhile pays for the search.
struct Places {
    directory: PathBuf,
    given: Cell<usize>,
}

impl Places {
    fn fresh(&self) -> anyhow::Result<PathBuf> {
        let number = self.given.replace(self.given.get() + 1);
        let place = self.directory.join(number.to_string());
        fs::create_dir_all(&place)?;
        Ok(place)
    }
}

/// An engine with an empty root, over the supervisor that runs, or one of its own.
fn boot_engine(stack: &Stack, directory: &Path, supervisor: bool) -> anyhow::Result<Duration> {
    let mut command = stack.another_engine(directory)?;
    if supervisor {
        command.arg("--containerd").arg(stack.containerd_socket());
    }
    time(stack, || {
        let (child, started) = stack.world.spawn(&mut command, true)?;
        until("the engine answers", || answers_ping(&directory.join("d.sock")))?;
        Ok((child, started))
    })
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
fn boot_supervisor(
    stack: &Stack,
    directory: &Path,
    image: Option<&Path>,
) -> anyhow::Result<Duration> {
    let socket = directory.join("c.sock");
    let boot = || -> anyhow::Result<(Child, Instant)> {
        let mut command = stack.another_supervisor(directory)?;
        // It uses no network: making it one would only disturb the clock.
        let (child, started) = stack.world.spawn(&mut command, false)?;
        until("containerd answers", || answers_grpc(&socket))?;
        Ok((child, started))
    };
    if let Some(image) = image {
        let (mut child, _) = stack.world.charge(boot)?;
        let mut ctr = stack.peers.command("ctr");
        ctr.arg("-a").arg(&socket).args(["images", "import"]).arg(image);
        stack.world.run(&mut ctr)?;
        end(&mut child, Signal::SIGKILL)?;
    }
    time(stack, boot)
}
