//! Networks: who is connected to what, and how packets get there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use docker_api::network::{EndpointSettings, PortMap};
use proto::errdefs::Kind;

use crate::api::error::Classified;
use crate::config::Config;
use crate::events::Events;

/// All networks.
#[derive(Debug)]
pub(crate) struct Networks {}

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

/// A network call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("network {0} not found")]
    NotFound(String),
    #[error("networks are not there yet")]
    NotYet,
}

impl Classified for NetworkError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) => Kind::NotFound,
            Self::NotYet => Kind::Unimplemented,
        }
    }
}

impl Networks {
    /// Reads the networks of the data root and makes the predefined ones (bridge, host, none).
    pub(crate) async fn load(_config: &Config, _events: Events) -> Result<Self, NetworkError> {
        Ok(Self {})
    }

    /// Checks at create that the networks and settings are possible; returns the endpoints with
    /// `network_id` filled, keyed by network name. Nothing is reserved.
    pub(crate) async fn check(
        &self,
        request: &ContainerNet,
    ) -> Result<BTreeMap<String, EndpointSettings>, NetworkError> {
        Ok(request.networks.clone())
    }

    /// Connects the namespace at `netns` (made by the engine, empty, `lo` down) to every network
    /// of the request, brings up `lo`, publishes ports. All or nothing.
    pub(crate) async fn attach(
        &self,
        _request: &ContainerNet,
        _netns: &Path,
    ) -> Result<Attached, NetworkError> {
        Err(NetworkError::NotYet)
    }

    /// Releases everything the container holds. Nothing held is fine.
    pub(crate) async fn detach(&self, _container_id: &str) -> Result<(), NetworkError> {
        Ok(())
    }

    /// After a restart of the engine: exactly these containers are attached, with what they got;
    /// leases, ports and rules are rebuilt, leftovers of others removed.
    pub(crate) async fn restore(
        &self,
        _living: Vec<(ContainerNet, Attached, PathBuf)>,
    ) -> Result<(), NetworkError> {
        Ok(())
    }
}
