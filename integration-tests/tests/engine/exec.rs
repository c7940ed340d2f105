//! Execs: create, start, inspect, resize, with and without a terminal.

use integration_tests::Stack;
use integration_tests::pool::lease;
use serde_json::{Value, json};

use crate::{PATIENT, in_container, ready, shell, sleeper, with};

fn create(stack: &Stack, container: &str, body: &Value) -> String {
    let answer = stack.api().post_json(&format!("/containers/{container}/exec"), body).expect(201);
    answer.json()["Id"].as_str().unwrap().to_owned()
}

fn inspect(stack: &Stack, exec: &str) -> Value {
    stack.api().get(&format!("/exec/{exec}/json")).expect(200).json()
}

#[test]
fn an_exec_tells_its_output_and_its_exit_code() {
    let stack = lease();
    let api = stack.api();
    let id = api.run("c1", &sleeper());
    let body = json!({"AttachStdout": true, "AttachStderr": true, "Env": ["X=y"],
        "WorkingDir": "/var", "User": "daemon",
        "Cmd": ["sh", "-c", "echo $X $(pwd) $(id -u):$(id -g); echo oops >&2; exit 6"]});
    let exec = create(&stack, "c1", &body);
    let before = inspect(&stack, &exec);
    assert_eq!(before["ID"], *exec);
    assert_eq!(before["ContainerID"], *id);
    assert_eq!(before["Running"], false);
    assert_eq!(before["ExitCode"], Value::Null);
    assert_eq!(before["ProcessConfig"]["entrypoint"], "sh");
    assert_eq!(before["ProcessConfig"]["arguments"], json!(["-c", body["Cmd"][2]]));
    assert_eq!(before["ProcessConfig"]["tty"], false);
    assert_eq!(before["ProcessConfig"]["user"], "daemon");
    assert_eq!(before["OpenStdin"], false);
    assert_eq!(before["OpenStdout"], true);
    assert_eq!(api.inspect("c1")["ExecIDs"], json!([exec]));
    let exec = create(&stack, "c1", &body);
    let start = json!({"Detach": false, "Tty": false});
    let mut stream = api.hijack(&format!("/exec/{exec}/start"), Some(&start), true);
    assert_eq!(stream.status, 101, "{}", stream.head);
    assert_eq!(stream.frames(), ("y /var 1:1\n".to_owned(), "oops\n".to_owned()));
    let after = inspect(&stack, &exec);
    assert_eq!(after["Running"], false);
    assert_eq!(after["ExitCode"], 6);
}

#[test]
fn stdin_reaches_an_exec_and_its_end_too() {
    let stack = lease();
    let api = stack.api();
    api.run("c1", &sleeper());
    let body = json!({"AttachStdin": true, "AttachStdout": true, "Cmd": ["wc", "-c"]});
    let exec = create(&stack, "c1", &body);
    let mut stream = api.hijack(&format!("/exec/{exec}/start"), Some(&json!({})), true);
    stream.send("x".repeat(200_000));
    stream.close_write();
    assert_eq!(stream.frames().0.trim(), "200000");
    assert_eq!(inspect(&stack, &exec)["ExitCode"], 0);
}

#[test]
fn without_upgrade_an_exec_is_a_byte_stream_both_ways() {
    let stack = lease();
    let api = stack.api();
    api.run("c1", &sleeper());
    let mut body = json!({"AttachStdin": true, "AttachStdout": true, "AttachStderr": true,
        "Cmd": ["sh", "-c", "echo begun; cat; echo end >&2; exit 3"]});
    let start = json!({"Detach": false, "Tty": false});
    let exec = create(&stack, "c1", &body);
    let mut stream = api.hijack(&format!("/exec/{exec}/start"), Some(&start), false);
    let head = stream.head.to_lowercase();
    assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
    assert!(head.contains("content-type: application/vnd.docker.raw-stream"), "{head}");
    assert!(!head.contains("content-length:") && !head.contains("transfer-encoding:"), "{head}");
    stream.until("begun\n");
    stream.send("hello\n");
    stream.close_write();
    assert_eq!(stream.frames(), ("hello\n".to_owned(), "end\n".to_owned()));
    assert_eq!(inspect(&stack, &exec)["ExitCode"], 3);

    // A body without a length, as Node writes it.
    let exec = create(&stack, "c1", &body);
    let text = start.to_string();
    let mut stream = api.raw(&format!(
        "POST /v1.41/exec/{exec}/start HTTP/1.1\r\nHost: docker\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{text}\r\n0\r\n\r\n",
        text.len()
    ));
    assert_eq!(stream.status, 200, "{}", stream.head);
    stream.until("begun\n");
    stream.send("hello\n");
    stream.close_write();
    assert_eq!(stream.frames(), ("hello\n".to_owned(), "end\n".to_owned()));

    body["Tty"] = json!(true);
    let exec = create(&stack, "c1", &body);
    let mut stream = api.hijack(&format!("/exec/{exec}/start"), Some(&json!({"Tty": true})), false);
    stream.until("begun\r\n");
    stream.send("hello\n");
    stream.until("hello\r\nhello\r\n");
    // End of input on a terminal.
    stream.send("\x04");
    assert_eq!(String::from_utf8_lossy(&stream.all()), "end\r\n");

    let exec = create(&stack, "c1", &json!({"AttachStdout": true, "Cmd": ["nosuch"]}));
    let mut stream = api.hijack(&format!("/exec/{exec}/start"), Some(&start), false);
    assert_eq!(stream.status, 200, "{}", stream.head);
    let (told, _) = stream.frames();
    assert!(told.contains("\"nosuch\": executable file not found in $PATH"), "{told}");
}

#[test]
fn a_terminal_has_the_size_it_was_given() {
    let stack = lease();
    let api = stack.api();
    api.run("c1", &sleeper());
    let body = json!({"AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Tty": true,
        // A signal may cut a read short.
        "Cmd": ["sh", "-c", "tty; trap 'stty size' WINCH; echo ready; until read x; do :; done; stty size; exit 3"]});
    let exec = create(&stack, "c1", &body);
    let mut stream = api.hijack(&format!("/exec/{exec}/start"), Some(&json!({"Tty": true})), true);
    let begun = stream.until("ready\r\n");
    assert!(begun.contains("/dev/pts/"), "{begun}");
    api.post(&format!("/exec/{exec}/resize?h=33&w=101")).expect(200);
    stream.send("\n");
    let rest = stream.all();
    assert_eq!(String::from_utf8_lossy(&rest).matches("33 101").count(), 2);
    assert_eq!(inspect(&stack, &exec)["ExitCode"], 3);
    let gone = api.post(&format!("/exec/{exec}/resize?h=33&w=101"));
    assert!(gone.status >= 400, "{}", gone.text());
}

#[test]
fn a_process_that_ends_at_once_has_told_everything() {
    let stack = lease();
    let api = stack.api();
    api.run("c1", &sleeper());
    for turn in 0..50 {
        let tty = turn % 2 == 0;
        let end = if tty { "\r\n" } else { "\n" };
        let script = format!("echo turn {turn}");
        let body = json!({"AttachStdout": true, "Tty": tty, "Cmd": ["sh", "-c", script]});
        let exec = create(&stack, "c1", &body);
        let start = json!({"Tty": tty});
        let mut stream = api.hijack(&format!("/exec/{exec}/start"), Some(&start), true);
        let told = if tty { String::from_utf8(stream.all()).unwrap() } else { stream.frames().0 };
        assert_eq!(told, format!("turn {turn}{end}"));
        assert_eq!(inspect(&stack, &exec)["ExitCode"], 0);
        // The same for a container of its own; dockerd may lose a descriptor of one that short.
        if turn % 5 > 1 || stack.is_stock() {
            continue;
        }
        let id = api.create("", &with(shell(&script), json!({"Tty": tty})));
        let attach = format!("/containers/{id}/attach?stream=1&stdout=1");
        let mut stream = api.hijack(&attach, None, true);
        api.post(&format!("/containers/{id}/start")).expect(204);
        let told = if tty { String::from_utf8(stream.all()).unwrap() } else { stream.frames().0 };
        assert_eq!(told, format!("turn {turn}{end}"));
        assert_eq!(api.wait(&id), 0);
        api.delete(&format!("/containers/{id}")).expect(204);
    }
}

#[test]
fn a_detached_exec_goes_on_by_itself() {
    let stack = lease();
    let api = stack.api();
    api.run("c1", &sleeper());
    let exec =
        create(&stack, "c1", &json!({"Cmd": ["sh", "-c", "mkfifo /f; read x < /f; exit 8"]}));
    let answer = api.post_json(&format!("/exec/{exec}/start"), &json!({"Detach": true}));
    assert!(answer.expect(200).body.is_empty());
    let running = inspect(&stack, &exec);
    assert_eq!(running["Running"], true);
    let pid = running["Pid"].as_i64().unwrap();
    assert!(pid > 1, "{running}");
    let again = api.post_json(&format!("/exec/{exec}/start"), &json!({"Detach": true})).expect(409);
    assert!(again.message().contains("already running"), "{}", again.message());
    in_container(&stack, "c1", "while ! [ -p /f ]; do usleep 1000; done; echo > /f");
    integration_tests::sandbox::until("the exec ends", || {
        inspect(&stack, &exec)["Running"] == false
    });
    assert_eq!(inspect(&stack, &exec)["ExitCode"], 8);
}

#[test]
fn an_exec_shares_the_containers_rights_unless_it_is_privileged() {
    let stack = lease();
    let api = stack.api();
    api.run(
        "c1",
        &with(sleeper(), json!({"HostConfig": {"CapDrop": ["ALL"], "CapAdd": ["CHOWN"]}})),
    );
    let caps = "grep CapEff /proc/self/status | cut -f2";
    assert_eq!(in_container(&stack, "c1", caps), "0000000000000001");
    let body = json!({"AttachStdout": true, "Privileged": true, "Cmd": ["sh", "-c", caps]});
    let exec = create(&stack, "c1", &body);
    let mut stream = api.hijack(&format!("/exec/{exec}/start"), Some(&json!({})), true);
    let all = u64::from_str_radix(stream.frames().0.trim(), 16).unwrap();
    let hosts = stack.inside(&["sh", "-c", caps]).ok();
    assert_eq!(all, u64::from_str_radix(hosts.trim(), 16).unwrap());
}

#[test]
fn the_detach_keys_leave_an_exec_running() {
    let stack = lease();
    let api = stack.api();
    api.run("c1", &sleeper());
    let body = json!({"AttachStdin": true, "AttachStdout": true, "Tty": true,
        "DetachKeys": "ctrl-a,b", "Cmd": ["cat"]});
    let exec = create(&stack, "c1", &body);
    let mut stream = api.hijack(&format!("/exec/{exec}/start"), Some(&json!({"Tty": true})), true);
    stream.send("hello\n");
    stream.until("hello\r\nhello\r\n");
    stream.send("\x01b");
    stream.all();
    assert_eq!(inspect(&stack, &exec)["Running"], true);
}

#[test]
fn execs_need_a_running_container_and_a_command() {
    let stack = lease();
    let api = stack.api();
    let id = ready(&stack, "c1", &shell(PATIENT));
    let empty = api.post_json("/containers/c1/exec", &json!({"Cmd": []})).expect(400);
    assert_eq!(empty.message(), "No exec command specified");
    let unknown = api.get("/exec/0123456789/json").expect(404);
    assert_eq!(unknown.message(), "No such exec instance: 0123456789");
    let exec = create(&stack, "c1", &json!({"Cmd": ["true"]}));
    api.post("/containers/c1/kill").expect(204);
    api.wait(&id);
    let refused = api.post_json("/containers/c1/exec", &json!({"Cmd": ["true"]})).expect(409);
    assert!(refused.message().ends_with(&format!("ontainer {id} is not running")));
    let refused = api.post_json(&format!("/exec/{exec}/start"), &json!({"Detach": true}));
    assert!(refused.status >= 400, "{}", refused.text());
    let unknown = api.post_json("/containers/nope/exec", &json!({"Cmd": ["true"]})).expect(404);
    assert_eq!(unknown.message(), "No such container: nope");
}
