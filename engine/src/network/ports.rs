//! Published ports: reading what was asked for, choosing host ports, and keeping them reserved.
//!
//! A host port is reserved by a socket bound (and, for TCP, listening) while the port is published, so no
//! other program and no other engine takes it. Packets never reach that socket: the firewall redirects
//! them to the container before. After a restart the sockets are bound again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// tcp or udp; sctp is refused with a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// `80/tcp`, as keys of `ExposedPorts` and `PortBindings` have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct ContainerPort {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

impl std::fmt::Display for ContainerPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// What a client wants published: one binding of one container port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) container: ContainerPort,
    /// None: every address (or the engine's `--ip`).
    pub(crate) host_ip: Option<IpAddr>,
    /// First and last host port; 0,0 lets the engine choose.
    pub(crate) host_ports: (u16, u16),
}

/// What is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) container: ContainerPort,
    pub(crate) host_ip: Ipv4Addr,
    pub(crate) host_port: u16,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    #[error("invalid port specification: \"{0}\"")]
    Invalid(String),
    #[error("invalid host IP address: {0}")]
    HostIp(String),
    #[error("publishing a port over {0} is not supported yet")]
    UnsupportedProtocol(String),
    #[error("publishing on the IPv6 address {0} is not supported yet")]
    UnsupportedIpv6(IpAddr),
    // Compat: dockerd says this when one of its own endpoints has the port …
    #[error("Bind for {ip}:{port} failed: port is already allocated")]
    Allocated { ip: Ipv4Addr, port: u16 },
    // … and this when another program has it.
    #[error("listen {protocol}4 {ip}:{port}: bind: {reason}")]
    Listen { protocol: Protocol, ip: Ipv4Addr, port: u16, reason: String },
    #[error("invalid port specification: too many ports")]
    TooMany,
    #[error("all ports are allocated")]
    Exhausted,
}

/// Reads `80`, `80/udp`, `80-82/tcp` into single container ports.
pub(crate) fn parse_container_ports(text: &str) -> Result<Vec<ContainerPort>, PortError> {
    let invalid = || PortError::Invalid(text.to_owned());
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => return Err(PortError::UnsupportedProtocol(protocol.to_owned())),
        _ => return Err(invalid()),
    };
    // Compat: named without the protocol.
    let no_port = || PortError::Invalid(range.to_owned());
    let (first, last) = parse_range(range).filter(|range| range.0 != 0).ok_or_else(no_port)?;
    Ok((first..=last).map(|port| ContainerPort { port, protocol }).collect())
}

/// One binding as the API has it: container key, host address text, host port text.
pub(crate) fn parse_binding(
    container: ContainerPort,
    host_ip: &str,
    host_port: &str,
) -> Result<Wanted, PortError> {
    let host_ip = match host_ip {
        "" => None,
        text => Some(
            text.trim_matches(['[', ']'])
                .parse()
                .map_err(|_error| PortError::HostIp(text.to_owned()))?,
        ),
    };
    let host_ports = match host_port {
        "" => (0, 0),
        text => parse_range(text).ok_or_else(|| PortError::Invalid(text.to_owned()))?,
    };
    Ok(Wanted { container, host_ip, host_ports })
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse().ok().filter(|_| !text.starts_with('+'));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// The host ports in use by this engine's endpoints, with the sockets that hold them.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    held: Vec<Held>,
    /// Where the search for an ephemeral port goes on, as dockerd does: a port just freed is not given at once.
    next_ephemeral: u16,
}

#[derive(Debug)]
struct Held {
    endpoint: String,
    published: Published,
    /// None after a restart when somebody took the port while the engine was away.
    _socket: Option<OwnedFd>,
}

impl Ports {
    /// Reserves every wanted port for `endpoint`, or none.
    pub(crate) fn reserve(
        &mut self,
        endpoint: &str,
        wanted: &[Wanted],
        default_ip: Ipv4Addr,
    ) -> Result<Vec<Published>, PortError> {
        let mut published = Vec::with_capacity(wanted.len());
        for want in wanted {
            match self.reserve_one(endpoint, want, default_ip) {
                Ok(one) => published.push(one),
                Err(error) => {
                    self.release(endpoint);
                    return Err(error);
                }
            }
        }
        published.sort_unstable();
        Ok(published)
    }

    fn reserve_one(
        &mut self,
        endpoint: &str,
        want: &Wanted,
        default_ip: Ipv4Addr,
    ) -> Result<Published, PortError> {
        let ip = match want.host_ip {
            None => default_ip,
            Some(IpAddr::V4(ip)) => ip,
            Some(ip @ IpAddr::V6(_)) => return Err(PortError::UnsupportedIpv6(ip)),
        };
        let protocol = want.container.protocol;
        let (first, last) = want.host_ports;
        if first == 0 {
            return self.reserve_ephemeral(endpoint, want.container, ip);
        }
        let mut refused = PortError::Exhausted;
        for port in first..=last {
            if self.is_held(protocol, ip, port) {
                refused = PortError::Allocated { ip, port };
                continue;
            }
            match bind(protocol, ip, port) {
                Ok(socket) => return Ok(self.hold(endpoint, want.container, ip, port, socket)),
                Err(error) => refused = listen_error(protocol, ip, port, &error),
            }
        }
        Err(refused)
    }

    fn reserve_ephemeral(
        &mut self,
        endpoint: &str,
        container: ContainerPort,
        ip: Ipv4Addr,
    ) -> Result<Published, PortError> {
        let (low, high) = ephemeral_range();
        let count = u32::from(high) - u32::from(low) + 1;
        for _ in 0..count {
            let port =
                if (low..=high).contains(&self.next_ephemeral) { self.next_ephemeral } else { low };
            self.next_ephemeral = port.checked_add(1).unwrap_or(low);
            if self.is_held(container.protocol, ip, port) {
                continue;
            }
            if let Ok(socket) = bind(container.protocol, ip, port) {
                return Ok(self.hold(endpoint, container, ip, port, socket));
            }
        }
        Err(PortError::Exhausted)
    }

    fn hold(
        &mut self,
        endpoint: &str,
        container: ContainerPort,
        host_ip: Ipv4Addr,
        host_port: u16,
        socket: OwnedFd,
    ) -> Published {
        let published = Published { container, host_ip, host_port };
        self.held.push(Held { endpoint: endpoint.to_owned(), published, _socket: Some(socket) });
        published
    }

    /// After a restart: the port is ours by the record; whether the socket could be bound again is told.
    pub(crate) fn restore(&mut self, endpoint: &str, published: Published) -> std::io::Result<()> {
        let bound = bind(published.container.protocol, published.host_ip, published.host_port);
        let (socket, outcome) = match bound {
            Ok(socket) => (Some(socket), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.held.push(Held { endpoint: endpoint.to_owned(), published, _socket: socket });
        outcome
    }

    pub(crate) fn release(&mut self, endpoint: &str) {
        self.held.retain(|held| held.endpoint != endpoint);
    }

    /// The unspecified address meets every other one.
    fn is_held(&self, protocol: Protocol, ip: Ipv4Addr, port: u16) -> bool {
        self.held.iter().any(|held| {
            let other = &held.published;
            other.container.protocol == protocol
                && other.host_port == port
                && (other.host_ip == ip || other.host_ip.is_unspecified() || ip.is_unspecified())
        })
    }
}

fn listen_error(protocol: Protocol, ip: Ipv4Addr, port: u16, error: &std::io::Error) -> PortError {
    let reason = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "address already in use".to_owned(),
        Some(libc::EADDRNOTAVAIL) => "cannot assign requested address".to_owned(),
        Some(libc::EACCES) => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    PortError::Listen { protocol, ip, port, reason }
}

/// Binding waits for nobody, so it may run where the caller runs.
fn bind(protocol: Protocol, ip: Ipv4Addr, port: u16) -> std::io::Result<OwnedFd> {
    let address = SocketAddr::from((ip, port));
    Ok(match protocol {
        Protocol::Tcp => std::net::TcpListener::bind(address)?.into(),
        Protocol::Udp => std::net::UdpSocket::bind(address)?.into(),
    })
}

/// The kernel's own range where it can be read, else IANA's, as dockerd.
fn ephemeral_range() -> (u16, u16) {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| {
            let mut numbers = text.split_whitespace().map(str::parse::<u16>);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        })
        .filter(|(low, high)| low <= high && *low > 0)
        .unwrap_or((49153, 65535))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tcp(port: u16) -> ContainerPort {
        ContainerPort { port, protocol: Protocol::Tcp }
    }

    const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

    #[test]
    fn container_ports_read_as_docker_writes_them() {
        assert_eq!(parse_container_ports("80").unwrap(), [tcp(80)]);
        assert_eq!(parse_container_ports("80-82/tcp").unwrap(), [tcp(80), tcp(81), tcp(82)]);
        assert_eq!(
            parse_container_ports("53/udp").unwrap(),
            [ContainerPort { port: 53, protocol: Protocol::Udp }]
        );
        for bad in ["", "0", "82-80", "x", "80/xtp", "70000"] {
            assert!(parse_container_ports(bad).is_err(), "{bad}");
        }
        assert!(matches!(parse_container_ports("80/sctp"), Err(PortError::UnsupportedProtocol(_))));
    }

    #[test]
    fn bindings_read_addresses_and_ranges() {
        let wanted = parse_binding(tcp(80), "127.0.0.1", "8080").unwrap();
        assert_eq!(wanted.host_ip, Some(IpAddr::V4(LOCAL)));
        assert_eq!(wanted.host_ports, (8080, 8080));
        assert_eq!(parse_binding(tcp(80), "", "").unwrap().host_ports, (0, 0));
        assert_eq!(parse_binding(tcp(80), "", "8000-8010").unwrap().host_ports, (8000, 8010));
        assert!(parse_binding(tcp(80), "nohost", "80").is_err());
        assert!(parse_binding(tcp(80), "", "http").is_err());
    }

    #[test]
    fn a_port_of_ours_is_refused_with_dockerds_words() {
        let mut ports = Ports::default();
        let free = parse_binding(tcp(80), "127.0.0.1", "").unwrap();
        let first = ports.reserve("a", &[free], LOCAL).unwrap()[0];
        let again = Wanted {
            container: tcp(80),
            host_ip: None,
            host_ports: (first.host_port, first.host_port),
        };
        let error =
            ports.reserve("b", std::slice::from_ref(&again), Ipv4Addr::UNSPECIFIED).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("Bind for 0.0.0.0:{} failed: port is already allocated", first.host_port)
        );
        ports.release("a");
        assert_eq!(ports.reserve("b", &[again], LOCAL).unwrap()[0].host_port, first.host_port);
    }

    #[test]
    fn a_port_of_another_program_is_refused_with_dockerds_words() {
        let other = std::net::TcpListener::bind((LOCAL, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        let wanted = Wanted { container: tcp(80), host_ip: None, host_ports: (port, port) };
        let error = Ports::default().reserve("a", &[wanted], LOCAL).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("listen tcp4 127.0.0.1:{port}: bind: address already in use")
        );
    }

    #[test]
    fn a_range_skips_what_is_taken_and_a_failure_gives_all_back() {
        let mut ports = Ports::default();
        let any = Wanted { container: tcp(80), host_ip: None, host_ports: (0, 0) };
        let base = ports.reserve("a", &[any], LOCAL).unwrap()[0].host_port;
        let Some(next) = base.checked_add(8) else { return };
        let range = Wanted { container: tcp(80), host_ip: None, host_ports: (base, next) };
        let second = ports.reserve("b", &[range], LOCAL).unwrap()[0].host_port;
        assert!(second > base && second <= next);
        let fresh = Wanted { container: tcp(81), host_ip: None, host_ports: (0, 0) };
        let clash = Wanted { container: tcp(82), host_ip: None, host_ports: (base, base) };
        assert!(ports.reserve("c", &[fresh, clash], LOCAL).is_err());
        assert!(ports.held.iter().all(|held| held.endpoint != "c"));
    }

    proptest! {
        #[test]
        fn ports_are_numbers_and_ranges_of_them(text in "[0-9+-]{0,12}(/(tcp|udp|TCP|sctp|x|))?") {
            let (range, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let number = |text: &str| -> Option<u16> {
                text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
            };
            let wanted = number(first).zip(number(last)).filter(|(first, last)| *first > 0 && first <= last);
            match parse_container_ports(&text) {
                Ok(ports) => {
                    let read: Vec<u16> = ports.iter().map(|port| port.port).collect();
                    prop_assert_eq!(read, wanted.map_or(vec![], |(first, last)| (first..=last).collect()));
                    for port in ports.iter().take(3) {
                        prop_assert_eq!(parse_container_ports(&port.to_string()).unwrap(), [*port]);
                    }
                }
                Err(_) => prop_assert!(wanted.is_none() || ["sctp", "x"].contains(&protocol)),
            }
        }

        #[test]
        fn bindings_name_an_address_and_ports(
            ip in "[0-9a-f:.\\[\\]]{0,12}",
            ports in "[0-9+-]{0,11}",
        ) {
            if let Ok(wanted) = parse_binding(tcp(80), &ip, &ports) {
                prop_assert_eq!(wanted.host_ip.is_none(), ip.is_empty());
                prop_assert!(wanted.host_ports.0 <= wanted.host_ports.1);
                prop_assert!(!ports.contains('+'));
            }
        }
    }
}
