//! Pause and unpause: states, refusals, and what wakes a paused container.

use integration_tests::Stack;
use integration_tests::pool::lease;
use serde_json::{Value, json};

use crate::events::Events;
use crate::{PATIENT, ready, shell};

const NAME: &str = "life";

fn state(stack: &Stack) -> Value {
    let state = stack.api().inspect(NAME)["State"].clone();
    json!([state["Status"], state["Running"], state["Paused"]])
}

fn running() -> Value {
    json!(["running", true, false])
}

fn paused() -> Value {
    json!(["paused", true, true])
}

/// What the kernel says of the container's freezer, on cgroup v1 or v2.
fn frozen(stack: &Stack) -> bool {
    let pid = stack.api().inspect(NAME)["State"]["Pid"].clone();
    let script = format!(
        "g=$(grep -E '^[0-9]+:freezer:|^0::' /proc/{pid}/cgroup | sort -r | head -1)
         case $g in
         *:freezer:*) cat /sys/fs/cgroup/freezer${{g#*:*:}}/freezer.state ;;
         *) grep frozen /sys/fs/cgroup${{g#*:*:}}/cgroup.events ;;
         esac"
    );
    match stack.inside(&["sh", "-c", &script]).ok().trim() {
        "FROZEN" | "frozen 1" => true,
        "THAWED" | "frozen 0" => false,
        other => panic!("{other}"),
    }
}

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    let stack = lease();
    let api = stack.api();
    let id = ready(&stack, NAME, &shell(PATIENT));
    let mut events = Events::of(&stack);
    let mut logs = api.open("/containers/life/logs?stdout=1&follow=1&tail=0");
    assert!(!frozen(&stack));
    api.post("/containers/life/pause").expect(204);
    assert_eq!(state(&stack), paused());
    assert!(frozen(&stack));
    assert_eq!(events.until("pause"), ["container pause"]);
    let list = api.get("/containers/json").expect(200).json();
    assert_eq!(list[0]["State"], "paused");
    assert!(list[0]["Status"].as_str().unwrap().ends_with(" (Paused)"), "{list}");
    // A signal from elsewhere waits.
    let pid = i32::try_from(api.inspect(NAME)["State"]["Pid"].as_i64().unwrap()).unwrap();
    stack.sandbox().signal(pid, libc::SIGUSR1);
    api.post("/containers/life/unpause").expect(204);
    assert_eq!(events.until("unpause"), ["container unpause"]);
    assert_eq!(state(&stack), running());
    logs.until("got");
    let twice = api.post("/containers/life/unpause");
    // Compat of ours: dockerd answers 500.
    assert_eq!(twice.status, if stack.is_stock() { 500 } else { 409 });
    assert_eq!(twice.message(), format!("Container {id} is not paused"));
    api.post("/containers/life/kill").expect(204);
    let ended = api.post("/containers/life/pause").expect(409);
    assert!(
        ended.message().ends_with(&format!("ontainer {id} is not running")),
        "{}",
        ended.text()
    );
}

#[test]
fn a_paused_container_refuses_what_needs_it_to_run() {
    let stack = lease();
    let api = stack.api();
    let id = ready(&stack, NAME, &shell(PATIENT));
    let exec = api.post_json("/containers/life/exec", &json!({"Cmd": ["true"]})).expect(201);
    api.post("/containers/life/pause").expect(204);
    let refused = api.post_json("/containers/life/exec", &json!({"Cmd": ["true"]})).expect(409);
    assert_eq!(refused.message(), "Container life is paused, unpause the container before exec");
    let start = format!("/exec/{}/start", exec.json()["Id"].as_str().unwrap());
    let refused = api.post_json(&start, &json!({"Detach": true})).expect(409);
    assert!(refused.message().contains("is paused"), "{}", refused.message());
    let rows = [
        ("start", "cannot start a paused container, try unpause instead".to_owned()),
        ("pause", format!("Container {id} is already paused")),
    ];
    for (verb, message) in rows {
        let refused = api.post(&format!("/containers/life/{verb}")).expect(409);
        assert_eq!(refused.message(), message);
    }
    let refused = api.delete("/containers/life").expect(409);
    assert!(refused.message().contains("paused"), "{}", refused.message());
    assert_eq!(state(&stack), paused());
    api.delete("/containers/life?force=1").expect(204);
    api.get("/containers/life/json").expect(404);
}

#[test]
fn stop_kill_and_restart_wake_a_paused_container() {
    let stack = lease();
    let api = stack.api();
    ready(&stack, NAME, &shell(PATIENT));
    let mut events = Events::of(&stack);
    let pause = || api.post("/containers/life/pause").expect(204);
    let connect = "network connect type=bridge";
    let disconnect = "network disconnect type=bridge";
    pause();
    events.until("pause");
    api.post("/containers/life/stop?t=20").expect(204);
    let stopped = [
        "container kill signal=15",
        "container unpause",
        "container die exitCode=7",
        disconnect,
        "container stop",
    ];
    assert_eq!(events.until("stop"), stopped);
    assert_eq!(state(&stack), json!(["exited", false, false]));
    api.post("/containers/life/start").expect(204);
    pause();
    events.until("pause");
    api.post("/containers/life/kill").expect(204);
    let killed = ["container kill signal=9", "container die exitCode=137", disconnect];
    assert_eq!(events.until("disconnect"), killed);
    assert_eq!(state(&stack), json!(["exited", false, false]));
    // Any signal wakes it where no stop signal is named.
    api.post("/containers/life/start").expect(204);
    pause();
    events.until("pause");
    api.post("/containers/life/kill?signal=URG").expect(204);
    assert_eq!(events.until("unpause"), ["container kill signal=23", "container unpause"]);
    assert_eq!(state(&stack), running());
    pause();
    events.until("pause");
    api.post("/containers/life/restart?t=0").expect(204);
    let told = events.until("restart");
    assert_eq!(told[told.len() - 3..], [connect, "container start", "container restart"]);
    assert_eq!(state(&stack), running());
}

#[test]
fn a_pause_outlives_the_engine() {
    let stack = Stack::from_environment().with_busybox().argument("--live-restore=true").start();
    let api = stack.api();
    ready(&stack, NAME, &shell(PATIENT));
    api.post("/containers/life/pause").expect(204);
    stack.kill_engine();
    stack.start_engine();
    assert_eq!(state(&stack), paused());
    assert!(frozen(&stack));
    let refused = api.post_json("/containers/life/exec", &json!({"Cmd": ["true"]}));
    refused.expect(409);
    api.post("/containers/life/unpause").expect(204);
    assert_eq!(state(&stack), running());
    let mut logs = api.open("/containers/life/logs?stdout=1&follow=1&tail=0");
    api.post("/containers/life/kill?signal=USR1").expect(204);
    logs.until("got");
    // One that is killed while nobody looks, paused.
    api.post("/containers/life/pause").expect(204);
    stack.kill_engine();
    stack.start_engine();
    api.post("/containers/life/stop?t=20").expect(204);
    assert_eq!(api.wait(NAME), 7);
    stack.end();
}
