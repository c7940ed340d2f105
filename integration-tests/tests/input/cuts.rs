//! Connections that end before the request or the answer does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};

use integration_tests::image::{archive, layer};
use integration_tests::sandbox::{PATIENCE, until};
use integration_tests::{Stack, image};
use serde_json::{Value, json};

use crate::http::{connect, rest, sockets};
use crate::world::World;

/// Images, containers and volumes, as the engine tells them.
pub(crate) fn told(stack: &Stack) -> (Vec<String>, usize, usize) {
    let api = stack.api();
    let count = |list: &Value| list.as_array().map_or(0, Vec::len);
    let images = api.get("/images/json?all=1").expect(200).json();
    let mut images: Vec<String> =
        images.as_array().unwrap().iter().map(|image| image["RepoTags"].to_string()).collect();
    images.sort();
    let containers = count(&api.get("/containers/json?all=1").expect(200).json());
    let volumes = count(&api.get("/volumes").expect(200).json()["Volumes"]);
    (images, containers, volumes)
}

/// Waits until no more connections are held than before. Stock keeps some of its own for later.
pub(crate) fn let_go(stack: &Stack, before: usize) {
    if !stack.is_stock() {
        until("the connections are gone", || sockets(stack) <= before);
    }
}

fn post(path: &str, kind: &str, length: usize) -> Vec<u8> {
    format!(
        "POST /v1.41{path} HTTP/1.1\r\nHost: d\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes()
}

/// A small image that nobody has.
fn small() -> Vec<u8> {
    let files: Vec<(String, String)> =
        (0..20).map(|number| (format!("f{number}"), "x".repeat(3000))).collect();
    let entries: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
    archive("test/cut:1", &json!({"author": "cut"}), &[layer(&entries), layer(&[("g", "y")])])
}

#[test]
fn a_request_that_is_cut_anywhere_does_nothing() {
    let world = World::new();
    let before = (told(&world), sockets(&world));
    let body = json!({"Image": "busybox", "Cmd": ["true"], "Volumes": {"/v": {}}}).to_string();
    let mut whole = post("/containers/create?name=cut", "application/json", body.len());
    whole.extend_from_slice(body.as_bytes());
    for end in 1..whole.len() {
        let mut socket = connect(&world);
        socket.write_all(&whole[..end]).unwrap();
        // Every second one says goodbye and listens, the others vanish.
        if end % 2 == 0 {
            socket.shutdown(Shutdown::Write).unwrap();
            let answer = rest(&mut socket);
            assert!(!answer.contains("201 Created"), "after {end} bytes: {answer}");
        }
    }
    let_go(&world, before.1);
    assert_eq!(told(&world), before.0);
    world.unchanged().unwrap();
}

#[test]
fn a_load_that_is_cut_leaves_nothing() {
    let world = World::new();
    let before = (told(&world), sockets(&world));
    let tar = small();
    // Past the last entry only the two empty blocks are missing, and nothing of the image.
    let content = tar.len() - 1024;
    for part in 0..24 {
        let end = content * part / 24 + part * 7;
        let mut socket = connect(&world);
        socket.write_all(&post("/images/load", "application/x-tar", tar.len())).unwrap();
        socket.write_all(&tar[..end]).unwrap();
        if part % 2 == 0 {
            socket.shutdown(Shutdown::Write).unwrap();
            let answer = rest(&mut socket);
            assert!(!answer.contains("Loaded image"), "after {end} bytes: {answer}");
        }
    }
    let_go(&world, before.1);
    assert_eq!(told(&world), before.0);
    world.unchanged().unwrap();
}

#[test]
fn an_import_that_is_cut_leaves_nothing() {
    let world = World::new();
    let before = (told(&world), sockets(&world));
    let tar = layer(&[("a", &"x".repeat(40_000)), ("b", "y")]);
    for part in 0..16 {
        let end = tar.len() * part / 16;
        let mut socket = connect(&world);
        let path = "/images/create?fromSrc=-&repo=test/cut&tag=2";
        socket.write_all(&post(path, "application/x-tar", tar.len())).unwrap();
        socket.write_all(&tar[..end]).unwrap();
        if part % 2 == 0 {
            socket.shutdown(Shutdown::Write).unwrap();
            rest(&mut socket);
        }
    }
    let_go(&world, before.1);
    assert_eq!(told(&world), before.0);
    world.unchanged().unwrap();
}

/// A registry that tells an image's manifest and stops in the middle of its layer; gives its address
/// and hears when somebody waits for the rest.
fn stalling_registry(stack: &Stack) -> (String, std::sync::mpsc::Receiver<()>) {
    let listener = stack.sandbox().on_network(|| TcpListener::bind("127.0.0.1:0")).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let (tell, told) = std::sync::mpsc::channel();
    let config = json!({"os": "linux", "architecture": image::architecture(),
        "rootfs": {"type": "layers", "diff_ids": [image::digest(b"never seen")]}})
    .to_string();
    let manifest = json!({"schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json",
            "size": config.len(), "digest": image::digest(config.as_bytes())},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar", "size": 1_000_000,
            "digest": image::digest(b"never seen")}]})
    .to_string();
    let serve = move |mut client: std::net::TcpStream| {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n")
            && client
                .read(&mut byte)
                .is_ok_and(|n| n == 1 && byte[0].is_ascii_graphic() | b" \r\n".contains(&byte[0]))
        {
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let whole = |kind: &str, body: &str| {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
                     Docker-Content-Digest: {}\r\nConnection: close\r\n\r\n{}",
                body.len(),
                image::digest(body.as_bytes()),
                if head.starts_with("HEAD") { "" } else { body }
            )
        };
        let answer = if head.contains("/manifests/") {
            whole(kind, &manifest)
        } else if head.contains(&image::digest(config.as_bytes())) {
            whole("application/octet-stream", &config)
        } else if head.contains("/blobs/") {
            drop(client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhalf"));
            tell.send(()).unwrap_or_default();
            // Until the other side has had enough.
            drop(client.read(&mut [0]));
            return;
        } else {
            whole("application/json", "{}")
        };
        drop(client.write_all(answer.as_bytes()));
    };
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(client));
        }
    });
    (host, told)
}

#[test]
fn a_pull_that_nobody_waits_for_is_given_up() {
    let world = World::new();
    let (host, stalled) = stalling_registry(&world);
    let before = (told(&world), sockets(&world));
    for round in 0..3 {
        let mut socket = connect(&world);
        let path = format!("/images/create?fromImage={host}/some/where&tag={round}");
        socket.write_all(&post(&path, "text/plain", 0)).unwrap();
        stalled.recv_timeout(PATIENCE).expect("the layer is asked for");
        drop(socket);
        let_go(&world, before.1);
    }
    assert_eq!(told(&world), before.0);
    world.unchanged().unwrap();
}

#[test]
fn streams_that_are_cut_are_let_go_and_the_container_goes_on() {
    let world = World::new();
    let api = world.api();
    let body = json!({"Image": "busybox", "OpenStdin": true,
        "Cmd": ["sh", "-c", "while read line; do echo got $line; done"]});
    api.run("talker", &body);
    let descriptors = || {
        let pid = world.sandbox().outside(world.engine());
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    };
    let stop = |path: &str| {
        let mut socket = connect(&world);
        socket.write_all(format!("{path} HTTP/1.1\r\nHost: d\r\n\r\n").as_bytes()).unwrap();
        let mut some = [0; 12];
        socket.read_exact(&mut some).unwrap();
        assert_eq!(&some, b"HTTP/1.1 200", "{path}");
    };
    let paths = [
        "GET /v1.41/containers/talker/logs?stdout=1&follow=1",
        "GET /v1.41/containers/talker/logs?stdout=1&follow=1&tail=0",
        "POST /v1.41/containers/talker/wait",
        "POST /v1.41/containers/talker/wait?condition=next-exit",
        "POST /v1.41/containers/talker/wait?condition=removed",
        "POST /v1.41/containers/talker/attach?stream=1&stdout=1&stdin=1",
        "GET /v1.41/events",
    ];
    let round = || {
        for path in paths {
            stop(path);
        }
        drop(api.hijack("/containers/talker/attach?stream=1&stdout=1&stderr=1", None, true));
    };
    let before = descriptors();
    for _ in 0..10 {
        round();
    }
    // Who has nothing to tell does not find out that nobody listens.
    let mut again = api.hijack("/containers/talker/attach?stream=1&stdin=1&stdout=1", None, true);
    // Its own are the connection, the output and the input.
    // Stock keeps a reader of each log until the container writes, and more.
    until("all of it is let go", || {
        again.send("two\n");
        again.until("got two");
        world.is_stock() || descriptors() <= before + 3
    });
    drop(again);
    assert_eq!(api.inspect("talker")["State"]["Running"], true);
    api.delete("/containers/talker?force=1").expect(204);
    world.unchanged().unwrap();
}

#[test]
fn an_exec_whose_client_is_gone_has_read_all_it_gets() {
    let world = World::new();
    let api = world.api();
    let started = sockets(&world);
    let exec = |command: &[&str], stdin: bool| {
        let body = json!({"Cmd": command, "AttachStdin": stdin, "AttachStdout": true});
        let answer = api.post_json("/containers/running/exec", &body).expect(201);
        let id = answer.json()["Id"].as_str().unwrap().to_owned();
        let start = json!({"Detach": false, "Tty": false});
        (id.clone(), api.hijack(&format!("/exec/{id}/start"), Some(&start), true))
    };
    let (reader, mut stream) = exec(&["cat"], true);
    stream.send("said\n");
    stream.until("said");
    drop(stream);
    until("cat has read its end", || {
        api.get(&format!("/exec/{reader}/json")).expect(200).json()["Running"] == false
    });
    assert_eq!(api.get(&format!("/exec/{reader}/json")).expect(200).json()["ExitCode"], 0);
    let script = "echo said; read line < /fifo; echo heard > /heard";
    let (worker, mut stream) = exec(&["sh", "-c", &format!("mkfifo /fifo; {script}")], false);
    stream.until("said");
    drop(stream);
    let (_, mut stream) = exec(&["sh", "-c", "echo go > /fifo"], false);
    stream.all();
    until("the work is done", || {
        api.get(&format!("/exec/{worker}/json")).expect(200).json()["Running"] == false
    });
    assert_eq!(api.get(&format!("/exec/{worker}/json")).expect(200).json()["ExitCode"], 0);
    let (_, mut stream) = exec(&["sh", "-c", "cat /heard; rm /heard /fifo"], false);
    assert_eq!(stream.frames().0, "heard\n");
    let_go(&world, started);
    world.unchanged().unwrap();
}
