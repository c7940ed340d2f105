//! The OCI specification of a container, as containerd's clients write it by default.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::manifest::text;
use crate::run::Run;

/// From the flags and the image's configuration.
pub(crate) fn build(run: &Run, namespace: &str, root: &str, image: &Value) -> Result<Value> {
    if let Some(path) = &run.config {
        let data = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        return serde_json::from_slice(&data).with_context(|| path.display().to_string());
    }
    let mut spec = base(namespace, &run.id);
    spec["root"] = json!({"path": root, "readonly": run.read_only});
    let config = &image["config"];
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(text).collect()
    };
    let mut args = run.args.clone();
    if args.is_empty() {
        args = [list(&config["Entrypoint"]), list(&config["Cmd"])].concat();
    }
    if args.is_empty() {
        bail!("no command specified: the image names none");
    }
    let mut env = vec![DEFAULT_PATH.to_owned()];
    for variable in list(&config["Env"]).into_iter().chain(run.env.iter().cloned()) {
        let name = variable.split('=').next().unwrap_or_default();
        env.retain(|other| other.split('=').next() != Some(name));
        env.push(variable);
    }
    let cwd = run.cwd.clone().unwrap_or_else(|| text(&config["WorkingDir"]));
    let (uid, gid) = user(run.user.as_deref().unwrap_or(&text(&config["User"])))?;
    let process = &mut spec["process"];
    process["args"] = json!(args);
    process["cwd"] = json!(if cwd.is_empty() { "/" } else { &cwd });
    process["user"] = json!({"uid": uid, "gid": gid, "additionalGids": [gid]});
    process["noNewPrivileges"] = json!(!run.allow_new_privs && !run.privileged);
    if run.tty {
        process["terminal"] = json!(true);
        env.push("TERM=xterm".to_owned());
    }
    process["env"] = json!(env);
    capabilities(run, process);
    places(run, &mut spec)?;
    if run.privileged {
        privileged(&mut spec);
    }
    Ok(spec)
}

fn capabilities(run: &Run, process: &mut Value) {
    let mut names: Vec<String> = if run.privileged { ALL_CAPABILITIES } else { CAPABILITIES }
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    names.extend(run.cap_add.iter().filter(|name| !CAPABILITIES.contains(&name.as_str())).cloned());
    names.retain(|name| !run.cap_drop.contains(name));
    names.dedup();
    process["capabilities"] = json!({"bounding": names, "effective": names, "permitted": names});
}

/// Mounts, namespaces, limits.
fn places(run: &Run, spec: &mut Value) -> Result<()> {
    let mut mounts = spec["mounts"].as_array().cloned().unwrap_or_default();
    for mount in &run.mount {
        mounts.push(parse_mount(mount)?);
    }
    let linux = &mut spec["linux"];
    if run.net_host {
        if let Some(namespaces) = linux["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "network");
        }
        for file in ["/etc/hosts", "/etc/resolv.conf"] {
            mounts.push(json!({"destination": file, "source": file, "type": "bind",
                "options": ["rbind", "ro"]}));
        }
    }
    if let Some(path) = &run.cgroup {
        linux["cgroupsPath"] = json!(path);
    }
    if let Some(limit) = run.memory_limit {
        linux["resources"]["memory"]["limit"] = json!(limit);
    }
    if let Some(cpus) = run.cpus {
        // Periods of 100 ms.
        let quota = serde_json::Number::from_f64((cpus * 100_000.0).round());
        let quota = quota.and_then(|quota| quota.to_string().trim_end_matches(".0").parse().ok());
        let quota: i64 = quota.context("invalid value of --cpus: invalid argument")?;
        linux["resources"]["cpu"]["quota"] = json!(quota);
        linux["resources"]["cpu"]["period"] = json!(100_000);
    }
    spec["mounts"] = json!(mounts);
    Ok(())
}

fn privileged(spec: &mut Value) {
    let linux = &mut spec["linux"];
    linux["maskedPaths"] = json!([]);
    linux["readonlyPaths"] = json!([]);
    linux["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        if mount["type"] == "sysfs"
            && let Some(options) = mount["options"].as_array_mut()
        {
            options.retain(|option| option != "ro");
        }
    }
}

/// `type=bind,src=/a,dst=/b,options=rbind:ro`.
fn parse_mount(given: &str) -> Result<Value> {
    let mut mount = json!({});
    for field in given.split(',') {
        let Some((key, value)) = field.split_once('=') else {
            bail!("invalid mount specification: expected key=val in {field:?}");
        };
        match key {
            "type" => mount["type"] = json!(value),
            "source" | "src" => mount["source"] = json!(value),
            "destination" | "dst" => mount["destination"] = json!(value),
            "options" => mount["options"] = json!(value.split(':').collect::<Vec<_>>()),
            other => bail!("mount option {other:?} not supported"),
        }
    }
    Ok(mount)
}

/// Numbers only: names would need the image's own files.
fn user(given: &str) -> Result<(u32, u32)> {
    let (user, group) = given.split_once(':').unwrap_or((given, ""));
    let number = |name: &str| match name {
        "" | "root" => Ok(0),
        name => name
            .parse::<u32>()
            .with_context(|| format!("user {name:?}: only numeric users are supported yet")),
    };
    Ok((number(user)?, number(group)?))
}

fn base(namespace: &str, id: &str) -> Value {
    let mount = |to: &str, kind: &str, from: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": from, "options": options});
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        },
        "mounts": [
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/run", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ],
        "linux": {
            "cgroupsPath": format!("/{namespace}/{id}"),
            "resources": {"devices": [{"allow": false, "access": "rwm"}], "cpu": {"shares": 1024}},
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "network"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const ALL_CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mounts_are_read_field_by_field() {
        assert_eq!(
            parse_mount("type=bind,src=/a,dst=/b,options=rbind:ro").unwrap(),
            json!({"type": "bind", "source": "/a", "destination": "/b", "options": ["rbind", "ro"]})
        );
        assert!(parse_mount("bind").is_err());
    }

    #[test]
    fn users_are_numbers_or_root() {
        assert_eq!(user("").unwrap(), (0, 0));
        assert_eq!(user("1000:100").unwrap(), (1000, 100));
        assert!(user("nobody").is_err());
    }

    proptest! {
        #[test]
        fn mounts_survive_their_text(
            source in "[a-z/.]{0,8}",
            target in "[a-z/=]{0,8}",
            options in proptest::collection::vec("[a-z=0-9]{0,5}", 1..4),
        ) {
            let text = format!("type=bind,src={source},dst={target},options={}", options.join(":"));
            let wanted = json!({"type": "bind", "source": source, "destination": target, "options": options});
            prop_assert_eq!(parse_mount(&text).unwrap(), wanted);
        }

        #[test]
        fn broken_mounts_and_users_are_refused(
            mount in "[a-z=,:/]{0,20}",
            name in "[a-z0-9:+-]{0,14}",
        ) {
            drop(parse_mount(&mount));
            if let Ok((uid, gid)) = user(&name) {
                let plain = |text: &str| if text.is_empty() || text == "root" { 0 } else { text.parse().unwrap() };
                let (user, group) = name.split_once(':').unwrap_or((&name, ""));
                prop_assert_eq!((uid, gid), (plain(user), plain(group)));
            }
        }
    }
}
