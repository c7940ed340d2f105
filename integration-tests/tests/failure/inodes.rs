//! The data root's disk has space and no inode left: as on a full one, a clear error for what is new;
//! what runs goes on and its log too, what is there can be removed, and then all is well.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::PathBuf;

use integration_tests::registry::Registry;
use integration_tests::sandbox::until;
use integration_tests::{Stack, disk, image};
use serde_json::json;

use crate::{ENDING, listed, output, pid, ready, shell};

const NO_SPACE: &str = "no space left on device";

fn ballast(stack: &Stack) -> PathBuf {
    stack.sandbox().path(stack.data_root()).join("ballast")
}

/// Takes every inode that is left.
fn exhaust(stack: &Stack) {
    let directory = ballast(stack);
    fs::create_dir_all(&directory).unwrap();
    let had = fs::read_dir(&directory).unwrap().count();
    for number in had.. {
        match File::create_new(directory.join(number.to_string())) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => break,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn without_inodes_what_is_new_is_refused_and_the_rest_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("disk");
    disk::make_ext4(&file, 96 << 20, &["-J", "size=4", "-N", "1500"]);
    let builder = Stack::from_environment().with_disk_image(&file, "noatime").with_busybox();
    let stack = builder.argument("--live-restore=true").start();
    let api = stack.api();
    let runs = ready(&stack, "runs", &shell(ENDING));
    let before = pid(&stack, &runs);
    let talks = "echo ready; n=0; while :; do n=$((n + 1)); echo line $n; usleep 20000; done";
    ready(&stack, "talks", &shell(talks));
    for name in ["made", "spare"] {
        api.create(name, &shell("exit 3"));
    }
    let ended = api.run("ended", &shell("exit 4"));
    assert_eq!(api.wait(&ended), 4);
    let layer = image::layer(&[("some", "thing")]);
    let archive =
        image::archive("some:latest", &json!({"config": {}}), std::slice::from_ref(&layer));
    let registry = Registry::start(stack.sandbox());
    registry.push("some", "1", &json!({}), &[layer]);
    exhaust(&stack);

    // What is new.
    let create = || api.post_json("/containers/create?name=refused", &shell("true"));
    let refused = create().expect(500);
    assert!(refused.message().to_lowercase().contains(NO_SPACE), "{}", refused.message());
    let refused = api.post("/containers/made/start").expect(500);
    assert!(refused.message().to_lowercase().contains(NO_SPACE), "{}", refused.message());
    assert_eq!(api.inspect("made")["State"]["Status"], "created");
    let refused = api.post_json("/volumes/create", &json!({"Name": "refused"})).expect(500);
    assert!(refused.message().to_lowercase().contains(NO_SPACE), "{}", refused.message());
    let load = || api.post_bytes("/images/load?quiet=1", "application/x-tar", archive.clone());
    assert!(load().text().to_lowercase().contains(NO_SPACE), "{}", load().text());
    let pull = || api.post(&format!("/images/create?fromImage={}/some&tag=1", registry.host));
    assert!(pull().text().to_lowercase().contains(NO_SPACE), "{}", pull().text());
    assert_eq!(listed(&stack).len(), 5);
    assert_eq!(api.get("/images/json").expect(200).json().as_array().unwrap().len(), 1);
    assert_eq!(api.get("/volumes").expect(200).json()["Volumes"], json!([]));

    // What is there.
    assert_eq!(pid(&stack, &runs), before);
    let last = || {
        let text = api.get("/containers/talks/logs?stdout=1&tail=1").expect(200).streams().0;
        let last = text.lines().last().and_then(|line| line.strip_prefix("line "));
        last.map_or(0, |number| number.parse::<u64>().unwrap())
    };
    let said = last();
    until("its log goes on", || last() > said + 5);
    api.delete("/containers/ended").expect(204);
    assert_eq!(api.get("/containers/ended/json").status, 404);
    exhaust(&stack);
    if !stack.is_stock() {
        // Daemons that return find what they had; stock's does not get as far.
        stack.kill_engine();
        stack.kill_containerd();
        stack.start_engine();
        assert_eq!(pid(&stack, &runs), before);
    }
    api.post("/containers/runs/stop").expect(204);
    assert_eq!(api.wait("runs"), 7);
    api.delete("/containers/spare").expect(204);
    exhaust(&stack);
    let pruned = api.post("/containers/prune").expect(200).json();
    assert_eq!(pruned["ContainersDeleted"].as_array().unwrap().len(), 2, "{pruned}");

    fs::remove_dir_all(ballast(&stack)).unwrap();
    api.create("refused", &shell("true"));
    assert!(load().text().contains("Loaded image: some:latest"), "{}", load().text());
    api.delete("/images/some:latest").expect(200);
    assert!(pull().text().contains("Status: Downloaded newer image"), "{}", pull().text());
    api.post_json("/volumes/create", &json!({"Name": "refused"})).expect(201);
    api.delete("/volumes/refused").expect(204);
    assert_eq!(output(&stack, "echo well"), "well");
    api.post("/containers/talks/kill").expect(204);
    stack.end();
}
