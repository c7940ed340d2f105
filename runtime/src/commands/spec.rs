//! `spec`: a configuration to start from.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde::Serialize as _;
use serde_json::{Value, json};

use super::{no_words, parse};
use crate::args::{Flag, Order};
use crate::container::{OCI_VERSION, write_by_rename};

pub(super) const FLAGS: &[Flag] = &[("bundle", "b", true), ("rootless", "", false)];

pub(crate) fn run(arguments: Vec<String>) -> anyhow::Result<u8> {
    let parsed = parse(arguments, FLAGS, Order::Mixed)?;
    no_words("spec", &parsed)?;
    let path = PathBuf::from(parsed.get("bundle").unwrap_or("")).join("config.json");
    if path.exists() {
        // Compat: runc's sentence.
        bail!("File config.json exists. Remove it first");
    }
    let mut config = default_config(crate::cgroup::is_unified());
    if parsed.is_set("rootless") {
        make_rootless(&mut config);
    }
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    config
        .serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))
        .context("config.json")?;
    text.push(b'\n');
    write_by_rename(&path, &text, 0o666)?;
    Ok(0)
}

/// Compat: a cgroup namespace only where cgroup2 is all there is.
fn default_config(unified: bool) -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    if unified {
        namespaces.push("cgroup");
    }
    json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "runc",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts",
                "devpts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            mount(
                "/dev/shm",
                "tmpfs",
                "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            ),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount(
                "/sys/fs/cgroup",
                "cgroup",
                "cgroup",
                &["nosuid", "noexec", "nodev", "relatime", "ro"],
            ),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces.iter().map(|kind| json!({"type": kind})).collect::<Vec<_>>(),
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

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    let mut mount = json!({"destination": destination, "type": kind, "source": source});
    if !options.is_empty() {
        mount["options"] = json!(options);
    }
    mount
}

/// A user without privileges has one id to map and no network, cgroup or sysfs of its own.
fn make_rootless(config: &mut Value) {
    let own = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    let linux = &mut config["linux"];
    linux["uidMappings"] = own(rustix::process::geteuid().as_raw());
    linux["gidMappings"] = own(rustix::process::getegid().as_raw());
    if let Some(linux) = linux.as_object_mut() {
        drop(linux.remove("resources"));
    }
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    if let Some(mounts) = config["mounts"].as_array_mut() {
        for entry in mounts {
            match entry["destination"].as_str() {
                Some("/sys") => {
                    let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
                    *entry = mount("/sys", "none", "/sys", &options);
                }
                Some("/dev/pts") => {
                    if let Some(options) = entry["options"].as_array_mut() {
                        options.retain(|option| option != "gid=5");
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_configuration_can_be_read_back() {
        let spec: crate::spec::oci::Spec = serde_json::from_value(default_config(true)).unwrap();
        assert_eq!(spec.mounts.len(), 7);
        assert_eq!(spec.process.unwrap().args, ["sh"]);
    }

    #[test]
    fn a_rootless_one_has_a_user_namespace_and_no_network() {
        let mut config = default_config(true);
        make_rootless(&mut config);
        let text = config["linux"]["namespaces"].to_string();
        assert!(text.contains("user") && !text.contains("network"), "{text}");
    }
}
