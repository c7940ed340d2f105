//! `guest time`: runs commands from a process that is small, so that what a child has in common with its
//! parent does not count as the child's memory.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use integration_tests::parts;

use crate::world::World;

pub(crate) struct Stopwatch {
    /// Its environment is that of what it times.
    pub(crate) command: Command,
    said: PathBuf,
}

/// Time and CPU of each command; CPU and the largest process of all, orphans too.
pub(crate) struct Timed {
    pub(crate) laps: Vec<(Duration, Duration)>,
    pub(crate) cpu: Duration,
    pub(crate) rss: f64,
}

impl Stopwatch {
    /// What the commands say goes to a file: what goes on running may hold it.
    pub(crate) fn new(said: PathBuf) -> Self {
        let mut command = Command::new(parts::ours("guest"));
        command.arg("time");
        Self { command, said }
    }

    pub(crate) fn time(
        &mut self,
        world: &World,
        commands: &[Vec<String>],
    ) -> anyhow::Result<Timed> {
        let said = File::options().write(true).create(true).truncate(true).open(&self.said);
        let said = said.with_context(|| self.said.display().to_string())?;
        let command = self.command.args(commands.join(&";".to_owned()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(said);
        let output = world.inside(|| Ok(command.spawn()?.wait_with_output()?))?;
        ensure!(output.status.success(), "{commands:?}: {}: {}", output.status, self.said());
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = told.lines().map(|line| {
            let mut numbers = line.split(' ').map(|word| word.parse::<u64>().ok());
            Some((numbers.next()??, numbers.next()??))
        });
        let problem = || format!("guest time told {told:?}");
        let (cpu, rss) = lines.next_back().flatten().with_context(problem)?;
        let laps = lines.map(|lap| {
            lap.map(|(took, cpu)| (Duration::from_nanos(took), Duration::from_micros(cpu)))
        });
        let laps = laps.collect::<Option<Vec<_>>>().with_context(problem)?;
        Ok(Timed { laps, cpu: Duration::from_micros(cpu), rss: rss as f64 })
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }
}
