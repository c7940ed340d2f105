//! The predefined networks: addresses, NAT, published ports, shared namespaces.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use integration_tests::Stack;
use integration_tests::pool::{Lease, lease};
use integration_tests::sandbox::{PATIENCE, until};
use serde_json::{Value, json};

use crate::{in_container, output, shell, sleeper, with};

fn web(ports: &Value) -> Value {
    with(
        json!({"Image": "busybox", "Cmd": ["httpd", "-f", "-p", "80", "-h", "/var/www"]}),
        json!({"HostConfig": {"PortBindings": ports}}),
    )
}

fn get(stack: &Lease, address: &str) -> String {
    let address: SocketAddr = address.parse().unwrap();
    let mut answer = String::new();
    until("the server answers", || {
        answer.clear();
        let Ok(mut socket) = stack.sandbox().connect(address) else { return false };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(b"GET / HTTP/1.0\r\n\r\n").is_ok()
            && socket.read_to_string(&mut answer).is_ok()
            && answer.contains("200 OK")
    });
    answer
}

pub(crate) fn address(stack: &Stack, container: &str) -> String {
    let told = stack.api().inspect(container);
    told["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str().unwrap().to_owned()
}

/// Another machine, 10.99.0.2: a network namespace at the other end of a veth pair.
pub(crate) struct Outside<'a> {
    stack: &'a Lease,
    inner: i32,
}

impl<'a> Outside<'a> {
    pub(crate) fn of(stack: &'a Lease) -> Self {
        let log = stack.root().join("log/outside");
        let command = ["unshare", "-n", "sleep", "1000"].map(str::to_owned);
        let path = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        let inner = stack.sandbox().spawn(&log, &path, &command);
        until("another namespace", || {
            let both = format!("readlink /proc/1/ns/net /proc/{inner}/ns/net | sort -u | wc -l");
            stack.inside(&["sh", "-c", &both]).stdout.trim() == "2"
        });
        let script = format!(
            "ip link add up0 type veth peer name up1 netns {inner} &&
             ip addr add 10.99.0.1/24 dev up0 && ip link set up0 up &&
             nsenter -t {inner} -n ip addr add 10.99.0.2/24 dev up1 &&
             nsenter -t {inner} -n ip link set up1 up"
        );
        stack.inside(&["sh", "-ec", &script]).ok();
        Self { stack, inner }
    }

    pub(crate) fn on_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_network_of(self.stack, self.inner, work)
    }

    pub(crate) fn end(self) {
        self.stack.sandbox().signal(self.inner, libc::SIGKILL);
        self.stack.sandbox().wait(self.inner);
        until("the pair is gone", || !self.stack.inside(&["ip", "link"]).stdout.contains("up0"));
    }
}

/// Runs a closure on a thread in the network namespace of a process of the sandbox.
pub(crate) fn on_network_of<T: Send>(
    stack: &Stack,
    pid: i32,
    work: impl FnOnce() -> T + Send,
) -> T {
    let outside = stack.sandbox().outside(pid);
    let namespace = std::fs::File::open(format!("/proc/{outside}/ns/net")).unwrap();
    let enter = move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
}

#[test]
fn three_networks_are_there_from_the_beginning() {
    let stack = lease();
    let api = stack.api();
    let list = api.get("/networks").expect(200).json();
    let mut names: Vec<(&str, &str)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|n| (n["Name"].as_str().unwrap(), n["Driver"].as_str().unwrap()))
        .collect();
    names.sort_unstable();
    assert_eq!(names, [("bridge", "bridge"), ("host", "host"), ("none", "null")]);
    let bridge = api.get("/networks/bridge").expect(200).json();
    assert_eq!(bridge["Scope"], "local");
    assert_eq!(bridge["Id"].as_str().unwrap().len(), 64);
    let pool = &bridge["IPAM"]["Config"][0];
    let subnet = pool["Subnet"].as_str().unwrap();
    assert!(subnet.ends_with("/16"), "{subnet}");
    assert!(pool["Gateway"].as_str().unwrap().ends_with(".0.1"), "{pool}");
    assert_eq!(bridge["Options"]["com.docker.network.bridge.default_bridge"], "true");
    assert_eq!(bridge["Containers"], json!({}));
    let id = api.run("c1", &sleeper());
    let bridge =
        api.get(&format!("/networks/{}", bridge["Id"].as_str().unwrap())).expect(200).json();
    let endpoint = &bridge["Containers"][&id];
    assert_eq!(endpoint["Name"], "c1");
    assert_eq!(endpoint["IPv4Address"], format!("{}/16", address(&stack, "c1")));
    let unknown = api.get("/networks/nope").expect(404);
    assert_eq!(unknown.message(), "network nope not found");
}

#[test]
fn a_container_has_an_address_a_route_and_names() {
    let stack = lease();
    let api = stack.api();
    api.run(
        "c1",
        &with(
            sleeper(),
            json!({"Hostname": "me", "HostConfig": {"ExtraHosts": ["other:10.1.2.3"],
        "Dns": ["10.9.8.7"], "DnsSearch": ["example.org"], "DnsOptions": ["ndots:2"]}}),
        ),
    );
    let settings = api.inspect("c1")["NetworkSettings"].clone();
    let own = &settings["Networks"]["bridge"];
    assert_eq!(settings["IPAddress"], own["IPAddress"]);
    let (ip, gateway) = (own["IPAddress"].as_str().unwrap(), own["Gateway"].as_str().unwrap());
    let links = in_container(&stack, "c1", "ls /sys/class/net");
    assert!(links.split_whitespace().eq(["eth0", "lo"]), "{links}");
    let shown = in_container(&stack, "c1", "ip -4 addr show eth0; cat /sys/class/net/eth0/address");
    assert!(shown.contains(&format!("inet {ip}/16")), "{shown}");
    assert!(shown.contains(own["MacAddress"].as_str().unwrap()), "{shown}");
    let route = in_container(&stack, "c1", "ip route");
    assert!(route.contains(&format!("default via {gateway} dev eth0")), "{route}");
    let hosts = in_container(&stack, "c1", "cat /etc/hosts");
    assert!(
        hosts.contains(&format!("{ip}\tme\n")) || hosts.ends_with(&format!("{ip}\tme")),
        "{hosts}"
    );
    assert!(hosts.contains("127.0.0.1\tlocalhost"), "{hosts}");
    assert!(hosts.contains("10.1.2.3\tother"), "{hosts}");
    let resolv = in_container(&stack, "c1", "cat /etc/resolv.conf");
    for line in ["nameserver 10.9.8.7", "search example.org", "options ndots:2"] {
        assert!(resolv.lines().any(|found| found == line), "{resolv}");
    }
    assert_eq!(in_container(&stack, "c1", "hostname"), "me");
    // Neighbours and the host.
    api.run("d1", &sleeper());
    assert_ne!(address(&stack, "d1"), ip);
    in_container(&stack, "d1", &format!("ping -c 1 -W 5 {ip} >/dev/null"));
    let busybox = integration_tests::parts::busybox();
    stack.inside(&[busybox.to_str().unwrap(), "ping", "-c", "1", "-W", "5", ip]).ok();
}

#[test]
fn addresses_are_given_back() {
    let stack = lease();
    let api = stack.api();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let id = api.run("", &sleeper());
        seen.insert(address(&stack, &id));
        api.delete(&format!("/containers/{id}?force=1")).expect(204);
    }
    let id = api.run("", &sleeper());
    let told = address(&stack, &id);
    api.post(&format!("/containers/{id}/kill")).expect(204);
    api.wait(&id);
    until("a stopped container holds none", || address(&stack, &id).is_empty());
    assert!(told.starts_with("172.") || told.starts_with("192.168."), "{told} {seen:?}");
}

#[test]
fn a_published_port_answers_from_everywhere() {
    let stack = lease();
    let api = stack.api();
    let ports = json!({"80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": ""}]});
    api.run("web", &web(&ports));
    let told = api.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"].clone();
    let told = told.as_array().unwrap().iter().filter(|binding| binding["HostIp"] != "::");
    let told: Vec<&Value> = told.collect();
    assert_eq!(told[0], &json!({"HostIp": "0.0.0.0", "HostPort": "8080"}));
    assert_eq!(told[1]["HostIp"], "127.0.0.1");
    let chosen: u16 = told[1]["HostPort"].as_str().unwrap().parse().unwrap();
    assert!((32768..=60999).contains(&chosen) || chosen >= 49153, "{chosen}");
    let gateway = api.inspect("web")["NetworkSettings"]["Gateway"].as_str().unwrap().to_owned();
    assert!(get(&stack, "127.0.0.1:8080").contains("private stack"));
    assert!(get(&stack, &format!("127.0.0.1:{chosen}")).contains("private stack"));
    assert!(get(&stack, &format!("{gateway}:8080")).contains("private stack"));
    let direct = format!("{}:80", address(&stack, "web"));
    assert!(get(&stack, &direct).contains("private stack"));
    // From a neighbour over the host's address, and from the container itself.
    let fetch = format!("wget -q -O - http://{gateway}:8080/");
    assert_eq!(output(&stack, &shell(&fetch)), "made by a private stack");
    assert_eq!(in_container(&stack, "web", &fetch), "made by a private stack");
    let list = api.get("/containers/json").expect(200).json();
    assert!(
        list[0]["Ports"].as_array().unwrap().contains(
            &json!({"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"})
        ),
        "{list}"
    );
    // In use: the text is dockerd's, and the container is not running.
    let second = api.create("second", &web(&json!({"80/tcp": [{"HostPort": "8080"}]})));
    let refused = api.post("/containers/second/start").expect(500);
    assert!(refused.message().contains("port is already allocated"), "{}", refused.message());
    assert_eq!(api.inspect(&second)["State"]["Running"], false);
    // Free again.
    api.post("/containers/web/kill").expect(204);
    api.wait("web");
    until("the port is free", || api.post("/containers/second/start").status == 204);
    assert!(get(&stack, "127.0.0.1:8080").contains("private stack"));
    api.delete("/containers/second?force=1").expect(204);
    let refused = stack.sandbox().connect("127.0.0.1:8080".parse().unwrap());
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_port_of_the_host_is_not_taken_away() {
    let stack = lease();
    let api = stack.api();
    let held = stack.sandbox().on_network(|| TcpListener::bind("0.0.0.0:8099")).unwrap();
    api.create("web", &web(&json!({"80/tcp": [{"HostPort": "8099"}]})));
    let refused = api.post("/containers/web/start").expect(500);
    assert!(refused.message().contains("address already in use"), "{}", refused.message());
    drop(held);
    api.post("/containers/web/start").expect(204);
    assert!(get(&stack, "127.0.0.1:8099").contains("private stack"));
}

#[test]
fn every_exposed_port_is_published_when_asked() {
    let stack = lease();
    let api = stack.api();
    let body = json!({"Image": "busybox", "Cmd": ["httpd", "-f", "-p", "80", "-h", "/var/www"],
        "ExposedPorts": {"80/tcp": {}, "81/udp": {}}, "HostConfig": {"PublishAllPorts": true}});
    api.run("all", &body);
    let ports = api.inspect("all")["NetworkSettings"]["Ports"].clone();
    let port = ports["80/tcp"][0]["HostPort"].as_str().unwrap();
    assert!(get(&stack, &format!("127.0.0.1:{port}")).contains("private stack"));
    assert!(ports["81/udp"][0]["HostPort"].as_str().is_some(), "{ports}");
}

#[test]
fn the_way_out_is_masqueraded() {
    let stack = lease();
    if stack.is_stock() {
        // Without iptables, stock cannot masquerade.
        return;
    }
    let outside = Outside::of(&stack);
    let listener = outside.on_network(|| TcpListener::bind("10.99.0.2:7000").unwrap());
    let server = std::thread::spawn(move || {
        let (mut socket, peer) = listener.accept().unwrap();
        socket.write_all(b"from outside\n").unwrap();
        peer.ip().to_string()
    });
    assert_eq!(output(&stack, &shell("nc 10.99.0.2 7000 </dev/null")), "from outside");
    assert_eq!(server.join().unwrap(), "10.99.0.1", "the host's address, not the container's");
    outside.end();
}

#[test]
fn none_and_host_and_a_neighbours_network() {
    let stack = lease();
    let api = stack.api();
    let links = |body: Value| output(&stack, &with(shell("ls /sys/class/net | xargs"), body));
    assert_eq!(links(json!({"HostConfig": {"NetworkMode": "none"}})), "lo");
    let host = links(json!({"HostConfig": {"NetworkMode": "host"}}));
    let wanted = stack.inside(&["sh", "-c", "ls /sys/class/net | xargs"]).ok();
    assert_eq!(host, wanted.trim());
    api.run("first", &web(&json!({})));
    let shared = json!({"HostConfig": {"NetworkMode": "container:first"}});
    let script = "wget -q -O - http://127.0.0.1/; readlink /proc/self/ns/net";
    let out = output(&stack, &with(shell(script), shared));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "made by a private stack");
    assert_eq!(lines[1], in_container(&stack, "first", "readlink /proc/self/ns/net"));
    let unknown = with(sleeper(), json!({"HostConfig": {"NetworkMode": "nope"}}));
    let answer = api.post_json("/containers/create", &unknown);
    let refused = if answer.status == 201 {
        api.post(&format!("/containers/{}/start", answer.json()["Id"].as_str().unwrap()))
    } else {
        answer
    };
    assert_eq!(refused.status, 404, "{}", refused.text());
    assert!(refused.message().contains("network nope not found"), "{}", refused.message());
}

#[test]
fn a_neighbours_network_comes_with_its_names() {
    let stack = lease();
    let api = stack.api();
    let first = with(
        sleeper(),
        json!({"Hostname": "first", "Domainname": "example.org",
        "HostConfig": {"ExtraHosts": ["other:10.1.2.3"], "Dns": ["10.9.8.7"]}}),
    );
    let first = api.run("first", &first);
    let mode = json!({"HostConfig": {"NetworkMode": "container:first"}});
    let second = api.create("second", &with(sleeper(), mode.clone()));
    // Until its start it goes by its own name.
    assert_eq!(api.inspect("second")["Config"]["Hostname"], second[..12]);
    api.post("/containers/second/start").expect(204);
    let (one, two) = (api.inspect("first"), api.inspect("second"));
    assert_eq!(two["HostConfig"]["NetworkMode"], format!("container:{first}"));
    assert_eq!(two["Config"]["Hostname"], "first");
    assert_eq!(two["Config"]["Domainname"], "example.org");
    for path in ["HostnamePath", "HostsPath", "ResolvConfPath"] {
        assert!(one[path].as_str().unwrap().contains(&first), "{}", one[path]);
        assert_eq!(one[path], two[path], "{path}");
    }
    assert_eq!(two["NetworkSettings"]["Networks"], json!({}));
    let names = "hostname; echo $HOSTNAME; cat /etc/hostname /etc/hosts /etc/resolv.conf";
    let told = in_container(&stack, "second", names);
    assert!(told.starts_with("first\nfirst\nfirst\n"), "{told}");
    assert_eq!(told, in_container(&stack, "first", names));
    // The files are one, the names of the machine are two.
    in_container(&stack, "first", "echo 10.4.5.6 added >> /etc/hosts");
    assert_eq!(in_container(&stack, "second", "grep added /etc/hosts"), "10.4.5.6 added");
    let uts = "readlink /proc/self/ns/uts";
    assert_ne!(in_container(&stack, "first", uts), in_container(&stack, "second", uts));
    // It cannot be joined when it does not run, or by itself.
    api.delete("/containers/second?force=1").expect(204);
    api.post("/containers/first/kill").expect(204);
    api.create("second", &with(sleeper(), mode));
    let refused = api.post("/containers/second/start").expect(409);
    assert_eq!(
        refused.message(),
        format!("cannot join network of a non running container: {first}")
    );
    let own = json!({"HostConfig": {"NetworkMode": "container:third"}});
    api.create("third", &with(sleeper(), own));
    let refused = api.post("/containers/third/start").expect(500);
    assert_eq!(refused.message(), "cannot join own network");
}
