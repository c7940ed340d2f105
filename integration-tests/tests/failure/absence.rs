//! What ends while a daemon is away: told afterwards with its code and its time; policies and
//! `--rm`, which had to wait, go on.

use integration_tests::parts;
use integration_tests::sandbox::until;
use integration_tests::{Stack, stack::Builder};
use serde_json::json;

use crate::{ENDING, Victim, now, pid, ready, shell, shell_with};

/// As [`crate::lasting`], with a containerd that the engine does not start again by itself.
fn beside_containerd() -> Builder {
    let builder = Stack::from_environment().with_busybox().argument("--live-restore=true");
    if builder.names_containerd() {
        builder
    } else {
        builder.containerd(parts::ours("containerd-rs"))
    }
}

fn seconds(time: &serde_json::Value) -> (i64, i32) {
    docker_api::time::parse_rfc3339(time.as_str().unwrap()).unwrap()
}

fn what_ended_is_told(victim: Victim) {
    let stack = beside_containerd().start();
    let api = stack.api();
    let policy = |name: &str| json!({"RestartPolicy": {"Name": name}});
    let six = ready(&stack, "six", &shell(ENDING));
    let killed = api.run("killed", &json!({"Image": "busybox", "Cmd": ["sleep", "1000"]}));
    let lives = ready(&stack, "lives", &shell(ENDING));
    let brief = ready(&stack, "brief", &shell_with(ENDING, json!({"AutoRemove": true})));
    // Stock removes it as it returns, running or not.
    let kept = (!stack.is_stock())
        .then(|| ready(&stack, "kept", &shell_with(ENDING, json!({"AutoRemove": true}))));
    let always = ready(&stack, "always", &shell_with(ENDING, policy("always")));
    let failing = ready(&stack, "failing", &shell_with(ENDING, policy("on-failure")));
    let stopped = ready(&stack, "stopped", &shell_with(ENDING, policy("unless-stopped")));
    api.post("/containers/stopped/stop").expect(204);
    let pids = [&six, &killed, &brief, &always, &failing].map(|id| pid(&stack, id));
    let stay = [Some(lives), kept.clone()].into_iter().flatten();
    let stay: Vec<(String, i32)> = stay.map(|id| (id.clone(), pid(&stack, &id))).collect();

    victim.die(&stack);
    let begun = now();
    for (place, pid) in pids.iter().enumerate() {
        let signal = if place == 1 { libc::SIGKILL } else { libc::SIGUSR1 };
        stack.sandbox().signal(*pid, signal);
    }
    until("they end", || {
        stack.sandbox().processes().iter().all(|process| !pids.contains(&process.inner))
    });
    let over = now();
    victim.come_back(&stack);

    // Asked after the return.
    assert_eq!(api.wait("six"), 6);
    assert_eq!(api.wait("killed"), 137);
    let (begun, over) = (seconds(&json!(begun)), seconds(&json!(over)));
    for (id, code) in [(&six, 6), (&killed, 137)] {
        let state = api.inspect(id)["State"].clone();
        assert_eq!((&state["Status"], &state["ExitCode"]), (&json!("exited"), &json!(code)));
        let at = seconds(&state["FinishedAt"]);
        assert!(begun <= at && at <= over, "{begun:?} {at:?} {over:?}");
    }
    until("--rm has removed it", || api.get(&format!("/containers/{brief}/json")).status == 404);
    for (id, before) in &stay {
        assert_eq!(pid(&stack, id), *before);
    }
    for (id, before) in [(&always, pids[3]), (&failing, pids[4])] {
        until("its policy starts it again", || {
            let state = api.inspect(id)["State"].clone();
            state["Status"] == "running" && state["Pid"] != before
        });
        // Stock counts only what it saw end.
        let seen = !stack.is_stock() || victim == Victim::Containerd;
        assert!(!seen || api.inspect(id)["RestartCount"] == 1);
    }
    assert_eq!(api.inspect(&stopped)["State"]["Status"], "exited");
    if let Some(kept) = kept {
        api.post("/containers/kept/stop").expect(204);
        until("--rm has removed it", || api.get(&format!("/containers/{kept}/json")).status == 404);
    }
    api.post("/containers/always/stop").expect(204);
    assert_eq!(api.wait("always"), 7);
    assert_eq!(api.get("/containers/six/logs?stdout=1").expect(200).streams().0, "ready\n");
    // What ended runs again.
    api.post("/containers/six/start").expect(204);
    assert_eq!(api.inspect("six")["State"]["Running"], true);
    stack.end();
}

#[test]
fn what_ended_without_the_engine_is_told() {
    what_ended_is_told(Victim::Engine);
}

#[test]
fn what_ended_without_containerd_is_told() {
    what_ended_is_told(Victim::Containerd);
}

#[test]
fn what_ended_without_both_is_told() {
    what_ended_is_told(Victim::Both);
}
