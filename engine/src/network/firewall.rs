//! What the packet filter must say, as plain data, and the seam behind which somebody says it.
//!
//! ```text
//! table ip docker-rs-<engine>
//!   raw          prerouting -300   from the bridge to 127/8: drop (the guard of route_localnet)
//!   prerouting   nat dstnat        to an address of this host → ports
//!   output       nat dstnat        the same for what the host itself sends, loopback included
//!   ports                          host address and port → container
//!   postrouting  nat srcnat        leaving the subnet: masquerade; from 127/8, and container → published
//!                                  port → container of the same bridge (hairpin): masquerade
//!   forward      filter            answers, published ports, inter-container, outgoing; else to the bridge: drop
//! ```
//!
//! The table is replaced whole, in one transaction, so that it always says what the state says.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::ports::Published;

/// Everything one engine wants said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Rules {
    pub(crate) bridges: Vec<BridgeRules>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BridgeRules {
    pub(crate) name: String,
    pub(crate) subnet: Ipv4Net,
    pub(crate) inter_container: bool,
    pub(crate) masquerade: bool,
    pub(crate) published: Vec<Redirect>,
}

/// One published port and the container that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Redirect {
    pub(crate) published: Published,
    pub(crate) container: Ipv4Addr,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FirewallError {
    #[error("write nftables table {table}: {source}")]
    Apply { table: String, source: nlink::Error },
    #[error("remove nftables table {table}: {source}")]
    Remove { table: String, source: nlink::Error },
    #[error("accept {bridge} in the host's FORWARD chain: {source}")]
    Forward { bridge: String, source: nlink::Error },
    #[error("a thread for netlink: {0}")]
    Thread(std::io::Error),
}

/// nftables, or nothing at all (`--iptables=false`).
pub(crate) trait Firewall: std::fmt::Debug + Send + Sync {
    /// Makes the kernel say exactly `rules`. Blocks; never on the reactor.
    fn apply(&self, rules: &Rules) -> Result<(), FirewallError>;
    /// Takes every rule of this engine away.
    fn remove(&self) -> Result<(), FirewallError>;
}

/// `--iptables=false`: whoever runs this host does it himself.
#[derive(Debug)]
pub(crate) struct NoFirewall;

impl Firewall for NoFirewall {
    fn apply(&self, _rules: &Rules) -> Result<(), FirewallError> {
        Ok(())
    }

    fn remove(&self) -> Result<(), FirewallError> {
        Ok(())
    }
}
