//! Against the real kernel, in mount and network namespaces of the test's own. They need root.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::mount::MsFlags;
use nix::sched::CloneFlags;

use super::ports::{ContainerPort, Protocol, parse_binding};
use super::state::Attachment;
use super::switchboard::{AttachRequest, NetworkConfig, NetworkError, Switchboard};
use super::*;

/// Runs `test` on a thread whose network and mounts are nobody else's.
fn alone<T: Send>(test: impl FnOnce(&Path) -> T + Send) -> T {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
            let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
            netlink::on_netlink_thread(|| async {
                let connection = nlink::Connection::<nlink::Route>::new().unwrap();
                connection.set_link_up("lo").await.unwrap();
            })
            .unwrap();
            test(dir.path())
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn config(dir: &Path) -> NetworkConfig {
    NetworkConfig::new(dir.join("data"), dir.join("exec"), "0123abcd-4567-89ef-0000-000000000000")
}

/// Attaches with a fresh namespace, as the container's own code does.
fn attach(board: &Switchboard, request: &AttachRequest) -> Result<Attachment, NetworkError> {
    std::fs::create_dir_all(request.sandbox.parent().unwrap()).unwrap();
    crate::sys::netns::create(&request.sandbox).unwrap();
    let attached = board.attach(request);
    if attached.is_err() {
        crate::sys::netns::remove(&request.sandbox).unwrap();
    }
    attached
}

fn request(dir: &Path, container: &str, publish: &[(u16, &str, &str)]) -> AttachRequest {
    let port = |port| ContainerPort { port, protocol: Protocol::Tcp };
    AttachRequest {
        container: container.to_owned(),
        name: format!("name-of-{container}"),
        network: "default".to_owned(),
        mac: String::new(),
        sandbox: dir.join("netns").join(container),
        exposed: publish.iter().map(|(inner, _, _)| port(*inner)).collect(),
        publish: publish
            .iter()
            .map(|(inner, ip, outer)| parse_binding(port(*inner), ip, outer).unwrap())
            .collect(),
    }
}

/// A listener inside the sandbox that answers `times` connections with `text`.
fn serve(sandbox: &Path, port: u16, text: &'static str, times: usize) {
    let sandbox = sandbox.to_owned();
    let (ready, listening) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let namespace = std::fs::File::open(sandbox).unwrap();
        nix::sched::setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        ready.send(()).unwrap();
        for _ in 0..times {
            listener.accept().unwrap().0.write_all(text.as_bytes()).unwrap();
        }
    });
    listening.recv().unwrap();
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn ask_from(sandbox: &Path, address: SocketAddr) -> std::io::Result<String> {
    let namespace = std::fs::File::open(sandbox).unwrap();
    std::thread::spawn(move || {
        nix::sched::setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
        ask(address)
    })
    .join()
    .unwrap()
}

fn links() -> Vec<String> {
    netlink::on_netlink_thread(|| async {
        let connection = nlink::Connection::<nlink::Route>::new().unwrap();
        let links = connection.get_links().await.unwrap();
        links.iter().filter_map(|link| link.name().map(str::to_owned)).collect()
    })
    .unwrap()
}

#[test]
fn a_published_port_answers_by_loopback_by_the_bridge_and_from_containers() {
    alone(|dir| {
        let networks = Switchboard::open(config(dir)).unwrap();
        networks.restore(&HashSet::new()).unwrap();
        let web = attach(&networks, &request(dir, "web", &[(80, "", "18080")])).unwrap();
        let link = web.link.clone().unwrap();
        assert_eq!(link.address, Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(link.mac, "02:42:ac:11:00:02");
        serve(&web.sandbox, 80, "hello", 5);
        assert_eq!(ask("127.0.0.1:18080".parse().unwrap()).unwrap(), "hello");
        assert_eq!(ask("172.17.0.1:18080".parse().unwrap()).unwrap(), "hello");
        assert_eq!(ask("172.17.0.2:80".parse().unwrap()).unwrap(), "hello");
        // From itself and from a neighbour, by the host's address: the hairpin.
        assert_eq!(ask_from(&web.sandbox, "172.17.0.1:18080".parse().unwrap()).unwrap(), "hello");
        let other = attach(&networks, &request(dir, "other", &[])).unwrap();
        let gateway = "172.17.0.1:18080".parse().unwrap();
        assert_eq!(ask_from(&other.sandbox, gateway).unwrap(), "hello");
        networks.detach("web").unwrap();
        networks.detach("other").unwrap();
    });
}

#[test]
fn the_hosts_loopback_is_not_reachable_from_a_container() {
    alone(|dir| {
        let networks = Switchboard::open(config(dir)).unwrap();
        networks.restore(&HashSet::new()).unwrap();
        let inside = attach(&networks, &request(dir, "a", &[])).unwrap();
        let secret = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = secret.local_addr().unwrap().port();
        // The container routes 127.0.0.2 to the bridge, as a hostile root could.
        let namespace = std::fs::File::open(&inside.sandbox).unwrap();
        let reached = std::thread::spawn(move || {
            nix::sched::setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            netlink::sysctl("net/ipv4/conf/all/route_localnet", "1").unwrap();
            netlink::on_netlink_thread(|| async {
                let connection = nlink::Connection::<nlink::Route>::new().unwrap();
                connection.del_address("lo", "127.0.0.1".parse().unwrap(), 8).await.unwrap();
                let route = nlink::Ipv4Route::new(Ipv4Addr::new(127, 0, 0, 0), 8)
                    .gateway(Ipv4Addr::new(172, 17, 0, 1))
                    .dev("eth0");
                drop(connection.add_route(route).await);
            })
            .unwrap();
            ask(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        });
        assert!(reached.join().unwrap().is_err());
        networks.detach("a").unwrap();
    });
}

#[test]
fn a_restarted_engine_finds_containers_and_clears_what_is_gone() {
    alone(|dir| {
        let (keep, lost) = {
            let networks = Switchboard::open(config(dir)).unwrap();
            networks.restore(&HashSet::new()).unwrap();
            let keep = attach(&networks, &request(dir, "keep", &[(80, "", "18081")])).unwrap();
            let lost = attach(&networks, &request(dir, "lost", &[(80, "127.0.0.1", "")])).unwrap();
            (keep, lost)
        };
        serve(&keep.sandbox, 80, "still", 2);
        // Nobody runs: the kernel redirects alone.
        assert_eq!(ask("127.0.0.1:18081".parse().unwrap()).unwrap(), "still");
        let networks = Switchboard::open(config(dir)).unwrap();
        networks.restore(&HashSet::from(["keep".to_owned()])).unwrap();
        assert_eq!(ask("127.0.0.1:18081".parse().unwrap()).unwrap(), "still");
        assert_eq!(networks.attachment("keep").as_ref(), Some(&keep));
        let next = attach(&networks, &request(dir, "next", &[])).unwrap();
        assert_eq!(next.link.unwrap().address, lost.link.unwrap().address);
        let taken =
            attach(&networks, &request(dir, "c", &[(1, "", "18081")])).unwrap_err().to_string();
        assert!(
            taken.starts_with(
                "driver failed programming external connectivity on endpoint name-of-c ("
            ) && taken.ends_with("): Bind for 0.0.0.0:18081 failed: port is already allocated"),
            "{taken}"
        );
        assert_eq!(networks.inspect("bridge").unwrap().containers.len(), 2);
        networks.detach("keep").unwrap();
        networks.detach("next").unwrap();
        networks.shutdown().unwrap();
        assert_eq!(links(), ["lo"]);
        assert_eq!(std::fs::read_dir(dir.join("exec/network")).unwrap().count(), 0);
    });
}

#[test]
fn none_has_only_a_loopback_and_ids_last() {
    alone(|dir| {
        let networks = Switchboard::open(config(dir)).unwrap();
        let wanted = AttachRequest { network: "none".into(), ..request(dir, "a", &[]) };
        let none = attach(&networks, &wanted).unwrap();
        assert_eq!(none.link, None);
        assert!(netlink::is_sandbox(&none.sandbox));
        networks.detach("a").unwrap();
        let (_, id) = networks.find("none").unwrap();
        assert_eq!(networks.find(&id[..12]).unwrap().0, "none");
        assert!(matches!(networks.find("nope"), Err(NetworkError::NotFound(_))));
        let again = Switchboard::open(config(dir)).unwrap();
        assert_eq!(again.find("none").unwrap().1, id);
    });
}

#[test]
fn a_second_engine_takes_another_bridge_and_another_pool() {
    alone(|dir| {
        let first = Switchboard::open(NetworkConfig {
            own_bridge: Some("docker0".to_owned()),
            ..config(&dir.join("one"))
        })
        .unwrap();
        let second = Switchboard::open(NetworkConfig {
            own_bridge: Some("docker0".to_owned()),
            engine: "ffffffffffffffff".to_owned(),
            ..config(&dir.join("two"))
        })
        .unwrap();
        let pool = |networks: &Switchboard| {
            networks.inspect("bridge").unwrap().ipam.config.unwrap()[0].subnet.clone()
        };
        assert_eq!(pool(&first), "172.17.0.0/16");
        assert_eq!(pool(&second), "172.18.0.0/16");
        assert_eq!(links(), ["lo", "docker0", "dkr-ffffffff"]);
        let missing = NetworkConfig { bridge: Some("br9".to_owned()), ..config(dir) };
        assert_eq!(
            Switchboard::open(missing).unwrap_err().to_string(),
            "bridge device with non default name br9 must be created manually"
        );
        first.shutdown().unwrap();
        second.shutdown().unwrap();
    });
}

#[test]
fn ports_that_nobody_can_bind_take_no_memory() {
    use docker_api::network::PortBinding;
    let ranges = |count: u32| (0..count).map(|last| format!("1-{}", 65_535 - last)).collect();
    let wanted = |request: ContainerNet| wanted_ports(&request).map(|(exposed, _)| exposed.len());
    let twice = ContainerNet { exposed: ranges(2), ..ContainerNet::default() };
    assert_eq!(wanted(twice).unwrap(), 65_535);
    let many = ContainerNet { exposed: ranges(50), ..ContainerNet::default() };
    assert_eq!(wanted(many).unwrap_err().to_string(), "invalid port specification: too many ports");
    let bindings = vec![PortBinding::default(); 50];
    let bound = ContainerNet {
        port_bindings: BTreeMap::from([("1-65535/tcp".to_owned(), Some(bindings))]),
        ..ContainerNet::default()
    };
    assert!(wanted(bound).is_err());
}
