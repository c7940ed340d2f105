//! Networks: the predefined `bridge`, `host` and `none`, and the place of each container in them.
//!
//! [`Networks`] is the seam to the rest of the engine: it turns what the API says into a request to the
//! [`Switchboard`](switchboard::Switchboard), which does the work, off the reactor, and tells the events.

mod bridge;
mod firewall;
mod ipam;
mod netlink;
mod nft;
mod ports;
mod state;
mod switchboard;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use docker_api::StringMap;
use docker_api::filters::{FilterError, Filters};
use docker_api::network::{EndpointSettings, Network, PortMap};
use proto::errdefs::Kind;

use crate::api::error::Classified;
use crate::config::Config;
use crate::events::Events;
use ports::{ContainerPort, Wanted};
use state::Attachment;
use switchboard::{AttachRequest, NetworkConfig, Switchboard};

pub(crate) use switchboard::NetworkError;

/// All networks.
#[derive(Debug)]
pub(crate) struct Networks {
    board: Arc<Switchboard>,
    events: Events,
}

/// What a container asks of its networks.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContainerNet {
    pub(crate) id: String,
    /// Without the leading slash.
    pub(crate) name: String,
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    /// Network (name or id) to what was asked for there. Never `host` or `container:`.
    pub(crate) networks: BTreeMap<String, EndpointSettings>,
    /// `80/tcp` to the host addresses wanted; includes exposed ports when all are published.
    pub(crate) port_bindings: PortMap,
    /// `80/tcp` and the like, exposed but not necessarily published.
    pub(crate) exposed: Vec<String>,
}

/// What it got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attached {
    pub(crate) sandbox_id: String,
    /// By network name.
    pub(crate) endpoints: BTreeMap<String, EndpointSettings>,
    /// As inspect shows `NetworkSettings.Ports`.
    pub(crate) ports: PortMap,
    /// Lines of `/etc/hosts` for the container's own addresses.
    pub(crate) hosts: Vec<(IpAddr, Vec<String>)>,
    /// Nameserver to write instead of the host's: 127.0.0.11 on user networks.
    pub(crate) nameserver: Option<IpAddr>,
}

impl Classified for NetworkError {
    fn kind(&self) -> Kind {
        self.class()
    }
}

impl Networks {
    /// Reads the networks of the data root and makes the predefined ones (bridge, host, none).
    pub(crate) async fn load(config: &Config, events: Events) -> Result<Self, NetworkError> {
        let config = board_config(config)?;
        let board = blocking(move || Switchboard::open(config)).await?;
        Ok(Self { board: Arc::new(board), events })
    }

    /// Checks at create that the networks and settings are possible; returns the endpoints with
    /// `network_id` filled, keyed by network name. Nothing is reserved.
    pub(crate) async fn check(
        &self,
        request: &ContainerNet,
    ) -> Result<BTreeMap<String, EndpointSettings>, NetworkError> {
        // Ports are read again at attach; here only to refuse early.
        wanted_ports(request)?;
        let mut endpoints = BTreeMap::new();
        for (name, settings) in &request.networks {
            // Compat: dockerd learns at start that a network is missing; a 404 here would mean the image.
            let (name, id) = match self.board.find(name) {
                Err(NetworkError::NotFound(_)) => (name.clone(), String::new()),
                found => found?,
            };
            switchboard::check_settings(settings)?;
            endpoints.insert(name, EndpointSettings { network_id: id, ..settings.clone() });
        }
        if endpoints.len() > 1 {
            return Err(NetworkError::NotYet("attaching a container to several networks"));
        }
        Ok(endpoints)
    }

    /// Connects the namespace at `netns` (made by the engine, empty, `lo` down) to every network
    /// of the request, brings up `lo`, publishes ports. All or nothing.
    pub(crate) async fn attach(
        &self,
        request: &ContainerNet,
        netns: &Path,
    ) -> Result<Attached, NetworkError> {
        let (network, settings) = request.networks.iter().next().map_or_else(
            || ("bridge".to_owned(), EndpointSettings::default()),
            |(name, settings)| (name.clone(), settings.clone()),
        );
        if request.networks.len() > 1 {
            return Err(NetworkError::NotYet("attaching a container to several networks"));
        }
        switchboard::check_settings(&settings)?;
        let (exposed, publish) = wanted_ports(request)?;
        let wanted = AttachRequest {
            container: request.id.clone(),
            name: request.name.clone(),
            network,
            mac: settings.mac_address.clone(),
            sandbox: netns.to_owned(),
            exposed,
            publish,
        };
        let board = Arc::clone(&self.board);
        let attachment = blocking(move || board.attach(&wanted)).await?;
        self.tell("connect", &attachment);
        Ok(attached(&attachment, request, &settings))
    }

    /// Releases everything the container holds. Nothing held is fine.
    pub(crate) async fn detach(&self, container_id: &str) -> Result<(), NetworkError> {
        let Some(attachment) = self.board.attachment(container_id) else { return Ok(()) };
        let (board, id) = (Arc::clone(&self.board), container_id.to_owned());
        let outcome = blocking(move || board.detach(&id)).await;
        self.tell("disconnect", &attachment);
        outcome
    }

    /// After a restart of the engine: exactly these containers are attached, with what they got;
    /// leases, ports and rules are rebuilt, leftovers of others removed.
    pub(crate) async fn restore(
        &self,
        living: Vec<(ContainerNet, Attached, PathBuf)>,
    ) -> Result<(), NetworkError> {
        let board = Arc::clone(&self.board);
        let alive: HashSet<String> = living.into_iter().map(|(request, _, _)| request.id).collect();
        blocking(move || board.restore(&alive)).await
    }

    /// A clean end: with nobody attached the bridge and the rules go too.
    pub(crate) async fn shutdown(&self) -> Result<(), NetworkError> {
        let board = Arc::clone(&self.board);
        blocking(move || board.shutdown()).await
    }

    /// `GET /networks`.
    pub(crate) fn list(&self, filters: &Filters) -> Result<Vec<Network>, FilterError> {
        self.board.list(filters)
    }

    /// `GET /networks/{id}`.
    pub(crate) fn inspect(&self, wanted: &str) -> Result<Network, NetworkError> {
        self.board.inspect(wanted)
    }

    fn tell(&self, action: &str, attachment: &Attachment) {
        let kind = if attachment.network == "none" { "null" } else { attachment.network.as_str() };
        let attributes = StringMap::from([
            ("container".to_owned(), attachment.container.clone()),
            ("name".to_owned(), attachment.network.clone()),
            ("type".to_owned(), kind.to_owned()),
        ]);
        self.events.publish("network", action, &attachment.network_id, attributes);
    }
}

/// Netlink and files wait, so they do it off the reactor.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(NetworkError::Interrupted))
}

fn attached(
    attachment: &Attachment,
    request: &ContainerNet,
    settings: &EndpointSettings,
) -> Attached {
    let hosts = attachment.link.as_ref().map(|link| {
        let mut names = vec![request.hostname.clone()];
        if !request.domainname.is_empty() {
            names.insert(0, format!("{}.{}", request.hostname, request.domainname));
        }
        (IpAddr::V4(link.address), names)
    });
    let endpoint = EndpointSettings {
        ipam_config: settings.ipam_config.clone(),
        links: settings.links.clone(),
        aliases: settings.aliases.clone(),
        driver_opts: settings.driver_opts.clone(),
        ..attachment.settings()
    };
    Attached {
        sandbox_id: attachment.sandbox_id.clone(),
        endpoints: BTreeMap::from([(attachment.network.clone(), endpoint)]),
        ports: attachment.ports(),
        hosts: hosts.into_iter().collect(),
        nameserver: None,
    }
}

fn wanted_ports(request: &ContainerNet) -> Result<(Vec<ContainerPort>, Vec<Wanted>), NetworkError> {
    let mut room = PORTS_MAX;
    let mut take = |count: usize| {
        room = room.checked_sub(count).ok_or(ports::PortError::TooMany)?;
        Ok::<_, NetworkError>(())
    };
    let mut exposed = BTreeSet::new();
    for text in &request.exposed {
        let ports = ports::parse_container_ports(text)?;
        take(ports.len())?;
        exposed.extend(ports);
    }
    let mut publish = Vec::new();
    for (text, bindings) in &request.port_bindings {
        for port in ports::parse_container_ports(text)? {
            take(1 + bindings.as_ref().map_or(0, Vec::len))?;
            for binding in bindings.iter().flatten() {
                publish.push(ports::parse_binding(port, &binding.host_ip, &binding.host_port)?);
            }
            exposed.insert(port);
        }
    }
    Ok((exposed.into_iter().collect(), publish))
}

/// Ports and bindings of one request: room for all there are, on two addresses each.
const PORTS_MAX: usize = 1 << 19;

/// The engine's flags as the switchboard wants them.
fn board_config(config: &Config) -> Result<NetworkConfig, NetworkError> {
    fn parse<T: std::str::FromStr>(
        flag: &'static str,
        text: Option<&String>,
    ) -> Result<Option<T>, NetworkError> {
        let text = text.filter(|text| !text.is_empty());
        text.map(|text| {
            text.parse().map_err(|_error| NetworkError::Flag { flag, value: text.clone() })
        })
        .transpose()
    }
    let flags = &config.network;
    // The identity of the data root; `sys::dirs` wrote it.
    let engine =
        std::fs::read_to_string(config.data_root.join("dockerd-rs-id")).unwrap_or_default();
    // Compat: the well known name only where Docker users look for it.
    let standard = config.data_root == Path::new("/var/lib/docker-rs");
    Ok(NetworkConfig {
        // The default name is no wish: whoever asks for it gets the engine's own bridge, as with dockerd.
        bridge: Some(flags.bridge.clone()).filter(|name| !["", "docker0"].contains(&name.as_str())),
        own_bridge: standard.then(|| "docker0".to_owned()),
        bip: parse("bip", flags.bip.as_ref())?,
        fixed_cidr: parse("fixed-cidr", flags.fixed_cidr.as_ref())?,
        default_gateway: parse("default-gateway", flags.default_gateway.as_ref())?,
        mtu: if flags.mtu == 0 { 1500 } else { flags.mtu },
        inter_container: flags.icc,
        iptables: flags.iptables,
        ip_forward: flags.ip_forward,
        masquerade: flags.ip_masq,
        publish_on: parse("ip", Some(&flags.default_ip))?.unwrap_or(Ipv4Addr::UNSPECIFIED),
        ..NetworkConfig::new(config.data_root.clone(), config.exec_root.clone(), engine.trim())
    })
}

#[cfg(test)]
mod tests;
