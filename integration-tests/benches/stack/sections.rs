//! The sections: what is done in each round, first by one stack, then by the other.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use crate::http::Connection;
use crate::programs::{self, Program};
use crate::samples::{Sample, Samples};
use crate::stack::Stack;
use crate::{leaks, say, top};

/// Rounds that are not counted.
const WARM_UP: usize = 3;
/// Rounds of what moves hundreds of megabytes.
const LONG: usize = 5;
const LOG_BYTES: usize = 200_000_000;

pub(crate) struct Run<'a> {
    pub(crate) stacks: &'a mut [Stack; 2],
    pub(crate) samples: &'a mut Samples,
    pub(crate) rounds: usize,
    pub(crate) work: &'a Path,
}

impl Run<'_> {
    pub(crate) fn all(mut self, wanted: &[String]) -> anyhow::Result<Vec<Program>> {
        self.prepare()?;
        let mut programs = Vec::new();
        for stack in self.stacks.iter() {
            programs.extend(programs::census(stack)?);
        }
        for section in wanted {
            let started = Instant::now();
            match section.as_str() {
                "run" => self.run()?,
                "api" => self.api()?,
                "memory" => self.memory()?,
                "startup" => self.startup()?,
                _ => self.logs()?,
            }
            say(&format!("{section}: {:.1} s", started.elapsed().as_secs_f64()))?;
            // A bench that is cut off keeps what it has.
            self.samples.write_csv(&crate::output_directory())?;
        }
        Ok(programs)
    }

    /// The image on both sides, and what the engines look like without containers.
    fn prepare(&mut self) -> anyhow::Result<()> {
        let image = self.work.join("busybox.tar");
        let script = top().join("integration-tests/scripts/image.sh");
        let status = Command::new(script).arg(&image).status().context("image.sh")?;
        anyhow::ensure!(status.success(), "image.sh: {status}");
        let image = image.to_string_lossy().into_owned();
        for stack in self.stacks.iter_mut() {
            stack.run(&["load", "-q", "-i", &image])?;
            stack.mounts = leaks::mounts(stack)?;
            stack.run(&["run", "--rm", "busybox", "true"])?;
        }
        Ok(())
    }

    /// Interleaves: each round is one turn of each stack, ours and theirs taking turns at going
    /// first.
    fn interleave(
        &mut self,
        section: &str,
        measure: &str,
        rounds: usize,
        mut turn: impl FnMut(&Stack, &mut Samples) -> anyhow::Result<Duration>,
    ) -> anyhow::Result<()> {
        for stack in self.stacks.iter() {
            for _ in 0..WARM_UP.min(rounds) {
                turn(stack, &mut Samples::default())?;
            }
        }
        for round in 0..rounds {
            for turns in 0..2 {
                let stack = &self.stacks[(round + turns) % 2];
                let before = stack.world.quiet()?;
                let took = turn(stack, self.samples)?;
                let cpu = stack.world.quiet()?.saturating_sub(before);
                let sample = Sample { value: millis(took), cpu: Some(millis(cpu)) };
                self.samples.add(section, measure, stack.kind, sample);
            }
        }
        Ok(())
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let rounds = self.rounds;
        self.interleave("run", "client --version", rounds, |stack, _| stack.run(&["--version"]))?;
        self.interleave("run", "run-bridge", rounds, |stack, _| {
            stack.run(&["run", "--rm", "busybox", "true"])
        })?;
        self.interleave("run", "run-none", rounds, |stack, _| {
            stack.run(&["run", "--rm", "--network", "none", "busybox", "true"])
        })
    }

    fn api(&mut self) -> anyhow::Result<()> {
        self.interleave("api", "api-none", self.rounds, |stack, samples| {
            let mut connection = stack.connect()?;
            let body = r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"none"}}"#;
            let started = Instant::now();
            let mut last = started;
            let mut lap = |measure: &str| {
                let sample = Sample { value: millis(last.elapsed()), cpu: None };
                samples.add("api", measure, stack.kind, sample);
                last = Instant::now();
            };
            let id = create(&mut connection, body)?;
            lap("api-create");
            connection.request("POST", &format!("/containers/{id}/start"), "")?;
            lap("api-start");
            connection.request("POST", &format!("/containers/{id}/wait"), "")?;
            lap("api-wait");
            connection.request("DELETE", &format!("/containers/{id}"), "")?;
            lap("api-delete");
            Ok(started.elapsed())
        })
    }

    /// Idle daemons after what ran so far, then shims with a container each.
    fn memory(&mut self) -> anyhow::Result<()> {
        for stack in self.stacks.iter() {
            stack.world.quiet()?;
            let mut take = |measure: &str, kib: f64| {
                self.samples.add("memory", measure, stack.kind, Sample { value: kib, cpu: None });
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
                stack.world.quiet()?;
                let shims = stack.shims();
                anyhow::ensure!(shims.len() == count, "{count} containers, {shims:?}");
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

    fn startup(&mut self) -> anyhow::Result<()> {
        let rounds = self.rounds;
        let work = self.work.to_owned();
        self.interleave("startup", "boot-engine", rounds, |stack, _| {
            stack.boot_engine(&work, true)
        })?;
        self.interleave("startup", "boot-both", rounds.div_ceil(3), |stack, _| {
            stack.boot_engine(&work, false)
        })?;
        self.interleave("startup", "boot-supervisor", rounds, |stack, _| {
            stack.boot_supervisor(&work)
        })
    }

    /// A container that writes 100-byte lines as fast as it can into json-file; then `docker logs`.
    fn logs(&mut self) -> anyhow::Result<()> {
        let lines = self.work.join("lines");
        write_lines(&lines)?;
        let bind = format!("{}:/lines:ro", lines.display());
        let body = serde_json::json!({
            "Image": "busybox", "Cmd": ["cat", "/lines"],
            "HostConfig": {"NetworkMode": "none", "Binds": [bind]},
        })
        .to_string();
        self.interleave("logs", "log-write-200MB", LONG, |stack, _| {
            let mut connection = stack.connect()?;
            let id = create(&mut connection, &body)?;
            let started = Instant::now();
            connection.request("POST", &format!("/containers/{id}/start"), "")?;
            connection.request("POST", &format!("/containers/{id}/wait"), "")?;
            let took = started.elapsed();
            connection.request("DELETE", &format!("/containers/{id}"), "")?;
            Ok(took)
        })?;
        for stack in self.stacks.iter() {
            stack.run(&[
                "run",
                "--name",
                "lines",
                "--network",
                "none",
                "-v",
                &bind,
                "busybox",
                "cat",
                "/lines",
            ])?;
        }
        self.interleave("logs", "log-read-200MB", LONG, |stack, _| stack.run(&["logs", "lines"]))?;
        for stack in self.stacks.iter() {
            stack.run(&["rm", "lines"])?;
        }
        fs::remove_file(&lines)?;
        Ok(())
    }
}

fn create(connection: &mut Connection, body: &str) -> anyhow::Result<String> {
    let answer = connection.request("POST", "/containers/create", body)?;
    let answer: Value = serde_json::from_str(&answer)?;
    Ok(answer["Id"].as_str().context("no Id")?.to_owned())
}

fn write_lines(path: &Path) -> anyhow::Result<()> {
    let block: String = (0..10_000).map(|number| format!("{number:099}\n")).collect();
    let mut file = File::options().write(true).create_new(true).open(path)?;
    for _ in 0..LOG_BYTES / block.len() {
        file.write_all(block.as_bytes())?;
    }
    Ok(())
}

/// Proportional set size in KiB.
fn pss(pid: i32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
