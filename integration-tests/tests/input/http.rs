//! What is no HTTP, or more of it than anybody needs: raw bytes on the socket.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use integration_tests::Stack;
use integration_tests::sandbox::{PATIENCE, until};

use crate::world::World;

/// A connection on which anything can be said.
pub(crate) fn connect(stack: &Stack) -> UnixStream {
    let socket = UnixStream::connect(stack.socket()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Everything the engine says until it closes.
pub(crate) fn rest(socket: &mut UnixStream) -> String {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    loop {
        match socket.read(&mut part) {
            Ok(0) => break,
            Ok(count) => all.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&all)),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// What a client gets that says this and nothing more: the status, or nothing at all.
fn status(stack: &Stack, said: &[u8]) -> String {
    let mut socket = connect(stack);
    // It may have heard enough before the end.
    drop(socket.write_all(said));
    drop(socket.shutdown(Shutdown::Write));
    let answer = rest(&mut socket);
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Bytes, stock's status, ours. Nothing is a connection that is closed without a word.
const GARBAGE: &[(&str, &str, &str, &str)] = &[
    ("nothing", "", "", ""),
    ("an empty line and the end", "\r\n", "400", ""),
    ("words", "nope nope nope\r\n\r\n", "400", "400"),
    ("one word", "GET\r\n\r\n", "400", "400"),
    ("half a head", "GET /_ping HTTP/1.1\r\nHost: d", "400", ""),
    ("a version from the future", "GET /_ping HTTP/9.9\r\nHost: d\r\n\r\n", "505", "400"),
    ("no host", "GET /_ping HTTP/1.1\r\nConnection: close\r\n\r\n", "400", "200"),
    ("the beginning of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "301", ""),
    ("the beginning of TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\n\n", "400", "400"),
    ("zero bytes", "\0\0\0\0\0\0\0\0\r\n\r\n", "400", "400"),
    ("a header without colon", "GET /_ping HTTP/1.1\r\nHost: d\r\nnope\r\n\r\n", "400", "400"),
    ("a header with a space", "GET /_ping HTTP/1.1\r\nHost: d\r\na b: c\r\n\r\n", "400", "400"),
    ("a header with a zero byte", "GET /_ping HTTP/1.1\r\nHost: d\r\na: \0\r\n\r\n", "400", "400"),
    (
        "a length in letters",
        "POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: abc\r\n\r\n",
        "400",
        "400",
    ),
    (
        "a negative length",
        "POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n",
        "400",
        "400",
    ),
    (
        "two lengths",
        "POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "400",
        "400",
    ),
    (
        "an unknown encoding",
        "POST /x HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: nope\r\n\r\n",
        "501",
        "400",
    ),
    (
        "a broken escape in the path",
        "GET /%zz HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "400",
        "400",
    ),
    ("no slash", "GET nope HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n", "400", "400"),
    (
        "a proxy's request",
        "CONNECT nope:1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "301",
        "404",
    ),
    (
        "an expectation of nobody's",
        "POST /x HTTP/1.1\r\nHost: d\r\nExpect: nope\r\nContent-Length: 1\r\n\r\na",
        "417",
        "404",
    ),
    (
        "a chunk of no size",
        "POST /v1.41/containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nnope\r\n{}\r\n",
        "500",
        "400",
    ),
    (
        "a chunk larger than anything",
        "POST /v1.41/containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n",
        "500",
        "400",
    ),
    (
        "a body shorter than its length",
        "POST /v1.41/containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"Image\":\"busybox\"",
        "500",
        "400",
    ),
];

#[test]
fn garbage_is_refused_and_the_engine_goes_on() {
    let world = World::new();
    let mut wrong = Vec::new();
    for (name, said, stock, ours) in GARBAGE {
        let expected = if world.is_stock() { stock } else { ours };
        let answer = status(&world, said.as_bytes());
        if answer != *expected {
            wrong.push(format!("{name}: {expected:?} wanted, {answer:?} came"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.unchanged().unwrap();
}

#[test]
fn a_head_without_end_is_refused() {
    let world = World::new();
    let mut socket = connect(&world);
    drop(socket.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\nX-Much: "));
    let part = [b'x'; 64 << 10];
    let mut sent = 0;
    while sent < 8 << 20 && socket.write_all(&part).is_ok() {
        sent += part.len();
    }
    assert!(sent < 8 << 20, "all of it was read");
    let answer = rest(&mut socket);
    assert_eq!(answer.split(' ').nth(1), Some("431"), "{answer}");
    world.unchanged().unwrap();
}

#[test]
fn a_long_query_is_heard() {
    let world = World::new();
    // As many labels as fit into half a head.
    let filters = format!("{{\"label\":[\"{}\"]}}", "x".repeat(30_000));
    let filters = filters.replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
    let answer = world.api().get(&format!("/containers/json?all=1&filters={filters}")).expect(200);
    assert_eq!(answer.json(), serde_json::json!([]));
}

#[test]
fn a_body_without_end_is_refused_in_bounded_memory() {
    let world = World::new();
    let before = memory(&world);
    let mut socket = connect(&world);
    let head = "POST /v1.41/containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n2\r\n{\"\r\n";
    socket.write_all(head.as_bytes()).unwrap();
    let part = format!("10000\r\n{}\r\n", "x".repeat(64 << 10));
    let mut sent = 0;
    while sent < 96 << 20 && socket.write_all(part.as_bytes()).is_ok() {
        sent += part.len();
    }
    drop(socket.shutdown(Shutdown::Write));
    let answer = rest(&mut socket);
    if world.is_stock() {
        assert_eq!(answer.split(' ').nth(1), Some("500"), "{answer}");
    } else {
        // The answer may be lost with what was on its way to us.
        assert!(matches!(answer.split(' ').nth(1), None | Some("400")), "{answer}");
        assert!(sent < 96 << 20, "all of it was read");
        let grown = memory(&world).saturating_sub(before);
        assert!(grown < 48 << 10, "{grown} KiB more");
    }
    world.unchanged().unwrap();
}

#[test]
fn slow_clients_do_not_keep_others_waiting() {
    let world = World::new();
    let before = (memory(&world), sockets(&world));
    let mut slow = Vec::new();
    for number in 0..400 {
        let mut socket = connect(&world);
        // Half of them in the head, half in the body.
        let said: &[u8] = if number % 2 == 0 {
            b"GET /v1.41/containers/json HT"
        } else {
            b"POST /v1.41/containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n\
              Content-Length: 1000\r\n\r\n{\"Ima"
        };
        socket.write_all(said).unwrap();
        slow.push(socket);
    }
    let id =
        world.api().run("meanwhile", &serde_json::json!({"Image": "busybox", "Cmd": ["true"]}));
    assert_eq!(world.api().wait(&id), 0);
    world.api().delete("/containers/meanwhile").expect(204);
    if !world.is_stock() {
        let grown = memory(&world).saturating_sub(before.0);
        assert!(grown < 32 << 10, "{grown} KiB more for 400 connections");
    }
    drop(slow);
    until("the connections are gone", || sockets(&world) <= before.1);
    world.unchanged().unwrap();
}

#[test]
fn answers_come_in_the_order_of_the_questions() {
    let world = World::new();
    let mut socket = connect(&world);
    let ask = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: d\r\n{more}\r\n");
    let all = ask("/v1.41/containers/nope/json", "")
        + &ask("/nope", "")
        + &ask("/_ping", "Connection: close\r\n");
    socket.write_all(all.as_bytes()).unwrap();
    let answers = rest(&mut socket);
    let at = |needle: &str| answers.find(needle).unwrap_or_else(|| panic!("{needle}: {answers}"));
    assert!(at("No such container: nope") < at("page not found"), "{answers}");
    assert!(at("page not found") < at("200 OK"), "{answers}");
    assert!(answers.ends_with("OK"), "{answers}");
}

/// What the engine and containerd hold in memory, in KiB.
pub(crate) fn memory(stack: &Stack) -> u64 {
    let daemons = [stack.engine(), stack.containerd()];
    daemons.iter().map(|&pid| resident(stack.sandbox().outside(pid))).sum()
}

/// What a process holds in memory, in KiB.
pub(crate) fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The sockets that the engine and containerd hold open.
pub(crate) fn sockets(stack: &Stack) -> usize {
    [stack.engine(), stack.containerd()]
        .iter()
        .map(|&pid| {
            let pid = stack.sandbox().outside(pid);
            let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
            targets.filter(|target| target.display().to_string().starts_with("socket:")).count()
        })
        .sum()
}
