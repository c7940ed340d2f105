//! dockerd's flags and `daemon.json`, parsed once into [`Config`]; nothing below reads either.

mod flags;

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

use flags::{Flags, KEYS, check_keys};

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
    let targets = Targets::new()
        .with_default(others)
        .with_target("dockerd_rs", level)
        .with_target("nlink", Level::ERROR);
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
    use proptest::prelude::*;

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

    const FILE: &str = r#"{"exec-root":"/e","mtu":1400,"dns":["1.1.1.1"],"hosts":["unix:///x"],"icc":false,
"log-opts":{"max-size":"1m"},"runtimes":{"r":{"path":"/r"}},"default-ulimits":{"nofile":{"Soft":1,"Hard":2}},
"default-address-pools":[{"base":"10.0.0.0/8","size":24}],"default-shm-size":"64M","bip":"10.1.1.1/24",
"exec-opts":["native.cgroupdriver=systemd"],"log-level":"info","live-restore":true,"labels":["a=b"]}"#;
    const WORDS: &[&str] = &[
        "null",
        "[]",
        "{}",
        "\"\"",
        "-1",
        "300",
        "true",
        ",",
        "\"",
        "é",
        "=",
        "99999999999999999999",
    ];

    proptest! {
        #[test]
        fn broken_files_are_errors_or_configurations(
            edits in proptest::collection::vec((0..FILE.len(), 0_usize..10, 0..WORDS.len()), 1..4),
        ) {
            let mut text = FILE.as_bytes().to_vec();
            for (at, cut, word) in edits {
                let at = at.min(text.len());
                text.splice(at..(at + cut).min(text.len()), WORDS[word].bytes());
            }
            // Most of them are no JSON, which is quickly told.
            drop(config(&[], &String::from_utf8(text).unwrap()));
        }

        #[test]
        fn a_size_is_its_number_of_units(
            number in 0_i64..1 << 50,
            unit in "[kKmMgGtT]?(i?[bB])?",
            broken in "[0-9a-z +-]{0,24}",
        ) {
            let shift = " kmgt".find(unit.to_lowercase().chars().next().unwrap_or(' ')).unwrap_or(0) * 10;
            let wanted = number.checked_mul(1 << shift);
            prop_assert_eq!(parse_size(&format!("{number}{unit}")).ok(), wanted);
            prop_assert!(parse_size(&broken).is_ok_and(|size| size >= 0) || parse_size(&broken).is_err());
        }
    }
}
