//! Logs that the shim writes, and the live socket beside them.

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use proto::containerd::task::v2 as api;
use serde_json::Value;

use crate::client::{PATIENCE, Shim, open_reader, read_all};

struct Frame {
    stream: u8,
    offset: u64,
    payload: Vec<u8>,
}

fn attach(shim: &Shim) -> UnixStream {
    let socket = UnixStream::connect(shim.path("a.s")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// All frames up to the end.
fn frames(socket: &mut UnixStream) -> Vec<Frame> {
    let mut all = Vec::new();
    let mut header = [0; 16];
    while socket.read_exact(&mut header).is_ok() {
        let length = u32::from_be_bytes(header[4..8].try_into().unwrap());
        let mut payload = vec![0; length as usize];
        socket.read_exact(&mut payload).unwrap();
        let offset = u64::from_be_bytes(header[8..].try_into().unwrap());
        all.push(Frame { stream: header[0], offset, payload });
    }
    all
}

fn text(frames: &[Frame], stream: u8) -> String {
    let parts = frames.iter().filter(|frame| frame.stream == stream);
    String::from_utf8(parts.flat_map(|frame| frame.payload.clone()).collect()).unwrap()
}

fn create(shim: &Shim, link: &mut crate::client::Connection, parameters: &str) {
    let log = shim.path("x-json.log");
    let socket = shim.path("a.s");
    let uri = format!("json-file://{}?attach={}{parameters}", log.display(), socket.display());
    let request =
        api::CreateTaskRequest { stdout: uri.clone(), stderr: uri, ..shim.create_request() };
    let _: api::CreateTaskResponse = link.call("Create", &request).unwrap();
}

fn start_and_wait(shim: &Shim, link: &mut crate::client::Connection) -> u32 {
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    let ended: api::WaitResponse = link.call("Wait", &shim.wait_request("")).unwrap();
    ended.exit_status
}

fn records(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_log_is_complete_when_the_exit_is_told() {
    let shim = Shim::start("echo one; echo '<two>' >&2; echo -n end");
    let mut link = shim.connect();
    create(&shim, &mut link, "&attrs=%7B%22tag%22:%22t%22%7D");
    let mut client = attach(&shim);
    assert_eq!(start_and_wait(&shim, &mut link), 0);
    let log = fs::read_to_string(shim.path("x-json.log")).unwrap();
    let records = records(&log);
    let mut logs: Vec<(&str, &str)> = records
        .iter()
        .map(|r| (r["stream"].as_str().unwrap(), r["log"].as_str().unwrap()))
        .collect();
    // The two pipes are read one after the other.
    logs.sort_unstable();
    assert_eq!(logs, [("stderr", "<two>\n"), ("stdout", "end"), ("stdout", "one\n")]);
    assert!(log.contains("\\u003ctwo\\u003e"), "{log}");
    assert!(records.iter().all(|record| record["attrs"]["tag"] == "t"));
    let frames = frames(&mut client);
    assert_eq!(text(&frames, 1), "one\nend");
    assert_eq!(text(&frames, 2), "<two>\n");
    let _: api::DeleteResponse = link.call("Delete", &shim.delete_request("")).unwrap();
    assert!(!shim.path("a.s").exists());
}

#[test]
fn history_and_live_output_join_at_the_offset() {
    let shim = Shim::start("seq 1 500; read x; seq 501 2000");
    let mut link = shim.connect();
    let log = shim.path("x-json.log");
    let uri = format!("json-file://{}?attach={}", log.display(), shim.path("a.s").display());
    let input = shim.fifo("in");
    let request = api::CreateTaskRequest {
        stdin: input.clone(),
        stdout: uri.clone(),
        stderr: uri,
        ..shim.create_request()
    };
    let _: api::CreateTaskResponse = link.call("Create", &request).unwrap();
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    crate::lifecycle::until("the first half", || {
        fs::read_to_string(&log).unwrap().lines().count() == 500
    });
    let mut client = attach(&shim);
    fs::write(&input, "\n").unwrap();
    let frames = frames(&mut client);
    let offset = usize::try_from(frames[0].offset).unwrap();
    let whole = fs::read_to_string(&log).unwrap();
    let history: String =
        records(&whole[..offset]).iter().map(|r| r["log"].as_str().unwrap().to_owned()).collect();
    let joined = history + &text(&frames, 1);
    let wanted: String = (1..=2000).map(|n| format!("{n}\n")).collect();
    assert_eq!(joined, wanted);
}

#[test]
fn an_exec_listens_before_its_start() {
    let shim = Shim::start("sleep 60");
    let mut link = shim.connect();
    let _: api::CreateTaskResponse = link.call("Create", &shim.create_request()).unwrap();
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    let uri = format!(
        "json-file://{}?discard=1&attach={}",
        shim.path("e.log").display(),
        shim.path("a.s").display()
    );
    for terminal in [false, true] {
        let exec = api::ExecProcessRequest {
            stdout: uri.clone(),
            stderr: if terminal { String::new() } else { uri.clone() },
            terminal,
            ..shim.exec_request("e", &["sh", "-c", "echo at once"])
        };
        let _: () = link.call("Exec", &exec).unwrap();
        // Whoever is there before the start misses nothing, however short the process lives.
        let mut client = attach(&shim);
        let _: api::StartResponse = link.call("Start", &shim.start_request("e")).unwrap();
        let wanted = if terminal { "at once\r\n" } else { "at once\n" };
        assert_eq!(text(&frames(&mut client), 1), wanted);
        let ended: api::WaitResponse = link.call("Wait", &shim.wait_request("e")).unwrap();
        assert_eq!(ended.exit_status, 0);
        let _: api::DeleteResponse = link.call("Delete", &shim.delete_request("e")).unwrap();
        assert!(!shim.path("a.s").exists());
    }
    // One that is never started leaves nothing either.
    let exec = api::ExecProcessRequest { stdout: uri, ..shim.exec_request("e", &["true"]) };
    let _: () = link.call("Exec", &exec).unwrap();
    assert!(shim.path("a.s").exists());
    let _: api::DeleteResponse = link.call("Delete", &shim.delete_request("e")).unwrap();
    assert!(!shim.path("a.s").exists());
}

#[test]
fn a_client_that_does_not_read_holds_the_container_but_not_the_shim() {
    let shim = Shim::start("seq 1 1000000");
    let mut link = shim.connect();
    create(&shim, &mut link, "&discard=1");
    let mut slow = attach(&shim);
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    let wait = link.send("Wait", &shim.wait_request(""));
    std::thread::sleep(Duration::from_millis(500));
    let state: api::StateResponse = link.call("State", &shim.state_request("")).unwrap();
    assert_eq!(state.status, 2, "7 MB do not fit into what may be buffered");
    let frames = frames(&mut slow);
    let wanted: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
    assert!(text(&frames, 1) == wanted, "not every byte arrived once");
    assert_eq!(link.receive::<api::WaitResponse>(wait).unwrap().exit_status, 0);
    assert!(!shim.path("x-json.log").exists(), "discard writes no log");
}

#[test]
fn a_client_that_leaves_lets_the_container_go_on() {
    let shim = Shim::start("seq 1 1000000");
    let mut link = shim.connect();
    create(&shim, &mut link, "");
    let slow = attach(&shim);
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    let wait = link.send("Wait", &shim.wait_request(""));
    std::thread::sleep(Duration::from_millis(200));
    drop(slow);
    assert_eq!(link.receive::<api::WaitResponse>(wait).unwrap().exit_status, 0);
    let log = fs::read_to_string(shim.path("x-json.log")).unwrap();
    assert_eq!(log.lines().count(), 1_000_000);
    assert!(log.lines().last().unwrap().contains("\"log\":\"1000000\\n\""));
}

#[test]
fn a_rotated_log_loses_no_line() {
    let shim = Shim::start("seq 1 20000");
    let mut link = shim.connect();
    create(&shim, &mut link, "&max-size=200000&max-file=20");
    assert_eq!(start_and_wait(&shim, &mut link), 0);
    let mut all = String::new();
    for number in (1..20).rev() {
        let path = shim.path(&format!("x-json.log.{number}"));
        all += &fs::read_to_string(path).unwrap_or_default();
    }
    all += &fs::read_to_string(shim.path("x-json.log")).unwrap();
    let lines: Vec<String> =
        records(&all).iter().map(|r| r["log"].as_str().unwrap().to_owned()).collect();
    assert_eq!(lines, (1..=20_000).map(|n| format!("{n}\n")).collect::<Vec<_>>());
    assert!(shim.path("x-json.log.5").exists());
}

#[test]
fn a_grandchild_that_holds_the_pipe_does_not_hold_the_exit() {
    let shim = Shim::start("sleep 60");
    let mut link = shim.connect();
    let _: api::CreateTaskResponse = link.call("Create", &shim.create_request()).unwrap();
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    let output = shim.fifo("out");
    let reader = open_reader(&output);
    let exec = api::ExecProcessRequest {
        stdout: output,
        ..shim.exec_request("e", &["sh", "-c", "sleep 60 & echo said"])
    };
    let _: () = link.call("Exec", &exec).unwrap();
    let _: api::StartResponse = link.call("Start", &shim.start_request("e")).unwrap();
    let begun = std::time::Instant::now();
    let ended: api::WaitResponse = link.call("Wait", &shim.wait_request("e")).unwrap();
    assert_eq!(ended.exit_status, 0);
    let _: api::DeleteResponse = link.call("Delete", &shim.delete_request("e")).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(read_all(reader), "said\n");
}

#[test]
fn a_file_uri_is_appended_to() {
    let shim = Shim::start("echo more");
    let mut link = shim.connect();
    let path = shim.path("plain");
    fs::write(&path, "had\n").unwrap();
    let stdout = format!("file://{}", path.display());
    let request = api::CreateTaskRequest { stdout, ..shim.create_request() };
    let _: api::CreateTaskResponse = link.call("Create", &request).unwrap();
    assert_eq!(start_and_wait(&shim, &mut link), 0);
    assert_eq!(fs::read_to_string(path).unwrap(), "had\nmore\n");
}
