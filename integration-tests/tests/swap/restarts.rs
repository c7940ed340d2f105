//! Daemons that go away and come back; containers do not notice.

use std::fs;

use integration_tests::sandbox::until;

use crate::basics::said;
use crate::client::{Running, Stdin, feed};
use crate::row::World;

pub(crate) fn engine_restart(world: &World) {
    let client = world.client();
    client.start("stays", "sleep 1000");
    let pid = || client.ok(&["inspect", "-f", "{{.State.Pid}}", "stays"]);
    let before = pid();
    world.stack.kill_engine();
    world.stack.start_engine();
    assert_eq!(pid(), before);
    goes_on(world, "stays");
    assert!(world.stack.stop_engine() == integration_tests::sandbox::Ended::Exit(0));
    world.stack.start_engine();
    assert_eq!(pid(), before);
    goes_on(world, "stays");
    assert_eq!(client.kill("stays"), 137);
}

pub(crate) fn containerd_restart(world: &World) {
    let client = world.client();
    client.start("stays", "sleep 1000");
    world.stack.kill_containerd();
    if world.stack.has_own_containerd() {
        world.stack.start_containerd();
    }
    if !client.is_ctr() {
        // An engine connects again in its own time.
        until("an exec after the restart", || {
            feed(client.exec("stays", Stdin::Closed, "true"), b"").code == 0
        });
    }
    assert_eq!(client.state("stays"), "RUNNING");
    goes_on(world, "stays");
    assert_eq!(client.kill("stays"), 137);
    world.is_quiet();
}

#[track_caller]
fn goes_on(world: &World, name: &str) {
    let exec = |stdin, script: &str| world.client().exec(name, stdin, script);
    let output = said(world, "echo in", (1, 0), exec);
    assert_eq!((output.code, output.stdout.as_str()), (0, "in\n"), "{}", output.stderr);
}

/// The engine is away while the container writes: it waits, nothing is lost and nothing comes twice.
pub(crate) fn engine_away(world: &World) {
    let client = world.client();
    client.start("lines", "seq 1 300000; exec sleep 1000");
    let follower = Running::start(client.command(&["logs", "-f", "lines"]));
    assert_eq!(follower.line(), "1");
    world.stack.stop_engine();
    follower.end();
    world.stack.start_engine();
    let follower = Running::start(client.command(&["logs", "-f", "lines"]));
    for number in 1..=300_000 {
        assert_eq!(follower.line(), number.to_string());
    }
    goes_on(world, "lines");
    assert_eq!(client.kill("lines"), 137);
    assert_eq!(follower.end().stdout, "");
}

pub(crate) fn rotation(world: &World) {
    let client = world.client();
    let run = ["run", "-d", "--network", "none", "--name", "turns", "--log-opt", "max-size=100k"];
    let rest = ["--log-opt", "max-file=3", "busybox", "seq", "30000"];
    let id = client.ok(&[&run[..], &rest].concat());
    assert_eq!(client.ok(&["wait", "turns"]), "0");
    assert_eq!(client.ok(&["logs", "--tail", "1", "turns"]), "30000");
    let directory = world.stack.data_root().join("containers").join(&id);
    let files = fs::read_dir(directory).expect("the container's directory").flatten();
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    let mut logs: Vec<String> =
        names.filter_map(|name| Some(name.strip_prefix(&id)?.to_owned())).collect();
    // Ours keeps beside it where the parts begin.
    logs.retain(|name| !name.ends_with(".offsets"));
    logs.sort();
    assert_eq!(logs, ["-json.log", "-json.log.1", "-json.log.2"]);
    client.ok(&["rm", "turns"]);
}
