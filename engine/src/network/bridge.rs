//! Which bridge the `bridge` network runs over, and with which addresses.
//!
//! `--bridge X` names one that exists already, as for dockerd. Without it the engine makes its own: `docker0`
//! in the default place, `dkr-<engine>` elsewhere, so that private stacks can live on one host; a `docker0`
//! that is not ours (a real Docker beside us) is left alone.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::switchboard::{NetworkConfig, NetworkError};
use super::{ipam, netlink};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DefaultBridge {
    pub(crate) name: String,
    /// The bridge's own address and its network's size.
    pub(crate) address: Ipv4Net,
    /// Where containers send what is not for their network.
    pub(crate) gateway: Ipv4Addr,
    /// Made by this engine, so removed by it.
    pub(crate) ours: bool,
}

/// None for `--bridge none`. `before` is the address of the last run.
pub(crate) fn open(
    config: &NetworkConfig,
    before: Option<Ipv4Net>,
) -> Result<Option<DefaultBridge>, NetworkError> {
    let engine = config.short_engine();
    let (name, address, ours) = match config.bridge.as_deref().filter(|name| !name.is_empty()) {
        Some("none") => return Ok(None),
        Some(name) => {
            let found = netlink::find_bridge(name, &engine)?
                .ok_or_else(|| NetworkError::BridgeMissing(name.to_owned()))?;
            let address = match config.bip.or(found.address) {
                Some(address) => address,
                None => choose(name, before)?,
            };
            (name.to_owned(), address, false)
        }
        None => {
            let name = own_name(config, &engine)?;
            let found = netlink::find_bridge(&name, &engine)?.and_then(|bridge| bridge.address);
            let address = match config.bip.or(found) {
                Some(address) => address,
                None => choose(&name, before)?,
            };
            (name, address, true)
        }
    };
    netlink::ensure_bridge(&name, &engine, address, config.mtu)?;
    let gateway = config.default_gateway.unwrap_or(address.addr());
    Ok(Some(DefaultBridge { name, address, gateway, ours }))
}

fn own_name(config: &NetworkConfig, engine: &str) -> Result<String, NetworkError> {
    let private = format!("dkr-{}", engine.get(..8).unwrap_or(engine));
    let Some(wanted) = config.own_bridge.as_deref() else {
        return Ok(private);
    };
    match netlink::find_bridge(wanted, engine)? {
        Some(bridge) if !bridge.ours => {
            tracing::warn!(bridge = wanted, instead = private, "the bridge is somebody else's");
            Ok(private)
        }
        _ => Ok(wanted.to_owned()),
    }
}

/// The network of the last run while it is free, else the first default pool that is.
fn choose(bridge: &str, before: Option<Ipv4Net>) -> Result<Ipv4Net, NetworkError> {
    let taken = netlink::routes(Some(bridge))?;
    if let Some(before) = before
        && ipam::choose_pool(&[before.trunc()], &taken).is_ok()
    {
        return Ok(before);
    }
    let pool = ipam::choose_pool(&ipam::default_pools(), &taken)?;
    let first = pool.hosts().next().unwrap_or(pool.network());
    Ok(Ipv4Net::new_assert(first, pool.prefix_len()))
}
