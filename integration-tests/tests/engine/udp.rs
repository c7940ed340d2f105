//! Published UDP ports, both directions. The servers and clients are sockets of the test in the
//! namespaces concerned.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use integration_tests::Stack;
use integration_tests::pool::lease;
use integration_tests::sandbox::PATIENCE;
use serde_json::{Value, json};

use crate::networks::{Outside, address, on_network_of};
use crate::{sleeper, with};

fn published(host_port: &str) -> Value {
    with(
        sleeper(),
        json!({"ExposedPorts": {"5000/udp": {}},
            "HostConfig": {"PortBindings": {"5000/udp": [{"HostPort": host_port}]}}}),
    )
}

fn pid(stack: &Stack, container: &str) -> i32 {
    i32::try_from(stack.api().inspect(container)["State"]["Pid"].as_i64().unwrap()).unwrap()
}

/// A socket in a container's namespace.
fn inside(stack: &Stack, container: &str, address: &str) -> UdpSocket {
    patient(on_network_of(stack, pid(stack, container), || UdpSocket::bind(address).unwrap()))
}

fn patient(socket: UdpSocket) -> UdpSocket {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> (String, std::net::SocketAddr) {
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), from)
}

/// Answers with its name and what it was sent, until told to end.
fn serve(socket: UdpSocket, name: &'static str) {
    std::thread::spawn(move || {
        loop {
            let mut buffer = [0; 64];
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
            let text = format!("{name} {}", String::from_utf8_lossy(&buffer[..length]));
            // A client that has left does not matter.
            socket.send_to(text.as_bytes(), from).ok();
        }
    });
}

#[test]
fn a_published_udp_port_carries_both_directions() {
    let stack = lease();
    let api = stack.api();
    api.run("u1", &published("5300"));
    api.run("u2", &sleeper());
    let told = api.inspect("u1");
    assert_eq!(told["NetworkSettings"]["Ports"]["5000/udp"][0]["HostPort"], "5300");
    let gateway = told["NetworkSettings"]["Gateway"].as_str().unwrap().to_owned();
    let server = inside(&stack, "u1", "0.0.0.0:5000");
    let outside = Outside::of(&stack);
    let there = patient(outside.on_network(|| UdpSocket::bind("10.99.0.2:0").unwrap()));
    let direct = format!("{}:5000", address(&stack, "u1"));
    let ways = [
        ("the host's loopback", patient(stack.sandbox().udp()), "127.0.0.1:5300".to_owned()),
        ("the host itself", patient(stack.sandbox().udp()), format!("{gateway}:5300")),
        ("the host, directly", patient(stack.sandbox().udp()), direct.clone()),
        ("another machine", there, "10.99.0.1:5300".to_owned()),
        ("a neighbour", inside(&stack, "u2", "0.0.0.0:0"), direct),
        ("a neighbour over the host", inside(&stack, "u2", "0.0.0.0:0"), format!("{gateway}:5300")),
        ("the container itself", inside(&stack, "u1", "0.0.0.0:0"), format!("{gateway}:5300")),
    ];
    for (from, client, to) in &ways {
        client.send_to(from.as_bytes(), to).unwrap();
        let (question, peer) = receive(&server);
        assert_eq!(question, *from);
        for answer in ["one", "two"] {
            server.send_to(answer.as_bytes(), peer).unwrap();
            let (heard, source) = receive(client);
            assert_eq!((&*heard, &*source.to_string()), (answer, &**to), "{from}");
        }
    }
    drop(ways);
    outside.end();
}

/// Asks until the answer is the wanted one: what was sent before the port answered is lost.
fn ask(client: &UdpSocket, to: &str, wanted: &str) {
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut last = String::new();
    while Instant::now() < deadline {
        // Nobody there is an error of the next call.
        client.send_to(b"hello", to).ok();
        let mut buffer = [0; 64];
        match client.recv_from(&mut buffer) {
            Ok((length, _)) => last = String::from_utf8_lossy(&buffer[..length]).into_owned(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
            Err(error) => panic!("{error}"),
        }
        if last == wanted {
            return;
        }
    }
    panic!("{wanted:?} wanted, {last:?} heard last");
}

#[test]
fn a_flow_follows_the_port_to_its_next_container() {
    let stack = lease();
    let api = stack.api();
    // One flow of the client all the time: the kernel remembers where it went.
    let outside = Outside::of(&stack);
    let machine = outside.on_network(|| UdpSocket::bind("10.99.0.2:0").unwrap());
    let clients = [(machine, "10.99.0.1:5301"), (stack.sandbox().udp(), "127.0.0.1:5301")];
    for (client, to) in &clients {
        client.send_to(b"nobody there", to).unwrap();
    }
    for name in ["first", "second"] {
        api.run(name, &published("5301"));
        serve(inside(&stack, name, "0.0.0.0:5000"), name);
        for (client, to) in &clients {
            ask(client, to, &format!("{name} hello"));
        }
        api.delete(&format!("/containers/{name}?force=1")).expect(204);
        // Takes its address, so that the next container has another.
        api.run(&format!("after-{name}"), &sleeper());
        for (client, to) in &clients {
            client.send_to(b"nobody there", to).unwrap();
        }
    }
    drop(clients);
    outside.end();
}

#[test]
fn without_inter_container_traffic_only_published_ports_are_reached() {
    let stack = Stack::from_environment().with_busybox().argument("--icc=false").start();
    let api = stack.api();
    api.run("u1", &published("5302"));
    api.run("u2", &sleeper());
    let gateway = api.inspect("u1")["NetworkSettings"]["Gateway"].as_str().unwrap().to_owned();
    let server = inside(&stack, "u1", "0.0.0.0:5000");
    let client = inside(&stack, "u2", "0.0.0.0:0");
    client.send_to(b"directly", format!("{}:5000", address(&stack, "u1"))).unwrap();
    client.send_to(b"over the host", format!("{gateway}:5302")).unwrap();
    let (first, peer) = receive(&server);
    assert_eq!(first, "over the host");
    server.send_to(b"answer", peer).unwrap();
    assert_eq!(receive(&client).0, "answer");
    stack.end();
}
