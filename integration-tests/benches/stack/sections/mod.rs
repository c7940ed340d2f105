//! The sections: what is done in each round, first by one side, then by the other.

mod api;
mod exec;
mod images;
mod list;
mod logs;
mod memory;
mod parallel;
mod run;
mod runtime;
mod shim;
mod startup;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::peers::Peers;
use crate::podman::Podman;
use crate::programs::{self, Program};
use crate::samples::{Sample, Samples, Side};
use crate::stack::Stack;
use crate::world::World;
use crate::{leaks, say, top};

/// Rounds that are not counted.
const WARM_UP: usize = 3;
/// Rounds of what moves hundreds of megabytes or starts a hundred containers: one of them is many.
const LONG: usize = 5;

type Section = fn(&mut Run) -> anyhow::Result<()>;

const SECTIONS: [(&str, Section); 11] = [
    ("run", run::section),
    ("api", api::section),
    ("exec", exec::section),
    ("parallel", parallel::section),
    ("memory", memory::section),
    ("startup", startup::section),
    ("list", list::section),
    ("images", images::section),
    ("logs", logs::section),
    ("shim", shim::section),
    ("runtime", runtime::section),
];

pub(crate) struct Run {
    pub(crate) stacks: [Stack; 2],
    pub(crate) podman: Option<Podman>,
    pub(crate) peers: Peers,
    pub(crate) samples: Samples,
    pub(crate) programs: Vec<Program>,
    pub(crate) rounds: usize,
    pub(crate) work: PathBuf,
    /// Nothing of ours was left behind.
    pub(crate) clean: bool,
}

/// Who takes part in a measure.
trait Party {
    fn side(&self) -> Side;
    fn world(&self) -> &World;
}

impl Party for Stack {
    fn side(&self) -> Side {
        self.side
    }

    fn world(&self) -> &World {
        &self.world
    }
}

/// The sections of these names; all without any.
pub(crate) fn named(names: &[String]) -> anyhow::Result<Vec<(&'static str, Section)>> {
    let find = |name: &String| {
        let found = SECTIONS.iter().find(|(own, _)| own == name).copied();
        found.with_context(|| {
            let all: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
            format!("no section {name:?}; there are {}", all.join(", "))
        })
    };
    if names.is_empty() { Ok(SECTIONS.to_vec()) } else { names.iter().map(find).collect() }
}

impl Run {
    pub(crate) fn all(&mut self, wanted: &[(&'static str, Section)]) -> anyhow::Result<()> {
        self.prepare()?;
        let out = crate::output_directory();
        for (name, section) in wanted {
            let started = Instant::now();
            section(self).with_context(|| format!("section {name}"))?;
            self.look_for_leaks(name)?;
            say(&format!("{name}: {:.1} s", started.elapsed().as_secs_f64()))?;
            // A bench that is cut off keeps what it has.
            self.samples.write_csv(&out)?;
            programs::write_csv(&self.programs, &out)?;
        }
        Ok(())
    }

    /// The image on both sides, and what the engines look like without containers.
    fn prepare(&mut self) -> anyhow::Result<()> {
        let image = self.work.join("busybox.tar");
        let script = top().join("integration-tests/scripts/image.sh");
        let status = Command::new(script).arg(&image).status().context("image.sh")?;
        ensure!(status.success(), "image.sh: {status}");
        for stack in &mut self.stacks {
            stack.run(&["load", "-q", "-i", &image.to_string_lossy()])?;
            stack.mounts = leaks::mounts(stack)?;
            stack.run(&["run", "--rm", "busybox", "true"])?;
            self.programs.extend(programs::census(stack)?);
        }
        if let Some(podman) = &mut self.podman {
            podman.load(&image)?;
            self.programs.extend(podman.programs(&self.peers)?);
        }
        Ok(())
    }

    fn look_for_leaks(&mut self, section: &str) -> anyhow::Result<()> {
        for stack in &self.stacks {
            let left = leaks::wait_until_clean(stack)?;
            for line in &left {
                say(&format!("LEFT BEHIND by {} after {section}: {line}", stack.side.name()))?;
            }
            self.clean &= left.is_empty() || stack.side != Side::Ours;
        }
        Ok(())
    }

    fn interleave(
        &mut self,
        section: &str,
        measure: &str,
        rounds: usize,
        turn: impl FnMut(&Stack, &mut Samples) -> anyhow::Result<Duration>,
    ) -> anyhow::Result<()> {
        let parties: Vec<&Stack> = self.stacks.iter().collect();
        interleave(&parties, &mut self.samples, section, measure, rounds, turn)
    }
}

/// Each round is one turn of each party, taking turns at going first.
fn interleave<P: Party>(
    parties: &[&P],
    samples: &mut Samples,
    section: &str,
    measure: &str,
    rounds: usize,
    mut turn: impl FnMut(&P, &mut Samples) -> anyhow::Result<Duration>,
) -> anyhow::Result<()> {
    if rounds == 0 {
        bail!("{measure}: no rounds");
    }
    // What is long is not warmed up for: its first round hardly shows it.
    let warm_up = if rounds <= LONG { 0 } else { WARM_UP };
    for party in parties {
        for _ in 0..warm_up {
            turn(party, &mut Samples::default())?;
        }
    }
    for round in 0..rounds {
        for turns in 0..parties.len() {
            let party = parties[(round + turns) % parties.len()];
            let before = party.world().quiet()?;
            let took = turn(party, samples)?;
            let cpu = party.world().quiet()?.saturating_sub(before);
            samples.add(section, measure, party.side(), Sample::time(took).with_cpu(cpu));
        }
    }
    Ok(())
}
