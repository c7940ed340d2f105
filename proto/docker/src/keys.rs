//! Member names as Go matches them: whatever their case.

use serde_json::{Map, Value};

/// Gives the members of a request their names as written here, at every depth. Members whose keys
/// are the client's own words (labels, options, ports, …) keep them.
pub fn fold_keys(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, mut member) in std::mem::take(members) {
                let name = canonical(&key).map_or(key, str::to_owned);
                match member.as_object_mut() {
                    Some(words) if WORDS.contains(&name.as_str()) => {
                        words.values_mut().for_each(fold_keys);
                    }
                    _ => fold_keys(&mut member),
                }
                insert(members, name, member);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(fold_keys),
        _ => {}
    }
}

/// The first place where a list stands for an object: a member's name, empty for the whole request.
pub fn list_for_object(request: &Value) -> Option<&'static str> {
    if request.is_array() { Some("") } else { nested(request) }
}

fn nested(value: &Value) -> Option<&'static str> {
    let Value::Object(members) = value else {
        return value.as_array().and_then(|items| items.iter().find_map(nested));
    };
    members.iter().find_map(|(key, member)| {
        let known = |names: &[&'static str]| names.iter().copied().find(|name| name == key);
        if let Some(name) = known(OBJECTS) {
            return if member.is_array() { Some(name) } else { nested(member) };
        }
        if let Some(name) = known(LISTS_OF_OBJECTS)
            && member.as_array().is_some_and(|items| items.iter().any(Value::is_array))
        {
            return Some(name);
        }
        if WORDS.contains(&key.as_str()) {
            // The client's own words; what they stand for may be an object of ours.
            let name = known(WORDS_FOR_OBJECTS)?;
            let objects = member.as_object()?;
            return objects.values().find_map(|one| match one {
                Value::Array(items) if name == "PortBindings" => {
                    items.iter().any(Value::is_array).then_some(name)
                }
                Value::Array(_) => Some(name),
                one => nested(one),
            });
        }
        nested(member)
    })
}

fn insert(members: &mut Map<String, Value>, name: String, member: Value) {
    // Compat: of two that differ in case only, the later one counts; maps are sorted here, so that
    // is the one in small letters.
    members.insert(name, member);
}

fn canonical(key: &str) -> Option<&'static str> {
    NAMES.iter().copied().find(|name| name.eq_ignore_ascii_case(key))
}

/// Members whose own members are named by the client.
const WORDS: &[&str] = &[
    "Annotations",
    "Config",
    "DriverOpts",
    "EndpointsConfig",
    "ExposedPorts",
    "Labels",
    "Options",
    "PortBindings",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
    "AuxiliaryAddresses",
];

const OBJECTS: &[&str] = &[
    "BindOptions",
    "DriverConfig",
    "Healthcheck",
    "HostConfig",
    "IPAMConfig",
    "ImageOptions",
    "LogConfig",
    "NetworkingConfig",
    "RestartPolicy",
    "TmpfsOptions",
    "VolumeOptions",
];

const LISTS_OF_OBJECTS: &[&str] = &[
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
    "DeviceRequests",
    "Devices",
    "Mounts",
    "Ulimits",
];

const WORDS_FOR_OBJECTS: &[&str] = &["EndpointsConfig", "PortBindings"];

const NAMES: &[&str] = &[
    // Containers.
    "Hostname",
    "Domainname",
    "User",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "ExposedPorts",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "Env",
    "Cmd",
    "Healthcheck",
    "ArgsEscaped",
    "Image",
    "Volumes",
    "WorkingDir",
    "Entrypoint",
    "NetworkDisabled",
    "MacAddress",
    "OnBuild",
    "Labels",
    "StopSignal",
    "StopTimeout",
    "Shell",
    "HostConfig",
    "NetworkingConfig",
    "EndpointsConfig",
    "Test",
    "Interval",
    "Timeout",
    "StartPeriod",
    "StartInterval",
    "Retries",
    // Their place on the host.
    "Binds",
    "ContainerIDFile",
    "LogConfig",
    "Type",
    "Config",
    "NetworkMode",
    "PortBindings",
    "HostIp",
    "HostPort",
    "RestartPolicy",
    "Name",
    "MaximumRetryCount",
    "AutoRemove",
    "VolumeDriver",
    "VolumesFrom",
    "ConsoleSize",
    "Annotations",
    "CapAdd",
    "CapDrop",
    "CgroupnsMode",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "IpcMode",
    "Cgroup",
    "Links",
    "OomScoreAdj",
    "PidMode",
    "Privileged",
    "PublishAllPorts",
    "ReadonlyRootfs",
    "SecurityOpt",
    "StorageOpt",
    "Tmpfs",
    "UTSMode",
    "UsernsMode",
    "ShmSize",
    "Sysctls",
    "Runtime",
    "Isolation",
    "Mounts",
    "MaskedPaths",
    "ReadonlyPaths",
    "Init",
    // Limits.
    "CpuShares",
    "Memory",
    "NanoCpus",
    "CgroupParent",
    "BlkioWeight",
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
    "Path",
    "Weight",
    "Rate",
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "CpusetCpus",
    "CpusetMems",
    "Devices",
    "PathOnHost",
    "PathInContainer",
    "CgroupPermissions",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Driver",
    "Count",
    "DeviceIDs",
    "Capabilities",
    "Options",
    "KernelMemory",
    "KernelMemoryTCP",
    "MemoryReservation",
    "MemorySwap",
    "MemorySwappiness",
    "OomKillDisable",
    "PidsLimit",
    "Ulimits",
    "Hard",
    "Soft",
    "CpuCount",
    "CpuPercent",
    "IOMaximumIOps",
    "IOMaximumBandwidth",
    // Mounts.
    "Source",
    "Target",
    "ReadOnly",
    "Consistency",
    "BindOptions",
    "Propagation",
    "NonRecursive",
    "CreateMountpoint",
    "ReadOnlyNonRecursive",
    "ReadOnlyForceRecursive",
    "VolumeOptions",
    "NoCopy",
    "Subpath",
    "DriverConfig",
    "ImageOptions",
    "TmpfsOptions",
    "SizeBytes",
    "Mode",
    // Endpoints, networks, volumes, execs.
    "IPAMConfig",
    "IPv4Address",
    "IPv6Address",
    "LinkLocalIPs",
    "Aliases",
    "DriverOpts",
    "GwPriority",
    "NetworkID",
    "EndpointID",
    "Gateway",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "DNSNames",
    "CheckDuplicate",
    "Scope",
    "EnableIPv4",
    "EnableIPv6",
    "IPAM",
    "Subnet",
    "IPRange",
    "AuxiliaryAddresses",
    "Internal",
    "Attachable",
    "Ingress",
    "ConfigOnly",
    "ConfigFrom",
    "Network",
    "Container",
    "EndpointConfig",
    "Force",
    "ClusterVolumeSpec",
    "DetachKeys",
    "Detach",
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_fold_and_the_clients_words_do_not() {
        let mut value = json!({"image": "x", "LABELS": {"image": "kept", "Memory": "kept"},
            "hostconfig": {"memory": 5, "UtsMode": "host", "portbindings": {"80/tcp": [{"hostport": "1"}]},
                "logconfig": {"type": "t", "config": {"name": "kept"}}}});
        fold_keys(&mut value);
        assert_eq!(
            value,
            json!({"Image": "x", "Labels": {"image": "kept", "Memory": "kept"},
            "HostConfig": {"Memory": 5, "UTSMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "1"}]},
                "LogConfig": {"Type": "t", "Config": {"name": "kept"}}}})
        );
    }

    #[test]
    fn a_list_for_an_object_is_found_at_any_depth() {
        for (request, place) in [
            (json!([]), Some("")),
            (json!({"HostConfig": []}), Some("HostConfig")),
            (json!({"HostConfig": {"RestartPolicy": ["always", 3]}}), Some("RestartPolicy")),
            (json!({"HostConfig": {"Mounts": [{}, []]}}), Some("Mounts")),
            (json!({"HostConfig": {"Mounts": [{"BindOptions": []}]}}), Some("BindOptions")),
            (json!({"NetworkingConfig": {"EndpointsConfig": {"a": []}}}), Some("EndpointsConfig")),
            (json!({"HostConfig": {"PortBindings": {"1": [["", "2"]]}}}), Some("PortBindings")),
            (json!({"Cmd": [[]], "HostConfig": {"PortBindings": {"1": [{}]}}}), None),
            (json!({"Labels": {"HostConfig": []}, "HostConfig": {"Mounts": [{}]}}), None),
        ] {
            assert_eq!(list_for_object(&request), place, "{request}");
        }
    }

    #[test]
    fn a_request_in_small_letters_is_the_same_request() {
        let request = crate::container::CreateRequest {
            config: crate::container::Config { hostname: "h".to_owned(), ..Default::default() },
            host_config: Some(Default::default()),
            networking_config: Some(Default::default()),
        };
        let written = serde_json::to_value(&request).unwrap();
        let mut small = lower(&written);
        fold_keys(&mut small);
        assert_eq!(small, written);
    }

    fn lower(value: &Value) -> Value {
        match value {
            Value::Object(members) => members
                .iter()
                .map(|(key, member)| (key.to_ascii_lowercase(), lower(member)))
                .collect(),
            other => other.clone(),
        }
    }
}
