//! `linux.netDevices`: devices of the host that move into the container's network namespace.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use anyhow::{Context as _, anyhow};
use rustix::fs::{Mode, OFlags};

use crate::spec::plan::Plan;
use crate::sys::netlink::Netlink;
use crate::sys::{errno_of, errno_text};

/// Once init is in its namespaces. Compat: what has moved already stays with the namespace when a later
/// one cannot.
pub(super) fn move_all(plan: &Plan, pid: i32) -> anyhow::Result<()> {
    if plan.net_devices.is_empty() {
        return Ok(());
    }
    let open = |path: &str| {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("open the network namespace {path}"))
    };
    let path = format!("/proc/{pid}/ns/net");
    let (own, namespace) = (open("/proc/self/ns/net")?, open(&path)?);
    for (name, device) in &plan.net_devices {
        let new = if device.name.is_empty() { name } else { &device.name };
        let way = Way { own: own.as_fd(), namespace: namespace.as_fd(), path: &path };
        move_one(name, new, way).map_err(|error| {
            anyhow!(
                "unable to start container process: error creating network interfaces: move \
                 netDevice {name} to namespace {path}: {error}"
            )
        })?;
    }
    Ok(())
}

/// From the runtime's network namespace to one that has this path.
#[derive(Clone, Copy)]
struct Way<'a> {
    own: BorrowedFd<'a>,
    namespace: BorrowedFd<'a>,
    path: &'a str,
}

/// The device has its global addresses again and is up. Compat: runc's sentences.
fn move_one(name: &str, new: &str, way: Way<'_>) -> anyhow::Result<()> {
    let Way { own, namespace, path } = way;
    let failed =
        |what: String| move |error: io::Error| anyhow!("{what}: {}", errno_text(errno_of(&error)));
    let missing = |name: &str, place: &str| {
        let what = format!("link not found for interface {name} on {place}");
        move |error: io::Error| match error.raw_os_error() {
            Some(libc::ENODEV) => anyhow!("{what}: Link not found"),
            _ => anyhow!("{what}: {}", errno_text(errno_of(&error))),
        }
    };
    let here = Netlink::new().context("netlink socket")?;
    let index = here.find(name).map_err(missing(name, "runtime namespace"))?;
    // Before it goes down, which costs it the IPv6 ones.
    let addresses = here.addresses(index).map_err(failed("fail to get ip addresses".to_owned()))?;
    here.set_up(index, false).map_err(failed("fail to set link down".to_owned()))?;
    here.move_to(index, new, namespace).map_err(failed(format!(
        "fail to move network device {name} to network namespace {path}"
    )))?;
    let there = Netlink::within(namespace, own).context("netlink socket of the container")?;
    let index = there.find(new).map_err(missing(new, &format!("namespace {path}")))?;
    for address in addresses.iter().filter(|address| address.is_portable()) {
        there
            .add(index, address)
            .map_err(failed(format!("fail to set up an address on namespace {path}")))?;
    }
    there
        .set_up(index, true)
        .map_err(failed(format!("fail to set up interface {new} on namespace {path}")))
}
