//! The daemon itself: `/_ping`, `/version`, `/info`, `/events`, and the families that are absent.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use docker_api::event::Event;
use docker_api::filters::Filters;
use docker_api::system::{
    Commit, Component, ContainerdInfo, ContainerdNamespaces, IndexConfig, Info, InfoPlugins,
    PlatformName, RegistryConfig, Runtime, Swarm, Version,
};
use docker_api::version::ApiVersion;
use http::{HeaderValue, StatusCode};
use tokio::sync::broadcast::error::RecvError;

use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::reply::{self, Reply};
use crate::app::App;
use crate::config;
use crate::container::create;
use crate::container::lifecycle::Phase;
use crate::sys;

pub(crate) async fn route(app: &Arc<App>, mut call: Call) -> Result<Reply, ApiError> {
    let answered = answer(app, &call).await;
    if answered.is_err() {
        call.drain().await;
    }
    answered
}

async fn answer(app: &Arc<App>, call: &Call) -> Result<Reply, ApiError> {
    let segments: Vec<&str> = call.segments.iter().map(String::as_str).collect();
    match (call.method.as_str(), &segments[..]) {
        ("GET" | "HEAD", ["_ping"]) => Ok(ping(call.method == http::Method::HEAD)),
        ("GET", ["version"]) => Ok(reply::ok(&version(app).await)),
        ("GET", ["info"]) => Ok(reply::ok(&info(app).await)),
        ("GET", ["events"]) => events(app, call),
        ("GET", ["plugins"]) => Ok(reply::ok::<[(); 0]>(&[])),
        ("GET", ["plugins", .., "json"]) => {
            Err(ApiError::not_found(format!("plugin \"{}\" not found", call.name(1))))
        }
        (_, ["swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs", ..]) => {
            // Compat: dockerd's words.
            Err(ApiError::unavailable(
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
            ))
        }
        ("GET", ["rs", "trace", id]) => trace(app, id, call.query.flag("wait")).await,
        ("POST", ["auth"]) => Err(ApiError::not_implemented("login is not supported yet")),
        ("GET", ["system", "df"]) => {
            Err(ApiError::not_implemented("system df is not supported yet"))
        }
        ("POST", ["build" | "commit" | "session" | "grpc"]) | (_, ["build", ..]) => {
            Err(ApiError::not_implemented(format!("{} is not supported yet", segments[0])))
        }
        (_, ["distribution" | "plugins", ..]) => {
            Err(ApiError::not_implemented(format!("{} is not supported yet", segments[0])))
        }
        _ => Err(ApiError::page_not_found()),
    }
}

/// An addition of ours: what was recorded of a traced run, of one that goes on once it has ended.
async fn trace(app: &App, id: &str, wait: bool) -> Result<Reply, ApiError> {
    let missing = || ApiError::not_found(format!("No such trace: {id}"));
    let trace = app.traces.get(id).ok_or_else(missing)?;
    if wait {
        trace.complete().await;
    }
    // One that made room for others meanwhile is gone.
    Ok(reply::ok(&trace.timeline().map_err(|_| missing())?))
}

fn ping(head: bool) -> Reply {
    let body: &'static [u8] = if head { b"" } else { b"OK" };
    let mut answer = reply::full(StatusCode::OK, "text/plain; charset=utf-8", body);
    let headers = answer.headers_mut();
    // No `Builder-Version`: there is no builder yet. To 2 older clients open a session, and tell its
    // failure in words of HTTP/2; without one they send what they have to `/build`, which refuses it.
    for (name, value) in [
        ("Swarm", "inactive"),
        ("Cache-Control", "no-cache, no-store, must-revalidate"),
        ("Pragma", "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if head {
        headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    answer
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

async fn version(app: &App) -> Version {
    let details = BTreeMap::from([
        ("ApiVersion".to_owned(), ApiVersion::MAX.to_string()),
        ("Arch".to_owned(), architecture().to_owned()),
        ("BuildTime".to_owned(), String::new()),
        ("Experimental".to_owned(), "false".to_owned()),
        ("GitCommit".to_owned(), config::COMMIT.to_owned()),
        ("GoVersion".to_owned(), "none".to_owned()),
        ("KernelVersion".to_owned(), kernel()),
        ("MinAPIVersion".to_owned(), ApiVersion::MIN.to_string()),
        ("Os".to_owned(), "linux".to_owned()),
    ]);
    let mut components = vec![Component {
        name: "Engine".to_owned(),
        version: config::VERSION.to_owned(),
        details: Some(details),
    }];
    if let Some(answer) = app.containerd.told_version().await {
        components.push(Component {
            name: "containerd".to_owned(),
            version: answer.version,
            details: Some(BTreeMap::from([("GitCommit".to_owned(), answer.revision)])),
        });
    }
    Version {
        platform: PlatformName { name: "dockerd-rs".to_owned() },
        components,
        version: config::VERSION.to_owned(),
        api_version: ApiVersion::MAX.to_string(),
        min_api_version: ApiVersion::MIN.to_string(),
        git_commit: config::COMMIT.to_owned(),
        go_version: "none".to_owned(),
        os: "linux".to_owned(),
        arch: architecture().to_owned(),
        kernel_version: kernel(),
        experimental: None,
        build_time: String::new(),
    }
}

async fn info(app: &App) -> Info {
    let containers = app.containers.all();
    let count = |test: fn(Phase) -> bool| {
        let number = containers.iter().filter(|container| test(container.phase())).count();
        i64::try_from(number).unwrap_or_default()
    };
    let cgroup2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
    let mut runtimes: BTreeMap<String, Runtime> = app
        .config
        .runtimes
        .iter()
        .map(|(name, path)| (name.clone(), Runtime { path: path.clone(), runtime_args: None }))
        .collect();
    runtimes
        .entry("runc".to_owned())
        .or_insert_with(|| Runtime { path: "runc-rs".to_owned(), runtime_args: None });
    runtimes
        .entry("io.containerd.runc.v2".to_owned())
        .or_insert_with(|| Runtime { path: "runc-rs".to_owned(), runtime_args: None });
    let mut security = Vec::new();
    if app.apparmor.is_known() {
        security.push("name=apparmor".to_owned());
    }
    security.push("name=seccomp,profile=builtin".to_owned());
    if cgroup2 {
        security.push("name=cgroupns".to_owned());
    }
    let hub = IndexConfig {
        name: "docker.io".to_owned(),
        mirrors: app.config.registry_mirrors.clone(),
        secure: true,
        official: true,
    };
    Info {
        id: app.id.clone(),
        containers: i64::try_from(containers.len()).unwrap_or_default(),
        containers_running: count(|phase| matches!(phase, Phase::Running | Phase::Restarting)),
        containers_paused: count(|phase| phase == Phase::Paused),
        containers_stopped: count(|phase| !phase.is_running()),
        images: i64::try_from(app.images.count().await).unwrap_or_default(),
        driver: crate::containerd::SNAPSHOTTER.to_owned(),
        driver_status: vec![["driver-type".to_owned(), "io.containerd.snapshotter.v1".to_owned()]],
        plugins: InfoPlugins {
            volume: vec!["local".to_owned()],
            network: ["bridge", "host", "null"].map(str::to_owned).to_vec(),
            authorization: None,
            log: ["json-file", "none"].map(str::to_owned).to_vec(),
        },
        memory_limit: true,
        swap_limit: true,
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_set: true,
        pids_limit: true,
        ipv4_forwarding: forwarding.is_ok_and(|text| text.trim() == "1"),
        bridge_nf_iptables: false,
        debug: app.config.debug,
        n_fd: std::fs::read_dir("/proc/self/fd")
            .map_or(0, |entries| i64::try_from(entries.count()).unwrap_or_default()),
        oom_kill_disable: !cgroup2,
        system_time: create::now(),
        logging_driver: app.config.log_driver.clone(),
        cgroup_driver: if app.config.systemd_cgroup { "systemd" } else { "cgroupfs" }.to_owned(),
        cgroup_version: if cgroup2 { "2" } else { "1" }.to_owned(),
        n_events_listener: i64::try_from(app.events.listeners()).unwrap_or_default(),
        kernel_version: kernel(),
        operating_system: OPERATING_SYSTEM.clone(),
        os_type: "linux".to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        registry_config: RegistryConfig {
            insecure_registry_cidrs: vec!["::1/128".to_owned(), "127.0.0.0/8".to_owned()],
            index_configs: BTreeMap::from([("docker.io".to_owned(), hub)]),
            mirrors: Some(app.config.registry_mirrors.clone()),
            ..RegistryConfig::default()
        },
        n_cpu: sys::processors(),
        mem_total: memory(),
        docker_root_dir: app.config.data_root.to_string_lossy().into_owned(),
        name: nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        labels: app.config.labels.clone(),
        server_version: config::VERSION.to_owned(),
        runtimes,
        default_runtime: app.config.default_runtime.clone(),
        swarm: Swarm { local_node_state: "inactive".to_owned(), ..Swarm::default() },
        live_restore_enabled: app.config.live_restore,
        init_binary: String::new(),
        containerd_commit: Commit { id: config::COMMIT.to_owned(), expected: None },
        runc_commit: Commit { id: config::COMMIT.to_owned(), expected: None },
        init_commit: Commit { id: "N/A".to_owned(), expected: None },
        security_options: security,
        containerd: Some(ContainerdInfo {
            address: app.containerd.address.to_string_lossy().into_owned(),
            namespaces: ContainerdNamespaces {
                containers: app.containerd.namespace.clone(),
                plugins: "plugins.moby".to_owned(),
            },
        }),
        warnings: None,
        ..Info::default()
    }
}

/// Bytes of the machine.
fn memory() -> i64 {
    let machine = rustix::system::sysinfo();
    let bytes = machine.totalram.saturating_mul(machine.mem_unit.into());
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The name that the host's distribution gives itself.
static OPERATING_SYSTEM: LazyLock<String> = LazyLock::new(|| {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
});

const EVENT_KEYS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

fn events(app: &Arc<App>, call: &Call) -> Result<Reply, ApiError> {
    let filters = call.query.filters()?;
    filters.only(EVENT_KEYS)?;
    let time = |key: &str| -> Result<Option<i128>, ApiError> {
        match call.query.get(key) {
            "" => Ok(None),
            text => docker_api::time::parse_unix(text)
                .or_else(|| docker_api::time::parse_rfc3339(text))
                .map(|(seconds, nanos)| {
                    Some(i128::from(seconds) * 1_000_000_000 + i128::from(nanos))
                })
                .ok_or_else(|| {
                    ApiError::invalid(format!(
                        "strconv.ParseInt: parsing \"{text}\": invalid syntax"
                    ))
                }),
        }
    };
    let (since, until) = (time("since")?, time("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        return Err(ApiError::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            call.query.get("since"),
            call.query.get("until")
        )));
    }
    let (past, mut live) = app.events.subscribe();
    let shutdown = app.shutdown.clone();
    let items = async_stream::stream! {
        if since.is_some() {
            for event in past {
                let at = i128::from(event.time_nano);
                let inside = since.is_none_or(|since| at >= since)
                    && until.is_none_or(|until| at <= until);
                if inside && selected(&filters, &event) {
                    yield line(&event);
                }
            }
        }
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let left = until.map(|until| until - i128::try_from(now.as_nanos()).unwrap_or_default());
        let left = match left {
            Some(left) if left <= 0 => return,
            Some(left) => u64::try_from(left).ok(),
            None => None,
        };
        let end = async move {
            match left {
                Some(nanos) => tokio::time::sleep(std::time::Duration::from_nanos(nanos)).await,
                None => std::future::pending().await,
            }
        };
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                () = shutdown.cancelled() => return,
                event = live.recv() => match event {
                    Ok(event) => {
                        if selected(&filters, &event) {
                            yield line(&event);
                        }
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
            }
        }
    };
    Ok(reply::stream("application/json", items))
}

fn line(event: &Event) -> Bytes {
    let mut bytes = serde_json::to_vec(event).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

fn selected(filters: &Filters, event: &Event) -> bool {
    let attributes = &event.actor.attributes;
    let is = |kind: &str| {
        filters.any(kind, |wanted| {
            event.kind == kind
                && (event.actor.id == wanted
                    || attributes.get("name").is_some_and(|name| name == wanted)
                    || (wanted.len() >= 12 && event.actor.id.starts_with(wanted)))
        })
    };
    filters.any("event", |wanted| {
        event.action == wanted || event.action.split(':').next() == Some(wanted)
    }) && filters.exact("type", &event.kind)
        && filters.exact("scope", event.scope.as_deref().unwrap_or("local"))
        && filters.labels("label", attributes)
        && is("container")
        && is("network")
        && is("volume")
        && is("daemon")
        && filters.any("image", |wanted| {
            let plain = |name: &str| name.split(':').next().unwrap_or_default().to_owned();
            let of = match event.kind.as_str() {
                "image" => attributes.get("name").unwrap_or(&event.actor.id),
                _ => match attributes.get("image") {
                    Some(image) => image,
                    None => return false,
                },
            };
            of == wanted || plain(of) == wanted
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_events_match_without_their_command() {
        let event = Event {
            kind: "container".to_owned(),
            action: "exec_start: sh".to_owned(),
            ..Event::default()
        };
        let filters = Filters::parse(r#"{"event":["exec_start"],"type":["container"]}"#).unwrap();
        assert!(selected(&filters, &event));
        let filters = Filters::parse(r#"{"event":["die"]}"#).unwrap();
        assert!(!selected(&filters, &event));
    }
}
