//! `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf`: our files, bound into the container and
//! edited in place.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use super::ContainerError;
use super::record::Record;
use crate::config::NetworkConfig;

/// Writes the three files of a container that has a network of its own.
pub(super) fn write(
    dir: &Path,
    record: &Record,
    defaults: &NetworkConfig,
) -> Result<(), ContainerError> {
    let fail = |name: &str| ContainerError::io(format!("write {}", dir.join(name).display()));
    let hostname = format!("{}\n", record.config.hostname);
    std::fs::write(dir.join("hostname"), hostname).map_err(fail("hostname"))?;
    std::fs::write(dir.join("hosts"), hosts(record)).map_err(fail("hosts"))?;
    let host_resolv = text_of(Path::new("/etc/resolv.conf"));
    let text = resolv_conf(record, defaults, &host_resolv);
    std::fs::write(dir.join("resolv.conf"), text).map_err(fail("resolv.conf"))
}

/// What can be read of a file of the host's: a comment in another encoding costs its own letters only.
fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn hosts(record: &Record) -> String {
    if record.host_config.network_mode == "host" {
        return text_of(Path::new("/etc/hosts"));
    }
    let mut text = String::from("127.0.0.1\tlocalhost\n");
    text.push_str("::1\tlocalhost ip6-localhost ip6-loopback\n");
    text.push_str("fe00::\tip6-localnet\nff00::\tip6-mcastprefix\n");
    text.push_str("ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n");
    for extra in record.host_config.extra_hosts.iter().flatten() {
        if let Some((name, address)) = extra.split_once([':', '=']) {
            let gateway = record
                .attached
                .iter()
                .flat_map(|attached| attached.endpoints.values())
                .map(|endpoint| endpoint.gateway.as_str())
                .find(|gateway| !gateway.is_empty());
            let address = match (address, gateway) {
                ("host-gateway", Some(gateway)) => gateway,
                (address, _) => address,
            };
            let _ = writeln!(text, "{address}\t{name}");
        }
    }
    for (address, names) in record.attached.iter().flat_map(|attached| &attached.hosts) {
        let _ = writeln!(text, "{address}\t{}", names.join(" "));
    }
    text
}

fn resolv_conf(record: &Record, defaults: &NetworkConfig, host: &str) -> String {
    if record.host_config.network_mode == "host" && record.host_config.dns.is_none() {
        return host.to_owned();
    }
    let given = |own: &Option<Vec<String>>, default: &[String]| -> Vec<String> {
        match own {
            Some(values) if !values.is_empty() => values.clone(),
            _ => default.to_vec(),
        }
    };
    let mut servers = given(&record.host_config.dns, &defaults.dns);
    let mut search = given(&record.host_config.dns_search, &defaults.dns_search);
    let mut options = given(&record.host_config.dns_options, &defaults.dns_opts);
    let from_host = |keyword: &str| -> Vec<String> {
        host.lines()
            .filter_map(|line| line.trim().strip_prefix(keyword))
            .flat_map(|rest| rest.split_whitespace().map(str::to_owned))
            .collect()
    };
    if let Some(nameserver) = record.attached.as_ref().and_then(|attached| attached.nameserver) {
        servers = vec![nameserver.to_string()];
        if !options.iter().any(|option| option.starts_with("ndots:")) {
            options.push("ndots:0".to_owned());
        }
    } else if servers.is_empty() {
        // A loopback server of the host answers nobody in here.
        servers = from_host("nameserver ");
        servers.retain(|server| {
            server.parse::<IpAddr>().map_or(true, |address| !address.is_loopback())
        });
        if servers.is_empty() {
            servers = vec!["8.8.8.8".to_owned(), "8.8.4.4".to_owned()];
        }
    }
    if search.is_empty() {
        search = from_host("search ");
    }
    if options.is_empty() {
        options = from_host("options ");
    }
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !search.is_empty() && search != ["."] {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn defaults() -> NetworkConfig {
        NetworkConfig {
            bridge: String::new(),
            bip: None,
            fixed_cidr: None,
            default_gateway: None,
            default_ip: String::new(),
            icc: true,
            iptables: true,
            ip_forward: true,
            ip_masq: true,
            userland_proxy: true,
            mtu: 1500,
            dns: vec![],
            dns_opts: vec![],
            dns_search: vec![],
            address_pools: vec![],
        }
    }

    #[test]
    fn loopback_servers_of_the_host_are_left_out() {
        let record = Record::default();
        let host = "nameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch a b\n";
        assert_eq!(resolv_conf(&record, &defaults(), host), "nameserver 10.0.0.1\nsearch a b\n");
        assert!(resolv_conf(&record, &defaults(), "").starts_with("nameserver 8.8.8.8\n"));
    }

    #[test]
    fn extra_hosts_come_before_own_addresses() {
        let mut record = Record::default();
        record.host_config.extra_hosts = Some(vec!["db:10.1.1.1".to_owned()]);
        assert!(hosts(&record).ends_with("10.1.1.1\tdb\n"));
    }

    #[test]
    fn a_comment_that_is_no_text_costs_no_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        std::fs::write(&path, b"# caf\xe9\nnameserver 10.0.0.1\n").unwrap();
        let host = text_of(&path);
        assert_eq!(resolv_conf(&Record::default(), &defaults(), &host), "nameserver 10.0.0.1\n");
        assert_eq!(text_of(&directory.path().join("none")), "");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

        #[test]
        fn any_file_of_the_host_gives_servers_that_answer(
            lines in proptest::collection::vec(
                "(nameserver|search|options|domain|#|;)?[ \t]{0,2}(127\\.0\\.0\\.53|::1|10\\.0\\.0\\.[1-9]|ndots:2|[a-z.é]{0,5})[ \t]?[a-z]{0,3}", 0..6,
            ),
        ) {
            let text = resolv_conf(&Record::default(), &defaults(), &lines.join("\n"));
            let servers: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("nameserver ")).collect();
            prop_assert!(!servers.is_empty());
            for line in text.lines() {
                let (word, rest) = line.split_once(' ').unwrap();
                prop_assert!(["nameserver", "search", "options"].contains(&word) && !rest.is_empty(), "{}", line);
            }
            let loopback = |server: &&str| server.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
            prop_assert!(!servers.iter().any(loopback), "{}", text);
            prop_assert_eq!(resolv_conf(&Record::default(), &defaults(), &text), text);
        }
    }
}
