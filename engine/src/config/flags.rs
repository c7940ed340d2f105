//! The command line, and the keys of `daemon.json` that go with it.

use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use clap::{ArgMatches, Parser};
use serde_json::Value;

/// A self-sufficient runtime for containers.
#[derive(Parser, Debug)]
#[command(name = "dockerd-rs", disable_version_flag = true)]
pub(super) struct Flags {
    /// Root directory of persistent state
    #[arg(long, default_value = "/var/lib/docker-rs")]
    pub(super) data_root: PathBuf,
    /// Root directory for execution state files
    #[arg(long, default_value = "/run/docker-rs")]
    pub(super) exec_root: PathBuf,
    /// Path to use for daemon PID file
    #[arg(long, short = 'p', default_value = "/run/docker-rs.pid")]
    pub(super) pidfile: PathBuf,
    /// Daemon socket(s) to connect to
    #[arg(long = "host", short = 'H')]
    pub(super) hosts: Vec<String>,
    /// Group for the unix socket
    #[arg(long, short = 'G', default_value = "docker")]
    pub(super) group: String,
    /// Daemon configuration file
    #[arg(long, default_value = "/etc/docker/daemon.json")]
    pub(super) config_file: PathBuf,
    /// Enable debug mode
    #[arg(long, short = 'D', num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub(super) debug: bool,
    /// Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")
    #[arg(long, short = 'l', default_value = "info")]
    pub(super) log_level: String,
    /// Set the logging format ("text"|"json")
    #[arg(long, default_value = "text")]
    pub(super) log_format: String,
    /// containerd grpc address
    #[arg(long)]
    pub(super) containerd: Option<PathBuf>,
    /// Containerd namespace to use
    #[arg(long, default_value = "moby")]
    pub(super) containerd_namespace: String,
    /// Default OCI runtime for containers
    #[arg(long, default_value = "runc")]
    pub(super) default_runtime: String,
    /// Register an additional OCI compatible runtime (name=path)
    #[arg(long = "add-runtime")]
    pub(super) runtimes: Vec<String>,
    /// Set parent cgroup for all containers
    #[arg(long, default_value = "")]
    pub(super) cgroup_parent: String,
    /// Runtime execution options
    #[arg(long = "exec-opt")]
    pub(super) exec_opts: Vec<String>,
    /// Default shm size for containers
    #[arg(long, default_value = "64M")]
    pub(super) default_shm_size: String,
    /// Default mode for containers ipc ("shareable" | "private")
    #[arg(long, default_value = "private")]
    pub(super) default_ipc_mode: String,
    /// Default mode for containers cgroup namespace ("host" | "private")
    #[arg(long, default_value = "")]
    pub(super) default_cgroupns_mode: String,
    /// Default ulimits for containers
    #[arg(long = "default-ulimit")]
    pub(super) default_ulimits: Vec<String>,
    /// Set no-new-privileges by default for new containers
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub(super) no_new_privileges: bool,
    /// Path to seccomp profile
    #[arg(long, default_value = "builtin")]
    pub(super) seccomp_profile: String,
    /// Default driver for container logs
    #[arg(long, default_value = "json-file")]
    pub(super) log_driver: String,
    /// Default log driver options for containers
    #[arg(long = "log-opt")]
    pub(super) log_opts: Vec<String>,
    /// Set key=value labels to the daemon
    #[arg(long = "label")]
    pub(super) labels: Vec<String>,
    /// Storage driver to use
    #[arg(long, short = 's', default_value = "overlayfs")]
    pub(super) storage_driver: String,
    /// Enable insecure registry communication
    #[arg(long = "insecure-registry")]
    pub(super) insecure_registries: Vec<String>,
    /// Preferred registry mirror
    #[arg(long = "registry-mirror")]
    pub(super) registry_mirrors: Vec<String>,
    /// Set the default shutdown timeout
    #[arg(long, default_value_t = 15)]
    pub(super) shutdown_timeout: i64,
    /// Keep containers running while the daemon is down
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub(super) live_restore: bool,
    /// Run an init in the container to forward signals and reap processes
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub(super) init: bool,
    /// Attach containers to a network bridge
    #[arg(long, short = 'b', default_value = "")]
    pub(super) bridge: String,
    /// Specify network bridge IP
    #[arg(long)]
    pub(super) bip: Option<String>,
    /// IPv4 subnet for fixed IPs
    #[arg(long)]
    pub(super) fixed_cidr: Option<String>,
    /// Container default gateway IPv4 address
    #[arg(long)]
    pub(super) default_gateway: Option<String>,
    /// Default IP when binding container ports
    #[arg(long, default_value = "0.0.0.0")]
    pub(super) ip: String,
    /// Enable inter-container communication
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub(super) icc: bool,
    /// Enable addition of firewall rules
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub(super) iptables: bool,
    /// Enable net.ipv4.ip_forward
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub(super) ip_forward: bool,
    /// Enable IP masquerading
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub(super) ip_masq: bool,
    /// Use userland proxy for loopback traffic
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    pub(super) userland_proxy: bool,
    /// Set the containers network MTU
    #[arg(long, default_value_t = 1500)]
    pub(super) mtu: u32,
    /// DNS server to use
    #[arg(long)]
    pub(super) dns: Vec<String>,
    /// DNS options to use
    #[arg(long = "dns-opt")]
    pub(super) dns_opts: Vec<String>,
    /// DNS search domains to use
    #[arg(long)]
    pub(super) dns_search: Vec<String>,
    /// Default address pools for node specific local networks (base=…,size=…)
    #[arg(long = "default-address-pool")]
    pub(super) default_address_pools: Vec<String>,
    /// Validate daemon configuration and exit
    #[arg(long)]
    pub(super) validate: bool,
    /// Print version information and quit
    #[arg(long, short = 'v')]
    pub(super) version: bool,
}

/// daemon.json keys that have a flag of ours: key, flag's id.
pub(super) const KEYS: &[(&str, &str)] = &[
    ("data-root", "data_root"),
    ("exec-root", "exec_root"),
    ("pidfile", "pidfile"),
    ("hosts", "hosts"),
    ("group", "group"),
    ("debug", "debug"),
    ("log-level", "log_level"),
    ("log-format", "log_format"),
    ("containerd", "containerd"),
    ("containerd-namespace", "containerd_namespace"),
    ("default-runtime", "default_runtime"),
    ("cgroup-parent", "cgroup_parent"),
    ("exec-opts", "exec_opts"),
    ("default-shm-size", "default_shm_size"),
    ("default-ipc-mode", "default_ipc_mode"),
    ("default-cgroupns-mode", "default_cgroupns_mode"),
    ("no-new-privileges", "no_new_privileges"),
    ("seccomp-profile", "seccomp_profile"),
    ("log-driver", "log_driver"),
    ("labels", "labels"),
    ("storage-driver", "storage_driver"),
    ("insecure-registries", "insecure_registries"),
    ("registry-mirrors", "registry_mirrors"),
    ("shutdown-timeout", "shutdown_timeout"),
    ("live-restore", "live_restore"),
    ("init", "init"),
    ("bridge", "bridge"),
    ("bip", "bip"),
    ("fixed-cidr", "fixed_cidr"),
    ("default-gateway", "default_gateway"),
    ("ip", "ip"),
    ("icc", "icc"),
    ("iptables", "iptables"),
    ("ip-forward", "ip_forward"),
    ("ip-masq", "ip_masq"),
    ("userland-proxy", "userland_proxy"),
    ("mtu", "mtu"),
    ("dns", "dns"),
    ("dns-opts", "dns_opts"),
    ("dns-search", "dns_search"),
];

/// Keys with a form of their own.
const STRUCTURED: &[&str] = &["runtimes", "default-ulimits", "log-opts", "default-address-pools"];

/// Keys of dockerd that change nothing here; accepted with a warning.
const INERT: &[&str] = &[
    "allow-nondistributable-artifacts",
    "api-cors-header",
    "authorization-plugins",
    "bip6",
    "bridge-accept-fwmark",
    "builder",
    "cdi-spec-dirs",
    "cluster-advertise",
    "cluster-store",
    "cluster-store-opts",
    "containerd-plugins-namespace",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "default-gateway-v6",
    "default-network-opts",
    "default-stop-timeout",
    "experimental",
    "features",
    "firewall-backend",
    "fixed-cidr-v6",
    "host-gateway-ip",
    "host-gateway-ips",
    "http-proxy",
    "https-proxy",
    "init-path",
    "ip6tables",
    "ipv6",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "metrics-addr",
    "min-api-version",
    "network-control-plane-mtu",
    "network-diagnostic-port",
    "no-proxy",
    "node-generic-resources",
    "oom-score-adjust",
    "proxies",
    "raw-logs",
    "rootless",
    "selinux-enabled",
    "storage-opts",
    "swarm-default-advertise-addr",
    "swarm-raft-election-tick",
    "swarm-raft-heartbeat-tick",
    "tls",
    "tlscacert",
    "tlscert",
    "tlskey",
    "tlsverify",
    "userland-proxy-path",
    "userns-remap",
];

/// Refuses keys of `daemon.json` that nobody knows, or that stand on the command line as well.
pub(super) fn check_keys(
    file: &serde_json::Map<String, Value>,
    matches: &ArgMatches,
) -> anyhow::Result<()> {
    let unknown: Vec<&str> = file
        .keys()
        .map(String::as_str)
        .filter(|key| {
            !KEYS.iter().any(|(known, _)| known == key)
                && !STRUCTURED.contains(key)
                && !INERT.contains(key)
        })
        .collect();
    if !unknown.is_empty() {
        // Compat: dockerd's words.
        bail!(
            "the following directives don't match any configuration option: {}",
            unknown.join(", ")
        );
    }
    let twice: Vec<String> = KEYS
        .iter()
        .filter(|(key, id)| {
            file.contains_key(*key)
                && matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine)
        })
        .map(|(key, _)| format!("{key}: (from file: {})", file[*key]))
        .collect();
    if !twice.is_empty() {
        bail!(
            "the following directives are specified both as a flag and in the configuration file: {}",
            twice.join(", ")
        );
    }
    for key in file.keys().filter(|key| INERT.contains(&key.as_str())) {
        drop(writeln!(std::io::stderr(), "warning: daemon.json key {key:?} has no effect"));
    }
    Ok(())
}
