//! The libraries that other programs drive an engine with, each in a program of ours: docker-py
//! (`sdk/docker_py.py`), Docker's client for Go (`sdk/docker_go.go`, which `preflight.sh swap` builds), and bollard.

mod bollard;

use std::process::Command;

use integration_tests::parts::Peers;

use crate::census::{Place, Seen, runs};
use crate::client::{Running, feed};
use crate::engine::serve_box;
use crate::matrix::{BOLLARD, DOCKER_PY};
use crate::row::World;

/// The program with nothing but the engine's address in its environment.
fn command(world: &World, words: &[&str]) -> Command {
    let client = &world.row().client;
    let mut command = Command::new(client.path());
    command.env_clear().env("DOCKER_HOST", format!("unix://{}", world.stack.socket().display()));
    if client.program == DOCKER_PY {
        let packages = Peers::docker_py().directory().join("usr/lib/python3/dist-packages");
        command
            .env("PYTHONPATH", packages)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/swap/sdk/docker_py.py"));
    }
    command.args(words);
    command
}

/// The library's version and place, told by a process that has it loaded.
pub(crate) fn meet(world: &World) -> Seen {
    let client = &world.row().client;
    if client.program == BOLLARD {
        assert!(bollard::answers(&world.stack.socket()));
        let comm = std::fs::read_to_string("/proc/self/comm").expect("it runs").trim().to_owned();
        let (version, path) = (bollard::version(), client.path());
        return Seen { place: Place::Client, comm, version, path };
    }
    let mut running = Running::start(command(world, &["tell"]));
    let (version, path) = (running.line(), running.line());
    let pid = running.child.id();
    assert!(runs(pid.cast_signed(), &client.path()), "{} runs another", pid);
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).expect("it runs");
    running.send("\n");
    assert_eq!(running.end().code, 0);
    if let Some(wanted) = &client.version {
        wanted.check(&version).unwrap_or_else(|problem| panic!("{}: {problem}", client.program));
    }
    Seen { place: Place::Client, comm: comm.trim().to_owned(), version, path: path.into() }
}

fn drive(world: &World, words: &[&str]) {
    let (_registry, image, _) = serve_box(world);
    let output = feed(command(world, &[&["scenarios", &image][..], words].concat()), b"");
    assert_eq!((output.code, output.stdout.as_str()), (0, "all passed\n"), "{}", output.stderr);
}

pub(crate) fn docker_py(world: &World) {
    drive(world, &[]);
}

pub(crate) fn docker_go(world: &World) {
    drive(world, &[]);
}

/// As programs do that were written for one version of the API.
pub(crate) fn docker_go_pinned(world: &World) {
    drive(world, &["1.39"]);
}

pub(crate) fn in_process(world: &World) {
    let (_registry, image, _) = serve_box(world);
    bollard::scenarios(&world.stack.socket(), &image);
}
