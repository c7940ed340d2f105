//! What ctr sees of containerd.

use std::fs;
use std::time::Duration;

use integration_tests::image;
use integration_tests::registry::Registry;
use integration_tests::sandbox::PATIENCE;
use serde_json::json;

use crate::client::Running;
use crate::matrix::Set;
use crate::row::World;

pub(crate) fn tasks(world: &World) {
    let client = world.client();
    client.start("task", "sleep 1000");
    client.ok(&["tasks", "pause", "task"]);
    assert_eq!(client.state("task"), "PAUSED");
    client.ok(&["tasks", "resume", "task"]);
    assert_eq!(client.state("task"), "RUNNING");
    let metrics = client.ok(&["tasks", "metrics", "task"]);
    assert!(metrics.lines().any(|line| line.starts_with("task ")), "{metrics}");
    let processes = client.ok(&["tasks", "ps", "task"]);
    assert_eq!(processes.lines().count(), 2, "{processes}");
    assert_eq!(client.kill("task"), 137);
}

/// In their order, each once.
pub(crate) fn events(world: &World) {
    let client = world.client();
    let events = Running::start(client.command(&["events"]));
    let lines = events.lines();
    // Only what comes after the subscription is told: marks are made until one is seen.
    let mut marks = Vec::new();
    loop {
        marks.push(format!("mark{}", marks.len()));
        client.ok(&["namespaces", "create", &marks[marks.len() - 1]]);
        if lines.recv_timeout(Duration::from_millis(100)).is_ok() {
            break;
        }
        assert!(marks.len() < 50, "no event is told");
    }
    client.start("told", "sleep 1000");
    client.kill("told");
    // Compat: the newest stock shim often ends before it has told of the delete.
    let hasty = world.row().shim.set == Set::Newest;
    let last = if hasty { "/containers/delete" } else { "/tasks/delete" };
    let mut told: Vec<String> = Vec::new();
    while !told.last().is_some_and(|line| line.contains(last)) {
        let line = lines.recv_timeout(PATIENCE);
        told.push(line.unwrap_or_else(|error| panic!("{error} after {told:#?}")));
    }
    let mut topics: Vec<&str> = told.iter().flat_map(|line| line.split_whitespace()).collect();
    topics.retain(|word| word.starts_with("/tasks/"));
    let mut wanted = vec!["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"];
    if hasty && topics.len() < wanted.len() {
        wanted.pop();
    }
    assert_eq!(topics, wanted);
    world.end_program("events");
    events.end();
    for mark in marks {
        client.ok(&["namespaces", "rm", &mark]);
    }
}

pub(crate) fn pull(world: &World) {
    let client = world.client();
    let registry = Registry::start(world.stack.sandbox());
    let config = json!({"config": {"Env": ["PATH=/bin"], "Cmd": ["echo", "from the registry"]}});
    let manifest = registry.push("box", "1", &config, &[image::busybox_layer()]);
    let name = format!("{}/box:1", registry.host);
    client.ok(&["images", "pull", "--plain-http", &name]);
    let list = client.ok(&["images", "ls"]);
    let row = list.lines().find(|line| line.starts_with(&name));
    assert!(row.is_some_and(|row| row.contains(&manifest)), "{list}");
    let output = client.ok(&["run", "--rm", "--runtime", world.runtime_type(), &name, "pulled"]);
    assert_eq!(output, "from the registry");
    client.ok(&["images", "rm", "--sync", &name]);
    assert!(!client.ok(&["images", "ls", "-q"]).contains(&name));
}

pub(crate) fn import(world: &World) {
    let client = world.client();
    let config = json!({"config": {"Env": ["PATH=/bin"], "Cmd": ["cat", "/greeting"]}});
    let layers = [image::busybox_layer(), image::layer(&[("greeting", "from an archive\n")])];
    let archive = world.stack.root().join("home/image.tar");
    fs::write(&archive, image::archive("swap/loaded:1", &config, &layers)).expect("an archive");
    client.ok(&["images", "import", &archive.display().to_string()]);
    let name = "docker.io/swap/loaded:1";
    let output = client.ok(&["run", "--rm", "--runtime", world.runtime_type(), name, "loaded"]);
    assert_eq!(output, "from an archive");
    client.ok(&["images", "rm", "--sync", name]);
    fs::remove_file(archive).expect("it is there");
}

pub(crate) fn objects(world: &World) {
    let client = world.client();
    assert!(client.ok(&["images", "ls", "-q"]).contains("docker.io/library/busybox:latest"));
    client.start("thing", "sleep 1000");
    let snapshots = client.ok(&["snapshots", "ls"]);
    let row = snapshots.lines().find(|line| line.starts_with("thing "));
    assert!(row.is_some_and(|row| row.trim_end().ends_with("Active")), "{snapshots}");
    let content = client.ok(&["content", "ls"]);
    let layer = image::digest(&image::busybox_layer());
    assert!(content.lines().any(|line| line.starts_with(&layer)), "{content}");
    let told: serde_json::Value =
        serde_json::from_str(&client.ok(&["containers", "info", "thing"])).expect("JSON");
    assert_eq!(
        (&told["ID"], &told["Image"]),
        (&json!("thing"), &json!("docker.io/library/busybox:latest"))
    );
    client.kill("thing");
    assert!(!client.ok(&["snapshots", "ls"]).contains("thing "));
}
