//! Docker's SDK for Python drives the engine: the program is `docker_py.py`.

use std::process::Command;

use integration_tests::parts::Peers;

use crate::census::{Place, Seen};
use crate::client::{Running, feed};
use crate::row::World;

fn command(world: &World, verb: &str) -> Command {
    let mut command = Command::new(world.row().client.path());
    command
        .env_clear()
        .env("PYTHONPATH", Peers::docker_py().directory().join("usr/lib/python3/dist-packages"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("DOCKER_HOST", format!("unix://{}", world.stack.socket().display()))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/swap/docker_py.py"))
        .arg(verb);
    command
}

/// The library's version and place, told by a process that has it loaded.
pub(crate) fn meet(world: &World) -> Seen {
    let mut running = Running::start(command(world, "tell"));
    let (version, path) = (running.line(), running.line());
    let pid = running.child.id();
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).expect("it runs");
    running.send("\n");
    assert_eq!(running.end().code, 0);
    Seen { place: Place::Client, comm: comm.trim().to_owned(), version, path: path.into() }
}

pub(crate) fn scenarios(world: &World) {
    let output = feed(command(world, "scenarios"), b"");
    assert_eq!((output.code, output.stdout.as_str()), (0, "all passed\n"), "{}", output.stderr);
}
