//! Nothing but its owner stops a container: daemons, shims and disks fail below running containers,
//! and what was acknowledged stays true.
//!
//! Needs root, our programs in `BIN_DIR` (`make build`) and a static busybox (`make fetch`). With
//! `ENGINE=stock` what Docker promises too runs over stock Docker; where ours promises more, the test
//! says so with `is_stock`, or is about ours alone.
#![allow(clippy::unwrap_used, reason = "tests")]

mod absence;
mod disk;
mod inodes;
mod model;
mod outage;
mod ports;
mod power;
mod random;
mod shims;
mod silence;
mod storm;
mod upgrade;
mod worker;
mod writer;

use integration_tests::Stack;
use integration_tests::sandbox::until;
use serde_json::{Value, json};

/// Whose death a container outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Engine,
    Containerd,
    Both,
}

impl Victim {
    /// kill -9.
    pub(crate) fn die(self, stack: &Stack) {
        // The engine first: it would start another containerd at once.
        if self != Self::Containerd {
            stack.kill_engine();
        }
        if self != Self::Engine {
            stack.kill_containerd();
        }
    }

    /// Everything runs again and answers.
    pub(crate) fn come_back(self, stack: &Stack) {
        stack.start_what_is_gone();
        if self == Self::Containerd {
            until("containerd answers", || stack.containerd_listens());
            // Stock notices in its own time, and kills what it cannot signal meanwhile.
            until("its engine knows", || !stack.is_stock() || topped(stack));
        }
    }
}

/// Whether containerd is asked, and answers, about each container that runs.
fn topped(stack: &Stack) -> bool {
    let running = listed(stack).into_iter().filter(|(_, state)| state == "running");
    running
        .map(|(id, _)| format!("/containers/{id}/top"))
        .all(|top| stack.api().get(&top).status == 200)
}

/// A stack whose containers are to outlive its daemons: our default, stock's option.
pub(crate) fn lasting() -> Stack {
    Stack::from_environment().with_busybox().argument("--live-restore=true").start()
}

/// A container of busybox with a shell script.
pub(crate) fn shell(script: &str) -> Value {
    json!({"Image": "busybox", "Cmd": ["sh", "-c", script]})
}

/// The same with a `HostConfig`.
pub(crate) fn shell_with(script: &str, host: Value) -> Value {
    json!({"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": host})
}

/// Says `ready`, ends on SIGUSR1 with 6 and on SIGTERM with 7. In short pieces: a signal that comes
/// just before a shell's `wait` is heard after it.
pub(crate) const ENDING: &str = "trap 'exit 6' USR1; trap 'exit 7' TERM; echo ready; \
     while :; do usleep 20000 & wait $!; done";

/// Creates and starts, and waits for the first line `ready`.
pub(crate) fn ready(stack: &Stack, name: &str, body: &Value) -> String {
    let api = stack.api();
    let id = api.run(name, body);
    api.open(&format!("/containers/{id}/logs?stdout=1&follow=1")).until("ready");
    id
}

/// The pid of the container's first process, as the sandbox sees it.
pub(crate) fn pid(stack: &Stack, container: &str) -> i32 {
    let pid = stack.api().inspect(container)["State"]["Pid"].as_i64().unwrap();
    i32::try_from(pid).unwrap()
}

/// stdout of a container that runs to its end and ends with 0; it is removed.
#[track_caller]
pub(crate) fn output(stack: &Stack, script: &str) -> String {
    let api = stack.api();
    let id = api.run("", &shell(script));
    let code = api.wait(&id);
    let answer = api.get(&format!("/containers/{id}/logs?stdout=1&stderr=1")).expect(200);
    let (out, err) = answer.streams();
    assert_eq!((code, &*err), (0, ""), "{out}");
    api.delete(&format!("/containers/{id}")).expect(204);
    out.trim_end().to_owned()
}

/// Ids and states of `GET /containers/json?all=1`.
pub(crate) fn listed(stack: &Stack) -> Vec<(String, String)> {
    let list = stack.api().get("/containers/json?all=1").expect(200).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(|row| (text(&row["Id"]), text(&row["State"]))).collect()
}

/// The present as inspect writes times.
pub(crate) fn now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let nanos = i32::try_from(now.subsec_nanos()).unwrap();
    docker_api::time::rfc3339_nano(i64::try_from(now.as_secs()).unwrap(), nanos)
}
