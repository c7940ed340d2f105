//! Garbage at the seams below the API: containerd's socket, the shim's, and from the programs that
//! containerd and the shim start.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use integration_tests::leaks::Inventory;
use integration_tests::sandbox::PATIENCE;
use integration_tests::{Stack, parts};
use serde_json::json;

use crate::cuts::let_go;
use crate::http::{memory, resident, sockets};
use crate::world::World;

/// Says it, and waits until the other side has had enough.
fn say(socket: &Path, what: &[u8]) {
    let mut socket = UnixStream::connect(socket).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may have heard enough before the end.
    drop(socket.write_all(what));
    drop(socket.shutdown(Shutdown::Write));
    let mut part = [0; 4096];
    while socket.read(&mut part).is_ok_and(|count| count > 0) {}
}

/// An HTTP/2 frame.
fn frame(length: u32, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[test]
fn garbage_at_containerds_socket_is_let_go() {
    let world = World::new();
    let own = world.root().join("c/c.sock");
    let engines = world.sandbox().path(world.exec_root()).join("containerd/containerd.sock");
    let socket = if own.exists() { own } else { engines };
    let before = sockets(&world);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let settings = frame(0, 4, 0, 0, &[]);
    let start = [preface.clone(), settings].concat();
    let noise: Vec<u8> =
        (0..100_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let mut said = vec![
        Vec::new(),
        b"nope\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: c\r\n\r\n".to_vec(),
        vec![0; 100_000],
        noise.clone(),
        preface,
        [&start[..], &noise].concat(),
    ];
    for (length, kind, flags, stream, payload) in [
        (0x00ff_ffff, 0, 0, 1, &noise[..]),
        (5, 4, 0, 0, &noise[..5]),
        (50, 1, 4, 1, &noise[..50]),
        (50, 1, 4, 2, &noise[..50]),
        (4, 3, 0, 99, &noise[..4]),
        (4, 8, 0, 0, &[0; 4]),
        (8, 7, 0, 0, &noise[..8]),
        (3, 0xee, 0xff, 0x7fff_ffff, &noise[..3]),
    ] {
        said.push([&start[..], &frame(length, kind, flags, stream, payload)].concat());
    }
    for what in &said {
        say(&socket, what);
    }
    let_go(&world, before);
    works(&world);
    world.unchanged().unwrap();
}

fn works(stack: &Stack) {
    let api = stack.api();
    let id = api.run("works", &json!({"Image": "busybox", "Cmd": ["true"]}));
    assert_eq!(api.wait(&id), 0);
    api.delete("/containers/works").expect(204);
}

/// Where the shim of a container listens, as the test can reach it.
fn shim_socket(stack: &Stack, id: &str) -> PathBuf {
    fn find(at: &Path, id: &str, depth: usize) -> Option<PathBuf> {
        for entry in fs::read_dir(at).ok()?.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if name == "bootstrap.json" || name == "address" {
                if at.ends_with(id) {
                    return Some(path);
                }
            } else if depth > 0
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
                && let Some(found) = find(&path, id, depth - 1)
            {
                return Some(found);
            }
        }
        None
    }
    let run = stack.sandbox().path("/run");
    let file = find(&run, id, 6).expect("what the shim answered is kept");
    let text = fs::read_to_string(file).unwrap();
    let address = &text[text.find("unix://").unwrap() + 7..];
    let address = address.split(['"', '\n']).next().unwrap();
    stack.sandbox().path(address)
}

#[test]
fn garbage_at_the_shims_socket_leaves_the_container_alone() {
    let world = World::new();
    let api = world.api();
    let id = api.inspect("running")["Id"].as_str().unwrap().to_owned();
    let socket = shim_socket(&world, &id);
    let shim = || {
        let all = world.sandbox().processes();
        let own =
            |command: &[String]| command.contains(&id) && command[0].contains("containerd-shim");
        all.iter().find(|process| own(&process.command)).expect("the shim lives").pid
    };
    let (pid, before) = (shim(), resident(shim()));
    let noise: Vec<u8> =
        (0..100_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let ttrpc = |length: u32, stream: u32, kind: u8, payload: &[u8]| {
        let mut frame = length.to_be_bytes().to_vec();
        frame.extend(stream.to_be_bytes());
        frame.extend([kind, 0]);
        frame.extend(payload);
        frame
    };
    let said = [
        Vec::new(),
        noise.clone(),
        vec![0; 10_000],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        ttrpc(u32::MAX, 1, 1, &noise),
        ttrpc(4 << 20, 1, 1, &noise),
        ttrpc(100, 1, 1, &noise[..50]),
        ttrpc(100, 1, 1, &noise[..100]),
        ttrpc(100, 2, 1, &noise[..100]),
        ttrpc(100, 1, 9, &noise[..100]),
        ttrpc(100, 1, 2, &noise[..100]),
        ttrpc(0, 1, 1, &[]),
        // A service that is none.
        ttrpc(8, 1, 1, b"\x0a\x01x\x12\x01y\x1a\x00"),
        // The task service, a method that is none, and one with a body that is none.
        ttrpc(30, 1, 1, b"\x0a\x17containerd.task.v2.Task\x12\x01y\x1a\x00"),
        ttrpc(37, 1, 1, b"\x0a\x17containerd.task.v2.Task\x12\x05State\x1a\x03\xff\xff\xff"),
    ];
    for what in &said {
        say(&socket, what);
    }
    assert_eq!(shim(), pid, "the same shim");
    let grown = resident(pid).saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more");
    let body = json!({"Cmd": ["echo", "alive"], "AttachStdout": true});
    let exec = api.post_json("/containers/running/exec", &body).expect(201).json()["Id"].clone();
    let start = json!({"Detach": false, "Tty": false});
    let path = format!("/exec/{}/start", exec.as_str().unwrap());
    assert_eq!(api.hijack(&path, Some(&start), true).frames().0, "alive\n");
    world.unchanged().unwrap();
}

/// A program of the shell's that does what the test says next.
struct Odd {
    directory: tempfile::TempDir,
}

impl Odd {
    fn new(name: &str, head: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let odd = Self { directory };
        let script = format!("#!/bin/sh\n{head}\n. {}\n", odd.next().display());
        fs::write(odd.program(name), script).unwrap();
        fs::set_permissions(odd.program(name), fs::Permissions::from_mode(0o755)).unwrap();
        odd.does("exit 1");
        odd
    }

    fn program(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn next(&self) -> PathBuf {
        self.directory.path().join("next")
    }

    fn does(&self, what: &str) {
        fs::write(self.next(), format!("{what}\n")).unwrap();
    }
}

/// Starts a container over the odd program, for each of what it does; the answer is an error with
/// these words, and nothing is left.
fn starts_fail(stack: &Stack, odd: &Odd, cases: &[(&str, &str)]) {
    let api = stack.api();
    let id = api.create("odd", &json!({"Image": "busybox", "Cmd": ["true"]}));
    let mut before = None;
    let least = memory(stack);
    for (what, words) in cases {
        odd.does(what);
        let answer = api.try_call(http::Method::POST, "/containers/odd/start", None);
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error:#}"));
        let told = answer.message();
        assert!((400..=500).contains(&answer.status), "{what}: {} {told}", answer.status);
        assert!(told.contains(words), "{what}: {told}");
        assert!(told.len() < 10_000, "{what}: {} bytes", told.len());
        assert_eq!(api.inspect(&id)["State"]["Status"], "created", "{what}");
        // The first start makes what all others use.
        match &before {
            None => before = Some(Inventory::take(stack)),
            Some(before) => before.compare(stack).unwrap_or_else(|left| panic!("{what}:\n{left}")),
        }
    }
    let grown = memory(stack).saturating_sub(least);
    assert!(grown < 32 << 10, "{grown} KiB more");
    api.delete("/containers/odd").expect(204);
}

#[test]
fn a_shim_that_talks_nonsense_is_an_error() {
    let odd = Odd::new("containerd-shim-runc-rs-v2", "case \"$*\" in *delete*) exit 0;; esac");
    let shim = odd.program("containerd-shim-runc-rs-v2");
    let stack = Stack::ours().shim(shim).with_busybox().start();
    starts_fail(
        &stack,
        &odd,
        &[
            ("exit 1", "shim"),
            ("echo why it failed >&2; exit 7", "why it failed"),
            ("exit 0", "shim"),
            ("echo nonsense", "nonsense"),
            ("printf '\\377\\376\\000\\001'", "shim"),
            ("echo '{\"version\":3}'", "shim"),
            ("echo '{\"version\":9,\"address\":\"unix:///x\",\"protocol\":\"ttrpc\"}'", "9"),
            ("echo unix:///no/such/socket", "unix:///no/such/socket"),
            ("echo unix:///etc/passwd", "unix:///etc/passwd"),
            ("yes nonsense | head -c 50000000", "nonsense"),
            ("yes nonsense | head -c 50000000 >&2; exit 1", "nonsense"),
            ("kill -9 $$", "signal"),
        ],
    );
    stack.end();
}

#[test]
fn a_runtime_that_talks_nonsense_is_an_error() {
    let real = parts::ours("runc-rs");
    let head = format!(
        "log=/dev/null; last=; for word; do [ \"$last\" = --log ] && log=$word; last=$word; done\n\
         case \" $* \" in *' create '*) ;; *) exec {} \"$@\";; esac",
        real.display()
    );
    let odd = Odd::new("runc-rs", &head);
    let stack = Stack::ours().runtime(odd.program("runc-rs")).with_busybox().start();
    starts_fail(
        &stack,
        &odd,
        &[
            ("exit 1", "create failed"),
            ("echo nonsense > $log; exit 1", "create failed"),
            ("printf '\\377\\376\\000\\001' > $log; exit 1", "create failed"),
            ("echo '{\"level\":\"error\",\"msg\":\"the reason\"}' > $log; exit 1", "the reason"),
            ("echo '{\"level\":\"error\",\"msg\":5}' > $log; exit 1", "create failed"),
            ("echo '{\"level\":\"error\",\"msg\":\"half' > $log; exit 1", "create failed"),
            ("yes nonsense | head -c 50000000 > $log; exit 1", "create failed"),
            ("head -c 50000000 /dev/zero | tr '\\0' x > $log; exit 1", "create failed"),
            ("kill -9 $$", "create failed"),
            ("exit 0", "init.pid"),
        ],
    );
    odd.does(&format!("exec {} \"$@\"", real.display()));
    works(&stack);
    stack.end();
}
