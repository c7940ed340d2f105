//! The whole sequence of events of a container's life, attributes too.

use integration_tests::Stack;
use integration_tests::client::Streamed;
use integration_tests::pool::lease;
use serde_json::{Value, json};

use crate::{query, sleeper, with};

/// Events from now on, of containers, networks and volumes.
pub(crate) struct Events(Streamed);

impl Events {
    pub(crate) fn of(stack: &Stack) -> Self {
        let filters = query(&json!({"type": ["container", "network", "volume"]}));
        let events = Self(stack.api().open(&format!("/events?filters={filters}")));
        assert_eq!(events.0.status, 200);
        events
    }

    /// Up to the event with this action: type, action, and what tells more.
    pub(crate) fn until(&mut self, action: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let event = self.0.value().unwrap();
            let attributes = event["Actor"]["Attributes"].as_object().unwrap();
            let mut line = format!(
                "{} {}",
                event["Type"].as_str().unwrap(),
                event["Action"].as_str().unwrap()
            );
            for (name, value) in attributes {
                // Newer engines say how long it ran, and which container it was, in other words.
                if !["image", "name", "container", "execDuration", "execID"].contains(&&**name) {
                    line += &format!(" {name}={}", value.as_str().unwrap());
                }
            }
            check(&event);
            seen.push(line);
            if event["Action"] == action {
                return seen;
            }
        }
    }
}

/// What every event of its kind carries.
fn check(event: &Value) {
    let attributes = &event["Actor"]["Attributes"];
    let id = event["Actor"]["ID"].as_str().unwrap();
    assert_eq!(event["scope"], "local");
    match event["Type"].as_str().unwrap() {
        "container" => {
            assert_eq!((&event["status"], &event["id"]), (&event["Action"], &json!(id)));
            assert_eq!(
                (&event["from"], &attributes["image"]),
                (&json!("busybox"), &json!("busybox"))
            );
            assert_eq!(attributes["name"], "life");
            assert_eq!(id.len(), 64);
        }
        "network" => {
            assert_eq!(attributes["name"], "bridge");
            assert_eq!(attributes["container"].as_str().unwrap().len(), 64);
            assert_eq!(id.len(), 64);
        }
        _ => {}
    }
}

const CONNECT: &str = "network connect type=bridge";
const DISCONNECT: &str = "network disconnect type=bridge";
const START: &str = "container start";

fn kill(signal: i32) -> String {
    format!("container kill signal={signal}")
}

fn die(code: i64) -> String {
    format!("container die exitCode={code}")
}

#[test]
fn a_life_is_told_in_order() {
    let stack = lease();
    let api = stack.api();
    let mut events = Events::of(&stack);
    let post = |verb: &str| api.post(&format!("/containers/life/{verb}")).expect(204);
    // Deaf to SIGTERM, as pid 1 is without a handler.
    api.create("life", &sleeper());
    assert_eq!(events.until("create"), ["container create"]);
    post("start");
    assert_eq!(events.until("start"), [CONNECT, START]);
    post("kill?signal=USR1");
    assert_eq!(events.until("kill"), [kill(10)]);
    post("stop?t=0");
    assert_eq!(
        events.until("stop"),
        [&*kill(15), &kill(9), &die(137), DISCONNECT, "container stop"]
    );
    post("start");
    events.until("start");
    post("kill");
    assert_eq!(events.until("disconnect"), [&*kill(9), &die(137), DISCONNECT]);
    post("restart?t=0");
    assert_eq!(events.until("restart"), [CONNECT, START, "container restart"]);
    post("restart?t=0");
    let restarted = [
        &*kill(15),
        &kill(9),
        &die(137),
        DISCONNECT,
        "container stop",
        CONNECT,
        START,
        "container restart",
    ];
    assert_eq!(events.until("restart"), restarted);
    api.delete("/containers/life?force=1").expect(204);
    assert_eq!(events.until("destroy"), [&*kill(9), &die(137), DISCONNECT, "container destroy"]);
}

#[test]
fn an_automatic_removal_is_told_after_the_stop() {
    let stack = lease();
    let api = stack.api();
    let mut events = Events::of(&stack);
    let body = |command: Value| {
        with(
            json!({"Image": "busybox", "Cmd": command}),
            json!({"HostConfig": {"AutoRemove": true}}),
        )
    };
    let begun = ["container create", CONNECT, START];
    api.run("life", &body(json!(["sh", "-c", "exit 3"])));
    assert_eq!(events.until("start"), begun);
    assert_eq!(events.until("destroy"), [&*die(3), DISCONNECT, "container destroy"]);
    api.run("life", &body(json!(["sleep", "1000"])));
    assert_eq!(events.until("start"), begun);
    api.post("/containers/life/stop?t=0").expect(204);
    assert_eq!(
        events.until("destroy"),
        [&*kill(15), &kill(9), &die(137), DISCONNECT, "container stop", "container destroy"]
    );
    api.run("life", &body(json!(["sleep", "1000"])));
    assert_eq!(events.until("start"), begun);
    api.delete("/containers/life?force=1").expect(204);
    assert_eq!(events.until("destroy"), [&*kill(9), &die(137), DISCONNECT, "container destroy"]);
}

#[test]
fn a_start_that_fails_and_volumes_are_told() {
    let stack = lease();
    let api = stack.api();
    let mut events = Events::of(&stack);
    api.create("life", &json!({"Image": "busybox", "Cmd": ["nosuch"]}));
    api.post("/containers/life/start").expect(400);
    assert_eq!(events.until("disconnect"), ["container create", CONNECT, DISCONNECT]);
    api.delete("/containers/life").expect(204);
    assert_eq!(events.until("destroy"), ["container destroy"]);
    let body = with(
        json!({"Image": "busybox", "Cmd": ["true"]}),
        json!({"HostConfig": {"Binds": ["shared:/y"]}}),
    );
    let id = api.run("life", &body);
    assert_eq!(
        events.until("start"),
        [
            "volume create driver=local",
            "container create",
            CONNECT,
            "volume mount destination=/y driver=local propagation= read/write=true",
            START
        ]
    );
    assert_eq!(events.until("unmount"), [&*die(0), DISCONNECT, "volume unmount driver=local"]);
    api.delete(&format!("/containers/{id}")).expect(204);
    assert_eq!(events.until("destroy"), ["container destroy"]);
    api.delete("/volumes/shared").expect(204);
    assert_eq!(events.until("destroy"), ["volume destroy driver=local"]);
}

#[test]
fn a_volume_in_two_places_is_told_twice() {
    let stack = lease();
    let api = stack.api();
    let mut events = Events::of(&stack);
    let body = with(
        json!({"Image": "busybox", "Cmd": ["true"]}),
        json!({"HostConfig": {"Binds": ["twice:/x", "twice:/y:ro"]}}),
    );
    api.run("life", &body);
    let mut begun = events.until("start");
    // 20.10 tells of the volume once a place.
    begun.dedup();
    // In the order of a hash table, with stock.
    begun[3..5].sort();
    let mounted = |at: &str, writable: bool| {
        format!("volume mount destination={at} driver=local propagation= read/write={writable}")
    };
    let made = ["volume create driver=local", "container create", CONNECT];
    assert_eq!(begun[..3], made);
    assert_eq!(begun[3..], [&*mounted("/x", true), &mounted("/y", false), START]);
    let unmounted = "volume unmount driver=local";
    assert_eq!(events.until("unmount"), [&*die(0), DISCONNECT, unmounted]);
    assert_eq!(events.until("unmount"), [unmounted]);
    api.delete("/containers/life").expect(204);
    assert_eq!(events.until("destroy"), ["container destroy"]);
    api.delete("/volumes/twice").expect(204);
}

#[test]
fn a_stop_while_a_restart_is_due_is_told() {
    let stack = lease();
    let api = stack.api();
    let mut events = Events::of(&stack);
    let policy = json!({"HostConfig": {"RestartPolicy": {"Name": "always"}}});
    let body = with(json!({"Image": "busybox", "Cmd": ["false"]}), policy);
    api.run("life", &body);
    // The pauses double: by now there is time to stop it in one.
    for _ in 0..4 {
        events.until("die");
    }
    events.until("disconnect");
    api.post("/containers/life/stop").expect(204);
    let told = events.until("stop");
    assert_eq!(told.last().unwrap(), "container stop");
    assert_eq!(api.inspect("life")["State"]["Status"], "exited");
}
