//! Links, addresses and routes, in process.
//!
//! Every call here blocks, makes a thread of its own and ends it: `setns` changes the thread it runs on for
//! good, and netlink answers when it likes.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use nix::sched::CloneFlags;
use nlink::Route;
use nlink::netlink::addr::Ipv4Address;
use nlink::netlink::link::{BridgeLink, BridgePortConfig, VethLink};
use nlink::netlink::netfilter::{ConntrackFilter, IpProtocol};
use nlink::netlink::route::Ipv4Route;
use nlink::netlink::{Connection, Netfilter};

/// The mark on every link we make, so that nobody else's is taken for ours.
const MARK: &str = "docker-rs";

#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{step} {link}: {source}")]
    Netlink { step: &'static str, link: String, source: nlink::Error },
    #[error("{step} {path}: {source}")]
    Path { step: &'static str, path: PathBuf, source: std::io::Error },
    #[error("a thread for netlink: {0}")]
    Thread(std::io::Error),
}

fn netlink(step: &'static str, link: &str) -> impl FnOnce(nlink::Error) -> LinkError {
    let link = link.to_owned();
    move |source| LinkError::Netlink { step, link, source }
}

fn at(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> LinkError {
    let path = path.to_owned();
    move |source| LinkError::Path { step, path, source }
}

/// Runs `work` to its end on a fresh thread with a reactor of its own.
pub(crate) fn on_netlink_thread<T, W, F>(work: W) -> std::io::Result<T>
where
    T: Send,
    W: FnOnce() -> F + Send,
    F: Future<Output = T>,
{
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netlink".into())
            .spawn_scoped(scope, || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                Ok(runtime.block_on(async { work().await }))
            })?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A bridge as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) address: Option<Ipv4Net>,
    /// The mark on it is this engine's.
    pub(crate) ours: bool,
}

fn mark(engine: &str) -> String {
    format!("{MARK} {engine}")
}

/// Whether a link has that name, in the namespace of the calling thread. Asked first, because nlink warns of
/// every refusal, the expected ones too.
fn is_link(name: &str) -> bool {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .is_ok_and(|socket| rustix::net::netdevice::name_to_index(socket, name).is_ok())
}

/// The link of that name, whatever made it.
pub(crate) fn find_bridge(name: &str, engine: &str) -> Result<Option<Bridge>, LinkError> {
    if !is_link(name) {
        return Ok(None);
    }
    on_netlink_thread(|| async {
        let host = Connection::<Route>::new().map_err(netlink("open netlink for", name))?;
        let Some(link) = host.get_link_by_name(name).await.map_err(netlink("find", name))? else {
            return Ok(None);
        };
        let addresses =
            host.get_addresses_by_index(link.ifindex()).await.map_err(netlink("read", name))?;
        let address = addresses.iter().find_map(|address| match address.address() {
            Some(IpAddr::V4(v4)) => Ipv4Net::new(*v4, address.prefix_len()).ok(),
            _ => None,
        });
        Ok(Some(Bridge { address, ours: link.alias() == Some(mark(engine).as_str()) }))
    })
    .map_err(LinkError::Thread)?
}

/// Creates (where missing), addresses and raises a bridge; packets from 127/8 may be routed over it.
pub(crate) fn ensure_bridge(
    name: &str,
    engine: &str,
    address: Ipv4Net,
    mtu: u32,
) -> Result<(), LinkError> {
    on_netlink_thread(|| async {
        let host = Connection::<Route>::new().map_err(netlink("open netlink for", name))?;
        if !is_link(name) {
            let mac = super::ipam::mac_of(address.addr());
            host.add_link(BridgeLink::new(name).address(mac).mtu(mtu))
                .await
                .map_err(netlink("create bridge", name))?;
            host.set_link_alias(name, &mark(engine)).await.map_err(netlink("mark", name))?;
        }
        host.replace_address(
            Ipv4Address::new(name, address.addr(), address.prefix_len())
                .broadcast(address.broadcast()),
        )
        .await
        .map_err(netlink("address", name))?;
        host.set_link_up(name).await.map_err(netlink("raise", name))
    })
    .map_err(LinkError::Thread)??;
    sysctl(&format!("net/ipv4/conf/{name}/route_localnet"), "1")
}

pub(crate) fn remove_link(name: &str) -> Result<(), LinkError> {
    if !is_link(name) {
        return Ok(());
    }
    on_netlink_thread(|| async {
        let host = Connection::<Route>::new().map_err(netlink("open netlink for", name))?;
        host.del_link_if_exists(name).await.map(drop).map_err(netlink("delete", name))
    })
    .map_err(LinkError::Thread)?
}

/// The IPv4 destinations of the host's routing table, `except` those over one link.
pub(crate) fn routes(except: Option<&str>) -> Result<Vec<Ipv4Net>, LinkError> {
    on_netlink_thread(|| async {
        let host = Connection::<Route>::new().map_err(netlink("open netlink for", "routes"))?;
        let skip = match except {
            Some(name) if is_link(name) => {
                host.get_link_by_name(name).await.ok().flatten().map(|l| l.ifindex())
            }
            _ => None,
        };
        let routes = host.get_routes().await.map_err(netlink("list", "routes"))?;
        Ok(routes
            .iter()
            .filter(|route| route.is_ipv4() && (skip.is_none() || route.oif() != skip))
            .filter_map(|route| match route.destination() {
                Some(IpAddr::V4(to)) => Ipv4Net::new(*to, route.dst_len()).ok(),
                _ => None,
            })
            .collect())
    })
    .map_err(LinkError::Thread)?
}

/// One end in the container, the other on the bridge.
#[derive(Debug, Clone)]
pub(crate) struct Plug {
    pub(crate) bridge: String,
    pub(crate) host_link: String,
    pub(crate) container_link: String,
    pub(crate) mac: [u8; 6],
    pub(crate) address: Ipv4Net,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) mtu: u32,
}

/// Raises the loopback of the namespace pinned at `sandbox` and plugs it in. What was made is undone on
/// failure.
pub(crate) fn connect(sandbox: &Path, plug: Option<&Plug>) -> Result<(), LinkError> {
    let made = on_netlink_thread(|| async {
        let namespace = std::fs::File::open(sandbox).map_err(at("open", sandbox))?;
        // Opened before setns: a socket stays in the namespace it was made in.
        let host = Connection::<Route>::new().map_err(netlink("open netlink on", "the host"))?;
        nix::sched::setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|errno| at("setns to", sandbox)(errno.into()))?;
        let inside = Connection::<Route>::new().map_err(netlink("open netlink in", "sandbox"))?;
        inside.set_link_up("lo").await.map_err(netlink("raise", "lo"))?;
        match plug {
            Some(plug) => plug_in(&host, &inside, namespace.as_fd(), plug).await,
            None => Ok(()),
        }
    })
    .map_err(LinkError::Thread)
    .flatten();
    if let (Err(_), Some(plug)) = (&made, plug) {
        // The first failure is the one to tell.
        drop(remove_link(&plug.host_link));
    }
    made
}

async fn plug_in(
    host: &Connection<Route>,
    inside: &Connection<Route>,
    namespace: BorrowedFd<'_>,
    plug: &Plug,
) -> Result<(), LinkError> {
    let (outer, inner) = (plug.host_link.as_str(), plug.container_link.as_str());
    let veth = VethLink::new(outer, inner)
        .mtu(plug.mtu)
        .peer_mtu(plug.mtu)
        .peer_address(plug.mac)
        .peer_netns_fd(namespace);
    host.add_link(veth).await.map_err(netlink("create veth", outer))?;
    host.set_link_master(outer, plug.bridge.as_str())
        .await
        .map_err(netlink("put on the bridge", outer))?;
    // Where br_netfilter is loaded, a container that asks its own published port is answered through the
    // port its question came from.
    host.set_bridge_port(outer, BridgePortConfig::new().hairpin(true))
        .await
        .map_err(netlink("set hairpin on", outer))?;
    // Compat: neither end queues, as libnetwork's.
    host.set_link_txqlen(outer, 0).await.map_err(netlink("set the queue of", outer))?;
    inside.set_link_txqlen(inner, 0).await.map_err(netlink("set the queue of", inner))?;
    host.set_link_up(outer).await.map_err(netlink("raise", outer))?;
    // A network without IPv6 shows none, as dockerd's. Missing where the kernel has none at all.
    let no_ipv6 = format!("/proc/sys/net/ipv6/conf/{inner}/disable_ipv6");
    match std::fs::write(&no_ipv6, "1") {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(at("write", Path::new(&no_ipv6))(error));
        }
        _ => {}
    }
    let address = Ipv4Address::new(inner, plug.address.addr(), plug.address.prefix_len())
        .broadcast(plug.address.broadcast());
    inside.add_address(address).await.map_err(netlink("address", inner))?;
    inside.set_link_up(inner).await.map_err(netlink("raise", inner))?;
    inside
        .add_route(Ipv4Route::default_route().gateway(plug.gateway).dev(inner))
        .await
        .map_err(netlink("add the default route over", inner))
}

/// Lets the kernel forget where flows to a container went, because another may be behind the same port soon.
pub(crate) fn forget_flows_to(container: Ipv4Addr) -> Result<(), LinkError> {
    forget(vec![ConntrackFilter::new().reply_src(container)])
}

/// Lets the kernel forget the UDP flows to ports of this host, `None` being all its addresses: a flow that
/// goes on is redirected only where it begins.
pub(crate) fn forget_udp_flows(ports: &[(Option<Ipv4Addr>, u16)]) -> Result<(), LinkError> {
    if ports.is_empty() {
        return Ok(());
    }
    let own =
        if ports.iter().any(|(address, _)| address.is_none()) { addresses()? } else { vec![] };
    let filter = |address: Ipv4Addr, port: u16| {
        ConntrackFilter::new().proto(IpProtocol::Udp).orig_dst(address).orig_dst_port(port)
    };
    let filters = ports.iter().flat_map(|(address, port)| {
        let one = address.as_ref().map(std::slice::from_ref);
        one.unwrap_or(&own).iter().map(|address| filter(*address, *port))
    });
    forget(filters.collect())
}

fn forget(filters: Vec<ConntrackFilter>) -> Result<(), LinkError> {
    on_netlink_thread(|| async {
        let failed = |source| netlink("forget flows in", "conntrack")(source);
        let tracker = Connection::<Netfilter>::new().map_err(failed)?;
        for filter in &filters {
            tracker.flush_conntrack_matching(filter).await.map_err(failed)?;
        }
        Ok(())
    })
    .map_err(LinkError::Thread)?
}

/// The IPv4 addresses of the host.
fn addresses() -> Result<Vec<Ipv4Addr>, LinkError> {
    on_netlink_thread(|| async {
        let host = Connection::<Route>::new().map_err(netlink("open netlink for", "addresses"))?;
        let found = host.get_addresses().await.map_err(netlink("list", "addresses"))?;
        Ok(found
            .iter()
            .filter_map(|found| match found.address() {
                Some(IpAddr::V4(address)) => Some(*address),
                _ => None,
            })
            .collect())
    })
    .map_err(LinkError::Thread)?
}

/// Whether a network namespace is pinned there.
pub(crate) fn is_sandbox(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(NSFS_MAGIC))
}

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Writes a file under /proc/sys unless it says so already.
pub(crate) fn sysctl(key: &str, value: &str) -> Result<(), LinkError> {
    let path = Path::new("/proc/sys").join(key);
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(at("write", &path))
}
