//! What a docker client sees of an engine.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use integration_tests::image;
use integration_tests::registry::Registry;
use integration_tests::sandbox::{PATIENCE, until};
use serde_json::json;

use crate::client::{Running, feed};
use crate::matrix::Part;
use crate::row::World;

/// Ends with 5 when it is asked to, and says when it can be asked.
const POLITE: &str = "trap 'exit 5' TERM; trap 'echo got USR1' USR1; echo ready; \
     while :; do sleep 1000 & wait $!; done";

/// `docker run -d` on no network.
fn start(world: &World, name: &str, flags: &[&str], script: &str) -> String {
    let fixed = ["run", "-d", "--network", "none", "--name", name];
    world.client().ok(&[&fixed[..], flags, &["busybox", "sh", "-c", script]].concat())
}

fn follow(world: &World, name: &str) -> Running {
    Running::start(world.client().command(&["logs", "-f", name]))
}

pub(crate) fn detached(world: &World) {
    let client = world.client();
    let id = start(world, "back", &[], "sleep 1000");
    assert!(id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit()), "{id}");
    assert_eq!(client.ok(&["ps", "-q", "--no-trunc"]), id);
    assert_eq!(client.ok(&["ps", "--format", "{{.Names}} {{.Image}}"]), "back busybox");
    client.ok(&["rm", "-f", "back"]);
}

pub(crate) fn ports(world: &World) {
    let client = world.client();
    let run = ["run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", "-p", "8081:80"];
    client.ok(&[&run[..], &["busybox", "httpd", "-f", "-h", "/var/www"]].concat());
    let told = client.ok(&["port", "web", "80"]);
    assert!(told.lines().any(|line| line == "127.0.0.1:8080"), "{told}");
    for address in ["127.0.0.1:8080", "127.0.0.1:8081"] {
        until(address, || fetch(world, address).contains("made by a private stack"));
    }
    client.ok(&["rm", "-f", "web"]);
}

/// The page at an address of the sandbox's host side; empty where nobody serves it yet.
pub(crate) fn fetch(world: &World, address: &str) -> String {
    let connected = world.stack.sandbox().connect(address.parse().expect("an address"));
    connected.map_or_else(|_| String::new(), read_page)
}

pub(crate) fn read_page(mut socket: TcpStream) -> String {
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut page = String::new();
    // docker-proxy hangs up when nobody listens behind it.
    socket.write_all(b"GET / HTTP/1.0\r\n\r\n").ok();
    socket.read_to_string(&mut page).ok();
    page
}

pub(crate) fn volumes(world: &World) {
    let client = world.client();
    let run = |flags: &[&str], script: &str| {
        client.say(
            &[&["run", "--rm", "--network", "none"][..], flags, &["busybox", "sh", "-c", script]]
                .concat(),
        )
    };
    assert_eq!(run(&["-v", "kept:/data"], "echo of old > /data/file").code, 0);
    assert_eq!(run(&["-v", "kept:/data:ro"], "cat /data/file").stdout, "of old\n");
    let api = world.stack.api();
    assert_eq!(api.get("/volumes/kept").expect(200).json()["Driver"], "local");
    api.delete("/volumes/kept").expect(204);
    let shared = world.stack.root().join("home/shared");
    fs::create_dir(&shared).expect("a directory");
    let bind = format!("{}:/shared", shared.display());
    assert_eq!(run(&["-v", &bind], "echo from inside > /shared/file").code, 0);
    assert_eq!(fs::read_to_string(shared.join("file")).expect("the file"), "from inside\n");
    let refused = run(&["-v", &format!("{bind}:ro")], "echo > /shared/file");
    assert!(refused.code == 1 && refused.stderr.contains("Read-only file system"), "{refused:?}");
    fs::remove_dir_all(shared).expect("removing it");
}

pub(crate) fn attach(world: &World) {
    let client = world.client();
    start(
        world,
        "echo",
        &["-i"],
        "while read -r line; do echo got $line; [ $line != two ] || exit 6; done",
    );
    let mut attached = Running::start(client.command(&["attach", "echo"]));
    attached.send("one\n");
    assert_eq!(attached.line(), "got one");
    let logs = follow(world, "echo");
    assert_eq!(logs.line(), "got one");
    attached.send("two\n");
    assert_eq!(attached.line(), "got two");
    assert_eq!(logs.line(), "got two");
    let ended = attached.end();
    assert_eq!((ended.code, ended.stdout.as_str()), (6, ""));
    assert_eq!(logs.end().stdout, "");
    client.ok(&["rm", "echo"]);
}

pub(crate) fn logs(world: &World) {
    let client = world.client();
    start(world, "talk", &["-i"], "echo one; echo two >&2; read -r line; echo said $line; exit 3");
    let logs = follow(world, "talk");
    assert_eq!(logs.line(), "one");
    feed(client.command(&["attach", "talk"]), b"three\n");
    let rest = logs.end();
    assert_eq!((rest.stdout.as_str(), rest.stderr.as_str()), ("said three\n", "two\n"));
    let all = client.say(&["logs", "talk"]);
    assert_eq!((all.stdout.as_str(), all.stderr.as_str()), ("one\nsaid three\n", "two\n"));
    assert_eq!(client.ok(&["logs", "--tail", "1", "talk"]), "said three");
    client.ok(&["rm", "talk"]);
}

pub(crate) fn stop(world: &World) {
    let client = world.client();
    start(world, "polite", &[], POLITE);
    assert_eq!(follow(world, "polite").line(), "ready");
    assert_eq!(client.ok(&["stop", "polite"]), "polite");
    assert_eq!(client.ok(&["inspect", "-f", "{{.State.ExitCode}}", "polite"]), "5");
    client.ok(&["start", "polite"]);
    client.ok(&["rm", "-f", "polite"]);
    start(world, "deaf", &[], "sleep 1000");
    client.ok(&["stop", "-t", "0", "deaf"]);
    assert_eq!(client.ok(&["inspect", "-f", "{{.State.ExitCode}}", "deaf"]), "137");
    client.ok(&["rm", "deaf"]);
}

pub(crate) fn signals(world: &World) {
    let client = world.client();
    start(world, "listener", &[], POLITE);
    let logs = follow(world, "listener");
    assert_eq!(logs.line(), "ready");
    client.ok(&["kill", "-s", "USR1", "listener"]);
    assert_eq!(logs.line(), "got USR1");
    client.ok(&["kill", "-s", "TERM", "listener"]);
    assert_eq!(client.ok(&["wait", "listener"]), "5");
    assert_eq!(logs.end().stdout, "");
    client.ok(&["rm", "listener"]);
}

pub(crate) fn rm(world: &World) {
    let client = world.client();
    let id = start(world, "busy", &[], "sleep 1000");
    let refused = client.say(&["rm", "busy"]);
    assert!(refused.code == 1 && refused.stderr.contains("running"), "{refused:?}");
    assert_eq!(client.ok(&["rm", "-f", "busy"]), "busy");
    let gone = client.say(&["inspect", &id]);
    assert_eq!(gone.code, 1);
    assert!(gone.stderr.to_lowercase().contains("no such object"), "{gone:?}");
    assert_eq!(client.ok(&["ps", "-aq"]), "");
}

pub(crate) fn limits(world: &World) {
    let client = world.client();
    let limits = ["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"];
    let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max \
         cpu/cpu.cfs_quota_us 2>/dev/null || { cat memory.max pids.max; cut -d' ' -f1 cpu.max; }";
    let run = ["run", "--rm", "--network", "none"];
    let told = client.ok(&[&run[..], &limits, &["busybox", "sh", "-c", script]].concat());
    assert_eq!(told, "67108864\n50\n50000");
}

/// A registry with an image: its name there, and its manifest's digest.
pub(crate) fn serve_box(world: &World) -> (Registry, String, String) {
    let registry = Registry::start(world.stack.sandbox());
    let config = json!({"config": {"Env": ["PATH=/bin"], "Cmd": ["echo", "from the registry"]}});
    let manifest = registry.push("box", "1", &config, &[image::busybox_layer()]);
    let name = format!("{}/box:1", registry.host);
    (registry, name, manifest)
}

pub(crate) fn pull(world: &World) {
    let client = world.client();
    let (registry, name, manifest) = serve_box(world);
    let pulled = client.ok(&["pull", &name]);
    assert!(pulled.contains(&format!("Digest: {manifest}")), "{pulled}");
    assert!(pulled.contains(&format!("Status: Downloaded newer image for {name}")), "{pulled}");
    assert_eq!(client.ok(&["run", "--rm", "--network", "none", &name]), "from the registry");
    client.ok(&["rmi", &name]);
    let missing = client.say(&["pull", &format!("{}/box:2", registry.host)]);
    assert!(missing.code == 1 && missing.stderr.contains("box:2"), "{missing:?}");
}

pub(crate) fn load(world: &World) {
    let client = world.client();
    let config = json!({"config": {"Env": ["PATH=/bin"], "Cmd": ["cat", "/greeting"]}});
    let layers = [image::busybox_layer(), image::layer(&[("greeting", "from an archive\n")])];
    let archive = image::archive("swap/loaded:1", &config, &layers);
    let loaded = feed(client.command(&["load"]), &archive);
    assert_eq!(loaded.code, 0, "{loaded:?}");
    assert!(loaded.stdout.contains("Loaded image: swap/loaded:1"), "{loaded:?}");
    assert_eq!(
        client.ok(&["run", "--rm", "--network", "none", "swap/loaded:1"]),
        "from an archive"
    );
    client.ok(&["rmi", "swap/loaded:1"]);
}

/// What is not there yet says so.
pub(crate) fn refusals(world: &World) {
    let ours = |place: Option<&Part>| place.is_some_and(Part::is_ours);
    let (cli, engine) = (ours(Some(&world.row().client)), ours(world.row().engine.as_ref()));
    let client = world.client();
    let context = world.stack.root().join("home/context");
    fs::create_dir(&context).expect("a directory");
    fs::write(context.join("Dockerfile"), "FROM busybox\n").expect("a Dockerfile");
    let mut build = client.command(&["build", &context.display().to_string()]);
    // With BuildKit the stock CLI has only its own words for an engine that has none.
    build.env("DOCKER_BUILDKIT", "0");
    let build = feed(build, b"");
    let swarm = client.say(&["swarm", "init"]);
    fs::remove_dir_all(context).expect("removing it");
    if cli {
        assert_ne!((build.code, swarm.code), (0, 0));
        for (word, output) in [("build", build), ("swarm", swarm)] {
            assert!(
                output.stderr.contains(&format!("unknown command: docker {word}")),
                "{output:?}"
            );
        }
    } else if engine {
        assert_eq!((build.code, swarm.code), (1, 1));
        assert!(build.stderr.ends_with("daemon: build is not supported yet\n"), "{build:?}");
        assert!(swarm.stderr.contains("daemon: This node is not a swarm manager."), "{swarm:?}");
    }
}
