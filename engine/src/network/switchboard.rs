//! The board where containers are plugged in: addresses, links, ports, rules, and their records.
//!
//! A container's network namespace outlives the engine, and so do the links and the filter's table, so
//! published ports go on answering while the engine is away; [`Switchboard::open`] and
//! [`Switchboard::restore`] find everything again. All calls block (netlink, files); whatever changes a
//! thread's namespace makes a thread of its own (`netlink.rs`).

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;

use docker_api::network::EndpointSettings;
use proto::errdefs::Kind;

use super::firewall::{BridgeRules, Firewall, FirewallError, NoFirewall, Redirect, Rules};
use super::ipam::{IpamError, Pool};
use super::netlink::{LinkError, Plug};
use super::ports::{ContainerPort, PortError, Ports, Protocol, Wanted};
use super::state::{Attachment, Durability, Link, NetworkRecord, NetworksRecord, StateError};
use super::{bridge, ipam, netlink, nft, state};

/// The flags of dockerd that the network listens to.
#[derive(Debug, Clone)]
pub(crate) struct NetworkConfig {
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    /// The engine's uuid, any form; its first 12 letters and digits name what is ours on the host.
    pub(crate) engine: String,
    /// `--bridge`: an existing bridge, or `none`.
    pub(crate) bridge: Option<String>,
    /// The bridge made where `--bridge` says nothing: `docker0` in the default place.
    pub(crate) own_bridge: Option<String>,
    pub(crate) bip: Option<Ipv4Net>,
    pub(crate) fixed_cidr: Option<Ipv4Net>,
    pub(crate) default_gateway: Option<Ipv4Addr>,
    pub(crate) mtu: u32,
    pub(crate) inter_container: bool,
    pub(crate) iptables: bool,
    pub(crate) ip_forward: bool,
    pub(crate) masquerade: bool,
    /// `--ip`: where ports are published unless the client says.
    pub(crate) publish_on: Ipv4Addr,
}

impl NetworkConfig {
    /// dockerd's defaults for a place and an engine.
    pub(crate) fn new(data_root: PathBuf, exec_root: PathBuf, engine: &str) -> Self {
        Self {
            data_root,
            exec_root,
            engine: engine.to_owned(),
            bridge: None,
            own_bridge: None,
            bip: None,
            fixed_cidr: None,
            default_gateway: None,
            mtu: 1500,
            inter_container: true,
            iptables: true,
            ip_forward: true,
            masquerade: true,
            publish_on: Ipv4Addr::UNSPECIFIED,
        }
    }

    pub(super) fn short_engine(&self) -> String {
        self.engine.chars().filter(char::is_ascii_alphanumeric).take(12).collect()
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("network {0} not found")]
    NotFound(String),
    #[error("network {name} is ambiguous ({count} matches found based on ID prefix)")]
    Ambiguous { name: String, count: usize },
    // Compat: dockerd answers 403 with these words.
    #[error("{0} is a pre-defined network and cannot be removed")]
    Predefined(String),
    #[error("{0} is not supported yet")]
    NotYet(&'static str),
    #[error("bridge device with non default name {0} must be created manually")]
    BridgeMissing(String),
    #[error("container {0} is attached to a network already")]
    Attached(String),
    #[error("invalid MAC address {0}")]
    Mac(String),
    #[error("invalid IPv4 address: {0}")]
    Address(String),
    // Compat: dockerd allows `--ip` on user defined networks only.
    #[error("user specified IP address is supported on user defined networks only")]
    StaticAddress,
    #[error(transparent)]
    Ipam(#[from] IpamError),
    #[error(transparent)]
    Binding(#[from] PortError),
    #[error(
        "driver failed programming external connectivity on endpoint {name} ({endpoint}): {source}"
    )]
    Ports { name: String, endpoint: String, source: PortError },
    #[error(
        "driver failed programming external connectivity on endpoint {name} ({endpoint}): {source}"
    )]
    Filter { name: String, endpoint: String, source: FirewallError },
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("invalid value \"{value}\" of --{flag}")]
    Flag { flag: &'static str, value: String },
    #[error("the engine is ending")]
    Interrupted,
    #[error("{count} failures on the way out, first: {first}")]
    Detach { count: usize, first: Box<Self> },
}

impl NetworkError {
    pub(crate) fn class(&self) -> Kind {
        match self {
            Self::NotFound(_) => Kind::NotFound,
            Self::Predefined(_) => Kind::PermissionDenied,
            Self::NotYet(_) => Kind::Unimplemented,
            Self::Attached(_) => Kind::AlreadyExists,
            Self::Ambiguous { .. }
            | Self::Mac(_)
            | Self::Address(_)
            | Self::StaticAddress
            | Self::Binding(_)
            | Self::Flag { .. }
            | Self::Ipam(IpamError::OutOfRange(..)) => Kind::InvalidArgument,
            _ => Kind::Internal,
        }
    }
}

/// What a container asks for.
#[derive(Debug, Clone)]
pub(crate) struct AttachRequest {
    pub(crate) container: String,
    /// Without the slash.
    pub(crate) name: String,
    /// Name, id or id prefix: `bridge` (or `default`), `none`.
    pub(crate) network: String,
    /// Empty: by the address.
    pub(crate) mac: String,
    /// The namespace, pinned.
    pub(crate) sandbox: PathBuf,
    pub(crate) exposed: Vec<ContainerPort>,
    pub(crate) publish: Vec<Wanted>,
}

/// The three networks and everyone in them.
#[derive(Debug)]
pub(crate) struct Switchboard {
    pub(super) config: NetworkConfig,
    firewall: Box<dyn Firewall>,
    pub(super) ids: BTreeMap<String, NetworkRecord>,
    pub(super) bridge: Option<bridge::DefaultBridge>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pool: Option<Pool>,
    ports: Ports,
    pub(super) attachments: BTreeMap<String, Attachment>,
}

impl Switchboard {
    /// Makes the bridge and the table, as far as they are missing. [`Switchboard::restore`] comes next.
    pub(crate) fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        let path = config.data_root.join("network/networks.json");
        let found: Option<NetworksRecord> = state::read(&path)?;
        let mut record = found.clone().unwrap_or_default();
        record.version = state::VERSION;
        for name in ["bridge", "host", "none"] {
            record
                .networks
                .entry(name.to_owned())
                .or_insert_with(|| NetworkRecord { id: random_hex::<32>(), created: now() });
        }
        let firewall: Box<dyn Firewall> = if config.iptables {
            Box::new(nft::NftFirewall::new(&config.short_engine()))
        } else {
            Box::new(NoFirewall)
        };
        let bridge = bridge::open(&config, record.bridge_address)?;
        if let Some(bridge) = &bridge {
            record.bridge_address = Some(bridge.address);
            if config.ip_forward {
                netlink::sysctl("net/ipv4/ip_forward", "1")?;
            }
        }
        if found.as_ref() != Some(&record) {
            state::write(&path, &record, Durability::Synced)?;
        }
        let pool =
            bridge.as_ref().map(|b| Pool::new(b.address.trunc(), config.fixed_cidr, b.gateway));
        let networks = Self {
            firewall,
            ids: record.networks,
            bridge,
            state: Mutex::new(State { pool, ..State::default() }),
            config,
        };
        Ok(networks)
    }

    /// Takes back what the records say about containers in `alive` and clears what they say about others.
    pub(crate) fn restore(&self, alive: &HashSet<String>) -> Result<(), NetworkError> {
        let mut gone = Vec::new();
        let mut state = self.lock();
        for attachment in state::read_all::<Attachment>(&self.records()) {
            if alive.contains(&attachment.container) && netlink::is_sandbox(&attachment.sandbox) {
                self.take_back(&mut state, attachment);
            } else {
                gone.push(attachment);
            }
        }
        self.filter(&state)?;
        drop(state);
        for attachment in gone {
            tracing::info!(container = attachment.container, "clearing a network left behind");
            if let Err(error) = self.clear(&attachment) {
                tracing::warn!(%error, container = attachment.container, "left behind");
            }
        }
        Ok(())
    }

    fn take_back(&self, state: &mut State, attachment: Attachment) {
        let container = attachment.container.as_str();
        if let (Some(pool), Some(link)) = (&mut state.pool, &attachment.link)
            && let Err(error) = pool.reserve(link.address)
        {
            tracing::warn!(container, %error, address = %link.address, "address found twice");
        }
        for published in &attachment.published {
            if let Err(error) = state.ports.restore(&attachment.endpoint_id, *published) {
                tracing::warn!(container, %error, port = published.host_port,
                    "a published port was taken while the engine was away; it goes on answering");
            }
        }
        state.attachments.insert(attachment.container.clone(), attachment);
    }

    /// Gives a container its namespace, address and ports. On failure nothing is left.
    pub(crate) fn attach(&self, request: &AttachRequest) -> Result<Attachment, NetworkError> {
        let (name, network_id) = self.find(&request.network)?;
        if name == "host" {
            return Err(NetworkError::NotYet("a namespace of its own on the host network"));
        }
        let mut attachment = Attachment {
            version: state::VERSION,
            container: request.container.clone(),
            container_name: request.name.clone(),
            sandbox_id: random_hex::<32>(),
            sandbox: request.sandbox.clone(),
            network: name.clone(),
            network_id,
            endpoint_id: random_hex::<32>(),
            link: None,
            exposed: request.exposed.clone(),
            published: Vec::new(),
        };
        let plug = match &self.bridge {
            Some(bridge) if name == "bridge" => {
                Some(self.allocate(bridge, request, &mut attachment)?)
            }
            _ => {
                self.lock().insert_new(&attachment)?;
                None
            }
        };
        match self.build(&attachment, plug.as_ref()) {
            Ok(()) => Ok(attachment),
            Err(error) => {
                // The first failure is the one to tell.
                drop(self.detach(&request.container));
                Err(error)
            }
        }
    }

    /// Address and ports, under the lock; nothing stays allocated on failure.
    fn allocate(
        &self,
        bridge: &bridge::DefaultBridge,
        request: &AttachRequest,
        attachment: &mut Attachment,
    ) -> Result<Plug, NetworkError> {
        let wanted_mac = match request.mac.as_str() {
            "" => None,
            text => Some(ipam::parse_mac(text).ok_or_else(|| NetworkError::Mac(text.to_owned()))?),
        };
        let mut state = self.lock();
        if state.attachments.contains_key(&request.container) {
            return Err(NetworkError::Attached(request.container.clone()));
        }
        let State { pool, ports, attachments } = &mut *state;
        let Some(pool) = pool else {
            return Err(NetworkError::NotFound("bridge".to_owned()));
        };
        let address = pool.allocate("bridge", &attachment.network_id)?;
        let endpoint = attachment.endpoint_id.clone();
        attachment.published =
            match ports.reserve(&endpoint, &request.publish, self.config.publish_on) {
                Ok(published) => published,
                Err(source) => {
                    pool.release(address);
                    return Err(NetworkError::Ports {
                        name: request.name.clone(),
                        endpoint,
                        source,
                    });
                }
            };
        let mac = wanted_mac.unwrap_or_else(|| ipam::mac_of(address));
        let prefix_len = pool.subnet().prefix_len();
        let host_link = format!("veth{}", &random_hex::<4>()[..7]);
        attachment.link = Some(Link {
            host_link: host_link.clone(),
            address,
            prefix_len,
            gateway: pool.gateway(),
            mac: ipam::format_mac(mac),
        });
        attachments.insert(request.container.clone(), attachment.clone());
        Ok(Plug {
            bridge: bridge.name.clone(),
            host_link,
            container_link: "eth0".to_owned(),
            mac,
            address: Ipv4Net::new_assert(address, prefix_len),
            gateway: pool.gateway(),
            mtu: self.config.mtu,
        })
    }

    /// The record first, so that whoever starts next finds what an interrupted engine made.
    fn build(&self, attachment: &Attachment, plug: Option<&Plug>) -> Result<(), NetworkError> {
        state::write(&self.record(&attachment.container), attachment, Durability::Written)?;
        netlink::connect(&attachment.sandbox, plug)?;
        if attachment.published.is_empty() {
            return Ok(());
        }
        self.filter(&self.lock()).map_err(|source| NetworkError::Filter {
            name: attachment.container_name.clone(),
            endpoint: attachment.endpoint_id.clone(),
            source,
        })?;
        let udp = attachment.published.iter().filter(|p| p.container.protocol == Protocol::Udp);
        let ports: Vec<_> =
            udp.map(|p| (Some(p.host_ip).filter(|ip| !ip.is_unspecified()), p.host_port)).collect();
        if self.config.iptables
            && let Err(error) = netlink::forget_udp_flows(&ports)
        {
            // New flows arrive all the same.
            tracing::warn!(container = attachment.container, %error);
        }
        Ok(())
    }

    /// Takes a container out of the network. Runs to the end; without an attachment there is nothing to do.
    pub(crate) fn detach(&self, container: &str) -> Result<(), NetworkError> {
        let Some(attachment) = self.lock().attachments.get(container).cloned() else {
            return Ok(());
        };
        self.clear(&attachment)
    }

    fn clear(&self, attachment: &Attachment) -> Result<(), NetworkError> {
        let mut failures: Vec<NetworkError> = Vec::new();
        if let Some(link) = &attachment.link {
            failures.extend(netlink::remove_link(&link.host_link).err().map(NetworkError::from));
        }
        let mut state = self.lock();
        // Only what this attachment holds: a record left behind holds nothing here.
        let held = state
            .attachments
            .get(&attachment.container)
            .is_some_and(|now| now.endpoint_id == attachment.endpoint_id);
        if held {
            state.attachments.remove(&attachment.container);
            if !attachment.published.is_empty() {
                failures.extend(self.filter(&state).err().map(NetworkError::from));
                if let Some(link) = attachment.link.as_ref().filter(|_| self.config.iptables) {
                    let forgotten = netlink::forget_flows_to(link.address);
                    failures.extend(forgotten.err().map(NetworkError::from));
                }
            }
            // After the rules: a port is free when nothing redirects it any more.
            state.ports.release(&attachment.endpoint_id);
            if let (Some(pool), Some(link)) = (&mut state.pool, &attachment.link) {
                pool.release(link.address);
            }
        }
        drop(state);
        failures.extend(
            state::remove(&self.record(&attachment.container)).err().map(NetworkError::from),
        );
        let count = failures.len();
        match failures.into_iter().next() {
            None => Ok(()),
            Some(first) => Err(NetworkError::Detach { count, first: Box::new(first) }),
        }
    }

    /// A clean end with nobody attached leaves the host as it was: no table, no bridge of ours.
    pub(crate) fn shutdown(&self) -> Result<(), NetworkError> {
        let state = self.lock();
        if !state.attachments.is_empty() {
            return Ok(());
        }
        self.firewall.remove()?;
        match &self.bridge {
            Some(bridge) if bridge.ours => Ok(netlink::remove_link(&bridge.name)?),
            _ => Ok(()),
        }
    }

    /// What the kernel knows of a container's place, if it has one.
    pub(crate) fn attachment(&self, container: &str) -> Option<Attachment> {
        self.lock().attachments.get(container).cloned()
    }

    /// Name and id of a network by name, id, or unique id prefix.
    pub(crate) fn find(&self, wanted: &str) -> Result<(String, String), NetworkError> {
        let wanted = if wanted.is_empty() || wanted == "default" { "bridge" } else { wanted };
        let names = || self.ids.iter().filter(|(name, _)| self.exists(name));
        let found = |(name, record): (&String, &NetworkRecord)| (name.clone(), record.id.clone());
        if let Some(exact) = names().find(|(name, record)| *name == wanted || record.id == wanted) {
            return Ok(found(exact));
        }
        let mut by_prefix: Vec<_> =
            names().filter(|(_, record)| record.id.starts_with(wanted)).collect();
        match (by_prefix.pop(), by_prefix.len()) {
            (Some(one), 0) => Ok(found(one)),
            (Some(_), more) => {
                Err(NetworkError::Ambiguous { name: wanted.to_owned(), count: more + 1 })
            }
            (None, _) => Err(NetworkError::NotFound(wanted.to_owned())),
        }
    }

    /// `--bridge none` takes the bridge network away.
    pub(super) fn exists(&self, name: &str) -> bool {
        name != "bridge" || self.bridge.is_some()
    }

    fn filter(&self, state: &State) -> Result<(), FirewallError> {
        let bridges = self.bridge.iter().map(|bridge| {
            let mut published: Vec<Redirect> = state
                .attachments
                .values()
                .filter_map(|attachment| Some((attachment.link.as_ref()?, &attachment.published)))
                .flat_map(|(link, published)| {
                    published.iter().map(|published| Redirect {
                        published: *published,
                        container: link.address,
                    })
                })
                .collect();
            // A particular host address is more than any: it is asked first.
            published.sort_by_key(|r| (r.published.host_ip.is_unspecified(), *r));
            BridgeRules {
                name: bridge.name.clone(),
                subnet: bridge.address.trunc(),
                inter_container: self.config.inter_container,
                masquerade: self.config.masquerade,
                published,
            }
        });
        self.firewall.apply(&Rules { bridges: bridges.collect() })
    }

    fn records(&self) -> PathBuf {
        self.config.exec_root.join("network")
    }

    fn record(&self, container: &str) -> PathBuf {
        self.records().join(format!("{container}.json"))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert_new(&mut self, attachment: &Attachment) -> Result<(), NetworkError> {
        if self.attachments.contains_key(&attachment.container) {
            return Err(NetworkError::Attached(attachment.container.clone()));
        }
        self.attachments.insert(attachment.container.clone(), attachment.clone());
        Ok(())
    }
}

/// Now, as the API writes times.
fn now() -> String {
    let now = jiff::Timestamp::now();
    docker_api::time::rfc3339_nano(now.as_second(), now.subsec_nanosecond())
}

/// `N` random bytes in hex. Without randomness no engine runs, so a failing kernel gives zeros, not a panic.
fn random_hex<const N: usize>() -> String {
    use std::fmt::Write;
    let mut bytes = [0u8; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        tracing::error!(%error, "getrandom");
    }
    bytes.iter().fold(String::with_capacity(N * 2), |mut text, byte| {
        // Writing into a String cannot fail.
        let _written: std::fmt::Result = write!(text, "{byte:02x}");
        text
    })
}

/// What an endpoint may ask for on a predefined network.
pub(crate) fn check_settings(settings: &EndpointSettings) -> Result<(), NetworkError> {
    let mac = settings.mac_address.as_str();
    if !mac.is_empty() && ipam::parse_mac(mac).is_none() {
        return Err(NetworkError::Mac(mac.to_owned()));
    }
    let address = settings.ipam_config.as_ref().map(|ipam| ipam.ipv4_address.as_str());
    match address.filter(|text| !text.is_empty()) {
        Some(text) if text.parse::<Ipv4Addr>().is_err() => {
            Err(NetworkError::Address(text.to_owned()))
        }
        Some(_) => Err(NetworkError::StaticAddress),
        None => Ok(()),
    }
}
