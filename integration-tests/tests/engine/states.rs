//! States: start, stop, restart, kill, pause, wait.

use integration_tests::pool::lease;
use serde_json::{Value, json};

use crate::{PATIENT, ready, shell, sleeper, with};

#[test]
fn start_and_stop_answer_304_when_there_is_nothing_to_do() {
    let stack = lease();
    let api = stack.api();
    let id = ready(&stack, "c1", &shell(PATIENT));
    let answer = api.post("/containers/c1/start").expect(304);
    assert!(answer.body.is_empty());
    let state = api.inspect("c1")["State"].clone();
    assert_eq!(state["Status"], "running");
    assert_eq!(state["Running"], true);
    assert_eq!(state["Paused"], false);
    let started = state["StartedAt"].as_str().unwrap().to_owned();
    assert!(started.starts_with("20") && started.ends_with('Z'), "{started}");
    // SIGTERM is heard, so there is no need to wait for the time to run out.
    api.post("/containers/c1/stop?t=15").expect(204);
    let state = api.inspect("c1")["State"].clone();
    assert_eq!(state["Status"], "exited");
    assert_eq!(state["ExitCode"], 7);
    assert_eq!(state["Pid"], 0);
    assert!(state["FinishedAt"].as_str().unwrap() > &*started, "{state}");
    api.post("/containers/c1/stop").expect(304);
    api.post(&format!("/containers/{id}/start")).expect(204);
    assert_eq!(api.inspect("c1")["State"]["ExitCode"], 0);
    assert_eq!(api.inspect("c1")["State"]["Running"], true);
}

#[test]
fn stop_kills_what_does_not_listen() {
    let stack = lease();
    let api = stack.api();
    let id =
        ready(&stack, "deaf", &shell("trap '' TERM; echo ready; while :; do sleep 1000; done"));
    let began = std::time::Instant::now();
    api.post("/containers/deaf/stop?t=1").expect(204);
    let took = began.elapsed().as_millis();
    assert!((1000..3500).contains(&took), "{took} ms");
    assert_eq!(api.inspect(&id)["State"]["ExitCode"], 137);
}

#[test]
fn the_stop_signal_is_the_containers_own() {
    let stack = lease();
    let api = stack.api();
    let script = "trap 'exit 9' USR2; echo ready; while :; do usleep 50000 & wait $!; done";
    let body = with(shell(script), json!({"StopSignal": "SIGUSR2"}));
    let id = ready(&stack, "own", &body);
    api.post("/containers/own/stop").expect(204);
    assert_eq!(api.inspect(&id)["State"]["ExitCode"], 9);
}

#[test]
fn restart_gives_a_new_process_and_keeps_the_files() {
    let stack = lease();
    let api = stack.api();
    let script = "echo x >> /count; wc -l < /count; trap 'exit 0' TERM; echo ready; while :; do usleep 50000 & wait $!; done";
    let id = ready(&stack, "again", &shell(script));
    let pid = api.inspect(&id)["State"]["Pid"].clone();
    api.post("/containers/again/restart?t=10").expect(204);
    let mut logs = api.open("/containers/again/logs?stdout=1&follow=1");
    logs.until("2\n");
    let state = api.inspect(&id)["State"].clone();
    assert_eq!(state["Running"], true);
    assert_ne!(state["Pid"], pid);
    assert_eq!(api.inspect(&id)["RestartCount"], 0, "only the policy's restarts count");
    // A container that does not run is started by it.
    api.post("/containers/again/kill").expect(204);
    api.wait(&id);
    api.post("/containers/again/restart").expect(204);
    assert_eq!(api.inspect(&id)["State"]["Running"], true);
}

#[test]
fn kill_sends_the_signal_by_name_or_number() {
    let stack = lease();
    let api = stack.api();
    let id = ready(&stack, "k1", &shell(PATIENT));
    for signal in ["SIGUSR1", "USR1", "10"] {
        let mut logs = api.open("/containers/k1/logs?stdout=1&follow=1&tail=0");
        api.post(&format!("/containers/k1/kill?signal={signal}")).expect(204);
        logs.until("got");
    }
    assert_eq!(api.inspect(&id)["State"]["Running"], true);
    let bad = api.post("/containers/k1/kill?signal=SIGNOPE").expect(400);
    assert!(bad.message().to_lowercase().contains("invalid signal: signope"), "{}", bad.message());
    api.post("/containers/k1/kill").expect(204);
    assert_eq!(api.wait(&id), 137);
    let gone = api.post("/containers/k1/kill").expect(409);
    assert!(
        gone.message().ends_with(&format!("ontainer {id} is not running")),
        "{}",
        gone.message()
    );
}

#[test]
fn wait_answers_at_its_condition() {
    let stack = lease();
    let api = stack.api();
    let id = api.create("w1", &shell("exit 5"));
    let now = api.post("/containers/w1/wait?condition=not-running").expect(200).json();
    assert_eq!(now["StatusCode"], 0, "created is not running");
    let next = |condition: &'static str| {
        let mut open = api
            .try_open(
                http::Method::POST,
                &format!("/containers/w1/wait?condition={condition}"),
                None,
                &[],
            )
            .unwrap();
        assert_eq!(open.status, 200, "the head comes at once");
        move || open.value().unwrap()["StatusCode"].clone()
    };
    let mut exit = next("next-exit");
    api.post("/containers/w1/start").expect(204);
    assert_eq!(exit(), 5);
    assert_eq!(api.wait("w1"), 5, "an ended one answers at once");
    let mut removed = next("removed");
    let mut exit = next("next-exit");
    api.post("/containers/w1/start").expect(204);
    assert_eq!(exit(), 5);
    api.delete(&format!("/containers/{id}")).expect(204);
    assert_eq!(removed(), 5);
    assert_eq!(api.post("/containers/w1/wait").expect(404).message(), "No such container: w1");
    let id = api.create("w1", &sleeper());
    let bad = api.post(&format!("/containers/{id}/wait?condition=never")).expect(400);
    assert_eq!(bad.message(), "invalid condition: \"never\"");
}

/// Gives back what the wait needs: name, published port and address of a container that ends at once.
#[test]
fn what_it_held_is_free_when_wait_answers() {
    let stack = lease();
    let api = stack.api();
    let body = |command: Value, auto: bool| {
        with(
            json!({"Image": "busybox", "Cmd": command}),
            json!({"ExposedPorts": {"80/tcp": {}}, "HostConfig": {"AutoRemove": auto,
                "PortBindings": {"80/tcp": [{"HostPort": "8070"}]}}}),
        )
    };
    let rows = [("removed", true), ("not-running", false), ("next-exit", false)];
    for (condition, auto) in rows {
        for turn in 0..5 {
            let id = api.create("first", &body(json!(["true"]), auto));
            let path = format!("/containers/{id}/wait?condition={condition}");
            let mut open = (condition != "not-running")
                .then(|| api.try_open(http::Method::POST, &path, None, &[]).unwrap());
            api.post(&format!("/containers/{id}/start")).expect(204);
            match &mut open {
                Some(open) => drop(open.value().unwrap()),
                None => assert_eq!(api.wait(&id), 0),
            }
            let bridge = api.get("/networks/bridge").expect(200).json();
            assert_eq!(bridge["Containers"], json!({}), "{condition}, {turn}");
            if !auto {
                assert_eq!(api.inspect(&id)["State"]["Status"], "exited");
                api.post(&format!("/containers/{id}/rename?name=ended")).expect(204);
            }
            let next = api.create("first", &body(json!(["sleep", "1000"]), false));
            api.post("/containers/first/start").expect(204);
            // A kill answers when it is over, too.
            api.post("/containers/first/kill").expect(204);
            let bridge = api.get("/networks/bridge").expect(200).json();
            assert_eq!(bridge["Containers"], json!({}), "{condition}, {turn}");
            api.delete(&format!("/containers/{next}")).expect(204);
            if !auto {
                api.delete("/containers/ended").expect(204);
            }
        }
    }
}
