//! Addresses: which pool a bridge takes, which address an endpoint takes. Pure.
//!
//! As dockerd's default allocator: pools are tried in a fixed order and the first that overlaps no route
//! of the host wins; inside a pool the lowest free address is given, never the network's, the broadcast's
//! or the gateway's.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Why no address or pool could be given.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum IpamError {
    // Compat: clients print these sentences as they are.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    NoPool,
    #[error("no available IPv4 addresses on this network's address pools: {network} ({id})")]
    Exhausted { network: String, id: String },
    #[error("Address already in use")]
    InUse(Ipv4Addr),
    #[error("Requested address {0} is out of range of the pool {1}")]
    OutOfRange(Ipv4Addr, Ipv4Net),
}

/// The pools dockerd tries for local networks, in its order: 172.17–31/16, then 192.168/16 in /20.
pub(crate) fn default_pools() -> Vec<Ipv4Net> {
    let mut pools = Vec::with_capacity(31);
    for second in 17..=31u8 {
        pools.extend(Ipv4Net::new(Ipv4Addr::new(172, second, 0, 0), 16));
    }
    for third in (0..=240u8).step_by(16) {
        pools.extend(Ipv4Net::new(Ipv4Addr::new(192, 168, third, 0), 20));
    }
    pools
}

/// The first of `pools` that overlaps nothing in `taken`.
pub(crate) fn choose_pool(pools: &[Ipv4Net], taken: &[Ipv4Net]) -> Result<Ipv4Net, IpamError> {
    pools
        .iter()
        .find(|pool| !taken.iter().any(|used| overlaps(**pool, *used)))
        .copied()
        .ok_or(IpamError::NoPool)
}

/// A default route (prefix 0) covers everything and so says nothing.
fn overlaps(a: Ipv4Net, b: Ipv4Net) -> bool {
    b.prefix_len() != 0 && (a.contains(&b.network()) || b.contains(&a.network()))
}

/// The addresses of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    subnet: Ipv4Net,
    /// `--fixed-cidr`: where addresses are given from when nobody asks for one.
    range: Ipv4Net,
    gateway: Ipv4Addr,
    used: BTreeSet<Ipv4Addr>,
}

impl Pool {
    /// A pool with nothing given. `gateway` is the bridge's own address.
    pub(crate) fn new(subnet: Ipv4Net, range: Option<Ipv4Net>, gateway: Ipv4Addr) -> Self {
        let range = range.filter(|r| subnet.contains(r)).unwrap_or(subnet).trunc();
        Self { subnet: subnet.trunc(), range, gateway, used: BTreeSet::new() }
    }

    pub(crate) fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// The lowest free address of the range.
    pub(crate) fn allocate(&mut self, network: &str, id: &str) -> Result<Ipv4Addr, IpamError> {
        let found = self.range.hosts().find(|address| self.is_free(*address)).ok_or_else(|| {
            IpamError::Exhausted { network: network.to_owned(), id: id.to_owned() }
        })?;
        self.used.insert(found);
        Ok(found)
    }

    /// A particular address: `--ip`, or an endpoint found again after a restart.
    pub(crate) fn reserve(&mut self, address: Ipv4Addr) -> Result<(), IpamError> {
        if !self.subnet.contains(&address)
            || address == self.subnet.network()
            || address == self.subnet.broadcast()
        {
            return Err(IpamError::OutOfRange(address, self.subnet));
        }
        if !self.is_free(address) {
            return Err(IpamError::InUse(address));
        }
        self.used.insert(address);
        Ok(())
    }

    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }

    fn is_free(&self, address: Ipv4Addr) -> bool {
        address != self.gateway
            && address != self.subnet.network()
            && address != self.subnet.broadcast()
            && !self.used.contains(&address)
    }
}

/// Docker's MAC for an address: `02:42` and the four bytes, so that an address taken again meets no stale
/// neighbour entry.
pub(crate) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

pub(crate) fn format_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Colon or hyphen separated.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0u8; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|p| p.len() == 2 && !p.starts_with('+'))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn first_pool_without_a_route_wins() {
        let pools = default_pools();
        assert_eq!(pools.len(), 31);
        assert_eq!(choose_pool(&pools, &[]).unwrap(), net("172.17.0.0/16"));
        let taken = [net("0.0.0.0/0"), net("172.17.4.0/24"), net("172.16.0.0/15")];
        assert_eq!(choose_pool(&pools, &taken).unwrap(), net("172.18.0.0/16"));
        assert_eq!(choose_pool(&pools, &[net("172.16.0.0/12")]).unwrap(), net("192.168.0.0/20"));
        let all = [net("172.16.0.0/12"), net("192.168.0.0/16")];
        assert_eq!(choose_pool(&pools, &all), Err(IpamError::NoPool));
    }

    #[test]
    fn first_container_gets_two_and_a_freed_address_comes_again() {
        let mut pool = Pool::new(net("172.17.0.0/16"), None, Ipv4Addr::new(172, 17, 0, 1));
        assert_eq!(pool.allocate("bridge", "x").unwrap(), Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(pool.allocate("bridge", "x").unwrap(), Ipv4Addr::new(172, 17, 0, 3));
        pool.release(Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(pool.allocate("bridge", "x").unwrap(), Ipv4Addr::new(172, 17, 0, 2));
    }

    #[test]
    fn a_small_pool_runs_out_with_a_sentence() {
        let mut pool = Pool::new(net("10.0.0.0/30"), None, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(pool.allocate("n", "i").unwrap(), Ipv4Addr::new(10, 0, 0, 2));
        let error = pool.allocate("n", "i").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no available IPv4 addresses on this network's address pools: n (i)"
        );
    }

    #[test]
    fn fixed_cidr_bounds_what_is_given_but_not_what_is_asked_for() {
        let mut pool =
            Pool::new(net("10.1.0.0/16"), Some(net("10.1.2.0/24")), Ipv4Addr::new(10, 1, 0, 1));
        assert_eq!(pool.allocate("n", "i").unwrap(), Ipv4Addr::new(10, 1, 2, 1));
        pool.reserve(Ipv4Addr::new(10, 1, 9, 9)).unwrap();
        assert_eq!(
            pool.reserve(Ipv4Addr::new(10, 1, 9, 9)),
            Err(IpamError::InUse(Ipv4Addr::new(10, 1, 9, 9)))
        );
        assert!(pool.reserve(Ipv4Addr::new(10, 2, 0, 1)).is_err());
        assert!(pool.reserve(Ipv4Addr::new(10, 1, 255, 255)).is_err());
    }

    #[test]
    fn mac_comes_from_the_address_and_reads_back() {
        let mac = mac_of(Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(format_mac(mac), "02:42:ac:11:00:02");
        assert_eq!(parse_mac("02:42:AC:11:00:02"), Some(mac));
        assert_eq!(parse_mac("02:42:AC:11:00"), None);
        assert_eq!(parse_mac("zz:42:AC:11:00:02"), None);
    }

    proptest! {
        #[test]
        fn a_mac_survives_its_text(mac: [u8; 6]) {
            prop_assert_eq!(parse_mac(&format_mac(mac)), Some(mac));
            prop_assert_eq!(parse_mac(&format_mac(mac).to_uppercase().replace(':', "-")), Some(mac));
        }

        #[test]
        fn what_reads_as_a_mac_is_one(text in "[0-9a-fA-F+]{2}(:[0-9a-f+]{1,2}){5,6}") {
            if let Some(mac) = parse_mac(&text) {
                prop_assert_eq!(format_mac(mac), text.to_lowercase());
            }
        }
    }
}
