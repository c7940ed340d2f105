//! A container as inspect and ps show it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use docker_api::container::{
    ContainerInspect, ContainerSummary, NetworkSettings, Port, State, SummaryHostConfig,
    SummaryNetworks,
};
use docker_api::filters::Filters;
use docker_api::image::DriverData;
use docker_api::network::{EndpointSettings, PortMap};
use docker_api::version::ApiVersion;

use super::lifecycle::Phase;
use super::record::Record;
use super::{Container, ContainerError};
use crate::app::App;

/// `GET /containers/{id}/json`.
pub(crate) fn inspect(app: &App, container: &Container) -> ContainerInspect {
    let record = container.record().clone();
    let paths = &container.paths;
    let started = record.state.started_at != docker_api::time::ZERO;
    // Another container's network comes with its files; a bind over one of them is shown instead.
    let mode = record.host_config.network_mode.as_str();
    let dir = match mode.strip_prefix("container:").and_then(|id| app.containers.get(id).ok()) {
        Some(other) => other.paths.dir.clone(),
        None => paths.dir.clone(),
    };
    let files = |name: &str| {
        let target = format!("/etc/{name}");
        match record.mounts.iter().find(|mount| mount.destination == target) {
            _ if !started => String::new(),
            _ if name != "hostname" && record.config.network_disabled == Some(true) => {
                String::new()
            }
            Some(mount) => mount.source.clone(),
            None => dir.join(name).to_string_lossy().into_owned(),
        }
    };
    let has_log = record.host_config.log_config.kind == "json-file" && started;
    let execs = app.execs.of_container(&record.id);
    ContainerInspect {
        id: record.id.clone(),
        created: record.created.clone(),
        path: record.path.clone(),
        args: record.args.clone(),
        state: state(&record),
        image: record.image_id.clone(),
        resolv_conf_path: files("resolv.conf"),
        hostname_path: files("hostname"),
        hosts_path: files("hosts"),
        log_path: if has_log {
            paths.log(&record.id).to_string_lossy().into_owned()
        } else {
            String::new()
        },
        name: format!("/{}", record.name),
        restart_count: record.restart_count,
        app_armor_profile: record.apparmor.clone(),
        driver: crate::containerd::SNAPSHOTTER.to_owned(),
        platform: "linux".to_owned(),
        exec_ids: (!execs.is_empty()).then_some(execs),
        host_config: record.host_config.clone(),
        graph_driver: DriverData { data: None, name: crate::containerd::SNAPSHOTTER.to_owned() },
        mounts: mounts(&record),
        config: record.config.clone(),
        network_settings: network_settings(container, &record),
        image_manifest_descriptor: Some(record.manifest.clone()).filter(|one| !one.is_null()),
        ..ContainerInspect::default()
    }
}

fn mounts(record: &Record) -> Vec<docker_api::mount::MountPoint> {
    // Compat: mounts of --tmpfs are not shown, those of --mount type=tmpfs are.
    let by_flag = |mount: &super::record::Mounted| {
        let flag = record.host_config.tmpfs.as_ref();
        mount.kind == "tmpfs" && flag.is_some_and(|flag| flag.contains_key(&mount.destination))
    };
    record
        .mounts
        .iter()
        .filter(|mount| !by_flag(mount))
        .map(super::record::Mounted::to_wire)
        .collect()
}

fn state(record: &Record) -> State {
    let state = &record.state;
    State {
        status: state.phase.as_str().to_owned(),
        running: state.phase.is_running(),
        paused: state.phase == Phase::Paused,
        restarting: state.phase == Phase::Restarting,
        oom_killed: state.oom_killed,
        dead: state.phase == Phase::Dead,
        pid: i64::from(state.pid),
        exit_code: state.exit_code,
        error: state.error.clone(),
        started_at: state.started_at.clone(),
        finished_at: state.finished_at.clone(),
        health: state.health.clone(),
    }
}

/// Endpoints as they are; before the start, and without networks, as asked for.
fn endpoints(record: &Record) -> BTreeMap<String, EndpointSettings> {
    match &record.attached {
        Some(attached) => attached.endpoints.clone(),
        None if record.networks.is_empty() => {
            let mode = record.host_config.network_mode.as_str();
            if matches!(mode, "none" | "host") {
                BTreeMap::from([(mode.to_owned(), EndpointSettings::default())])
            } else {
                BTreeMap::new()
            }
        }
        None => {
            let mut networks = record.networks.clone();
            // Compat: which networks these are shows from the first start on.
            if record.state.started_at == docker_api::time::ZERO {
                networks.values_mut().for_each(|settings| settings.network_id.clear());
            }
            networks
        }
    }
}

/// Compat: what older clients are not shown.
pub(crate) fn project(networks: &mut BTreeMap<String, EndpointSettings>, version: ApiVersion) {
    for settings in networks.values_mut() {
        settings.gw_priority = (!version.below(48)).then(|| settings.gw_priority.unwrap_or(0));
    }
}

fn network_settings(container: &Container, record: &Record) -> NetworkSettings {
    let networks = endpoints(record);
    let bridge = networks.get("bridge").cloned().unwrap_or_default();
    let attached = record.attached.clone().unwrap_or_default();
    NetworkSettings {
        sandbox_id: attached.sandbox_id,
        sandbox_key: if record.attached.is_some() {
            container.paths.netns.to_string_lossy().into_owned()
        } else {
            String::new()
        },
        ports: attached.ports,
        endpoint_id: bridge.endpoint_id,
        gateway: bridge.gateway,
        global_ipv6_address: bridge.global_ipv6_address,
        global_ipv6_prefix_len: bridge.global_ipv6_prefix_len,
        ip_address: bridge.ip_address,
        ip_prefix_len: bridge.ip_prefix_len,
        ipv6_gateway: bridge.ipv6_gateway,
        mac_address: bridge.mac_address,
        networks,
        ..NetworkSettings::default()
    }
}

/// One row of `ps`.
/// `created`: seconds since 1970.
fn summary(record: &Record, created: i64, version: ApiVersion) -> ContainerSummary {
    let mut words = vec![record.path.clone()];
    words.extend(record.args.iter().map(|word| quote(word)));
    let mut networks = endpoints(record);
    project(&mut networks, version);
    let manifest = Some(&record.manifest).filter(|one| !version.below(48) && !one.is_null());
    ContainerSummary {
        id: record.id.clone(),
        names: vec![format!("/{}", record.name)],
        image: record.config.image.clone(),
        image_id: record.image_id.clone(),
        command: words.join(" "),
        created,
        ports: ports(record),
        labels: record.config.labels.clone().unwrap_or_default(),
        state: record.state.phase.as_str().to_owned(),
        status: status(record),
        host_config: SummaryHostConfig {
            network_mode: record.host_config.network_mode.clone(),
            annotations: record.host_config.annotations.clone(),
        },
        network_settings: SummaryNetworks { networks },
        mounts: mounts(record),
        image_manifest_descriptor: manifest.cloned(),
        ..ContainerSummary::default()
    }
}

/// Compat: an argument with a space is shown in single quotes.
fn quote(word: &str) -> String {
    if word.contains(' ') { format!("'{word}'") } else { word.to_owned() }
}

fn ports(record: &Record) -> Vec<Port> {
    let Some(attached) = &record.attached else { return Vec::new() };
    let mut exposed: PortMap = attached.ports.clone();
    for port in record.config.exposed_ports.iter().flatten().map(|(port, _)| port) {
        exposed.entry(port.clone()).or_default();
    }
    let mut list = Vec::new();
    for (port, bindings) in exposed {
        let (number, kind) = port.split_once('/').unwrap_or((&port, "tcp"));
        let Ok(private_port) = number.parse() else { continue };
        let row = |ip: &str, public: u16| Port {
            ip: ip.to_owned(),
            private_port,
            public_port: public,
            kind: kind.to_owned(),
        };
        match bindings.filter(|bindings| !bindings.is_empty()) {
            None => list.push(row("", 0)),
            Some(bindings) => list.extend(
                bindings
                    .iter()
                    .map(|one| row(&one.host_ip, one.host_port.parse().unwrap_or_default())),
            ),
        }
    }
    list
}

fn status(record: &Record) -> String {
    let state = &record.state;
    let since = |text: &str| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or_default();
        let (then, _) = docker_api::time::parse_rfc3339(text).unwrap_or((now, 0));
        human(now - then)
    };
    match state.phase {
        Phase::Running => {
            let health = match state.health.as_ref().map(|health| health.status.as_str()) {
                None => String::new(),
                Some(super::health::STARTING) => " (health: starting)".to_owned(),
                Some(status) => format!(" ({status})"),
            };
            format!("Up {}{health}", since(&state.started_at))
        }
        Phase::Paused => format!("Up {} (Paused)", since(&state.started_at)),
        Phase::Restarting => {
            format!("Restarting ({}) {} ago", state.exit_code, since(&state.finished_at))
        }
        Phase::Created => "Created".to_owned(),
        Phase::Removing => "Removal In Progress".to_owned(),
        Phase::Dead => "Dead".to_owned(),
        Phase::Exited if state.finished_at == docker_api::time::ZERO => String::new(),
        Phase::Exited => {
            format!("Exited ({}) {} ago", state.exit_code, since(&state.finished_at))
        }
    }
}

/// Compat: go-units' `HumanDuration`.
fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// `GET /containers/json`: newest first.
pub(crate) fn list(
    app: &App,
    all: bool,
    limit: usize,
    filters: &Filters,
    version: ApiVersion,
) -> Result<Vec<ContainerSummary>, ContainerError> {
    let selection = Selection::new(app, filters)?;
    let created = |container: &Container| {
        docker_api::time::parse_rfc3339(&container.record().created).unwrap_or_default()
    };
    let all_there = app.containers.all().into_iter();
    let mut containers: Vec<_> = all_there.map(|one| (created(&one), one)).collect();
    containers.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
    let all = all || limit > 0 || filters.contains("status") || filters.contains("exited");
    let mut rows = Vec::new();
    for ((created, _), container) in containers {
        let record = container.record();
        if (!all && !record.state.phase.is_running()) || !selection.matches(&record) {
            continue;
        }
        rows.push(summary(&record, created, version));
        if limit > 0 && rows.len() == limit {
            break;
        }
    }
    Ok(rows)
}

/// Filters of `ps`, checked.
struct Selection<'a> {
    filters: &'a Filters,
    names: Vec<regex::Regex>,
    before: Option<String>,
    since: Option<String>,
}

const KEYS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// What stands behind the keys, where not everything makes sense.
fn values(filters: &Filters) -> Result<(), ContainerError> {
    let refuse = |text: String| Err(ContainerError::Invalid(text));
    if let Some(code) = filters.get("exited").find(|code| code.parse::<i64>().is_err()) {
        return refuse(format!("strconv.Atoi: parsing \"{code}\": invalid syntax"));
    }
    let known = ["none", "starting", "healthy", "unhealthy"];
    if let Some(health) = filters.get("health").find(|health| !known.contains(health)) {
        return refuse(format!("Unrecognised filter value for health: {health}"));
    }
    for key in ["publish", "expose"] {
        let wrong = |port: &str| !port.is_empty() && port_range(port).is_none();
        let numbers = |text: &'_ str| text.split('/').next().unwrap_or_default().to_owned();
        if let Some(port) = filters.get(key).map(numbers).find(|port| wrong(port)) {
            return refuse(format!(
                "error while looking up for {key} {port}: strconv.ParseUint: parsing \"{port}\": invalid syntax"
            ));
        }
    }
    filters.flag("is-task").map_err(|error| ContainerError::Invalid(error.to_string()))?;
    Ok(())
}

/// `80` or `80-90`.
fn port_range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    Some(low.parse().ok()?..=high.parse().ok()?)
}

impl<'a> Selection<'a> {
    fn new(app: &App, filters: &'a Filters) -> Result<Self, ContainerError> {
        let invalid =
            |error: docker_api::filters::FilterError| ContainerError::Invalid(error.to_string());
        filters.only(KEYS).map_err(invalid)?;
        for status in filters.get("status") {
            let known =
                ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
            if !known.contains(&status) {
                return Err(ContainerError::Invalid(format!("invalid filter 'status={status}'")));
            }
        }
        values(filters)?;
        let names = filters
            .get("name")
            .map(|pattern| {
                regex::Regex::new(pattern).map_err(|_| {
                    ContainerError::Invalid(format!("invalid filter 'name={pattern}'"))
                })
            })
            .collect::<Result<_, _>>()?;
        let created = |key: &str| -> Result<Option<String>, ContainerError> {
            filters
                .get(key)
                .next()
                .map(|name| Ok(app.containers.get(name)?.record().created.clone()))
                .transpose()
        };
        Ok(Self { filters, names, before: created("before")?, since: created("since")? })
    }

    fn matches(&self, record: &Record) -> bool {
        let filters = self.filters;
        let time = |text: &str| docker_api::time::parse_rfc3339(text).unwrap_or_default();
        let none = BTreeMap::new();
        let labels = record.config.labels.as_ref().unwrap_or(&none);
        let port_in = |wanted: &str, port: &str| {
            let (range, kind) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
            let (number, own_kind) = port.split_once('/').unwrap_or((port, "tcp"));
            let number: u16 = number.parse().unwrap_or_default();
            kind == own_kind && port_range(range).is_some_and(|range| range.contains(&number))
        };
        filters.any("id", |id| record.id.starts_with(id))
            && (self.names.is_empty()
                || self.names.iter().any(|name| {
                    name.is_match(&record.name) || name.is_match(&format!("/{}", record.name))
                }))
            && filters.exact("status", record.state.phase.as_str())
            && filters.any("exited", |code| {
                record.state.phase == Phase::Exited && code.parse() == Ok(record.state.exit_code)
            })
            && filters.labels("label", labels)
            && filters.any("ancestor", |image| {
                let plain = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_owned();
                plain(&record.config.image) == plain(image)
                    || record.image_id == image
                    || record.image_id.trim_start_matches("sha256:").starts_with(image)
            })
            && filters.any("network", |name| {
                record.host_config.network_mode == name
                    || record.networks.iter().any(|(own, settings)| {
                        own == name || (!name.is_empty() && settings.network_id.starts_with(name))
                    })
            })
            && filters.any("volume", |volume| {
                record.mounts.iter().any(|own| {
                    own.name == volume || own.destination == volume || own.source == volume
                })
            })
            && filters.any("publish", |wanted| {
                record
                    .host_config
                    .port_bindings
                    .iter()
                    .flatten()
                    .any(|(port, _)| port_in(wanted, port))
            })
            && filters.any("expose", |wanted| {
                record.config.exposed_ports.iter().flatten().any(|(port, _)| port_in(wanted, port))
            })
            && filters.any("health", |wanted| {
                record.state.health.as_ref().map_or("none", |health| &health.status) == wanted
            })
            && filters.any("is-task", |task| !matches!(task, "true" | "1"))
            && self.before.as_ref().is_none_or(|at| time(&record.created) < time(at))
            && self.since.as_ref().is_none_or(|at| time(&record.created) > time(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_dockers() {
        let rows = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (49 * 3600, "2 days"),
        ];
        for (seconds, text) in rows {
            assert_eq!(human(seconds), text);
        }
    }
}
