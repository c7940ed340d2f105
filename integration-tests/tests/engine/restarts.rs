//! Restart policies, and restarts of the daemons themselves.

use integration_tests::Stack;
use integration_tests::pool::lease;
use integration_tests::sandbox::{Ended, until};
use serde_json::json;

use crate::{PATIENT, in_container, output, ready, shell, with};

#[test]
fn on_failure_tries_as_often_as_it_may() {
    let stack = lease();
    let api = stack.api();
    let policy =
        json!({"HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}});
    let id = api.run("failing", &with(shell("echo again; exit 3"), policy.clone()));
    until("it gives up", || {
        let told = api.inspect(&id);
        told["RestartCount"] == 2 && told["State"]["Status"] == "exited"
    });
    let logs = api.get("/containers/failing/logs?stdout=1").expect(200).streams().0;
    assert_eq!(logs, "again\nagain\nagain\n");
    assert_eq!(api.inspect(&id)["State"]["ExitCode"], 3);
    let well = api.run("well", &with(shell("exit 0"), policy));
    assert_eq!(api.wait(&well), 0);
    assert_eq!(api.inspect(&well)["RestartCount"], 0);
}

#[test]
fn always_goes_on_until_it_is_stopped() {
    let stack = lease();
    let api = stack.api();
    let body = with(
        shell("echo begun; exec sleep 1000"),
        json!({"HostConfig": {"RestartPolicy": {"Name": "always"}}}),
    );
    let id = api.run("always", &body);
    let pid = i32::try_from(api.inspect(&id)["State"]["Pid"].as_i64().unwrap()).unwrap();
    stack.sandbox().signal(pid, libc::SIGKILL);
    until("it runs again", || {
        let state = api.inspect(&id)["State"].clone();
        state["Running"] == true && state["Pid"] != pid && state["Pid"] != 0
    });
    assert_eq!(api.inspect(&id)["RestartCount"], 1);
    api.post("/containers/always/stop?t=0").expect(204);
    assert_eq!(api.inspect(&id)["State"]["Status"], "exited");
    assert_eq!(api.inspect(&id)["State"]["Restarting"], false);
}

#[test]
fn containers_outlive_the_engine_and_are_found_again() {
    let stack = Stack::from_environment().with_busybox().argument("--live-restore=true").start();
    let api = stack.api();
    let id = ready(&stack, "c1", &shell(PATIENT));
    let brief = ready(
        &stack,
        "brief",
        &shell("echo ready; trap 'exit 6' USR1; while :; do usleep 50000 & wait $!; done"),
    );
    let pid = |id: &str| i32::try_from(api.inspect(id)["State"]["Pid"].as_i64().unwrap()).unwrap();
    let (first, second) = (pid(&id), pid(&brief));
    for kill in [true, false] {
        if kill {
            stack.kill_engine();
            // Ends while nobody looks.
            stack.sandbox().signal(second, libc::SIGUSR1);
            until("it ended", || stack.sandbox().processes().iter().all(|p| p.inner != second));
        } else {
            assert_eq!(stack.stop_engine(), Ended::Exit(0));
        }
        stack.start_engine();
        assert_eq!(pid(&id), first);
        let mut logs = api.open("/containers/c1/logs?stdout=1&follow=1&tail=0");
        api.post("/containers/c1/kill?signal=USR1").expect(204);
        logs.until("got");
        assert_eq!(in_container(&stack, "c1", "echo in"), "in");
        assert_eq!(api.wait("brief"), 6);
    }
    api.post("/containers/c1/stop").expect(204);
    assert_eq!(api.wait("c1"), 7);
    assert_eq!(
        api.get("/containers/c1/logs?stdout=1").expect(200).streams().0,
        "ready\ngot\ngot\n"
    );
    stack.end();
}

#[test]
fn without_live_restore_containers_end_with_the_engine() {
    let stack = Stack::from_environment().with_busybox().argument("--live-restore=false").start();
    let api = stack.api();
    let id = ready(&stack, "c1", &shell(PATIENT));
    let policy = json!({"HostConfig": {"RestartPolicy": {"Name": "always"}}});
    let always = ready(&stack, "always", &with(shell(PATIENT), policy));
    assert_eq!(stack.stop_engine(), Ended::Exit(0));
    let left = stack.sandbox().processes();
    assert!(left.iter().all(|process| process.name != "sh"), "{left:?}");
    stack.start_engine();
    let state = api.inspect(&id)["State"].clone();
    assert_eq!((&state["Status"], &state["ExitCode"]), (&json!("exited"), &json!(7)));
    until("the policy starts it again", || api.inspect(&always)["State"]["Running"] == true);
    stack.end();
}

#[test]
fn a_dead_containerd_comes_back_and_nothing_is_lost() {
    let stack = Stack::ours().with_busybox().start();
    let api = stack.api();
    let id = ready(&stack, "c1", &shell(PATIENT));
    let pid = api.inspect(&id)["State"]["Pid"].clone();
    let before = stack.containerd();
    let mut logs = api.open("/containers/c1/logs?stdout=1&follow=1&tail=0");
    stack.kill_containerd();
    until("another containerd", || {
        stack.sandbox().processes().iter().any(|p| p.name == "containerd-rs" && p.inner != before)
    });
    until("exec works again", || {
        let exec = api.post_json("/containers/c1/exec", &json!({"Cmd": ["true"]}));
        let exec = exec.expect(201).json()["Id"].as_str().unwrap().to_owned();
        api.post_json(&format!("/exec/{exec}/start"), &json!({"Detach": true})).status == 200
    });
    assert_eq!(api.inspect(&id)["State"]["Pid"], pid);
    api.post("/containers/c1/kill?signal=USR1").expect(204);
    logs.until("got");
    api.post("/containers/c1/stop").expect(204);
    assert_eq!(api.wait("c1"), 7);
    assert_eq!(output(&stack, &shell("echo well")), "well");
    stack.end();
}

#[test]
fn a_stack_goes_down_and_up_with_its_containers() {
    let stack = Stack::from_environment().with_busybox().start();
    let api = stack.api();
    let id = api.run("c1", &shell("echo x; exit 4"));
    assert_eq!(api.wait(&id), 4);
    api.post_json("/volumes/create", &json!({"Name": "vol"})).expect(201);
    assert_eq!(stack.stop_engine(), Ended::Exit(0));
    stack.start_engine();
    let told = api.inspect("c1");
    assert_eq!(told["State"]["ExitCode"], 4);
    assert_eq!(api.get("/containers/c1/logs?stdout=1").expect(200).streams().0, "x\n");
    api.get("/volumes/vol").expect(200);
    assert_eq!(output(&stack, &shell("echo well")), "well");
    api.delete("/volumes/vol").expect(204);
    stack.end();
}
