//! dockerd's flags and `daemon.json`, parsed once into [`Config`]; nothing below reads either.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use serde_json::Value;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The engine's configuration with every default applied.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    pub(crate) pid_file: PathBuf,
    pub(crate) hosts: Vec<String>,
    pub(crate) group: String,
    pub(crate) debug: bool,
    pub(crate) log_level: String,
    pub(crate) log_json: bool,
    /// An existing containerd; without it one is started under `exec_root`.
    pub(crate) containerd: Option<PathBuf>,
    pub(crate) containerd_namespace: String,
    pub(crate) default_runtime: String,
    /// Name to path of an OCI runtime.
    pub(crate) runtimes: BTreeMap<String, String>,
    pub(crate) cgroup_parent: String,
    pub(crate) systemd_cgroup: bool,
    pub(crate) default_shm_size: i64,
    pub(crate) default_ipc_mode: String,
    pub(crate) default_cgroupns_mode: String,
    /// `name=soft:hard`.
    pub(crate) default_ulimits: Vec<String>,
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp_profile: String,
    pub(crate) log_driver: String,
    pub(crate) log_opts: BTreeMap<String, String>,
    pub(crate) labels: Vec<String>,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) registry_mirrors: Vec<String>,
    pub(crate) shutdown_timeout: i64,
    /// True unless asked otherwise: containers outlive the engine.
    pub(crate) live_restore: bool,
    pub(crate) init: bool,
    pub(crate) network: NetworkConfig,
}

/// What the default networks look like.
#[derive(Clone, Debug)]
pub(crate) struct NetworkConfig {
    /// A bridge of the administrator's; empty is our own docker0, `none` no default network.
    pub(crate) bridge: String,
    pub(crate) bip: Option<String>,
    pub(crate) fixed_cidr: Option<String>,
    pub(crate) default_gateway: Option<String>,
    pub(crate) default_ip: String,
    pub(crate) icc: bool,
    pub(crate) iptables: bool,
    pub(crate) ip_forward: bool,
    pub(crate) ip_masq: bool,
    #[expect(dead_code, reason = "no userland proxy yet; the flag is accepted")]
    pub(crate) userland_proxy: bool,
    pub(crate) mtu: u32,
    pub(crate) dns: Vec<String>,
    pub(crate) dns_opts: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    /// `(base, size)` of the pools networks are cut from.
    #[expect(dead_code, reason = "user-defined networks come later; the flag is accepted")]
    pub(crate) address_pools: Vec<(String, u8)>,
}

/// A self-sufficient runtime for containers.
#[derive(Parser, Debug)]
#[command(name = "dockerd-rs", disable_version_flag = true)]
struct Flags {
    /// Root directory of persistent state
    #[arg(long, default_value = "/var/lib/docker-rs")]
    data_root: PathBuf,
    /// Root directory for execution state files
    #[arg(long, default_value = "/run/docker-rs")]
    exec_root: PathBuf,
    /// Path to use for daemon PID file
    #[arg(long, short = 'p', default_value = "/run/docker-rs.pid")]
    pidfile: PathBuf,
    /// Daemon socket(s) to connect to
    #[arg(long = "host", short = 'H')]
    hosts: Vec<String>,
    /// Group for the unix socket
    #[arg(long, short = 'G', default_value = "docker")]
    group: String,
    /// Daemon configuration file
    #[arg(long, default_value = "/etc/docker/daemon.json")]
    config_file: PathBuf,
    /// Enable debug mode
    #[arg(long, short = 'D', num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    debug: bool,
    /// Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")
    #[arg(long, short = 'l', default_value = "info")]
    log_level: String,
    /// Set the logging format ("text"|"json")
    #[arg(long, default_value = "text")]
    log_format: String,
    /// containerd grpc address
    #[arg(long)]
    containerd: Option<PathBuf>,
    /// Containerd namespace to use
    #[arg(long, default_value = "moby")]
    containerd_namespace: String,
    /// Default OCI runtime for containers
    #[arg(long, default_value = "runc")]
    default_runtime: String,
    /// Register an additional OCI compatible runtime (name=path)
    #[arg(long = "add-runtime")]
    runtimes: Vec<String>,
    /// Set parent cgroup for all containers
    #[arg(long, default_value = "")]
    cgroup_parent: String,
    /// Runtime execution options
    #[arg(long = "exec-opt")]
    exec_opts: Vec<String>,
    /// Default shm size for containers
    #[arg(long, default_value = "64M")]
    default_shm_size: String,
    /// Default mode for containers ipc ("shareable" | "private")
    #[arg(long, default_value = "private")]
    default_ipc_mode: String,
    /// Default mode for containers cgroup namespace ("host" | "private")
    #[arg(long, default_value = "")]
    default_cgroupns_mode: String,
    /// Default ulimits for containers
    #[arg(long = "default-ulimit")]
    default_ulimits: Vec<String>,
    /// Set no-new-privileges by default for new containers
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    no_new_privileges: bool,
    /// Path to seccomp profile
    #[arg(long, default_value = "builtin")]
    seccomp_profile: String,
    /// Default driver for container logs
    #[arg(long, default_value = "json-file")]
    log_driver: String,
    /// Default log driver options for containers
    #[arg(long = "log-opt")]
    log_opts: Vec<String>,
    /// Set key=value labels to the daemon
    #[arg(long = "label")]
    labels: Vec<String>,
    /// Storage driver to use
    #[arg(long, short = 's', default_value = "overlayfs")]
    storage_driver: String,
    /// Enable insecure registry communication
    #[arg(long = "insecure-registry")]
    insecure_registries: Vec<String>,
    /// Preferred registry mirror
    #[arg(long = "registry-mirror")]
    registry_mirrors: Vec<String>,
    /// Set the default shutdown timeout
    #[arg(long, default_value_t = 15)]
    shutdown_timeout: i64,
    /// Keep containers running while the daemon is down
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    live_restore: bool,
    /// Run an init in the container to forward signals and reap processes
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    init: bool,
    /// Attach containers to a network bridge
    #[arg(long, short = 'b', default_value = "")]
    bridge: String,
    /// Specify network bridge IP
    #[arg(long)]
    bip: Option<String>,
    /// IPv4 subnet for fixed IPs
    #[arg(long)]
    fixed_cidr: Option<String>,
    /// Container default gateway IPv4 address
    #[arg(long)]
    default_gateway: Option<String>,
    /// Default IP when binding container ports
    #[arg(long, default_value = "0.0.0.0")]
    ip: String,
    /// Enable inter-container communication
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    icc: bool,
    /// Enable addition of firewall rules
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    iptables: bool,
    /// Enable net.ipv4.ip_forward
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    ip_forward: bool,
    /// Enable IP masquerading
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    ip_masq: bool,
    /// Use userland proxy for loopback traffic
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
    userland_proxy: bool,
    /// Set the containers network MTU
    #[arg(long, default_value_t = 1500)]
    mtu: u32,
    /// DNS server to use
    #[arg(long)]
    dns: Vec<String>,
    /// DNS options to use
    #[arg(long = "dns-opt")]
    dns_opts: Vec<String>,
    /// DNS search domains to use
    #[arg(long)]
    dns_search: Vec<String>,
    /// Default address pools for node specific local networks (base=…,size=…)
    #[arg(long = "default-address-pool")]
    default_address_pools: Vec<String>,
    /// Validate daemon configuration and exit
    #[arg(long)]
    validate: bool,
    /// Print version information and quit
    #[arg(long, short = 'v')]
    version: bool,
}

/// daemon.json keys that have a flag of ours: key, flag's id.
const KEYS: &[(&str, &str)] = &[
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

impl Config {
    /// Reads the command line and the file it names. `None`: the question was answered already
    /// (`--help`, `--version`, `--validate`).
    pub(crate) fn from_args(args: impl Iterator<Item = OsString>) -> anyhow::Result<Option<Self>> {
        let matches = match Flags::command().try_get_matches_from(args) {
            Ok(matches) => matches,
            Err(error) if !error.use_stderr() => {
                write!(std::io::stdout(), "{error}")?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let flags = Flags::from_arg_matches(&matches)?;
        if flags.version {
            writeln!(std::io::stdout(), "Docker version {VERSION}, build {COMMIT}")?;
            return Ok(None);
        }
        let given =
            matches.value_source("config_file") == Some(clap::parser::ValueSource::CommandLine);
        let file = read_file(&flags.config_file, given)?;
        let validate = flags.validate;
        let config = Self::merge(flags, &matches, file)?;
        if validate {
            writeln!(std::io::stdout(), "configuration OK")?;
            return Ok(None);
        }
        Ok(Some(config))
    }

    fn merge(
        flags: Flags,
        matches: &ArgMatches,
        file: serde_json::Map<String, Value>,
    ) -> anyhow::Result<Self> {
        check_keys(&file, matches)?;
        let mut args: Vec<String> = Vec::new();
        for (key, id) in KEYS {
            let Some(value) = file.get(*key) else { continue };
            let flag = match *id {
                "exec_opts" => "exec-opt".to_owned(),
                "hosts" => "host".to_owned(),
                "labels" => "label".to_owned(),
                "insecure_registries" => "insecure-registry".to_owned(),
                "registry_mirrors" => "registry-mirror".to_owned(),
                "dns_opts" => "dns-opt".to_owned(),
                other => other.replace('_', "-"),
            };
            let items = match value {
                Value::Array(items) => items.clone(),
                Value::Null => continue,
                single => vec![single.clone()],
            };
            for item in items {
                let text = match item {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                args.push(format!("--{flag}={text}"));
            }
        }
        // The file's scalars as if they were flags; a conflict was refused above, so the
        // flags of the command line win where both could speak.
        let from_file = Flags::try_parse_from(std::iter::once("dockerd-rs".to_owned()).chain(args))
            .context("invalid value in the configuration file")?;
        let pick = |id: &str| {
            file.iter().any(|(key, _)| KEYS.iter().any(|(known, flag)| known == key && *flag == id))
        };
        macro_rules! take {
            ($field:ident) => {
                if pick(stringify!($field)) { from_file.$field } else { flags.$field }
            };
        }
        let mut log_opts = pairs(&flags.log_opts)?;
        if let Some(Value::Object(options)) = file.get("log-opts") {
            for (key, value) in options {
                log_opts.insert(key.clone(), value.as_str().unwrap_or_default().to_owned());
            }
        }
        let mut runtimes = pairs(&flags.runtimes)?;
        if let Some(Value::Object(entries)) = file.get("runtimes") {
            for (name, entry) in entries {
                let path = entry.get("path").and_then(Value::as_str).unwrap_or_default();
                runtimes.insert(name.clone(), path.to_owned());
            }
        }
        let mut default_ulimits = flags.default_ulimits;
        if let Some(Value::Object(entries)) = file.get("default-ulimits") {
            for (name, entry) in entries {
                let number = |key: &str| entry.get(key).and_then(Value::as_i64).unwrap_or(-1);
                default_ulimits.push(format!("{name}={}:{}", number("Soft"), number("Hard")));
            }
        }
        let mut address_pools = Vec::new();
        for text in &flags.default_address_pools {
            let parts = pairs(&text.split(',').map(str::to_owned).collect::<Vec<_>>())?;
            let base = parts.get("base").context("invalid pool: base is missing")?;
            let size = parts.get("size").context("invalid pool: size is missing")?;
            address_pools.push((base.clone(), size.parse().context("invalid pool size")?));
        }
        if let Some(Value::Array(entries)) = file.get("default-address-pools") {
            for entry in entries {
                let base = entry.get("base").and_then(Value::as_str).unwrap_or_default();
                let size = entry.get("size").and_then(Value::as_u64).unwrap_or_default();
                address_pools.push((base.to_owned(), u8::try_from(size)?));
            }
        }
        let exec_opts = take!(exec_opts);
        let mut systemd_cgroup = false;
        for option in &exec_opts {
            match option.split_once('=') {
                Some(("native.cgroupdriver", "systemd")) => systemd_cgroup = true,
                Some(("native.cgroupdriver", "cgroupfs")) => systemd_cgroup = false,
                _ => bail!("invalid exec-opt {option:?}"),
            }
        }
        let mut hosts = take!(hosts);
        if hosts.is_empty() {
            hosts.push("unix:///var/run/docker.sock".to_owned());
        }
        let debug = take!(debug);
        let log_level = take!(log_level);
        if !["debug", "info", "warn", "error", "fatal"].contains(&log_level.as_str()) {
            bail!("invalid logging level: {log_level}");
        }
        let storage_driver = take!(storage_driver);
        if !["overlayfs", "overlay2", "overlay"].contains(&storage_driver.as_str()) {
            bail!("storage driver {storage_driver:?} is not supported; only overlayfs is");
        }
        let default_shm_size = parse_size(&take!(default_shm_size))?;
        Ok(Self {
            data_root: take!(data_root),
            exec_root: take!(exec_root),
            pid_file: take!(pidfile),
            hosts,
            group: take!(group),
            debug,
            log_level,
            log_json: take!(log_format) == "json",
            containerd: take!(containerd),
            containerd_namespace: take!(containerd_namespace),
            default_runtime: take!(default_runtime),
            runtimes,
            cgroup_parent: take!(cgroup_parent),
            systemd_cgroup,
            default_shm_size,
            default_ipc_mode: take!(default_ipc_mode),
            default_cgroupns_mode: take!(default_cgroupns_mode),
            default_ulimits,
            no_new_privileges: take!(no_new_privileges),
            seccomp_profile: take!(seccomp_profile),
            log_driver: take!(log_driver),
            log_opts,
            labels: take!(labels),
            insecure_registries: take!(insecure_registries),
            registry_mirrors: take!(registry_mirrors),
            shutdown_timeout: take!(shutdown_timeout),
            live_restore: take!(live_restore),
            init: take!(init),
            network: NetworkConfig {
                bridge: take!(bridge),
                bip: take!(bip),
                fixed_cidr: take!(fixed_cidr),
                default_gateway: take!(default_gateway),
                default_ip: take!(ip),
                icc: take!(icc),
                iptables: take!(iptables),
                ip_forward: take!(ip_forward),
                ip_masq: take!(ip_masq),
                userland_proxy: take!(userland_proxy),
                mtu: take!(mtu),
                dns: take!(dns),
                dns_opts: take!(dns_opts),
                dns_search: take!(dns_search),
                address_pools,
            },
        })
    }
}

/// Starts the daemon's own log on stderr.
pub(crate) fn start_logging(config: &Config) {
    let level = match (config.debug, config.log_level.as_str()) {
        (true, _) | (_, "debug") => Level::DEBUG,
        (_, "warn") => Level::WARN,
        (_, "error" | "fatal") => Level::ERROR,
        _ => Level::INFO,
    };
    // Ours at the wanted level; the protocol libraries speak up only when something is wrong.
    let others = level.min(Level::WARN);
    let targets = Targets::new().with_default(others).with_target("dockerd_rs", level);
    let log = tracing_subscriber::registry().with(targets);
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr);
    if config.log_json {
        log.with(lines.json()).init();
    } else {
        log.with(lines).init();
    }
}

fn read_file(path: &Path, required: bool) -> anyhow::Result<serde_json::Map<String, Value>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
            return Ok(serde_json::Map::new());
        }
        Err(error) => {
            bail!("unable to configure the Docker daemon with file {}: {error}", path.display())
        }
    };
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(serde_json::Map::new());
    }
    serde_json::from_slice(&text).with_context(|| {
        format!("unable to configure the Docker daemon with file {}", path.display())
    })
}

fn check_keys(file: &serde_json::Map<String, Value>, matches: &ArgMatches) -> anyhow::Result<()> {
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

fn pairs(items: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    items
        .iter()
        .map(|item| {
            let (key, value) =
                item.split_once('=').with_context(|| format!("invalid key=value: {item:?}"))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// A size such as `64M`, `1g`, `1024`, in powers of 1024.
pub(crate) fn parse_size(text: &str) -> anyhow::Result<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => bail!("invalid size: '{text}'"),
    };
    let number: i64 = number.parse().with_context(|| format!("invalid size: '{text}'"))?;
    number.checked_mul(1 << shift).with_context(|| format!("invalid size: '{text}'"))
}

/// The version we present ourselves as.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Not known to a source tree.
pub(crate) const COMMIT: &str = "rs";

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str], file: &str) -> anyhow::Result<Config> {
        let all = std::iter::once("dockerd-rs").chain(args.iter().copied());
        let matches = Flags::command().try_get_matches_from(all)?;
        let flags = Flags::from_arg_matches(&matches)?;
        Config::merge(flags, &matches, serde_json::from_str(file)?)
    }

    #[test]
    fn the_file_fills_what_flags_leave_open() {
        let config = config(
            &["--data-root", "/d", "--icc=false"],
            r#"{"exec-root":"/e","mtu":1400,"dns":["1.1.1.1"],"features":{"buildkit":true},
               "log-opts":{"max-size":"1m"},"debug":true}"#,
        )
        .unwrap();
        assert_eq!(config.data_root, Path::new("/d"));
        assert_eq!(config.exec_root, Path::new("/e"));
        assert!(!config.network.icc && config.debug);
        assert_eq!((config.network.mtu, config.network.dns.len()), (1400, 1));
        assert_eq!(config.log_opts["max-size"], "1m");
        assert_eq!(config.default_shm_size, 64 << 20);
    }

    #[test]
    fn unknown_and_doubled_keys_are_refused() {
        assert!(config(&[], r#"{"wat":1}"#).unwrap_err().to_string().contains("wat"));
        let both = config(&["--mtu", "1"], r#"{"mtu":2}"#).unwrap_err().to_string();
        assert!(both.contains("both as a flag and in the configuration file: mtu"), "{both}");
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(parse_size("64M").unwrap(), 64 << 20);
        assert_eq!(parse_size("1gb").unwrap(), 1 << 30);
        assert!(parse_size("x").is_err());
    }
}
