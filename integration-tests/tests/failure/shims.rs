//! kill -9 of a shim: its container ends with it, and that is told, whoever is away meanwhile.

use http::Method;
use integration_tests::Stack;
use integration_tests::sandbox::until;
use serde_json::{Value, json};

use crate::{Victim, lasting, output, pid, ready, shell_with};

/// A tree of processes that can be told from others, one of them in a session of its own.
fn tree(seconds: u32, host: Value) -> Value {
    let sleep = format!("sleep {seconds}");
    shell_with(&format!("{sleep} & setsid {sleep} & echo ready; {sleep}; true"), host)
}

/// How many processes of the tree run.
fn living(stack: &Stack, seconds: u32) -> usize {
    let wanted = ["sleep".to_owned(), seconds.to_string()];
    stack.sandbox().processes().iter().filter(|process| process.command == wanted).count()
}

pub(crate) fn shim(stack: &Stack, container: &str) -> i32 {
    let id = stack.api().inspect(container)["Id"].as_str().unwrap().to_owned();
    let processes = stack.sandbox().processes();
    let shim = processes.iter().find(|process| {
        process.name.starts_with("containerd-shim") && process.command.contains(&id)
    });
    shim.unwrap_or_else(|| panic!("no shim of {container}")).inner
}

#[test]
fn a_killed_shim_takes_its_container_with_it() {
    let stack = lasting();
    let api = stack.api();
    ready(&stack, "one", &tree(4241, json!({})));
    let again = ready(&stack, "again", &tree(4242, json!({"RestartPolicy": {"Name": "always"}})));
    let brief = ready(&stack, "brief", &tree(4243, json!({"AutoRemove": true})));
    let other = ready(&stack, "other", &tree(4244, json!({})));
    let (again_pid, other_pid) = (pid(&stack, &again), pid(&stack, &other));
    for seconds in [4241, 4242, 4243, 4244] {
        until("the whole tree runs", || living(&stack, seconds) == 3);
    }
    let mut wait = api.try_open(Method::POST, "/containers/one/wait", None, &[]).unwrap();
    for container in ["one", "again", "brief"] {
        stack.sandbox().signal(shim(&stack, container), libc::SIGKILL);
    }
    assert_eq!(wait.value().unwrap()["StatusCode"], 137);
    let state = api.inspect("one")["State"].clone();
    assert_eq!((&state["Status"], &state["ExitCode"]), (&json!("exited"), &json!(137)));
    until("nothing of it runs on", || living(&stack, 4241) == 0 && living(&stack, 4243) == 0);
    until("--rm has removed it", || api.get(&format!("/containers/{brief}/json")).status == 404);
    until("its policy starts it again", || {
        let told = api.inspect(&again);
        told["State"]["Status"] == "running" && told["State"]["Pid"] != again_pid
    });
    assert_eq!(api.inspect(&again)["RestartCount"], 1);
    until("once", || living(&stack, 4242) == 3);
    assert_eq!((pid(&stack, &other), living(&stack, 4244)), (other_pid, 3));
    api.post("/containers/one/start").expect(204);
    until("the whole tree runs", || living(&stack, 4241) == 3);
    api.delete("/containers/one?force=1").expect(204);
    assert_eq!(living(&stack, 4241), 0);
    assert_eq!(output(&stack, "echo well"), "well");
    stack.end();
}

#[test]
fn a_shim_that_died_unseen_is_told_of_after_the_return() {
    // Stock answers 255, or not at all.
    let stack = Stack::ours().with_busybox().start();
    let api = stack.api();
    ready(&stack, "other", &tree(4251, json!({})));
    let other = pid(&stack, "other");
    for victim in [Victim::Engine, Victim::Containerd, Victim::Both] {
        ready(&stack, "one", &tree(4252, json!({})));
        until("the whole tree runs", || living(&stack, 4252) == 3);
        let shim = shim(&stack, "one");
        victim.die(&stack);
        stack.sandbox().signal(shim, libc::SIGKILL);
        victim.come_back(&stack);
        assert_eq!(api.wait("one"), 137, "{victim:?}");
        until("nothing of it runs on", || living(&stack, 4252) == 0);
        assert_eq!((pid(&stack, "other"), living(&stack, 4251)), (other, 3));
        api.delete("/containers/one").expect(204);
    }
    assert_eq!(output(&stack, "echo well"), "well");
    stack.end();
}
