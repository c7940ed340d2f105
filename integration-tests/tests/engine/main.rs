//! The Engine API, verb by verb, over the real programs. The same tests run over stock Docker with
//! `ENGINE=stock`; where ours differs on purpose the test says so with `is_stock`.
//!
//! Needs root, our programs in `BIN_DIR` (`make build`) and a static busybox (`make fetch`).
#![allow(clippy::unwrap_used, reason = "tests")]

mod apparmor;
mod attach;
mod containers;
mod events;
mod exec;
mod health;
mod images;
mod layers;
mod limits;
mod logs;
mod mounts;
mod namespaces;
mod networks;
mod pause;
mod restarts;
mod states;
mod system;
mod udp;
mod volumes;

use integration_tests::Stack;
use serde_json::{Value, json};

/// A shell that says `ready`, answers SIGUSR1 with `got`, ends on SIGTERM with 7, and waits. In short
/// pieces: a signal that comes just before a shell's `wait` is heard after it.
pub(crate) const PATIENT: &str = "trap 'echo got' USR1; trap 'exit 7' TERM; echo ready; \
     sleep 1000 & while :; do usleep 50000 & wait $!; done";

/// A container of busybox with a shell script.
pub(crate) fn shell(script: &str) -> Value {
    json!({"Image": "busybox", "Cmd": ["sh", "-c", script]})
}

/// A container that does nothing and ends at once when it is killed.
pub(crate) fn sleeper() -> Value {
    json!({"Image": "busybox", "Cmd": ["sleep", "1000"]})
}

/// Puts the second object's members into the first, recursively.
pub(crate) fn with(mut body: Value, more: Value) -> Value {
    merge(&mut body, more);
    body
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (name, value) in more {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

/// Runs a container to its end: exit code, stdout, stderr. The container is removed.
pub(crate) fn run(stack: &Stack, body: &Value) -> (i64, String, String) {
    let api = stack.api();
    let id = api.run("", body);
    let code = api.wait(&id);
    let logs = api.get(&format!("/containers/{id}/logs?stdout=1&stderr=1")).expect(200);
    let (out, err) =
        if body["Tty"] == true { (logs.text(), String::new()) } else { logs.streams() };
    api.delete(&format!("/containers/{id}?v=1")).expect(204);
    (code, out, err)
}

/// stdout of a container that ends with 0.
#[track_caller]
pub(crate) fn output(stack: &Stack, body: &Value) -> String {
    let (code, out, err) = run(stack, body);
    assert_eq!((code, &*err), (0, ""), "{out}");
    out.trim_end().to_owned()
}

/// stdout of a shell in a running container, which must end with 0.
#[track_caller]
pub(crate) fn in_container(stack: &Stack, container: &str, script: &str) -> String {
    let api = stack.api();
    let body = json!({"AttachStdout": true, "AttachStderr": true, "Cmd": ["sh", "-c", script]});
    let answer = api.post_json(&format!("/containers/{container}/exec"), &body).expect(201);
    let exec = answer.json()["Id"].as_str().unwrap().to_owned();
    let start = json!({"Detach": false, "Tty": false});
    let (out, err) = api.hijack(&format!("/exec/{exec}/start"), Some(&start), true).frames();
    let code = api.get(&format!("/exec/{exec}/json")).expect(200).json()["ExitCode"].clone();
    assert_eq!((&code, &*err), (&json!(0), ""), "{script}: {out}");
    out.trim_end().to_owned()
}

/// Creates and starts, and waits for the first line `ready`.
pub(crate) fn ready(stack: &Stack, name: &str, body: &Value) -> String {
    let api = stack.api();
    let id = api.run(name, body);
    api.open(&format!("/containers/{id}/logs?stdout=1&follow=1")).until("ready");
    id
}

/// A free-standing percent-encoding of what stands in a query.
pub(crate) fn query(value: &Value) -> String {
    let mut text = String::new();
    for byte in value.to_string().bytes() {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(byte));
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    text
}
