//! Daemons killed at random moments under load: nothing acknowledged is lost, revived or in limbo.
//!
//! `N=` sets the number of kills of both storms, `SEED=` repeats a run as far as threads let it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use integration_tests::Stack;
use integration_tests::sandbox::{Ended, until, until_equal};

use crate::lasting;
use crate::random::Random;
use crate::worker::{Trouble, Worker};

const WORKERS: usize = 6;
const KILLS: u64 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strike {
    KillEngine,
    StopEngine,
    KillContainerd,
    StopContainerd,
    KillBoth,
}

const STRIKES: [Strike; 5] = [
    Strike::KillEngine,
    Strike::StopEngine,
    Strike::KillContainerd,
    Strike::StopContainerd,
    Strike::KillBoth,
];

impl Strike {
    fn fall(self, stack: &Stack) {
        match self {
            Self::KillEngine => stack.kill_engine(),
            Self::StopEngine => assert_eq!(stack.stop_engine(), Ended::Exit(0)),
            Self::KillContainerd => stack.kill_containerd(),
            Self::StopContainerd => stack.stop_containerd(),
            Self::KillBoth => {
                stack.kill_engine();
                stack.kill_containerd();
            }
        }
    }

    fn trouble(self) -> Trouble {
        match self {
            Self::KillContainerd | Self::StopContainerd => Trouble::Below,
            Self::StopEngine => Trouble::Above,
            Self::KillEngine | Self::KillBoth => Trouble::None,
        }
    }
}

/// Ends the work, also when something has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// Of a run like no other, unless `SEED=` says otherwise.
#[expect(clippy::print_stdout, reason = "the runner keeps it and shows it for a failure")]
pub(crate) fn seed() -> u64 {
    let seed = number("SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_secs() << 20 | u64::from(now.subsec_micros())
    });
    println!("SEED={seed}");
    seed
}

#[expect(clippy::print_stdout, reason = "the runner keeps it and shows it for a failure")]
fn round(stack: &Stack, random: &mut Random, workers: &mut [Worker<'_>]) {
    let strike = random.pick(&STRIKES);
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicUsize::new(0));
    let count = || acknowledged.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let (stop, acknowledged) = (&stop, &acknowledged);
        let over = Over(stop);
        let mut working = Vec::new();
        for worker in workers.iter_mut() {
            working.push(scope.spawn(move || worker.work(strike.trouble(), stop, acknowledged)));
        }
        let broken = || working.iter().any(|worker| worker.is_finished());
        let load = 5 + usize::try_from(random.below(25)).unwrap();
        until("there is load", || count() >= load || broken());
        // Not waiting for anything: any moment will do.
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        println!("{strike:?} after {}", count());
        strike.fall(stack);
        if strike.trouble() == Trouble::Below {
            stack.start_what_is_gone();
            until("containerd answers", || stack.containerd_listens());
            let load = count() + 5;
            until("work goes on", || count() >= load || broken());
        }
        drop(over);
    });
    stack.start_what_is_gone();
    std::thread::scope(|scope| {
        for worker in workers.iter_mut() {
            scope.spawn(move || worker.check());
        }
    });
    let wanted: BTreeSet<String> = workers.iter().flat_map(Worker::names).collect();
    // A stop is acknowledged before `--rm` has done its work, and that waits for a containerd.
    let there = || names(stack).into_values().collect::<BTreeSet<_>>();
    until_equal("what is there is what was made", there, &wanted);
    let names: BTreeMap<String, String> = names(stack);
    let running: BTreeSet<String> = workers.iter().flat_map(Worker::running).collect();
    until_equal("a shim for each that runs", || shims(stack, &names), &running);
}

/// Names of all containers by their ids.
fn names(stack: &Stack) -> BTreeMap<String, String> {
    let list = stack.api().get("/containers/json?all=1").expect(200).json();
    let rows = list.as_array().unwrap().iter();
    rows.map(|row| {
        let name = row["Names"][0].as_str().unwrap().trim_start_matches('/');
        (row["Id"].as_str().unwrap().to_owned(), name.to_owned())
    })
    .collect()
}

/// What shims there are for, by name, or by id where nobody has it. By the sandbox's own /proc: the
/// host's is long.
fn shims(stack: &Stack, names: &BTreeMap<String, String>) -> BTreeSet<String> {
    let processes = std::fs::read_dir(stack.sandbox().path("/proc")).unwrap().flatten();
    let commands =
        processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    commands
        .filter_map(|command| {
            let words: Vec<&str> = command.split('\0').collect();
            let shim = words[0].rsplit('/').next()?.starts_with("containerd-shim");
            let id = words.windows(2).find(|pair| shim && pair[0] == "-id")?[1];
            Some(names.get(id).cloned().unwrap_or_else(|| id.to_owned()))
        })
        .collect()
}

/// Half of the kills: two storms at once are through in half the time, and disturb each other.
fn storm(half: u64) {
    let seed = seed() ^ half << 40;
    let stack = lasting();
    let mut random = Random::new(seed);
    let mut workers: Vec<Worker<'_>> =
        (0..WORKERS).map(|number| Worker::new(&stack, number, seed)).collect();
    for _ in 0..number("N").unwrap_or(KILLS).div_ceil(2) {
        round(&stack, &mut random, &mut workers);
    }
    drop(workers);
    stack.end();
}

#[test]
fn nothing_acknowledged_is_lost_in_a_storm_of_kills() {
    storm(0);
}

#[test]
fn nothing_acknowledged_is_lost_in_another_storm() {
    storm(1);
}
