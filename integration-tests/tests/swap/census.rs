//! Which programs a row really runs with, read from the kernel.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use integration_tests::parts::Peers;
use integration_tests::sandbox::until;

use crate::client::{Running, Stdin, feed};
use crate::matrix::Part;
use crate::row::World;
use crate::sdk;

/// Where in a row a program stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Client,
    Engine,
    Containerd,
    Shim,
    Runtime,
}

impl Place {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Engine => "engine",
            Self::Containerd => "containerd",
            Self::Shim => "shim",
            Self::Runtime => "runtime",
        }
    }
}

/// A part as it was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) place: Place,
    /// What the kernel calls the process.
    pub(crate) comm: String,
    pub(crate) version: String,
    pub(crate) path: PathBuf,
}

/// Meets every part of a row at work; a part that is not the one the row names is a failure.
pub(crate) fn take(world: &World) -> Vec<Seen> {
    let (row, sandbox) = (world.row(), world.stack.sandbox());
    let client = world.client();
    let mut seen = Vec::new();

    seen.push(client_of(world));
    if let Some(engine) = &row.engine {
        seen.push(met(world, Place::Engine, engine, sandbox.outside(world.stack.engine())));
    }
    if let Some(containerd) = &row.containerd {
        let pid = sandbox.outside(world.stack.containerd());
        seen.push(met(world, Place::Containerd, containerd, pid));
    }

    client.start("census", "sleep 1000");
    let all = sandbox.processes();
    let shim = all.iter().find(|one| is_monitor(&one.name));
    let shim = shim.expect("a shim serves the container").pid;
    seen.push(met(world, Place::Shim, &row.shim, shim));
    seen.push(runtime(world, shim));
    client.kill("census");
    seen
}

/// What stands above a container: containerd's shim or podman's conmon.
fn is_monitor(name: &str) -> bool {
    name.starts_with("containerd-shim") || name == "conmon"
}

/// The client, caught while it listens.
fn client_of(world: &World) -> Seen {
    let part = &world.row().client;
    if part.is_library() {
        return sdk::meet(world);
    }
    let client = world.client();
    let mut events = Running::start(client.command(&["events"]));
    let mut pid = events.child.id().cast_signed();
    until("the client runs", || {
        // Of one that runs inside, only nsenter is our child.
        pid = children(pid).first().copied().unwrap_or(pid);
        runs(pid, &part.path())
    });
    let seen = met(world, Place::Client, part, pid);
    let process = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("it runs");
    drop(events.child.wait());
    seen
}

/// A runtime lives for moments: execs are made until one of its processes is met below the shim.
fn runtime(world: &World, shim: i32) -> Seen {
    let part = &world.row().runtime;
    let wanted = part.path();
    // podman runs it itself, too.
    let podman = world.row().client.is_podman();
    let stop = AtomicBool::new(false);
    let comm = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let nearby = if podman { everybody() } else { children(shim) };
                let met = nearby.into_iter().find(|one| runs(*one, &wanted));
                if let Some(comm) = met.and_then(comm) {
                    return Some(comm);
                }
            }
            None
        });
        // The watch goes on until it is told: no failure may come before that.
        let execs = (0..50)
            .take_while(|_| !watch.is_finished())
            .map(|_| feed(world.client().exec("census", Stdin::Closed, "true"), b""));
        let failed = execs.into_iter().find(|output| output.code != 0);
        stop.store(true, Ordering::Relaxed);
        assert!(failed.is_none(), "an exec: {failed:?}");
        watch.join().expect("it only reads")
    });
    let comm = comm.unwrap_or_else(|| panic!("the shim never ran {}", wanted.display()));
    seen(world, Place::Runtime, part, comm)
}

fn met(world: &World, place: Place, part: &Part, pid: i32) -> Seen {
    let found = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    assert!(
        runs(pid, &part.path()),
        "{}: {} runs, not {}",
        place.word(),
        found.display(),
        part.path().display()
    );
    seen(world, place, part, comm(pid).unwrap_or_default())
}

fn seen(world: &World, place: Place, part: &Part, comm: String) -> Seen {
    let path = part.path();
    let version = version(world, &path);
    if let Some(wanted) = &part.version {
        wanted.check(&version).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
    }
    Seen { place, comm, version, path }
}

/// Whether the process executes this very file, by whatever name it was found.
pub(crate) fn runs(pid: i32, program: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).map(|data| (data.dev(), data.ino())).ok();
    let exe = file(Path::new(&format!("/proc/{pid}/exe")));
    exe.is_some() && exe == file(program)
}

fn comm(pid: i32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned())
}

fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn everybody() -> Vec<i32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The first word that looks like one in what the program tells of itself.
fn version(world: &World, program: &Path) -> String {
    let shim = program.file_name().is_some_and(|name| name.to_string_lossy().contains("-shim-"));
    let mut command = world.stack.sandbox().inside(program);
    command.arg(if shim { "-v" } else { "--version" });
    command.env(
        "LD_LIBRARY_PATH",
        world.row().peers().unwrap_or_else(|_| Peers::newest()).libraries(),
    );
    let told = feed(command, b"").stdout;
    let words = told.split(|c: char| c.is_whitespace() || c == ',');
    let mut words = words.map(|word| word.strip_prefix('v').unwrap_or(word));
    let number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    let word = words.find(number);
    word.unwrap_or_else(|| panic!("{} tells no version: {told:?}", program.display())).to_owned()
}
