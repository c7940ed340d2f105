//! A stopped shim, a stopped containerd: what does not need them works, what does is refused in
//! time, and after SIGCONT all is well. Stock hangs here.

use std::time::{Duration, Instant};

use integration_tests::Stack;
use integration_tests::sandbox::until;
use serde_json::{Value, json};

use crate::shims::shim;
use crate::{ENDING, Victim, listed, output, pid, ready, shell};

/// Ours is five seconds; twice that tells a limit from a hang on a busy machine.
const IN_TIME: Duration = Duration::from_secs(10);

/// All at once: each is refused, in time, with a sentence that says who is silent.
fn refused(stack: &Stack, requests: &[(&str, &str, Value)], who: &str) {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for (method, path, body) in requests {
            scope.spawn(move || {
                let body = (!body.is_null()).then(|| ("application/json", body.to_string().into()));
                let told = stack.api().call(method.parse().unwrap(), path, body);
                assert!(told.status >= 500, "{path}: {} {}", told.status, told.text());
                assert!(told.message().contains(who), "{path}: {}", told.message());
            });
        }
    });
    assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
}

fn exec(stack: &Stack, container: &str) -> String {
    let body = json!({"Cmd": ["touch", "/touched"]});
    let told = stack.api().post_json(&format!("/containers/{container}/exec"), &body).expect(201);
    format!("/exec/{}/start", told.json()["Id"].as_str().unwrap())
}

fn exec_works(stack: &Stack, container: &str) {
    let start = exec(stack, container);
    stack.api().post_json(&start, &json!({"Detach": true})).expect(200);
}

#[test]
fn a_stopped_shim_holds_up_its_own_container_only() {
    let stack = Stack::ours().with_busybox().start();
    let api = stack.api();
    for name in ["stuck", "idle", "other"] {
        ready(&stack, name, &shell(ENDING));
    }
    let stuck = shim(&stack, "stuck");
    let idle = shim(&stack, "idle");
    let start = exec(&stack, "stuck");
    stack.sandbox().signal(stuck, libc::SIGSTOP);
    stack.sandbox().signal(idle, libc::SIGSTOP);

    exec_works(&stack, "other");
    assert_eq!(output(&stack, "echo well"), "well");
    assert_eq!(api.inspect("stuck")["State"]["Status"], "running");
    assert_eq!(api.get("/containers/stuck/logs?stdout=1").expect(200).streams().0, "ready\n");
    let stop = ("POST", "/containers/stuck/stop", Value::Null);
    let requests = [
        ("GET", "/containers/stuck/top", Value::Null),
        ("POST", "/containers/stuck/kill?signal=USR2", Value::Null),
        ("POST", &start, json!({"Detach": true})),
        ("GET", "/containers/idle/top", Value::Null),
        stop.clone(),
    ];
    refused(&stack, &requests, "shim does not answer");
    // It is known by now.
    refused(&stack, &[stop], "shim does not answer");
    api.post("/containers/other/stop").expect(204);
    assert_eq!(api.wait("other"), 7);

    stack.sandbox().signal(stuck, libc::SIGCONT);
    stack.sandbox().signal(idle, libc::SIGCONT);
    until("it answers", || api.get("/containers/idle/top").status == 200);
    until("it answers", || api.get("/containers/stuck/top").status != 500);
    // It may have heard the first time.
    assert!(matches!(api.post("/containers/stuck/stop").status, 204 | 304));
    assert_eq!(api.wait("stuck"), 7);
    exec_works(&stack, "idle");
    api.post("/containers/idle/stop").expect(204);
    assert_eq!(api.wait("idle"), 7);
    stack.end();
}

#[test]
fn a_stopped_shim_does_not_hold_up_a_restart() {
    let stack = Stack::ours().with_busybox().start();
    let api = stack.api();
    let stuck = ready(&stack, "stuck", &shell(ENDING));
    ready(&stack, "other", &shell(ENDING));
    let before = pid(&stack, &stuck);
    let shim = shim(&stack, "stuck");
    stack.sandbox().signal(shim, libc::SIGSTOP);
    for victim in [Victim::Containerd, Victim::Engine, Victim::Both] {
        victim.die(&stack);
        victim.come_back(&stack);
        assert!(listed(&stack).iter().all(|(_, state)| state == "running"), "{victim:?}");
        exec_works(&stack, "other");
        assert_eq!(pid(&stack, &stuck), before);
    }
    assert_eq!(output(&stack, "echo well"), "well");
    stack.sandbox().signal(shim, libc::SIGCONT);
    until("it answers", || api.get("/containers/stuck/top").status == 200);
    exec_works(&stack, "stuck");
    assert_eq!(pid(&stack, &stuck), before);
    api.post("/containers/stuck/stop").expect(204);
    assert_eq!(api.wait("stuck"), 7);
    stack.end();
}

#[test]
fn a_stopped_containerd_holds_up_only_what_needs_it() {
    let stack = Stack::ours().with_busybox().start();
    let api = stack.api();
    for name in ["one", "two"] {
        ready(&stack, name, &shell(ENDING));
    }
    api.create("new", &shell("exit 3"));
    let before = pid(&stack, "one");
    let start = exec(&stack, "one");
    let mut logs = api.open("/containers/one/logs?stdout=1&follow=1");
    stack.signal_containerd(libc::SIGSTOP);

    assert_eq!(listed(&stack).len(), 3);
    assert_eq!(api.inspect("one")["State"]["Status"], "running");
    logs.until("ready");
    let requests = [
        ("POST", "/containers/create?name=refused", shell("true")),
        ("POST", "/containers/new/start", Value::Null),
        ("POST", "/containers/two/stop", Value::Null),
        ("GET", "/containers/one/top", Value::Null),
        ("POST", &start, json!({"Detach": true})),
    ];
    refused(&stack, &requests, "containerd does not answer");
    assert_eq!(listed(&stack).len(), 3);

    stack.signal_containerd(libc::SIGCONT);
    until("it answers", || api.get("/containers/one/top").status == 200);
    exec_works(&stack, "one");
    api.post("/containers/new/start").expect(204);
    assert_eq!(api.wait("new"), 3);
    api.create("refused", &shell("true"));
    assert_eq!(output(&stack, "echo well"), "well");
    assert_eq!(pid(&stack, "one"), before);
    for name in ["one", "two"] {
        // The second may have heard the first time.
        assert!(matches!(api.post(&format!("/containers/{name}/stop")).status, 204 | 304));
        assert_eq!(api.wait(name), 7);
    }
    stack.end();
}
