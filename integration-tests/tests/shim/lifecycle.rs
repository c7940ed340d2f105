//! Create, start, exec, kill, wait, delete; events in order; what happens when somebody dies.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use integration_tests::parts::ours;
use prost::Message as _;
use proto::containerd::task::v2 as api;

use crate::client::{Events, PATIENCE, RpcStatus, Shim, open_reader, read_all};

type Empty = ();

#[test]
fn a_container_lives_and_dies_in_order() {
    let shim = Shim::start("echo out; echo err >&2; exit 7");
    let mut events = Events::listen(&shim);
    let mut link = shim.connect();
    let (out, err) = (shim.fifo("out"), shim.fifo("err"));
    let (out_reader, err_reader) = (open_reader(&out), open_reader(&err));
    let created: api::CreateTaskResponse = link
        .call(
            "Create",
            &api::CreateTaskRequest { stdout: out, stderr: err, ..shim.create_request() },
        )
        .unwrap();
    let state: api::StateResponse = link.call("State", &shim.state_request("")).unwrap();
    assert_eq!((state.pid, state.status), (created.pid, 1));
    let wait = link.send("Wait", &shim.wait_request(""));
    let started: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    assert_eq!(started.pid, created.pid);
    let ended: api::WaitResponse = link.receive(wait).unwrap();
    assert_eq!(ended.exit_status, 7);
    let state: api::StateResponse = link.call("State", &shim.state_request("")).unwrap();
    assert_eq!((state.status, state.exit_status), (3, 7));
    let again: api::WaitResponse = link.call("Wait", &shim.wait_request("")).unwrap();
    assert_eq!(again, ended);
    let deleted: api::DeleteResponse = link.call("Delete", &shim.delete_request("")).unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (created.pid, 7));
    assert_eq!(deleted.exited_at, ended.exited_at);
    assert_eq!(read_all(out_reader), "out\n");
    assert_eq!(read_all(err_reader), "err\n");
    let wanted = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"];
    assert_eq!(events.topics(4), wanted);
    let _: Empty = link.call("Shutdown", &api::ShutdownRequest::default()).unwrap();
    until("the shim left", || !shim.is_alive());
    assert!(!shim.socket().exists());
}

#[test]
fn a_shim_that_is_to_end_takes_no_other_container() {
    // Nobody takes its events, so it does not leave at once.
    let mut shim = Shim::start("sleep 60");
    let mut link = shim.connect();
    let _: api::CreateTaskResponse = link.call("Create", &shim.create_request()).unwrap();
    let _: Empty = link.call("Kill", &shim.kill_request(9)).unwrap();
    let _: api::WaitResponse = link.call("Wait", &shim.wait_request("")).unwrap();
    let _: api::DeleteResponse = link.call("Delete", &shim.delete_request("")).unwrap();
    let _: Empty = link.call("Shutdown", &api::ShutdownRequest::default()).unwrap();
    let late = link.call::<api::CreateTaskResponse>("Create", &shim.create_request()).unwrap_err();
    assert_eq!(late.code, 14, "{}", late.message);
    let first = shim.pid();
    shim.launch();
    assert_ne!(shim.pid(), first);
    let mut link = shim.connect();
    let _: api::CreateTaskResponse = link.call("Create", &shim.create_request()).unwrap();
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    until("the first has left", || !std::path::Path::new(&format!("/proc/{first}")).exists());
    let state: api::StateResponse = link.call("State", &shim.state_request("")).unwrap();
    assert_eq!(state.status, 2);
}

#[test]
fn both_versions_of_the_service_answer_and_others_do_not() {
    let shim = Shim::start("sleep 60");
    let mut link = shim.connect();
    let request = api::ConnectRequest { id: shim.id.clone() };
    let stream = link.send_to("containerd.task.v3.Task", "Connect", &request);
    assert!(link.receive::<api::ConnectResponse>(stream).is_ok());
    let stream = link.send_to("containerd.runtime.sandbox.v1.Sandbox", "Platform", &request);
    assert_eq!(link.receive::<Empty>(stream).unwrap_err().code, 12);
    let unknown = link.call::<Empty>("Checkpoint", &api::CheckpointTaskRequest::default());
    assert_eq!(unknown.unwrap_err().code, 12);
    let missing = link.call::<api::StateResponse>("State", &shim.state_request(""));
    assert_eq!(missing.unwrap_err().code, 5);
}

#[test]
fn a_kill_ends_the_container_and_a_second_finds_it_finished() {
    let shim = Shim::start("sleep 60");
    let mut link = shim.connect();
    let created: api::CreateTaskResponse = link.call("Create", &shim.create_request()).unwrap();
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    let early = link.call::<api::DeleteResponse>("Delete", &shim.delete_request(""));
    assert_eq!(early.unwrap_err().code, 9);
    let again = link.call::<api::CreateTaskResponse>("Create", &shim.create_request());
    assert_eq!(again.unwrap_err().code, 6);
    let pids: api::PidsResponse =
        link.call("Pids", &api::PidsRequest { id: shim.id.clone() }).unwrap();
    assert!(pids.processes.iter().any(|process| process.pid == created.pid));
    let stats: api::StatsResponse =
        link.call("Stats", &api::StatsRequest { id: shim.id.clone() }).unwrap();
    assert!(stats.stats.unwrap().type_url.starts_with("io.containerd.cgroups."));
    let wait = link.send("Wait", &shim.wait_request(""));
    let _: Empty = link.call("Kill", &shim.kill_request(9)).unwrap();
    assert_eq!(link.receive::<api::WaitResponse>(wait).unwrap().exit_status, 137);
    let error = link.call::<Empty>("Kill", &shim.kill_request(9)).unwrap_err();
    // Compat: dockerd and ctr match this text.
    let wanted = RpcStatus { code: 5, message: "process already finished: not found".into() };
    assert_eq!(error, wanted);
    let _: api::DeleteResponse = link.call("Delete", &shim.delete_request("")).unwrap();
}

#[test]
fn execs_have_input_output_and_status_of_their_own() {
    let shim = Shim::start("sleep 60");
    let mut events = Events::listen(&shim);
    let mut link = shim.connect();
    let _: api::CreateTaskResponse = link.call("Create", &shim.create_request()).unwrap();
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    let (input, output) = (shim.fifo("in"), shim.fifo("out"));
    let reader = open_reader(&output);
    let exec = api::ExecProcessRequest {
        stdin: input.clone(),
        stdout: output,
        ..shim.exec_request("e", &["sh", "-c", "sed s/^/got-/; exit 3"])
    };
    let _: Empty = link.call("Exec", &exec).unwrap();
    let twice = link.call::<Empty>("Exec", &exec);
    assert_eq!(twice.unwrap_err().code, 6);
    let started: api::StartResponse = link.call("Start", &shim.start_request("e")).unwrap();
    let mut writer = std::fs::OpenOptions::new().write(true).open(&input).unwrap();
    writer.write_all(b"one\n").unwrap();
    drop(writer);
    // A client that leaves does not end the input; CloseIO does, after what was written.
    let mut writer = std::fs::OpenOptions::new().write(true).open(&input).unwrap();
    writer.write_all(b"two\n").unwrap();
    let close = api::CloseIoRequest { id: shim.id.clone(), exec_id: "e".into(), stdin: true };
    let _: Empty = link.call("CloseIO", &close).unwrap();
    drop(writer);
    let ended: api::WaitResponse = link.call("Wait", &shim.wait_request("e")).unwrap();
    assert_eq!(ended.exit_status, 3);
    let deleted: api::DeleteResponse = link.call("Delete", &shim.delete_request("e")).unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (started.pid, 3));
    assert_eq!(read_all(reader), "got-one\ngot-two\n");
    let gone = link.call::<api::StateResponse>("State", &shim.state_request("e"));
    assert_eq!(gone.unwrap_err().code, 5);
    let wanted = [
        "/tasks/create",
        "/tasks/start",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/exit",
    ];
    assert_eq!(events.topics(5), wanted);
}

#[test]
fn execs_that_end_at_once_are_told_after_their_start() {
    let shim = Shim::start("sleep 60");
    let mut events = Events::listen(&shim);
    let mut link = shim.connect();
    let _: api::CreateTaskResponse = link.call("Create", &shim.create_request()).unwrap();
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    assert_eq!(events.topics(2), ["/tasks/create", "/tasks/start"]);
    for number in 0..10 {
        let exec = format!("e{number}");
        let _: Empty = link.call("Exec", &shim.exec_request(&exec, &["true"])).unwrap();
        let wait = link.send("Wait", &shim.wait_request(&exec));
        let _: api::StartResponse = link.call("Start", &shim.start_request(&exec)).unwrap();
        assert_eq!(link.receive::<api::WaitResponse>(wait).unwrap().exit_status, 0);
        let _: api::DeleteResponse = link.call("Delete", &shim.delete_request(&exec)).unwrap();
        let wanted = ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"];
        assert_eq!(events.topics(3), wanted);
    }
}

#[test]
fn a_process_starts_with_no_signal_blocked() {
    let shim = Shim::start("cat /proc/self/status");
    let mut link = shim.connect();
    let out = shim.fifo("out");
    let reader = open_reader(&out);
    let request = api::CreateTaskRequest { stdout: out, ..shim.create_request() };
    let _: api::CreateTaskResponse = link.call("Create", &request).unwrap();
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    let _: api::WaitResponse = link.call("Wait", &shim.wait_request("")).unwrap();
    assert!(read_all(reader).contains("SigBlk:\t0000000000000000\n"));
}

#[test]
fn a_missing_program_is_the_runtimes_error_and_leaves_nothing() {
    let shim = Shim::start_with("", |config| {
        config["process"]["args"] = serde_json::json!(["/missing"]);
    });
    let mut link = shim.connect();
    let created = link.call::<api::CreateTaskResponse>("Create", &shim.create_request());
    let text = match created {
        Err(error) => error.message,
        // A runtime may notice only when the container starts.
        Ok(_) => {
            link.call::<api::StartResponse>("Start", &shim.start_request("")).unwrap_err().message
        }
    };
    assert!(text.starts_with("OCI runtime "), "{text}");
    assert!(text.contains("no such file or directory"), "{text}");
}

#[test]
fn a_failed_exec_leaves_the_container_alone() {
    let shim = Shim::start("sleep 60");
    let mut link = shim.connect();
    let _: api::CreateTaskResponse = link.call("Create", &shim.create_request()).unwrap();
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    let output = shim.fifo("out");
    let reader = open_reader(&output);
    let exec = api::ExecProcessRequest { stdout: output, ..shim.exec_request("e", &["missing"]) };
    let _: Empty = link.call("Exec", &exec).unwrap();
    let error = link.call::<api::StartResponse>("Start", &shim.start_request("e")).unwrap_err();
    assert!(error.message.starts_with("OCI runtime exec failed: "), "{}", error.message);
    assert!(error.message.contains("executable file not found in $PATH"), "{}", error.message);
    assert_eq!(read_all(reader), "", "the runtime's complaints are no output");
    let _: api::DeleteResponse = link.call("Delete", &shim.delete_request("e")).unwrap();
    let state: api::StateResponse = link.call("State", &shim.state_request("")).unwrap();
    assert_eq!(state.status, 2);
}

#[test]
fn a_paused_container_is_resumed_or_killed() {
    let shim = Shim::start("sleep 60");
    let mut link = shim.connect();
    let _: api::CreateTaskResponse = link.call("Create", &shim.create_request()).unwrap();
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    let pause = api::PauseRequest { id: shim.id.clone() };
    if let Err(error) = link.call::<Empty>("Pause", &pause) {
        // Not every host has a freezer; then the runtime says so.
        assert!(error.message.starts_with("OCI runtime pause failed"), "{}", error.message);
        return;
    }
    let state: api::StateResponse = link.call("State", &shim.state_request("")).unwrap();
    assert_eq!(state.status, 4);
    let exec = link.call::<Empty>("Exec", &shim.exec_request("e", &["true"]));
    assert_eq!(exec.unwrap_err().code, 9);
    let _: Empty = link.call("Resume", &api::ResumeRequest { id: shim.id.clone() }).unwrap();
    let state: api::StateResponse = link.call("State", &shim.state_request("")).unwrap();
    assert_eq!(state.status, 2);
    let _: Empty = link.call("Pause", &pause).unwrap();
    let wait = link.send("Wait", &shim.wait_request(""));
    let _: Empty = link.call("Kill", &shim.kill_request(9)).unwrap();
    assert_eq!(link.receive::<api::WaitResponse>(wait).unwrap().exit_status, 137);
}

#[test]
fn events_wait_for_containerd_and_are_repeated_until_acknowledged() {
    let shim = Shim::start("true");
    let mut link = shim.connect();
    let _: api::CreateTaskResponse = link.call("Create", &shim.create_request()).unwrap();
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    let _: api::WaitResponse = link.call("Wait", &shim.wait_request("")).unwrap();
    let mut events = Events::listen(&shim);
    assert_eq!(events.topics(2), ["/tasks/create", "/tasks/start"]);
    assert_eq!(events.next(false), "/tasks/exit");
    drop(events);
    let mut events = Events::listen(&shim);
    let _: api::DeleteResponse = link.call("Delete", &shim.delete_request("")).unwrap();
    assert_eq!(events.topics(2), ["/tasks/exit", "/tasks/delete"]);
}

/// containerd and its client may both be gone while the runtime is at work.
#[test]
fn a_delete_waits_for_the_creation_under_way() {
    let shim = Shim::start("sleep 60");
    let (begun, go) = (shim.fifo("begun"), shim.fifo("go"));
    let runtime = shim.path("slow-runtime");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *' create '*) echo >{begun}; read x <{go};; esac\nexec {} \"$@\"\n",
        ours("runc-rs").display(),
    );
    std::fs::write(&runtime, script).unwrap();
    std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut asking = shim.connect();
    asking.send("Create", &shim.create_request_with(&runtime));
    drop(std::fs::read(&begun).unwrap());
    drop(asking);

    let mut link = shim.connect();
    let delete = link.send("Delete", &shim.delete_request(""));
    let state: api::StateResponse = link.call("State", &shim.state_request("")).unwrap();
    assert_eq!((state.pid, state.status), (0, 1));
    assert!(!link.has_answer(delete));
    std::fs::write(&go, "\n").unwrap();
    let deleted: api::DeleteResponse = link.receive(delete).unwrap();
    assert!(deleted.pid > 0);
    assert_eq!(deleted.exit_status, 137);
    let gone = link.call::<api::StateResponse>("State", &shim.state_request("")).unwrap_err();
    assert_eq!(gone.message, format!("container {}: not found", shim.id));
}

#[test]
fn after_the_shims_death_delete_cleans_up() {
    let shim = Shim::start("sleep 60");
    let mut link = shim.connect();
    let created: api::CreateTaskResponse = link.call("Create", &shim.create_request()).unwrap();
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim.pid()), nix::sys::signal::SIGKILL)
        .unwrap();
    until("the shim is dead", || !shim.is_alive());
    let output = shim.program().arg("delete").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer = api::DeleteResponse::decode(output.stdout.as_slice()).unwrap();
    assert_eq!((answer.pid, answer.exit_status), (created.pid, 137));
    let process = format!("/proc/{}/root/bin/busybox", created.pid);
    until("the container is dead", || !std::path::Path::new(&process).exists());
    assert!(!shim.socket().exists());
}

#[test]
fn a_terminal_is_resized_and_ends_with_its_process() {
    let shim = Shim::start_with("stty size; read x; stty size; exit 4", |config| {
        config["process"]["terminal"] = true.into();
    });
    let mut link = shim.connect();
    let (input, output) = (shim.fifo("in"), shim.fifo("out"));
    let reader = open_reader(&output);
    let request = api::CreateTaskRequest {
        terminal: true,
        stdin: input.clone(),
        stdout: output,
        ..shim.create_request()
    };
    let _: api::CreateTaskResponse = link.call("Create", &request).unwrap();
    let resize = |width, height| api::ResizePtyRequest {
        id: shim.id.clone(),
        exec_id: String::new(),
        width,
        height,
    };
    let _: Empty = link.call("ResizePty", &resize(91, 17)).unwrap();
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    let mut writer = std::fs::OpenOptions::new().write(true).open(&input).unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 256];
    until("the first size", || {
        let count = std::io::Read::read(&mut &reader, &mut buffer).unwrap_or(0);
        seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        seen.contains("17 91\r\n")
    });
    let _: Empty = link.call("ResizePty", &resize(100, 40)).unwrap();
    writer.write_all(b"\n").unwrap();
    let ended: api::WaitResponse = link.call("Wait", &shim.wait_request("")).unwrap();
    assert_eq!(ended.exit_status, 4);
    let _: api::DeleteResponse = link.call("Delete", &shim.delete_request("")).unwrap();
    assert!(read_all(reader).contains("40 100\r\n"));
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
