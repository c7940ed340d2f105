//! Idle daemons after what ran so far, then shims with a container each.

use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, ensure};

use crate::samples::Sample;
use crate::sections::Run;

pub(super) fn section(run: &mut Run) -> anyhow::Result<()> {
    for stack in &run.stacks {
        thread::sleep(IDLE);
        let mut take = |measure: &str, kib: f64| {
            run.samples.add("memory", measure, stack.side, Sample::kib(kib));
        };
        let engine = pss(stack.engine_pid()?)?;
        let supervisor = pss(stack.supervisor_pid()?)?;
        take("idle-engine", engine);
        take("idle-supervisor", supervisor);
        take("idle-both", engine + supervisor);
        for (count, measure) in [(1, "shim-of-1"), (10, "shim-of-10")] {
            for number in 0..count {
                let name = format!("m{number}");
                stack.run(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"])?;
            }
            thread::sleep(IDLE);
            let shims = stack.shims();
            ensure!(shims.len() == count, "{count} containers, {shims:?}");
            for pid in shims {
                take(measure, pss(pid)?);
            }
            for number in 0..count {
                stack.run(&["rm", "-f", &format!("m{number}")])?;
            }
        }
    }
    Ok(())
}

/// What is idle does nothing for a while: burst threads have ended, what a start took is given back.
const IDLE: Duration = Duration::from_secs(5);

/// Proportional set size in KiB.
fn pss(pid: i32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
