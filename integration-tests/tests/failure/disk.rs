//! The disk of the data root is full: a clear error, running containers go on, `rm` works, and
//! with space again everything does.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::PathBuf;

use integration_tests::sandbox::until;
use integration_tests::stream::Stream;
use integration_tests::{Stack, image};
use serde_json::json;

use crate::{ENDING, listed, output, pid, ready, shell};

const NO_SPACE: &str = "no space left on device";

fn ballast(stack: &Stack) -> PathBuf {
    stack.sandbox().path(stack.data_root()).join("ballast")
}

/// Takes all that is left, to the last block, until nothing new finds room: what containerd's own file gives
/// back with its next change as well.
fn fill(stack: &Stack) {
    until("the disk is full", || {
        take_all(stack);
        let probe = stack.api().post_json("/containers/create?name=probe", &shell("true"));
        if probe.status == 201 {
            stack.api().delete("/containers/probe").expect(204);
        }
        probe.status == 500
    });
}

fn take_all(stack: &Stack) {
    let mut file = File::options().create(true).append(true).open(ballast(stack)).unwrap();
    for size in [1 << 20, 1 << 12, 1] {
        let part = vec![7_u8; size];
        loop {
            match file.write_all(&part) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    rustix::fs::syncfs(&file).unwrap();
}

/// Of the next frame; lines may be cut between frames.
fn payload(live: &mut Stream) -> String {
    let mut head = [0; 8];
    live.read_exact(&mut head).unwrap();
    let length = u32::from_be_bytes(head[4..].try_into().unwrap());
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    live.read_exact(&mut payload).unwrap();
    String::from_utf8(payload).unwrap()
}

fn full() -> Stack {
    Stack::ours().with_disk_of(64 << 20).with_busybox().start()
}

#[test]
fn what_cannot_be_written_is_refused_and_leaves_nothing() {
    let stack = full();
    let api = stack.api();
    let runs = ready(&stack, "runs", &shell(ENDING));
    let brief = ready(&stack, "brief", &crate::shell_with(ENDING, json!({"AutoRemove": true})));
    api.create("made", &shell("exit 3"));
    let ended = api.run("ended", &shell("exit 4"));
    assert_eq!(api.wait(&ended), 4);
    let before = pid(&stack, &runs);
    let layer = image::layer(&[("big", &"x".repeat(8 << 20))]);
    let archive = image::archive("big:latest", &json!({"config": {}}), &[layer]);
    stack.collect_content();
    fill(&stack);

    let refused = api.post_json("/containers/create?name=refused", &shell("true")).expect(500);
    assert!(refused.message().to_lowercase().contains(NO_SPACE), "{}", refused.message());
    let refused = api.post("/containers/made/start").expect(500);
    assert!(refused.message().to_lowercase().contains(NO_SPACE), "{}", refused.message());
    assert_eq!(api.inspect("made")["State"]["Status"], "created");
    let refused = api.post_bytes("/images/load?quiet=1", "application/x-tar", archive.clone());
    assert!(refused.text().to_lowercase().contains(NO_SPACE), "{}", refused.text());
    assert_eq!(listed(&stack).len(), 4);

    // What needs no space.
    assert_eq!(pid(&stack, &runs), before);
    let exec = api.post_json("/containers/runs/exec", &json!({"Cmd": ["true"]})).expect(201).json();
    let exec = exec["Id"].as_str().unwrap();
    api.post_json(&format!("/exec/{exec}/start"), &json!({"Detach": true})).expect(200);
    api.delete("/containers/ended").expect(204);
    assert_eq!(api.get("/containers/ended/json").status, 404);
    fill(&stack);
    api.post("/containers/brief/kill?signal=USR1").expect(204);
    until("--rm has removed it", || api.get(&format!("/containers/{brief}/json")).status == 404);
    fill(&stack);

    // Daemons that return to a full disk find what they had.
    stack.kill_engine();
    stack.kill_containerd();
    stack.start_engine();
    assert_eq!(pid(&stack, &runs), before);
    api.post("/containers/runs/stop").expect(204);
    assert_eq!(api.wait("runs"), 7);

    fs::remove_file(ballast(&stack)).unwrap();
    api.post("/containers/made/start").expect(204);
    assert_eq!(api.wait("made"), 3);
    api.create("refused", &shell("true"));
    let loaded = api.post_bytes("/images/load?quiet=1", "application/x-tar", archive).expect(200);
    assert!(loaded.text().contains("Loaded image: big:latest"), "{}", loaded.text());
    api.delete("/images/big:latest").expect(200);
    assert_eq!(output(&stack, "echo well"), "well");
    stack.end();
}

#[test]
fn a_container_that_writes_goes_on_when_its_log_cannot() {
    let stack = full();
    let api = stack.api();
    let script = "n=0; while :; do n=$((n + 1)); echo line $n; usleep 2000; done";
    let id = api.run("writer", &shell(script));
    let before = pid(&stack, &id);
    let log = stack.sandbox().path(api.inspect(&id)["LogPath"].as_str().unwrap());
    let length = || fs::metadata(&log).unwrap().len();
    let count = || {
        let text = api.get("/containers/writer/logs?stdout=1&tail=1").expect(200).streams().0;
        text.trim_end().strip_prefix("line ").map_or(0, |number| number.parse::<u64>().unwrap())
    };
    until("it has begun", || count() >= 10);
    stack.collect_content();
    fill(&stack);
    let mut live = api.hijack("/containers/writer/attach?stdout=1&stream=1", None, true);
    // Far more than the last block of its log can hold, and what others give back on the way.
    let (mut text, mut stuck) = (String::new(), 0);
    while length() != stuck {
        stuck = length();
        let lines = text.matches('\n').count();
        while text.matches('\n').count() < lines + 200 {
            text += &payload(&mut live);
        }
        assert!(lines < 5000, "it has a log still");
    }
    fs::remove_file(ballast(&stack)).unwrap();
    until("its log goes on", || length() > stuck);
    assert_eq!(pid(&stack, &id), before);
    api.post("/containers/writer/stop?t=0").expect(204);
    // Whole lines, in order, none twice; the gap is where the disk was full.
    let out = api.get("/containers/writer/logs?stdout=1").expect(200).streams().0;
    let numbers: Vec<u64> =
        out.lines().map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let gaps = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert_eq!(gaps, 1, "{numbers:?}");
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    stack.end();
}
