//! Networks and attachments as the API shows them.

use std::collections::BTreeMap;

use docker_api::StringMap;
use docker_api::filters::{FilterError, Filters};
use docker_api::network as api;

use super::state::Attachment;
use super::switchboard::{NetworkError, Switchboard};

impl Switchboard {
    /// `GET /networks`, newest Docker's order: by name.
    pub(crate) fn list(&self, filters: &Filters) -> Result<Vec<api::Network>, FilterError> {
        filters.only(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        let dangling = filters.flag("dangling")?;
        for kind in filters.get("type") {
            if kind != "builtin" && kind != "custom" {
                return Err(FilterError::BadValue { key: "type".into(), value: kind.into() });
            }
        }
        let names = self.ids.keys().filter(|name| self.exists(name));
        Ok(names
            .map(|name| self.view(name, false))
            .filter(|network| {
                filters.exact("driver", &network.driver)
                    && filters.any("id", |id| network.id.starts_with(id))
                    && filters.any("name", |name| network.name.contains(name))
                    && filters.exact("scope", &network.scope)
                    && filters.exact("type", "builtin")
                    && filters.labels("label", &network.labels)
                    // The predefined ones are never dangling.
                    && dangling != Some(true)
            })
            .collect())
    }

    /// `GET /networks/{id}`, with the containers in it.
    pub(crate) fn inspect(&self, wanted: &str) -> Result<api::Network, NetworkError> {
        let (name, _id) = self.find(wanted)?;
        Ok(self.view(&name, true))
    }

    fn view(&self, name: &str, with_containers: bool) -> api::Network {
        let (id, created) = self
            .ids
            .get(name)
            .map(|record| (record.id.clone(), record.created.clone()))
            .unwrap_or_default();
        let bridge = self.bridge.as_ref().filter(|_| name == "bridge");
        let (options, pools) = match bridge {
            None => (StringMap::new(), None),
            Some(bridge) => {
                let config = &self.config;
                let options = [
                    ("com.docker.network.bridge.default_bridge", "true".to_owned()),
                    ("com.docker.network.bridge.enable_icc", config.inter_container.to_string()),
                    (
                        "com.docker.network.bridge.enable_ip_masquerade",
                        config.masquerade.to_string(),
                    ),
                    ("com.docker.network.bridge.host_binding_ipv4", config.publish_on.to_string()),
                    ("com.docker.network.bridge.name", bridge.name.clone()),
                    ("com.docker.network.driver.mtu", config.mtu.to_string()),
                ];
                let pool = api::IpamPool {
                    subnet: bridge.address.trunc().to_string(),
                    ip_range: config.fixed_cidr.map(|net| net.to_string()).unwrap_or_default(),
                    gateway: bridge.gateway.to_string(),
                    auxiliary_addresses: None,
                };
                (options.map(|(key, value)| (key.to_owned(), value)).into(), Some(vec![pool]))
            }
        };
        let containers = if with_containers { self.containers(name) } else { BTreeMap::new() };
        api::Network {
            name: name.to_owned(),
            id,
            created,
            scope: "local".to_owned(),
            driver: if name == "none" { "null" } else { name }.to_owned(),
            enable_ipv4: Some(true),
            ipam: api::Ipam { driver: "default".to_owned(), options: None, config: pools },
            containers,
            options,
            ..api::Network::default()
        }
    }

    fn containers(&self, network: &str) -> BTreeMap<String, api::EndpointResource> {
        let state = self.lock();
        let here = state.attachments.values().filter(|attachment| attachment.network == network);
        here.map(|attachment| {
            let link = attachment.link.as_ref();
            let resource = api::EndpointResource {
                name: attachment.container_name.clone(),
                endpoint_id: attachment.endpoint_id.clone(),
                mac_address: link.map(|link| link.mac.clone()).unwrap_or_default(),
                ipv4_address: link
                    .map(|link| format!("{}/{}", link.address, link.prefix_len))
                    .unwrap_or_default(),
                ipv6_address: String::new(),
            };
            (attachment.container.clone(), resource)
        })
        .collect()
    }
}

impl Attachment {
    /// `NetworkSettings.Networks.*`.
    pub(crate) fn settings(&self) -> api::EndpointSettings {
        let link = self.link.as_ref();
        api::EndpointSettings {
            mac_address: link.map(|link| link.mac.clone()).unwrap_or_default(),
            network_id: self.network_id.clone(),
            endpoint_id: self.endpoint_id.clone(),
            gateway: link.map(|link| link.gateway.to_string()).unwrap_or_default(),
            ip_address: link.map(|link| link.address.to_string()).unwrap_or_default(),
            ip_prefix_len: link.map(|link| link.prefix_len).unwrap_or_default(),
            ..api::EndpointSettings::default()
        }
    }

    /// `NetworkSettings.Ports`: every exposed port, null where it is not published.
    pub(crate) fn ports(&self) -> api::PortMap {
        let mut ports: api::PortMap =
            self.exposed.iter().map(|port| (port.to_string(), None)).collect();
        for published in &self.published {
            let bindings = ports.entry(published.container.to_string()).or_default();
            bindings.get_or_insert_default().push(api::PortBinding {
                host_ip: published.host_ip.to_string(),
                host_port: published.host_port.to_string(),
            });
        }
        ports
    }
}
