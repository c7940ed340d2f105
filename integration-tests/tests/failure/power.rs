//! The power fails at random moments under load: what was acknowledged is there on the next day, what
//! was removed stays so, and nothing half-made is to be seen.
//!
//! The data root is an ext4 that commits its journal rarely, so that what nobody synced is lost. `N=` sets
//! the number of cuts of each test, `SEED=` repeats a run as far as threads let it.

mod may;
mod owner;
mod picture;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use integration_tests::sandbox::until;
use integration_tests::{Stack, disk, parts};
use serde_json::Value;

use crate::random::Random;
use crate::storm::{number, seed};
use owner::{BASE, Owner, load};

const OWNERS: usize = 3;
const CUTS: u64 = 5;

/// The disks of the days so far; the last one is in use.
struct Disks {
    directory: tempfile::TempDir,
    day: usize,
    options: &'static str,
}

impl Disks {
    fn new(options: &'static str) -> Self {
        let disks = Self { directory: tempfile::tempdir().unwrap(), day: 0, options };
        disk::make_ext4(&disks.today(), 128 << 20, &["-J", "size=4"]);
        disks
    }

    fn at(&self, day: usize) -> PathBuf {
        self.directory.path().join(day.to_string())
    }

    fn today(&self) -> PathBuf {
        self.at(self.day)
    }

    fn tomorrow(&self) -> PathBuf {
        self.at(self.day + 1)
    }

    fn dawn(&mut self) {
        std::fs::remove_file(self.today()).unwrap();
        self.day += 1;
    }
}

fn start(disks: &Disks) -> Stack {
    Stack::ours().with_disk_image(disks.today(), disks.options).start()
}

#[expect(clippy::print_stdout, reason = "the runner keeps it and shows it for a failure")]
fn cut(stack: &Stack, disks: &Disks, random: &mut Random, owners: &mut [Owner]) {
    let acknowledged = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let acknowledged = &acknowledged;
        let mut working = Vec::new();
        for owner in owners.iter_mut() {
            working.push(scope.spawn(move || owner.work(stack, acknowledged)));
        }
        let count = || acknowledged.load(Ordering::Relaxed);
        let broken = || working.iter().any(|owner| owner.is_finished());
        let load = 3 + usize::try_from(random.below(30)).unwrap();
        until("there is load", || count() >= load || broken());
        // Not waiting for anything: any moment will do.
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        println!("day {} ends after {}", disks.day, count());
        stack.cut_power(&disks.tomorrow());
    });
}

/// Everything that is listed belongs to somebody and is of use.
fn check(stack: &Stack, owners: &mut [Owner]) {
    std::thread::scope(|scope| {
        for owner in owners.iter_mut() {
            scope.spawn(|| owner.check(stack));
        }
    });
    let api = stack.api();
    let names = |list: &Value, name: &dyn Fn(&Value) -> Option<String>| -> BTreeSet<String> {
        list.as_array().into_iter().flatten().filter_map(name).collect()
    };
    let text = |value: &Value| value.as_str().map(|text| text.trim_start_matches('/').to_owned());
    let listed = api.get("/containers/json?all=1").expect(200).json();
    let there = names(&listed, &|row| text(&row["Names"][0]));
    assert_eq!(there, owners.iter().flat_map(Owner::containers).collect());
    let listed = api.get("/volumes").expect(200).json()["Volumes"].clone();
    let is_named = |row: &Value| row["Labels"]["of"].is_string();
    let there = names(&listed, &|row| text(&row["Name"]).filter(|_| is_named(row)));
    assert_eq!(there, owners.iter().flat_map(Owner::volumes).cloned().collect());
    let anonymous = listed.as_array().into_iter().flatten().filter(|row| !is_named(row)).count();
    assert_eq!(anonymous, owners.iter().map(Owner::anonymous).sum::<usize>(), "{listed}");
    let listed = api.get("/images/json").expect(200).json();
    let rows = listed.as_array().into_iter().flatten();
    let there: BTreeSet<String> =
        rows.flat_map(|row| names(&row["RepoTags"], &|tag| text(tag))).collect();
    let tags = owners.iter().flat_map(Owner::tags).cloned();
    assert_eq!(there, tags.chain([BASE.to_owned()]).collect());
}

/// Removes everything: nothing is left on the disk either.
fn empty(stack: &Stack) {
    let api = stack.api();
    api.post("/containers/prune").expect(200);
    // Every volume, and every image.
    api.post("/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D").expect(200);
    api.post("/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D").expect(200);
    for list in ["/containers/json?all=1", "/images/json?all=1"] {
        assert_eq!(api.get(list).expect(200).json(), Value::Array(Vec::new()), "{list}");
    }
    // What a load under way had may be of use to the next one, for a day.
    let containerd = stack.exec_root().join("containerd/containerd.sock").display().to_string();
    let ctr = parts::ours("ctr-rs").display().to_string();
    let leases = [&*ctr, "--address", &containerd, "--namespace", "moby", "leases"];
    let held = stack.inside(&[&leases[..], &["ls", "-q"]].concat()).ok();
    for lease in held.lines() {
        stack.inside(&[&leases[..], &["rm", "--sync", lease]].concat()).ok();
    }
    let root = stack.sandbox().path(stack.data_root());
    let below = "containerd/io.containerd";
    for directory in [
        "containers".to_owned(),
        "volumes".to_owned(),
        format!("{below}.content.v1.content/blobs/sha256"),
        format!("{below}.content.v1.content/ingest"),
        format!("{below}.snapshotter.v1.overlayfs/snapshots"),
    ] {
        let path = root.join(&directory);
        let names =
            || std::fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        until(&format!("{directory} is empty"), || names().count() == 0);
    }
}

fn days(options: &'static str) {
    let seed = seed();
    let mut random = Random::new(seed);
    let mut disks = Disks::new(options);
    let mut owners: Vec<Owner> = (0..OWNERS).map(|number| Owner::new(number, seed)).collect();
    let mut stack = start(&disks);
    load(&stack, BASE, 0).expect("the engine is there");
    for _ in 0..number("N").unwrap_or(CUTS) {
        cut(&stack, &disks, &mut random, &mut owners);
        drop(stack);
        disks.dawn();
        stack = start(&disks);
        check(&stack, &mut owners);
    }
    empty(&stack);
    stack.end();
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_fails() {
    days("commit=300");
}

/// Otherwise ext4 syncs what replaces a file by rename; other file systems do not.
#[test]
fn nothing_acknowledged_is_lost_on_a_disk_that_promises_no_more_than_posix() {
    days("commit=300,noauto_da_alloc");
}
