//! What a request may ask for: everything is honoured, refused in dockerd's words, or, where dockerd
//! only warns, discarded with its warning. Nothing is accepted and forgotten.

use docker_api::container::{Config, HealthConfig, HostConfig, Resources};

use super::ContainerError;
use crate::app::App;
use crate::sys;

type Checked = Result<(), ContainerError>;

/// Refuses what cannot be; what is discarded is told in `warnings`.
pub(super) fn check(
    app: &App,
    config: &Config,
    host: &mut HostConfig,
    warnings: &mut Vec<String>,
) -> Checked {
    process(config)?;
    restart(host)?;
    resources(&mut host.resources, warnings, &Machine::here())?;
    modes(config, host, warnings)?;
    logging(host, &app.config.log_driver)?;
    platform(host)?;
    if let Some(runtime) = &host.runtime
        && !runtime.is_empty()
        && runtime != "runc"
        && !runtime.starts_with("io.containerd.")
        && !app.config.runtimes.contains_key(runtime)
    {
        return invalid(format!("unknown or invalid runtime name: {runtime}"));
    }
    if host.init.unwrap_or(app.config.init) {
        return not_yet("--init is not supported yet: there is no init program");
    }
    Ok(())
}

/// What `update` makes of a container's limits.
pub(crate) fn update(host: &mut HostConfig) -> Result<Vec<String>, ContainerError> {
    let mut warnings = Vec::new();
    restart(host)?;
    resources(&mut host.resources, &mut warnings, &Machine::here())?;
    Ok(warnings)
}

/// What the machine has to give.
#[derive(Clone, Debug)]
struct Machine {
    cgroup2: bool,
    cpus: String,
    mems: String,
    count: i64,
    weights: bool,
}

impl Machine {
    fn here() -> Self {
        let read = |paths: &[&str]| {
            paths
                .iter()
                .find_map(|path| std::fs::read_to_string(path).ok())
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
                .unwrap_or_default()
        };
        let cgroup2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let weights = if cgroup2 {
            read(&["/sys/fs/cgroup/cgroup.controllers"]).split(' ').any(|name| name == "io")
        } else {
            std::path::Path::new("/sys/fs/cgroup/blkio/blkio.weight").exists()
        };
        Self {
            cgroup2,
            weights,
            cpus: read(&[
                "/sys/fs/cgroup/cpuset.cpus.effective",
                "/sys/fs/cgroup/cpuset/cpuset.cpus",
                "/sys/devices/system/cpu/online",
            ]),
            mems: read(&[
                "/sys/fs/cgroup/cpuset.mems.effective",
                "/sys/fs/cgroup/cpuset/cpuset.mems",
                "/sys/devices/system/node/online",
            ]),
            count: sys::processors(),
        }
    }
}

fn invalid<T>(text: impl Into<String>) -> Result<T, ContainerError> {
    Err(ContainerError::Invalid(text.into()))
}

fn not_yet<T>(text: &str) -> Result<T, ContainerError> {
    Err(ContainerError::NotImplemented(text.to_owned()))
}

fn process(config: &Config) -> Checked {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        ));
    }
    if let Some(signal) = &config.stop_signal
        && !signal.is_empty()
        && sys::signal::parse(signal).is_none()
    {
        return invalid(format!("invalid signal: {signal}"));
    }
    for pair in config.env.iter().flatten() {
        if pair.is_empty() || pair.starts_with('=') {
            return invalid(format!("invalid environment variable: {pair}"));
        }
    }
    match &config.healthcheck {
        Some(health) => healthcheck(health),
        None => Ok(()),
    }
}

fn healthcheck(health: &HealthConfig) -> Checked {
    for (name, value) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if value.is_some_and(|nanoseconds| nanoseconds != 0 && nanoseconds < 1_000_000) {
            return invalid(format!("{name} in Healthcheck cannot be less than 1ms"));
        }
    }
    if health.retries.is_some_and(|retries| retries < 0) {
        return invalid("Retries in Healthcheck cannot be negative");
    }
    Ok(())
}

fn restart(host: &HostConfig) -> Checked {
    let policy = &host.restart_policy;
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" => {
            if policy.maximum_retry_count != 0 {
                return invalid(
                    "invalid restart policy: maximum retry count can only be used with 'on-failure'",
                );
            }
        }
        "on-failure" => {
            if policy.maximum_retry_count < 0 {
                return invalid("invalid restart policy: maximum retry count cannot be negative");
            }
        }
        other => {
            return invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            ));
        }
    }
    if host.auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return invalid("can't create 'AutoRemove' container with restart policy");
    }
    Ok(())
}

/// Limits.
fn resources(all: &mut Resources, warnings: &mut Vec<String>, machine: &Machine) -> Checked {
    const LEAST: i64 = 6 << 20;
    if all.memory != 0 && all.memory < LEAST {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if all.memory > 0 && all.memory_swap > 0 && all.memory_swap < all.memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if all.memory == 0 && all.memory_swap > 0 {
        return invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    match all.memory_swappiness {
        Some(-1) => all.memory_swappiness = None,
        Some(value) if !(0..=100).contains(&value) => {
            return invalid(format!(
                "Invalid value: {value}, valid memory swappiness range is 0-100"
            ));
        }
        Some(_) if machine.cgroup2 => {
            warnings.push(
                "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.".to_owned(),
            );
            all.memory_swappiness = None;
        }
        _ => {}
    }
    if all.memory_reservation != 0 && all.memory_reservation < LEAST {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if all.memory > 0 && all.memory_reservation > 0 && all.memory < all.memory_reservation {
        return invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    if all.kernel_memory.take().is_some_and(|limit| limit != 0) {
        warnings.push("Kernel memory limits are deprecated. Limit discarded.".to_owned());
    }
    all.kernel_memory_tcp = all.kernel_memory_tcp.filter(|&limit| limit != 0);
    if machine.cgroup2 {
        if all.oom_kill_disable.take() == Some(true) {
            warnings.push(
                "Your kernel does not support OomKillDisable. OomKillDisable discarded.".to_owned(),
            );
        }
    } else if all.oom_kill_disable == Some(true) && all.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".to_owned(),
        );
    }
    processors(all, warnings, machine)?;
    block(all, warnings, machine)
}

fn processors(all: &mut Resources, warnings: &mut Vec<String>, machine: &Machine) -> Checked {
    if all.nano_cpus > 0 && all.cpu_period > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if all.nano_cpus > 0 && all.cpu_quota > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    if all.nano_cpus < 0 || all.nano_cpus > machine.count.saturating_mul(1_000_000_000) {
        return invalid(format!(
            "range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available",
            count = machine.count
        ));
    }
    if all.cpu_shares < 0 {
        return invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            all.cpu_shares
        ));
    }
    if all.cpu_period != 0 && !(1000..=1_000_000).contains(&all.cpu_period) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if all.cpu_quota > 0 && all.cpu_quota < 1000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if all.cpu_realtime_period != 0 && all.cpu_realtime_runtime > all.cpu_realtime_period {
        return invalid("cpu real-time runtime cannot be higher than cpu real-time period");
    }
    for (wanted, have, kind, noun) in [
        (&all.cpuset_cpus, &machine.cpus, "cpus", "CPUs"),
        (&all.cpuset_mems, &machine.mems, "mems", "memory nodes"),
    ] {
        let Some(wanted_ranges) = ranges(wanted) else {
            return invalid(format!(
                "Invalid value {wanted} for cpuset {kind}: invalid format: {wanted}"
            ));
        };
        let have_ranges = ranges(have).unwrap_or_default();
        if !have_ranges.is_empty() && !covers(&have_ranges, &wanted_ranges) {
            return invalid(format!(
                "Requested {noun} are not available - requested {wanted}, available: {have}"
            ));
        }
    }
    if all.cpu_percent > 0 {
        warnings.push("linux does not support CPU percent. Percent discarded.".to_owned());
        all.cpu_percent = 0;
    }
    if all.cpu_count > 0 {
        warnings.push("linux does not support CPU count. Count discarded.".to_owned());
        all.cpu_count = 0;
    }
    Ok(())
}

fn block(all: &mut Resources, warnings: &mut Vec<String>, machine: &Machine) -> Checked {
    if all.blkio_weight > 0 && !machine.weights {
        warnings.push(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.".to_owned(),
        );
        all.blkio_weight = 0;
    }
    if all.blkio_weight > 0 && !(10..=1000).contains(&all.blkio_weight) {
        return invalid("Range of blkio weight is from 10 to 1000");
    }
    if all.blkio_weight_device.as_ref().is_some_and(|list| !list.is_empty()) && !machine.weights {
        warnings.push(
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.".to_owned(),
        );
        all.blkio_weight_device = Some(vec![]);
    }
    if all.io_maximum_bandwidth != 0 {
        return invalid(
            "invalid option: QoS maximum bandwidth configuration is not supported on linux",
        );
    }
    if all.io_maximum_iops != 0 {
        return invalid("invalid option: QoS maximum IOPs configuration is not supported on linux");
    }
    if let Some(request) = all.device_requests.iter().flatten().next() {
        let wanted = request.capabilities.iter().flatten();
        let wanted: Vec<String> = wanted.map(|all| format!("[{}]", all.join(" "))).collect();
        return invalid(format!(
            "could not select device driver \"{}\" with capabilities: [{}]",
            request.driver,
            wanted.join(" ")
        ));
    }
    Ok(())
}

/// `0-2,7` as ranges, in order and apart; `None` when it is not such a list.
fn ranges(text: &str) -> Option<Vec<(u32, u32)>> {
    let mut all = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let low: u32 = low.parse().ok()?;
        let high: u32 = high.parse().ok()?;
        if low > high || high > 1 << 16 {
            return None;
        }
        all.push((low, high));
    }
    all.sort_unstable();
    all.dedup_by(|next, last| {
        let joined = next.0 <= last.1 + 1;
        if joined {
            last.1 = last.1.max(next.1);
        }
        joined
    });
    Some(all)
}

fn covers(have: &[(u32, u32)], wanted: &[(u32, u32)]) -> bool {
    wanted.iter().all(|(low, high)| have.iter().any(|own| own.0 <= *low && *high <= own.1))
}

fn modes(config: &Config, host: &HostConfig, warnings: &mut Vec<String>) -> Checked {
    let conflict =
        |what: &str| invalid(format!("conflicting options: {what} and the network mode"));
    let mode = host.network_mode.as_str();
    let published = host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty());
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if mode == "container:" {
        return invalid("Invalid network mode: invalid container format container:<name|id>");
    }
    if mode.starts_with("container:") {
        if !config.hostname.is_empty() {
            return conflict("hostname");
        }
        if given(&host.links) {
            return invalid(
                "conflicting options: container type network can't be used with links. This would result in undefined behavior",
            );
        }
        if given(&host.dns) {
            return conflict("dns");
        }
        if given(&host.extra_hosts) {
            return conflict("custom host-to-IP mapping");
        }
        if config.mac_address.as_ref().is_some_and(|mac| !mac.is_empty()) {
            return conflict("mac-address");
        }
        if published || host.publish_all_ports {
            return invalid(
                "conflicting options: port publishing and the container type network mode",
            );
        }
        if config.exposed_ports.as_ref().is_some_and(|ports| !ports.is_empty()) {
            return invalid(
                "conflicting options: port exposing and the container type network mode",
            );
        }
    }
    if mode == "host" && given(&host.links) {
        return invalid(
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
        );
    }
    if given(&host.links) {
        return not_yet("links are not supported yet");
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return invalid("conflicting options: hostname and the UTS mode");
    }
    if mode == "host" && published {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    for entry in host.extra_hosts.iter().flatten() {
        let Some((name, address)) = entry.split_once([':', '=']) else {
            return invalid(format!("bad format for add-host: \"{entry}\""));
        };
        if name.is_empty() {
            return invalid(format!("bad format for add-host: \"{entry}\""));
        }
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        if address != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
            return invalid(format!("invalid IP address in add-host: \"{address}\""));
        }
    }
    for (kind, mode) in [("PID", &host.pid_mode), ("IPC", &host.ipc_mode)] {
        if mode == "container:" {
            return invalid(format!("invalid {kind} mode: {mode}"));
        }
    }
    if host.shm_size < 0 {
        return invalid("SHM size can not be less than 0");
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        ));
    }
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return invalid(format!("invalid USER mode: {}", host.userns_mode));
    }
    Ok(())
}

fn logging(host: &HostConfig, default: &str) -> Checked {
    let driver = match host.log_config.kind.as_str() {
        "" => default,
        given => given,
    };
    if matches!(driver, "none") {
        return Ok(());
    }
    if driver != "json-file" {
        // Compat: the words for a log driver nobody registered.
        return invalid(format!(
            "error looking up logging plugin {driver}: plugin \"{driver}\" not found"
        ));
    }
    let options = &host.log_config.config;
    for key in options.keys() {
        const KNOWN: &[&str] = &[
            "max-size",
            "max-file",
            "compress",
            "labels",
            "env",
            "labels-regex",
            "env-regex",
            "tag",
            "mode",
            "max-buffer-size",
        ];
        if !KNOWN.contains(&key.as_str()) {
            return invalid(format!("unknown log opt '{key}' for json-file log driver"));
        }
    }
    let option = |key: &str| options.get(key).map(String::as_str).filter(|text| !text.is_empty());
    match option("mode") {
        None | Some("blocking") if option("max-buffer-size").is_some() => {
            return invalid(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            );
        }
        None | Some("blocking") => {}
        Some("non-blocking") => {
            return not_yet("log option mode=non-blocking is not supported yet");
        }
        Some(other) => return invalid(format!("logger: logging mode not supported: {other}")),
    }
    for key in ["labels-regex", "env-regex"] {
        if let Some(pattern) = option(key)
            && let Err(error) = regex::Regex::new(pattern)
        {
            return invalid(format!("invalid {key} {pattern:?}: {error}"));
        }
    }
    if let Some(size) = option("max-size")
        && crate::config::parse_size(size).is_err()
    {
        return invalid(format!("invalid size: '{size}'"));
    }
    if let Some(count) = option("max-file")
        && !count.parse::<u32>().is_ok_and(|count| count > 0)
    {
        return invalid(format!("max-file cannot be less than 1: {count}"));
    }
    if let Some(flag) = option("compress")
        && !matches!(flag, "true" | "false" | "1" | "0")
    {
        return invalid(format!("strconv.ParseBool: parsing \"{flag}\": invalid syntax"));
    }
    if let Some(tag) = option("tag")
        && super::logs::tag(&super::record::Record::default(), tag).contains("{{")
    {
        return not_yet("this template of log option tag is not supported yet");
    }
    Ok(())
}

/// Fields of other platforms and drivers.
fn platform(host: &HostConfig) -> Checked {
    if !matches!(host.isolation.as_str(), "" | "default") {
        return invalid(format!(
            "invalid isolation ({}): linux only supports 'default'",
            host.isolation
        ));
    }
    if !host.cgroup.is_empty() {
        return invalid(format!("invalid cgroup spec: {}", host.cgroup));
    }
    if host.storage_opt.as_ref().is_some_and(|options| !options.is_empty()) {
        return invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        );
    }
    if host.annotations.iter().flatten().any(|(key, _)| key.is_empty()) {
        return invalid(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
