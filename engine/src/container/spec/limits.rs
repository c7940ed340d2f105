//! Resources, rlimits and devices.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use docker_api::container::{HostConfig, ThrottleDevice};
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::container::ContainerError;

/// `linux.resources`, devices included.
pub(super) fn resources(host: &HostConfig) -> Result<Value, ContainerError> {
    let mut all = limits(host)?;
    let allow = |kind: &str, major: i64, minor: i64| json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": "rwm"});
    let mut devices = Vec::new();
    if host.privileged {
        devices.push(json!({"allow": true, "access": "rwm"}));
    } else {
        devices.push(json!({"allow": false, "access": "rwm"}));
        for (major, minor) in [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)] {
            devices.push(allow("c", major, minor));
        }
        devices
            .push(json!({"allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm"}));
        for device in host.resources.devices.iter().flatten() {
            for node in nodes(&device.path_on_host, &device.path_in_container)? {
                let access = match device.cgroup_permissions.as_str() {
                    "" => "rwm",
                    given => given,
                };
                devices.push(json!({"allow": true, "type": node["type"], "major": node["major"],
                    "minor": node["minor"], "access": access}));
            }
        }
        for rule in host.resources.device_cgroup_rules.iter().flatten() {
            devices.push(device_rule(rule)?);
        }
    }
    all.insert("devices".to_owned(), Value::Array(devices));
    Ok(Value::Object(all))
}

/// Everything but devices; also what `update` sends.
pub(crate) fn limits(host: &HostConfig) -> Result<Map<String, Value>, ContainerError> {
    let resources = &host.resources;
    let mut all = Map::new();
    let mut memory = Map::new();
    if resources.memory > 0 {
        memory.insert("limit".to_owned(), json!(resources.memory));
    }
    if resources.memory_reservation > 0 {
        memory.insert("reservation".to_owned(), json!(resources.memory_reservation));
    }
    if resources.memory_swap != 0 {
        memory.insert("swap".to_owned(), json!(resources.memory_swap));
    }
    if let Some(swappiness) = resources.memory_swappiness {
        memory.insert("swappiness".to_owned(), json!(swappiness));
    }
    if let Some(limit) = resources.kernel_memory_tcp.filter(|&limit| limit > 0) {
        memory.insert("kernelTCP".to_owned(), json!(limit));
    }
    if resources.oom_kill_disable == Some(true) {
        memory.insert("disableOOMKiller".to_owned(), json!(true));
    }
    let mut cpu = Map::new();
    if resources.cpu_shares > 0 {
        cpu.insert("shares".to_owned(), json!(resources.cpu_shares));
    }
    if resources.nano_cpus > 0 {
        cpu.insert("period".to_owned(), json!(100_000));
        cpu.insert("quota".to_owned(), json!(resources.nano_cpus / 10_000));
    }
    if resources.cpu_period > 0 {
        cpu.insert("period".to_owned(), json!(resources.cpu_period));
    }
    if resources.cpu_quota != 0 {
        cpu.insert("quota".to_owned(), json!(resources.cpu_quota));
    }
    if resources.cpu_realtime_period > 0 {
        cpu.insert("realtimePeriod".to_owned(), json!(resources.cpu_realtime_period));
    }
    if resources.cpu_realtime_runtime > 0 {
        cpu.insert("realtimeRuntime".to_owned(), json!(resources.cpu_realtime_runtime));
    }
    if !resources.cpuset_cpus.is_empty() {
        cpu.insert("cpus".to_owned(), json!(resources.cpuset_cpus));
    }
    if !resources.cpuset_mems.is_empty() {
        cpu.insert("mems".to_owned(), json!(resources.cpuset_mems));
    }
    let mut block = Map::new();
    if resources.blkio_weight > 0 {
        block.insert("weight".to_owned(), json!(resources.blkio_weight));
    }
    let weights = resources.blkio_weight_device.iter().flatten().map(|device| {
        let (major, minor) = number(&device.path)?;
        Ok(json!({"major": major, "minor": minor, "weight": device.weight}))
    });
    let weights = weights.collect::<Result<Vec<_>, ContainerError>>()?;
    if !weights.is_empty() {
        block.insert("weightDevice".to_owned(), Value::Array(weights));
    }
    for (key, devices) in [
        ("throttleReadBpsDevice", &resources.blkio_device_read_bps),
        ("throttleWriteBpsDevice", &resources.blkio_device_write_bps),
        ("throttleReadIOPSDevice", &resources.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", &resources.blkio_device_write_iops),
    ] {
        let list = throttles(devices.as_deref().unwrap_or_default())?;
        if !list.is_empty() {
            block.insert(key.to_owned(), Value::Array(list));
        }
    }
    for (key, part) in [("memory", memory), ("cpu", cpu), ("blockIO", block)] {
        if !part.is_empty() {
            all.insert(key.to_owned(), Value::Object(part));
        }
    }
    if let Some(limit) = resources.pids_limit {
        all.insert("pids".to_owned(), json!({"limit": if limit == 0 { -1 } else { limit }}));
    }
    Ok(all)
}

/// `process.rlimits`: the daemon's defaults under the request's.
pub(super) fn rlimits(host: &HostConfig, config: &Config) -> Result<Vec<Value>, ContainerError> {
    let mut all: Vec<(String, i64, i64)> = Vec::new();
    for text in &config.default_ulimits {
        let invalid = || ContainerError::Invalid(format!("invalid ulimit argument: {text}"));
        let (name, values) = text.split_once('=').ok_or_else(invalid)?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let soft = soft.parse().map_err(|_| invalid())?;
        let hard = hard.parse().map_err(|_| invalid())?;
        all.push((name.to_owned(), soft, hard));
    }
    for limit in host.resources.ulimits.iter().flatten() {
        all.retain(|(name, _, _)| *name != limit.name);
        if limit.soft > limit.hard && limit.hard != -1 {
            return Err(ContainerError::Invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                limit.soft, limit.hard
            )));
        }
        all.push((limit.name.clone(), limit.soft, limit.hard));
    }
    all.into_iter()
        .map(|(name, soft, hard)| {
            const NAMES: &[&str] = &[
                "as",
                "core",
                "cpu",
                "data",
                "fsize",
                "locks",
                "memlock",
                "msgqueue",
                "nice",
                "nofile",
                "nproc",
                "rss",
                "rtprio",
                "rttime",
                "sigpending",
                "stack",
            ];
            if !NAMES.contains(&name.as_str()) {
                return Err(ContainerError::Invalid(format!("invalid ulimit type: {name}")));
            }
            // -1 is unlimited, as Go's conversion to u64 makes it.
            let unsigned = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
            Ok(json!({
                "type": format!("RLIMIT_{}", name.to_ascii_uppercase()),
                "soft": unsigned(soft),
                "hard": unsigned(hard),
            }))
        })
        .collect()
}

/// `linux.devices`: those asked for, or all of the host's.
pub(super) fn devices(host: &HostConfig) -> Result<Vec<Value>, ContainerError> {
    let mut list = Vec::new();
    if host.privileged {
        walk(Path::new("/dev"), &mut list, 0);
        return Ok(list);
    }
    for device in host.resources.devices.iter().flatten() {
        list.extend(nodes(&device.path_on_host, &device.path_in_container)?);
    }
    Ok(list)
}

fn nodes(on_host: &str, inside: &str) -> Result<Vec<Value>, ContainerError> {
    let target = if inside.is_empty() { on_host } else { inside };
    let meta = std::fs::metadata(on_host).map_err(|_| {
        // Compat: dockerd's words.
        ContainerError::Invalid(format!(
            "error gathering device information while adding custom device \"{on_host}\": no such file or directory"
        ))
    })?;
    if meta.is_dir() {
        let mut list = Vec::new();
        walk(Path::new(on_host), &mut list, 0);
        for node in &mut list {
            let path = node["path"].as_str().unwrap_or_default();
            let moved = path.replacen(on_host, target, 1);
            node["path"] = json!(moved);
        }
        return Ok(list);
    }
    node(Path::new(on_host), target).map(|node| vec![node]).ok_or_else(|| {
        ContainerError::Invalid(format!(
            "error gathering device information while adding custom device \"{on_host}\": not a device node"
        ))
    })
}

fn node(on_host: &Path, target: &str) -> Option<Value> {
    let meta = std::fs::metadata(on_host).ok()?;
    let kind = if meta.file_type().is_char_device() {
        "c"
    } else if meta.file_type().is_block_device() {
        "b"
    } else {
        return None;
    };
    Some(json!({
        "type": kind,
        "path": target,
        "major": nix::sys::stat::major(meta.rdev()),
        "minor": nix::sys::stat::minor(meta.rdev()),
        "fileMode": meta.mode() & 0o7777,
        "uid": meta.uid(),
        "gid": meta.gid(),
    }))
}

/// Every device below a directory, as dockerd gathers them for a privileged container.
fn walk(dir: &Path, list: &mut Vec<Value>, depth: u8) {
    const SKIPPED: &[&str] =
        &["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let Ok(kind) = entry.file_type() else { continue };
        if SKIPPED.contains(&name.to_string_lossy().as_ref()) || kind.is_symlink() {
            continue;
        }
        let path = entry.path();
        if kind.is_dir() {
            if depth < 8 {
                walk(&path, list, depth + 1);
            }
        } else if let Some(found) = node(&path, &path.to_string_lossy()) {
            list.push(found);
        }
    }
}

fn throttles(devices: &[ThrottleDevice]) -> Result<Vec<Value>, ContainerError> {
    devices
        .iter()
        .map(|device| {
            let (major, minor) = number(&device.path)?;
            Ok(json!({"major": major, "minor": minor, "rate": device.rate}))
        })
        .collect()
}

fn number(path: &str) -> Result<(u64, u64), ContainerError> {
    let meta = std::fs::metadata(path).map_err(ContainerError::io(format!("stat {path}")))?;
    Ok((nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev())))
}

/// `c 1:3 rwm`, `b *:* r`.
fn device_rule(text: &str) -> Result<Value, ContainerError> {
    let invalid =
        || ContainerError::Invalid(format!("invalid device cgroup rule format: '{text}'"));
    let mut words = text.split_whitespace();
    let (Some(kind), Some(numbers), Some(access)) = (words.next(), words.next(), words.next())
    else {
        return Err(invalid());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let mut rule = json!({"allow": true, "type": kind, "access": access});
    for (key, value) in [("major", major), ("minor", minor)] {
        if value != "*" {
            rule[key] = json!(value.parse::<i64>().map_err(|_| invalid())?);
        }
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cpus_become_a_quota() {
        let mut host = HostConfig::default();
        host.resources.nano_cpus = 1_500_000_000;
        host.resources.memory = 1 << 26;
        host.resources.memory_swap = 1 << 27;
        let all = limits(&host).unwrap();
        assert_eq!(all["cpu"], json!({"period": 100_000, "quota": 150_000}));
        assert_eq!(all["memory"], json!({"limit": 1 << 26, "swap": 1 << 27}));
    }

    #[test]
    fn device_rules_take_wildcards() {
        let rule = device_rule("c 1:* rw").unwrap();
        assert_eq!(rule, json!({"allow": true, "type": "c", "access": "rw", "major": 1}));
        assert!(device_rule("c 1 rw").is_err());
    }

    proptest! {
        #[test]
        fn broken_device_rules_are_refused(
            text in "[abc]?[ ]{0,2}[0-9*-]{0,4}:?[0-9*-]{0,20}[ ]{0,2}[rwmx]{0,4}",
        ) {
            if let Ok(rule) = device_rule(&text) {
                prop_assert!(["major", "minor"].iter().all(|key| rule[key].is_null() || rule[key].is_i64()));
                prop_assert_eq!(&rule["allow"], true);
            }
        }
    }
}
