//! runc-rs beside crun, runc and the kernel alone, driven by the command line, all in one world of pure
//! cgroup v1 or v2.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use integration_tests::parts;

use crate::bundle::{self, Shape};
use crate::samples::{Sample, Samples, Side};
use crate::sections::{Run, WARM_UP};
use crate::stopwatch::{Stopwatch, Timed};
use crate::world::World;
use crate::{leaks, programs, say};

struct Runtime {
    side: Side,
    program: PathBuf,
    /// Below it lie its state and its bundles.
    directory: PathBuf,
}

struct Arena {
    world: World,
    runtimes: Vec<Runtime>,
    work: PathBuf,
}

pub(super) fn section(run: &mut Run) -> anyhow::Result<()> {
    let work = run.work.join("runtime");
    fs::create_dir_all(&work)?;
    let world = World::new(&run.work, "runtimes", &run.peers.c_library())?;
    world.hide_the_unified_of_a_hybrid()?;
    world.add_libraries(&run.peers.libraries(), &work)?;
    let sides = [
        (Side::Ours, parts::ours("runc-rs")),
        (Side::Crun, run.peers.program("crun")),
        (Side::Runc, run.peers.program("runc")),
        (Side::Floor, parts::ours("guest")),
    ];
    let runtimes = sides.into_iter().map(|(side, program)| {
        let directory = work.join(side.name());
        Runtime { side, program, directory }
    });
    let arena = Arena { world, runtimes: runtimes.collect(), work };
    let root = bundle::root(&arena.work)?;
    let shapes = [
        Shape::docker(&run.stacks[1], &arena.work)?,
        Shape::minimal(&run.peers, &arena.world, &arena.work)?,
    ];
    arena.write_bundles(&shapes, &root)?;
    let mounts = arena.world.mounts()?;

    for runtime in arena.programs() {
        let size = fs::metadata(&runtime.program)?.len() as f64 / 1024.0;
        run.samples.add("runtime", "rt-binary", runtime.side, Sample::kib(size));
        let path = runtime.program.clone();
        run.programs.push(programs::describe(runtime.side, path, &run.peers, &arena.world)?);
    }
    arena.lives(&shapes, run.rounds, &mut run.samples)?;
    arena.beside_a_running_one(run.rounds, &mut run.samples)?;
    arena.system_calls(&mut run.samples)?;

    let left = leaks::within_a_second(|| arena.left(&mounts))?;
    for line in &left {
        say(&format!("LEFT BEHIND by the runtimes: {line}"))?;
    }
    run.clean &= left.is_empty();
    Ok(())
}

impl Arena {
    fn group(&self, runtime: &Runtime, shape: &str) -> String {
        format!("{}/{}-{shape}", self.world.container_parent(), runtime.side.name())
    }

    fn programs(&self) -> impl Iterator<Item = &Runtime> {
        self.runtimes.iter().filter(|runtime| runtime.side != Side::Floor)
    }

    fn write_bundles(&self, shapes: &[Shape], root: &Path) -> anyhow::Result<()> {
        for runtime in &self.runtimes {
            for shape in shapes {
                let group = self.group(runtime, shape.name);
                let directory = runtime.directory.join(shape.name);
                shape.bundle(&directory, root, &group, &["/bin/true"])?;
                let plan = self.world.inside(|| shape.plan(root, &group))?;
                fs::write(directory.join("plan"), plan)?;
            }
            let group = self.group(runtime, "sleep");
            let directory = runtime.directory.join("sleep");
            shapes[0].bundle(&directory, root, &group, &["/bin/sleep", "10000"])?;
        }
        Ok(())
    }

    /// Whole containers: `run`, then create, start and delete.
    fn lives(&self, shapes: &[Shape], rounds: usize, samples: &mut Samples) -> anyhow::Result<()> {
        for shape in shapes {
            let name = shape.name;
            self.rounds(rounds, samples, |runtime, samples| {
                let timed = self.time(&[runtime.run(name)])?;
                let mut add = |what: &str, sample| {
                    samples.add("runtime", &format!("{what}-{name}"), runtime.side, sample);
                };
                add("rt-run", Sample::time(timed.laps[0].0).with_cpu(timed.cpu));
                add("rt-rss", Sample::kib(timed.rss));
                if runtime.side == Side::Floor {
                    return Ok(());
                }
                let bundle = runtime.directory.join(name).display().to_string();
                let create = runtime.words(&["create", "--bundle", &bundle, "one"]);
                let reap = vec!["reap".to_owned()];
                let start = runtime.words(&["start", "one"]);
                let delete = runtime.words(&["delete", "one"]);
                let timed = self.time(&[create, start, reap, delete])?;
                let total = timed.laps.iter().map(|(took, _)| *took).sum();
                add("rt-life", Sample::time(total).with_cpu(timed.cpu));
                for (verb, (took, cpu)) in
                    ["rt-create", "rt-start", "rt-delete"].into_iter().zip(timed.laps)
                {
                    add(verb, Sample::time(took).with_cpu(cpu));
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn beside_a_running_one(&self, rounds: usize, samples: &mut Samples) -> anyhow::Result<()> {
        for runtime in self.programs() {
            let bundle = runtime.directory.join("sleep").display().to_string();
            self.time(&[runtime.words(&["run", "--detach", "--bundle", &bundle, "sleep"])])?;
        }
        for (measure, words) in
            [("rt-exec", &["exec", "sleep", "/bin/true"][..]), ("rt-state", &["state", "sleep"])]
        {
            self.rounds(rounds, samples, |runtime, samples| {
                if runtime.side == Side::Floor {
                    return Ok(());
                }
                let timed = self.time(&[runtime.words(words)])?;
                let sample = Sample::time(timed.laps[0].0).with_cpu(timed.cpu);
                samples.add("runtime", measure, runtime.side, sample);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Once, under strace, and never in a timed round. Ends the containers that run.
    fn system_calls(&self, samples: &mut Samples) -> anyhow::Result<()> {
        for runtime in self.programs() {
            for (measure, words) in [
                ("rt-calls-run", runtime.run("docker")),
                ("rt-calls-exec", runtime.words(&["exec", "sleep", "/bin/true"])),
            ] {
                let file = self.work.join("calls");
                let mut strace = vec!["strace", "-f", "-c", "-o"];
                let path = file.display().to_string();
                strace.push(&path);
                let strace = strace.into_iter().map(str::to_owned).chain(words).collect();
                self.time(&[strace])?;
                let table = fs::read_to_string(&file)?;
                let total = table.lines().find(|line| line.ends_with(" total"));
                let calls = total.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
                let calls: f64 = calls.with_context(|| format!("no total in {table}"))?;
                samples.add("runtime", measure, runtime.side, Sample::count(calls));
            }
            self.time(&[runtime.words(&["delete", "--force", "sleep"])])?;
        }
        Ok(())
    }

    fn rounds(
        &self,
        rounds: usize,
        samples: &mut Samples,
        mut turn: impl FnMut(&Runtime, &mut Samples) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for round in 0..rounds + WARM_UP {
            for number in 0..self.runtimes.len() {
                let runtime = &self.runtimes[(round + number) % self.runtimes.len()];
                let unseen = &mut Samples::default();
                turn(runtime, if round < WARM_UP { unseen } else { &mut *samples })?;
            }
        }
        Ok(())
    }

    fn time(&self, commands: &[Vec<String>]) -> anyhow::Result<Timed> {
        Stopwatch::new(self.work.join("said")).time(&self.world, commands)
    }

    fn left(&self, mounts: &[String]) -> anyhow::Result<Vec<String>> {
        let mut left = self.world.inhabitants()?;
        let groups = self.world.container_groups();
        left.extend(groups.iter().map(|group| format!("cgroup {}", group.display())));
        let new = self.world.mounts()?;
        let new = new.into_iter().filter(|mount| !mounts.contains(mount));
        left.extend(new.map(|mount| format!("mount {mount}")));
        for runtime in self.programs() {
            let states = fs::read_dir(runtime.directory.join("state")).into_iter().flatten();
            let states = states.flatten().map(|entry| entry.path());
            // crun keeps compiled filters there.
            let states = states.filter(|path| !hidden(path));
            left.extend(states.map(|path| format!("state {}", path.display())));
        }
        Ok(left)
    }
}

impl Runtime {
    fn words(&self, words: &[&str]) -> Vec<String> {
        let program = self.program.display().to_string();
        let state = self.directory.join("state").display().to_string();
        let start = [program, "--root".to_owned(), state].into_iter();
        start.chain(words.iter().map(|word| (*word).to_owned())).collect()
    }

    fn run(&self, shape: &str) -> Vec<String> {
        let bundle = self.directory.join(shape);
        if self.side == Side::Floor {
            let plan = bundle.join("plan");
            return [&self.program, Path::new("floor"), &plan]
                .map(|word| word.display().to_string())
                .into();
        }
        self.words(&["run", "--bundle", &bundle.display().to_string(), "one"])
    }
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}
