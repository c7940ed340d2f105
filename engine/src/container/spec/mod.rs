//! The OCI runtime specification of a container, field by field what dockerd writes.

mod caps;
mod limits;
pub(crate) use limits::limits;
mod mounts;
pub(crate) mod seccomp;
pub(crate) mod user;

use std::path::{Path, PathBuf};

use docker_api::container::HostConfig;
use serde_json::{Map, Value, json};

use super::ContainerError;
use super::record::{Mounted, Record};
use crate::config::Config;
use user::User;

/// What is known only at start.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) rootfs: &'a Path,
    /// Directory with hostname, hosts, resolv.conf.
    pub(crate) files: &'a Path,
    /// A network namespace to join.
    pub(crate) netns: Option<PathBuf>,
    /// The engine's tmpfs for a shareable `/dev/shm`.
    pub(crate) shm: Option<PathBuf>,
    /// Mounts with the host path to use now.
    pub(crate) mounts: Vec<(Mounted, PathBuf)>,
    pub(crate) user: User,
    /// Processes whose namespaces are joined.
    pub(crate) ipc_pid: Option<u32>,
    pub(crate) pid_pid: Option<u32>,
    /// AppArmor's profile.
    pub(crate) apparmor: Option<String>,
}

/// What security options say.
#[derive(Clone, Debug, Default)]
struct Security {
    no_new_privileges: bool,
    /// `None`: the default; otherwise `unconfined` or a profile's text.
    seccomp: Option<String>,
    writable_cgroups: bool,
}

/// Checks a request without starting anything.
pub(crate) fn check(record: &Record, config: &Config) -> Result<(), ContainerError> {
    let host = &record.host_config;
    let capabilities = capabilities(host)?;
    let security = security(host, config.no_new_privileges)?;
    seccomp_value(host, &security, config, &capabilities)?;
    limits::rlimits(host, config)?;
    let valid_mode = |mode: &str, extra: &[&str]| {
        mode.is_empty() || mode == "host" || extra.contains(&mode) || mode.starts_with("container:")
    };
    if !valid_mode(&host.pid_mode, &["private"]) {
        return Err(ContainerError::Invalid(format!("invalid PID mode: {}", host.pid_mode)));
    }
    if !valid_mode(&host.ipc_mode, &["private", "shareable", "none"]) {
        return Err(ContainerError::Invalid(format!("invalid IPC mode: {}", host.ipc_mode)));
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return Err(ContainerError::Invalid(format!("invalid UTS mode: {}", host.uts_mode)));
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "host" | "private") {
        return Err(ContainerError::Invalid(format!(
            "invalid cgroup namespace mode: {}",
            host.cgroupns_mode
        )));
    }
    Ok(())
}

/// The specification.
pub(crate) fn build(
    record: &Record,
    config: &Config,
    facts: &Facts<'_>,
) -> Result<Value, ContainerError> {
    let host = &record.host_config;
    let capabilities = capabilities(host)?;
    let security = security(host, config.no_new_privileges)?;
    let mut linux = Map::new();
    let mut sysctl = Map::new();
    let own_network = host.network_mode != "host" && !host.network_mode.starts_with("container:");
    if own_network {
        sysctl.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), json!("0"));
        sysctl.insert("net.ipv4.ping_group_range".to_owned(), json!("0 2147483647"));
    }
    if !record.config.domainname.is_empty() && host.uts_mode != "host" {
        sysctl.insert("kernel.domainname".to_owned(), json!(record.config.domainname));
    }
    for (key, value) in host.sysctls.iter().flatten() {
        sysctl.insert(key.clone(), json!(value));
    }
    if !sysctl.is_empty() {
        linux.insert("sysctl".to_owned(), Value::Object(sysctl));
    }
    linux.insert("cgroupsPath".to_owned(), json!(cgroups_path(record, config)));
    linux.insert("resources".to_owned(), limits::resources(host)?);
    linux.insert("namespaces".to_owned(), namespaces(record, facts));
    let devices = limits::devices(host)?;
    if !devices.is_empty() {
        linux.insert("devices".to_owned(), Value::Array(devices));
    }
    if let Some(profile) = seccomp_value(host, &security, config, &capabilities)? {
        linux.insert("seccomp".to_owned(), profile);
    }
    if let Some(propagation) = mounts::rootfs_propagation(&facts.mounts) {
        linux.insert("rootfsPropagation".to_owned(), json!(propagation));
    }
    if !host.privileged {
        let masked = host.masked_paths.clone().unwrap_or_else(default_masked_paths);
        let readonly = host.readonly_paths.clone().unwrap_or_else(default_readonly_paths);
        linux.insert("maskedPaths".to_owned(), json!(masked));
        linux.insert("readonlyPaths".to_owned(), json!(readonly));
    }
    let mut args = vec![record.path.clone()];
    args.extend(record.args.clone());
    let process = Process {
        args,
        env: environment(record, &[]),
        cwd: record.config.working_dir.clone(),
        terminal: record.config.tty,
        user: facts.user.clone(),
        capabilities,
        no_new_privileges: security.no_new_privileges,
    };
    let mut process = process.to_json();
    let rlimits = limits::rlimits(host, config)?;
    if !rlimits.is_empty() {
        process["rlimits"] = Value::Array(rlimits);
    }
    // Always: the shim's own would be inherited.
    process["oomScoreAdj"] = json!(host.oom_score_adj);
    if let Some(profile) = &facts.apparmor {
        process["apparmorProfile"] = json!(profile);
    }
    if record.config.tty
        && let Some([height, width]) = host.console_size
        && height > 0
        && width > 0
    {
        process["consoleSize"] = json!({"height": height, "width": width});
    }
    let mut spec = json!({
        "ociVersion": "1.1.0",
        "process": process,
        "root": {"path": facts.rootfs, "readonly": host.readonly_rootfs},
        "mounts": mounts::all(record, facts, security.writable_cgroups),
        "linux": linux,
    });
    if host.uts_mode != "host" {
        spec["hostname"] = json!(record.config.hostname);
    }
    if let Some(annotations) = &host.annotations {
        spec["annotations"] = json!(annotations);
    }
    Ok(spec)
}

/// The specification's process: of a container or an exec.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) terminal: bool,
    pub(crate) user: User,
    pub(crate) capabilities: Vec<String>,
    pub(crate) no_new_privileges: bool,
}

impl Process {
    pub(crate) fn to_json(&self) -> Value {
        let caps = &self.capabilities;
        // As execve would: another user than root starts without effective capabilities.
        let capabilities = if self.user.uid == 0 {
            json!({"bounding": caps, "effective": caps, "permitted": caps})
        } else {
            json!({"bounding": caps})
        };
        let mut process = json!({
            "user": {
                "uid": self.user.uid,
                "gid": self.user.gid,
                "additionalGids": self.user.groups,
            },
            "args": self.args,
            "env": self.env,
            "cwd": if self.cwd.is_empty() { "/" } else { self.cwd.as_str() },
            "capabilities": capabilities,
        });
        if self.terminal {
            process["terminal"] = json!(true);
        }
        if self.no_new_privileges {
            process["noNewPrivileges"] = json!(true);
        }
        process
    }
}

/// The process of an exec.
pub(crate) fn exec_process(
    record: &Record,
    config: &Config,
    request: &docker_api::exec::ExecCreateRequest,
    user: User,
    apparmor: Option<String>,
) -> Result<Value, ContainerError> {
    let security = security(&record.host_config, config.no_new_privileges)?;
    let process = Process {
        args: request.cmd.clone().unwrap_or_default(),
        env: environment_with(record, request.env.as_deref().unwrap_or_default(), request.tty),
        cwd: if request.working_dir.is_empty() {
            record.config.working_dir.clone()
        } else {
            request.working_dir.clone()
        },
        terminal: request.tty,
        user,
        capabilities: if request.privileged {
            caps::all()
        } else {
            capabilities(&record.host_config)?
        },
        no_new_privileges: security.no_new_privileges && !request.privileged,
    };
    let mut value = process.to_json();
    let rlimits = limits::rlimits(&record.host_config, config)?;
    if !rlimits.is_empty() {
        value["rlimits"] = Value::Array(rlimits);
    }
    if let Some(profile) = apparmor {
        value["apparmorProfile"] = json!(profile);
    }
    if let Some([height, width]) = request.console_size.filter(|_| request.tty)
        && height > 0
        && width > 0
    {
        value["consoleSize"] = json!({"height": height, "width": width});
    }
    Ok(value)
}

fn capabilities(host: &HostConfig) -> Result<Vec<String>, ContainerError> {
    caps::select(
        host.privileged,
        host.cap_add.as_deref().unwrap_or_default(),
        host.cap_drop.as_deref().unwrap_or_default(),
    )
}

/// PATH, HOSTNAME, TERM, then the container's own.
fn environment(record: &Record, more: &[String]) -> Vec<String> {
    environment_with(record, more, record.config.tty)
}

fn environment_with(record: &Record, more: &[String], tty: bool) -> Vec<String> {
    let mut env = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("HOSTNAME={}", record.config.hostname),
    ];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    overlay(&mut env, record.config.env.as_deref().unwrap_or_default());
    overlay(&mut env, more);
    env
}

/// Compat: a name without a value takes away what was there before all of these, and none of these.
fn overlay(env: &mut Vec<String>, values: &[String]) {
    let mut before = env.len();
    for pair in values {
        let key = pair.split('=').next().unwrap_or_default();
        let at = env.iter().position(|own| own.split('=').next() == Some(key));
        match (at, pair.contains('=')) {
            (Some(at), true) => env[at].clone_from(pair),
            (None, true) => env.push(pair.clone()),
            (Some(at), false) if at < before => {
                env.remove(at);
                before -= 1;
            }
            (_, false) => {}
        }
    }
}

fn security(host: &HostConfig, no_new_privileges: bool) -> Result<Security, ContainerError> {
    let mut security = Security { no_new_privileges, ..Security::default() };
    for option in host.security_opt.iter().flatten() {
        let (key, value) = match option.split_once(['=', ':']) {
            Some((key, value)) => (key, value),
            None => (option.as_str(), ""),
        };
        match (key, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", value) => {
                security.seccomp = (value != "builtin").then(|| value.to_owned());
            }
            // See `crate::apparmor::named`.
            ("apparmor", _) => {}
            // Compat: nothing where SELinux is off, which is where this engine runs.
            ("label", "disable") => {}
            ("label", _) if !selinux() => {}
            ("label", _) => {
                return Err(ContainerError::NotImplemented(
                    "SELinux labels are not supported yet".to_owned(),
                ));
            }
            ("writable-cgroups", "false") => {}
            ("writable-cgroups", "true") => security.writable_cgroups = true,
            // Compat: dockerd's words.
            _ if !option.contains(['=', ':']) => {
                return Err(ContainerError::Invalid(format!(
                    "invalid --security-opt 1: \"{option}\""
                )));
            }
            _ => {
                return Err(ContainerError::Invalid(format!(
                    "invalid --security-opt 2: \"{option}\""
                )));
            }
        }
    }
    Ok(security)
}

fn selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

fn seccomp_value(
    host: &HostConfig,
    security: &Security,
    config: &Config,
    capabilities: &[String],
) -> Result<Option<Value>, ContainerError> {
    if host.privileged && security.seccomp.is_none() {
        return Ok(None);
    }
    match security.seccomp.as_deref() {
        Some("unconfined") => Ok(None),
        Some(text) => seccomp::custom_profile(text, capabilities).map(Some),
        None => match config.seccomp_profile.as_str() {
            "" | "builtin" => Ok(Some(seccomp::default_profile(capabilities))),
            "unconfined" => Ok(None),
            file => {
                let text = std::fs::read_to_string(file)
                    .map_err(ContainerError::io(format!("read seccomp profile {file}")))?;
                seccomp::custom_profile(&text, capabilities).map(Some)
            }
        },
    }
}

fn cgroups_path(record: &Record, config: &Config) -> String {
    let own = &record.host_config.resources.cgroup_parent;
    let parent = if own.is_empty() { &config.cgroup_parent } else { own };
    if config.systemd_cgroup {
        let slice = if parent.is_empty() { "system.slice" } else { parent.as_str() };
        format!("{slice}:docker:{}", record.id)
    } else {
        let parent = if parent.is_empty() { "/docker" } else { parent.as_str() };
        format!("{}/{}", parent.trim_end_matches('/'), record.id)
    }
}

fn namespaces(record: &Record, facts: &Facts<'_>) -> Value {
    let host = &record.host_config;
    let mut list = vec![json!({"type": "mount"})];
    let joined = |kind: &str, pid: u32, file: &str| json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")});
    match (&facts.netns, host.network_mode.as_str()) {
        (Some(path), _) => list.push(json!({"type": "network", "path": path})),
        (None, "host") => {}
        (None, _) => list.push(json!({"type": "network"})),
    }
    if host.uts_mode != "host" {
        list.push(json!({"type": "uts"}));
    }
    match (facts.pid_pid, host.pid_mode.as_str()) {
        (Some(pid), _) => list.push(joined("pid", pid, "pid")),
        (None, "host") => {}
        (None, _) => list.push(json!({"type": "pid"})),
    }
    match (facts.ipc_pid, host.ipc_mode.as_str()) {
        (Some(pid), _) => list.push(joined("ipc", pid, "ipc")),
        (None, "host") => {}
        (None, _) => list.push(json!({"type": "ipc"})),
    }
    if host.cgroupns_mode == "private" {
        list.push(json!({"type": "cgroup"}));
    }
    Value::Array(list)
}

/// Hidden from every unprivileged container.
pub(crate) fn default_masked_paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        "/proc/asound",
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ]
    .map(str::to_owned)
    .to_vec();
    for cpu in 0.. {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle");
        if !Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}")).exists() {
            break;
        }
        if Path::new(&path).exists() {
            paths.push(path);
        }
    }
    paths
}

/// Readable only.
pub(crate) fn default_readonly_paths() -> Vec<String> {
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        .map(str::to_owned)
        .to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn environment_has_dockers_order() {
        let mut record = Record::default();
        record.config.hostname = "h".to_owned();
        record.config.tty = true;
        record.config.env = Some(vec!["A=1".to_owned(), "PATH=/x".to_owned(), "TERM".to_owned()]);
        assert_eq!(environment(&record, &[]), ["PATH=/x", "HOSTNAME=h", "A=1"]);
        let more = ["A", "HOSTNAME", "B=2", "B"].map(str::to_owned);
        assert_eq!(environment(&record, &more), ["PATH=/x", "B=2"]);
    }

    #[test]
    fn another_user_has_no_effective_capabilities() {
        let process = Process {
            args: vec!["a".to_owned()],
            env: vec![],
            cwd: String::new(),
            terminal: false,
            user: User { uid: 5, gid: 5, groups: vec![5] },
            capabilities: vec!["CAP_KILL".to_owned()],
            no_new_privileges: false,
        };
        let value = process.to_json();
        assert_eq!(value["capabilities"], json!({"bounding": ["CAP_KILL"]}));
        assert_eq!(value["cwd"], "/");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

        #[test]
        fn the_last_value_of_each_variable_counts(
            image in proptest::collection::vec("(A|B|PATH|AB|é)=[a=1]{0,3}", 0..6),
            more in proptest::collection::vec("(A|B|PATH|HOSTNAME|é)(=[a=1]{0,3})?", 0..6),
        ) {
            let mut record = Record::default();
            record.config.env = Some(image.clone());
            let before = environment(&record, &[]);
            let env = environment(&record, &more);
            let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
            let names: std::collections::BTreeSet<String> = env.iter().map(|pair| name(pair)).collect();
            prop_assert_eq!(names.len(), env.len());
            for own in &env {
                let last = more.iter().chain(&before).filter(|pair| name(pair) == name(own) && pair.contains('='));
                let given = more.iter().rev().find(|pair| name(pair) == name(own) && pair.contains('='));
                let wanted = given.or(before.iter().find(|pair| name(pair) == name(own)));
                prop_assert_eq!(wanted, Some(own), "{:?} over {:?}", more, before);
                prop_assert!(last.count() > 0);
            }
        }

        #[test]
        fn a_security_option_is_one_of_a_few(
            options in proptest::collection::vec("(no-new-privileges|seccomp|apparmor|systempaths|label|writable-cgroups|[a-zé]{0,3})[=:]?(true|false|unconfined|builtin|disable|)", 0..4),
        ) {
            let host = HostConfig { security_opt: Some(options.clone()), ..HostConfig::default() };
            let known = |option: &String| {
                let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
                match key {
                    "seccomp" | "apparmor" | "label" => true,
                    "no-new-privileges" => ["", "true", "false"].contains(&value),
                    "writable-cgroups" => ["true", "false"].contains(&value),
                    _ => false,
                }
            };
            match options.iter().find(|option| !known(option)) {
                None => prop_assert!(selinux() || security(&host, false).is_ok()),
                Some(wrong) => {
                    let error = security(&host, false).unwrap_err().to_string();
                    prop_assert!(error.starts_with("invalid --security-opt") && error.contains(wrong.as_str()), "{}", error);
                }
            }
        }
    }
}
