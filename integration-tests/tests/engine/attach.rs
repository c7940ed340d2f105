//! Attach: with and without `Upgrade`, half close, detach keys, terminals, history.

use integration_tests::pool::lease;
use serde_json::{Value, json};

use crate::{PATIENT, ready, shell, with};

const ALL: &str = "stream=1&stdin=1&stdout=1&stderr=1";

fn cat() -> Value {
    json!({"Image": "busybox", "Cmd": ["sh", "-c", "echo begun >&2; cat; echo end"],
        "OpenStdin": true, "StdinOnce": true, "AttachStdin": true})
}

#[test]
fn what_is_sent_comes_back_and_a_half_close_ends_the_input() {
    let stack = lease();
    let api = stack.api();
    let id = api.create("", &cat());
    let mut stream = api.hijack(&format!("/containers/{id}/attach?{ALL}"), None, true);
    let head = stream.head.to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("\r\nupgrade: tcp"), "{head}");
    assert!(head.contains("content-type: application/vnd.docker.raw-stream"), "{head}");
    api.post(&format!("/containers/{id}/start")).expect(204);
    stream.until("begun\n");
    stream.send("over and\n");
    stream.until("over and\n");
    stream.send("out\n");
    stream.close_write();
    let (out, err) = stream.frames();
    assert_eq!((&*out, &*err), ("out\nend\n", ""));
    assert_eq!(api.wait(&id), 0);
    let logs = api.get(&format!("/containers/{id}/logs?stdout=1&stderr=1")).expect(200);
    assert_eq!(logs.streams(), ("over and\nout\nend\n".to_owned(), "begun\n".to_owned()));
}

/// `POST` of an attach, without `Upgrade` and without the end of the head.
fn plain(id: &str, version: &str) -> String {
    format!("POST /v{version}/containers/{id}/attach?{ALL} HTTP/1.1\r\nHost: docker\r\n")
}

fn is_bare(head: &str) -> bool {
    let head = head.to_lowercase();
    head.starts_with("http/1.1 200 ok\r\n")
        && !["\r\ncontent-length:", "\r\ntransfer-encoding:", "\r\nconnection:", "\r\nupgrade:"]
            .iter()
            .any(|name| head.contains(name))
}

#[test]
fn without_upgrade_the_connection_is_a_byte_stream_both_ways() {
    let stack = lease();
    let api = stack.api();
    for length in ["", "Content-Length: 0\r\n"] {
        let id = api.create("", &cat());
        let mut stream = api.raw(&format!("{}{length}\r\n", plain(&id, "1.41")));
        assert!(is_bare(&stream.head), "{}", stream.head);
        assert!(
            stream.head.contains("Content-Type: application/vnd.docker.raw-stream"),
            "{}",
            stream.head
        );
        api.post(&format!("/containers/{id}/start")).expect(204);
        stream.until("begun\n");
        stream.send("over and\n");
        stream.until("over and\n");
        stream.send("out\n");
        stream.close_write();
        assert_eq!(stream.frames(), ("out\nend\n".to_owned(), String::new()));
        assert_eq!(api.wait(&id), 0);
    }
    if !stack.is_stock() {
        let id = api.create("", &cat());
        let stream = api.raw(&format!("{}\r\n", plain(&id, "1.42")));
        let kind = "Content-Type: application/vnd.docker.multiplexed-stream";
        assert!(is_bare(&stream.head) && stream.head.contains(kind), "{}", stream.head);
    }
}

#[test]
fn a_connection_is_attached_after_other_requests_on_it() {
    let stack = lease();
    let api = stack.api();
    let id = api.create("", &cat());
    let mut stream = api.raw("GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n");
    stream.until("OK");
    stream.request(&format!("GET /v1.41/containers/{id}/logs HTTP/1.1\r\nHost: docker\r\n\r\n"));
    assert_eq!(stream.status, 400, "{}", stream.head);
    stream.until("}\n");
    stream.request(&format!("{}Content-Length: 0\r\n\r\n", plain(&id, "1.41")));
    assert!(is_bare(&stream.head), "{}", stream.head);
    api.post(&format!("/containers/{id}/start")).expect(204);
    stream.until("begun\n");
    stream.send("hello\n");
    stream.close_write();
    assert_eq!(stream.frames().0, "hello\nend\n");
    let mut unknown = api.raw(&format!("{}\r\n", plain("nope", "1.41")));
    assert_eq!(unknown.status, 404, "{}", unknown.head);
    unknown.until("No such container: nope");
}

#[test]
fn input_sent_as_a_request_body_reaches_the_process() {
    let stack = lease();
    let api = stack.api();
    // What is sent, and what arrives: dockerd takes the framing for input.
    let chunks = "6\r\nhello\n\r\n0\r\n\r\n";
    let decoded = if stack.is_stock() { chunks } else { "hello\n" };
    let rows = [
        ("Transfer-Encoding: chunked\r\n", chunks, decoded),
        ("Content-Length: 6\r\n", "hello\nand more\n", "hello\nand more\n"),
    ];
    for (header, sent, arrives) in rows {
        let id = api.create("", &cat());
        let mut stream = api.raw(&format!("{}{header}\r\n", plain(&id, "1.41")));
        assert!(is_bare(&stream.head), "{}", stream.head);
        api.post(&format!("/containers/{id}/start")).expect(204);
        stream.until("begun\n");
        stream.send(sent);
        if sent == arrives {
            stream.close_write();
        }
        assert_eq!(stream.frames().0, format!("{arrives}end\n"), "{header}");
        assert_eq!(api.wait(&id), 0);
    }
}

#[test]
fn input_that_comes_with_the_request_is_not_lost() {
    let stack = lease();
    let api = stack.api();
    // dockerd forgets what it had read beyond the head.
    let kept = if stack.is_stock() { "" } else { "early\n" };
    let rows = [
        ("", "early\n"),
        ("Content-Length: 6\r\n", "early\n"),
        ("Transfer-Encoding: chunked\r\n", "6\r\nearly\n\r\n0\r\n\r\n"),
    ];
    for (header, early) in rows {
        let id = api.create("", &cat());
        let mut stream = api.raw(&format!("{}{header}\r\n{early}", plain(&id, "1.41")));
        stream.close_write();
        api.post(&format!("/containers/{id}/start")).expect(204);
        assert_eq!(stream.frames().0, format!("{kept}end\n"), "{header}");
    }
}

#[test]
fn several_clients_see_the_same_and_one_may_leave() {
    let stack = lease();
    let api = stack.api();
    let id = ready(&stack, "c1", &shell(PATIENT));
    let attach = || api.hijack("/containers/c1/attach?stream=1&stdout=1", None, true);
    let (mut first, mut second, third) = (attach(), attach(), attach());
    drop(third);
    api.post("/containers/c1/kill?signal=USR1").expect(204);
    assert!(first.until("got\n").len() < 20);
    assert!(second.until("got\n").len() < 20, "no history without logs=1");
    drop(first);
    api.post("/containers/c1/kill?signal=USR1").expect(204);
    second.until("got\n");
    // History, and then what comes.
    let mut late = api.hijack("/containers/c1/attach?logs=1&stream=1&stdout=1", None, true);
    late.until("ready\n");
    late.until("got\n");
    late.until("got\n");
    api.post("/containers/c1/kill?signal=USR1").expect(204);
    late.until("got\n");
    let mut history = api.hijack("/containers/c1/attach?logs=1&stdout=1", None, true);
    assert_eq!(history.frames().0, "ready\ngot\ngot\ngot\n");
    api.post(&format!("/containers/{id}/stop")).expect(204);
    late.all();
}

#[test]
fn a_terminal_is_raw_and_can_be_resized_and_left() {
    let stack = lease();
    let api = stack.api();
    let body = json!({"Image": "busybox", "Tty": true, "OpenStdin": true, "Cmd": ["sh"],
        "Env": ["PS1=prompt> "]});
    let id = api.create("t1", &body);
    let attach = |keys: &str| api.hijack(&format!("/containers/t1/attach?{ALL}{keys}"), None, true);
    let mut stream = attach("");
    api.post("/containers/t1/start").expect(204);
    stream.until("prompt> ");
    api.post("/containers/t1/resize?h=41&w=87").expect(200);
    stream.send("stty size\n");
    stream.until("41 87\r\n");
    stream.send("echo $TERM; tty\n");
    stream.until("xterm\r\n");
    stream.until("/dev/pts/0\r\n");
    // ctrl-p ctrl-q
    stream.send("\x10\x11");
    stream.all();
    assert_eq!(api.inspect(&id)["State"]["Running"], true);
    let mut stream = attach("&detachKeys=ctrl-x,x");
    stream.send("echo ag''ain\n");
    stream.until("again\r\n");
    stream.send("\x18x");
    stream.all();
    assert_eq!(api.inspect(&id)["State"]["Running"], true);
    let mut stream = attach("");
    stream.send("exit 5\n");
    stream.all();
    assert_eq!(api.wait(&id), 5);
    let bad = api.post("/containers/t1/attach?detachKeys=nope-x&stream=1&stdout=1").expect(400);
    assert!(bad.message().contains("nope-x"), "{}", bad.message());
}

#[test]
fn paused_and_unknown_containers_are_refused() {
    let stack = lease();
    let api = stack.api();
    ready(&stack, "p1", &shell(PATIENT));
    api.post("/containers/p1/pause").expect(204);
    let refused = api.post("/containers/p1/attach?stream=1&stdout=1").expect(409);
    assert_eq!(refused.message(), "container p1 is paused, unpause the container before attach");
    api.post("/containers/p1/unpause").expect(204);
    let unknown = api.post("/containers/nope/attach?stream=1&stdout=1").expect(404);
    assert_eq!(unknown.message(), "No such container: nope");
}

#[test]
fn much_output_arrives_whole() {
    let stack = lease();
    let api = stack.api();
    let id = api.create("m1", &with(shell("seq 1 200000; seq 1 1000 >&2"), json!({})));
    let mut stream =
        api.hijack(&format!("/containers/{id}/attach?stream=1&stdout=1&stderr=1"), None, true);
    api.post("/containers/m1/start").expect(204);
    let (out, err) = stream.frames();
    let wanted = |last: u32| (1..=last).map(|n| format!("{n}\n")).collect::<String>();
    assert!(out == wanted(200_000), "{} bytes", out.len());
    assert!(err == wanted(1000), "{} bytes", err.len());
    let (out, err) =
        api.get(&format!("/containers/{id}/logs?stdout=1&stderr=1")).expect(200).streams();
    assert!(out == wanted(200_000), "{} bytes", out.len());
    assert!(err == wanted(1000), "{} bytes", err.len());
}
