//! Published ports where others have to do with the host's network too.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use integration_tests::parts::{self, Peers};
use integration_tests::sandbox::{PATIENCE, until};
use integration_tests::{Output, image};

use crate::client::feed;
use crate::engine::{fetch, read_page};
use crate::row::World;

const WEB: [&str; 5] = ["busybox", "httpd", "-f", "-h", "/var/www"];

/// Another machine: a network namespace at the other end of a veth pair, 10.99.0.2 beside the
/// sandbox's 10.99.0.1.
struct Machine<'a> {
    world: &'a World,
    inner: i32,
}

impl<'a> Machine<'a> {
    fn start(world: &'a World) -> Self {
        let sandbox = world.stack.sandbox();
        let command = ["unshare", "-n", "sleep", "1000"].map(str::to_owned);
        let path = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        let inner = sandbox.spawn(&world.stack.root().join("log/machine"), &path, &command);
        let outside = sandbox.outside(inner);
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        until("another namespace", || namespace(outside) != namespace(sandbox.init()));
        let script = format!(
            "ip link add up0 type veth peer name up1 netns {inner} && ip addr add 10.99.0.1/24 dev up0 &&
             ip link set up0 up && nsenter -t {inner} -n ip addr add 10.99.0.2/24 dev up1 &&
             nsenter -t {inner} -n ip link set up1 up"
        );
        world.stack.inside(&["sh", "-ec", &script]).ok();
        Self { world, inner }
    }

    /// The page that it sees at a port of the sandbox.
    fn fetch(&self, port: u16) -> String {
        let outside = self.world.stack.sandbox().outside(self.inner);
        let namespace = fs::File::open(format!("/proc/{outside}/ns/net")).expect("a namespace");
        let connect = std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
            let address = format!("10.99.0.1:{port}").parse().expect("an address");
            TcpStream::connect_timeout(&address, PATIENCE)
        });
        connect.join().expect("it only connects").map_or_else(|_| String::new(), read_page)
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        let sandbox = self.world.stack.sandbox();
        sandbox.signal(self.inner, libc::SIGKILL);
        sandbox.wait(self.inner);
        let links = sandbox.path("/sys/class/net/up0");
        until("the pair is gone", || !links.exists());
    }
}

pub(crate) fn ports_from_outside(world: &World) {
    let machine = Machine::start(world);
    published(world, &machine);
}

/// As ufw, firewalld and Docker leave a host: what is forwarded without being allowed is dropped.
pub(crate) fn forward_drop(world: &World) {
    let machine = Machine::start(world);
    world.stack.stop_engine();
    iptables(world, &["-P", "FORWARD", "DROP"]);
    world.stack.start_engine();
    published(world, &machine);
    world.stack.stop_engine();
    iptables(world, &["-P", "FORWARD", "ACCEPT"]);
    world.stack.start_engine();
}

/// Docker itself, with its own rules: it goes on, and so do we.
pub(crate) fn another_docker(world: &World) {
    let machine = Machine::start(world);
    let sandbox = world.stack.sandbox();
    let place = world.stack.root().join("home/docker");
    fs::create_dir_all(&place).expect("a directory");
    let socket = place.join("d.sock");
    let peers = Peers::of_the_release();
    let command = [
        peers.program("dockerd").display().to_string(),
        format!("--data-root={}", place.join("data").display()),
        "--exec-root=/run/other".to_owned(),
        "--pidfile=/run/other.pid".to_owned(),
        format!("--host=unix://{}", socket.display()),
    ];
    let path = std::env::var("PATH").unwrap_or_default();
    let programs =
        ["usr/bin", "usr/sbin"].map(|name| peers.directory().join(name).display().to_string());
    let environment = [
        (
            "PATH".to_owned(),
            format!("{}:{}:{path}", iptables_at("path").display(), programs.join(":")),
        ),
        ("LD_LIBRARY_PATH".to_owned(), format!("{}:{}", peers.libraries(), iptables_libraries())),
        (
            "XTABLES_LIBDIR".to_owned(),
            iptables_at(&format!("{}/xtables", libraries())).display().to_string(),
        ),
    ];
    let log = world.stack.root().join("log/other");
    let pid = sandbox.spawn(&log, &environment, &command);
    let docker = |words: &[&str]| {
        let mut command = std::process::Command::new(peers.program("docker"));
        command.env("DOCKER_HOST", format!("unix://{}", socket.display())).args(words);
        feed(command, b"")
    };
    until("the other Docker answers", || {
        assert_eq!(sandbox.ended(pid), None, "{}", fs::read_to_string(&log).unwrap_or_default());
        docker(&["version"]).code == 0
    });
    docker(&["load", "-q", "-i", &image::busybox_archive().display().to_string()]).ok();
    docker(&[&["run", "-d", "--name", "theirs", "-p", "8090:80"][..], &WEB].concat()).ok();
    until("theirs answers", || machine.fetch(8090).contains("private stack"));
    published(world, &machine);
    // What we took away was ours alone.
    assert!(machine.fetch(8090).contains("private stack"));
    assert!(fetch(world, "127.0.0.1:8090").contains("private stack"));
    docker(&["rm", "-f", "theirs"]).ok();
    sandbox.signal(pid, libc::SIGTERM);
    sandbox.wait(pid);
    world.stack.inside(&["ip", "link", "del", "docker0"]).ok();
    iptables(world, &["-P", "FORWARD", "ACCEPT"]);
    fs::remove_dir_all(&place).expect("nothing is mounted there");
}

/// A port of ours answers the host and the other machine, and is closed afterwards.
fn published(world: &World, machine: &Machine<'_>) {
    let client = world.client();
    client.ok(&[&["run", "-d", "--name", "ours", "-p", "8080:80"][..], &WEB].concat());
    until("ours answers", || fetch(world, "127.0.0.1:8080").contains("private stack"));
    assert!(machine.fetch(8080).contains("private stack"));
    client.ok(&["rm", "-f", "ours"]);
    assert_eq!(machine.fetch(8080), "");
}

fn iptables(world: &World, words: &[&str]) {
    let mut command = world.stack.sandbox().inside(iptables_at("path/iptables"));
    command.env("LD_LIBRARY_PATH", iptables_libraries()).args(words);
    let done: Output = feed(command, b"");
    assert_eq!(done.code, 0, "iptables {words:?}: {done:?}");
}

/// A file of the distribution's iptables, unpacked beside the peers.
fn iptables_at(name: &str) -> PathBuf {
    let path = parts::peers().with_file_name("iptables").join(name);
    assert!(path.exists(), "{} is missing; run `make fetch`", path.display());
    path
}

fn iptables_libraries() -> String {
    iptables_at(&libraries()).display().to_string()
}

fn libraries() -> String {
    Path::new("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH)).display().to_string()
}
