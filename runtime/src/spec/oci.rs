//! The types of `config.json`, read as liberally as runc reads it.
//!
//! Implements opencontainers/runtime-spec 1.0 to 1.3 (`config.md`, `config-linux.md`). Unknown
//! fields are ignored and every field may be absent or `null`: what is required is decided where
//! it is needed, so that the error can name it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

/// The bundle's configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Spec {
    #[serde(deserialize_with = "or_default")]
    pub(crate) oci_version: String,
    pub(crate) process: Option<Process>,
    pub(crate) root: Option<Root>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) hostname: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) domainname: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) mounts: Vec<Mount>,
    pub(crate) hooks: Option<Hooks>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) linux: Option<Linux>,
}

/// What runs in the container; also the file that `exec --process` names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Process {
    #[serde(deserialize_with = "or_default")]
    pub(crate) terminal: bool,
    pub(crate) console_size: Option<ConsoleSize>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) user: User,
    #[serde(deserialize_with = "or_default")]
    pub(crate) args: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) cwd: String,
    pub(crate) capabilities: Option<Capabilities>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) rlimits: Vec<Rlimit>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) no_new_privileges: bool,
    #[serde(deserialize_with = "or_default")]
    pub(crate) apparmor_profile: String,
    pub(crate) oom_score_adj: Option<i32>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) selinux_label: String,
    pub(crate) io_priority: Option<IoPriority>,
    pub(crate) scheduler: Option<Scheduler>,
    #[serde(rename = "execCPUAffinity")]
    pub(crate) exec_cpu_affinity: Option<CpuAffinity>,
}

/// CPUs of an exec before and after it enters the cgroup, as lists (`0-3,7`).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CpuAffinity {
    #[serde(deserialize_with = "or_default")]
    pub(crate) initial: String,
    #[serde(rename = "final", deserialize_with = "or_default")]
    pub(crate) last: String,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ConsoleSize {
    pub(crate) height: u16,
    pub(crate) width: u16,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct User {
    #[serde(deserialize_with = "or_default")]
    pub(crate) uid: u32,
    #[serde(deserialize_with = "or_default")]
    pub(crate) gid: u32,
    pub(crate) umask: Option<u32>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) additional_gids: Vec<u32>,
}

/// Capability names as written, `CAP_` included.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Capabilities {
    #[serde(deserialize_with = "or_default")]
    pub(crate) bounding: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) effective: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) inheritable: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) permitted: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) ambient: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rlimit {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) hard: u64,
    pub(crate) soft: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct IoPriority {
    pub(crate) class: String,
    pub(crate) priority: i32,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Scheduler {
    pub(crate) policy: String,
    pub(crate) nice: i32,
    pub(crate) priority: i32,
    #[serde(deserialize_with = "or_default")]
    pub(crate) flags: Vec<String>,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    #[serde(deserialize_with = "or_default")]
    pub(crate) readonly: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Mount {
    pub(crate) destination: String,
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) source: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) options: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) uid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) gid_mappings: Vec<IdMapping>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Hooks {
    #[serde(deserialize_with = "or_default")]
    pub(crate) prestart: Vec<Hook>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) create_runtime: Vec<Hook>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) create_container: Vec<Hook>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) start_container: Vec<Hook>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) poststart: Vec<Hook>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) poststop: Vec<Hook>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Hook {
    pub(crate) path: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) args: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) env: Vec<String>,
    /// Seconds.
    pub(crate) timeout: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Linux {
    #[serde(deserialize_with = "or_default")]
    pub(crate) uid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) gid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) sysctl: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) resources: LinuxResources,
    pub(crate) cgroups_path: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) namespaces: Vec<Namespace>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) devices: Vec<Device>,
    pub(crate) seccomp: Option<LinuxSeccomp>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) rootfs_propagation: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) masked_paths: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) readonly_paths: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) mount_label: String,
    pub(crate) personality: Option<Personality>,
    pub(crate) time_offsets: Option<BTreeMap<String, TimeOffset>>,
    pub(crate) intel_rdt: Option<IntelRdt>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) net_devices: BTreeMap<String, NetDevice>,
    pub(crate) memory_policy: Option<MemoryPolicy>,
}

/// A device of the host; its name in the container, or "" for the same.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NetDevice {
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct IntelRdt {
    #[serde(rename = "closID", deserialize_with = "or_default")]
    pub(crate) clos_id: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) schemata: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) l3_cache_schema: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) mem_bw_schema: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) enable_monitoring: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MemoryPolicy {
    #[serde(deserialize_with = "or_default")]
    pub(crate) mode: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) nodes: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) flags: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TimeOffset {
    pub(crate) secs: i64,
    pub(crate) nanosecs: u32,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Personality {
    pub(crate) domain: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) flags: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct IdMapping {
    #[serde(rename = "containerID")]
    pub(crate) container_id: u32,
    #[serde(rename = "hostID")]
    pub(crate) host_id: u32,
    pub(crate) size: u32,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Namespace {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) path: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Device {
    pub(crate) path: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) major: i64,
    #[serde(deserialize_with = "or_default")]
    pub(crate) minor: i64,
    pub(crate) file_mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

/// `linux.resources`; also the document that `update --resources` reads.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LinuxResources {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) devices: Vec<DeviceRule>,
    pub(crate) memory: Option<LinuxMemory>,
    pub(crate) cpu: Option<LinuxCpu>,
    pub(crate) pids: Option<LinuxPids>,
    #[serde(rename = "blockIO")]
    pub(crate) block_io: Option<LinuxBlockIo>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) hugepage_limits: Vec<HugepageLimit>,
    pub(crate) network: Option<LinuxNetwork>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) rdma: BTreeMap<String, LinuxRdma>,
    /// cgroup v2 files by name, written as they are.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) unified: BTreeMap<String, String>,
}

/// A device cgroup rule. A missing or negative number stands for all.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct DeviceRule {
    #[serde(deserialize_with = "or_default")]
    pub(crate) allow: bool,
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub(crate) kind: String,
    pub(crate) major: Option<i64>,
    pub(crate) minor: Option<i64>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) access: String,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LinuxMemory {
    pub(crate) limit: Option<i64>,
    pub(crate) reservation: Option<i64>,
    pub(crate) swap: Option<i64>,
    pub(crate) kernel: Option<i64>,
    #[serde(rename = "kernelTCP")]
    pub(crate) kernel_tcp: Option<i64>,
    pub(crate) swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller")]
    pub(crate) disable_oom_killer: Option<bool>,
    pub(crate) use_hierarchy: Option<bool>,
    pub(crate) check_before_update: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LinuxCpu {
    pub(crate) shares: Option<u64>,
    pub(crate) quota: Option<i64>,
    pub(crate) burst: Option<u64>,
    pub(crate) period: Option<u64>,
    pub(crate) realtime_runtime: Option<i64>,
    pub(crate) realtime_period: Option<u64>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) cpus: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) mems: String,
    pub(crate) idle: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct LinuxPids {
    pub(crate) limit: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LinuxBlockIo {
    pub(crate) weight: Option<u16>,
    pub(crate) leaf_weight: Option<u16>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) weight_device: Vec<WeightDevice>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) throttle_read_bps_device: Vec<ThrottleDevice>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) throttle_write_bps_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleReadIOPSDevice", deserialize_with = "or_default")]
    pub(crate) throttle_read_iops_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleWriteIOPSDevice", deserialize_with = "or_default")]
    pub(crate) throttle_write_iops_device: Vec<ThrottleDevice>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WeightDevice {
    pub(crate) major: i64,
    pub(crate) minor: i64,
    pub(crate) weight: Option<u16>,
    pub(crate) leaf_weight: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ThrottleDevice {
    pub(crate) major: i64,
    pub(crate) minor: i64,
    pub(crate) rate: u64,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct HugepageLimit {
    pub(crate) page_size: String,
    pub(crate) limit: u64,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct LinuxNetwork {
    #[serde(rename = "classID")]
    pub(crate) class_id: Option<u32>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) priorities: Vec<InterfacePriority>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct InterfacePriority {
    pub(crate) name: String,
    pub(crate) priority: u32,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LinuxRdma {
    pub(crate) hca_handles: Option<u32>,
    pub(crate) hca_objects: Option<u32>,
}

/// A seccomp profile, already resolved for this machine by the caller.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LinuxSeccomp {
    pub(crate) default_action: String,
    pub(crate) default_errno_ret: Option<u32>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) architectures: Vec<String>,
    pub(crate) flags: Option<Vec<String>>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) listener_path: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) listener_metadata: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) syscalls: Vec<LinuxSyscall>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LinuxSyscall {
    #[serde(deserialize_with = "or_default")]
    pub(crate) names: Vec<String>,
    pub(crate) action: String,
    pub(crate) errno_ret: Option<u32>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) args: Vec<LinuxSeccompArg>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LinuxSeccompArg {
    pub(crate) index: u32,
    pub(crate) value: u64,
    pub(crate) value_two: u64,
    pub(crate) op: String,
}

/// Go marshals empty slices and maps as `null`; they read as their default.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_unknown_fields_are_tolerated() {
        let spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.9.0","future":{"x":1},"mounts":null,"process":{"args":null,
               "user":{"uid":3,"additionalGids":null},"capabilities":{"bounding":null}},
               "linux":{"resources":null,"devices":null,"namespaces":[{"type":"pid"}]}}"#,
        )
        .unwrap();
        assert_eq!(spec.oci_version, "1.9.0");
        assert_eq!(spec.process.unwrap().user.uid, 3);
        assert_eq!(spec.linux.unwrap().namespaces[0].kind, "pid");
    }

    #[test]
    fn oddly_cased_names_of_the_specification_are_read() {
        let resources: LinuxResources = serde_json::from_str(
            r#"{"memory":{"kernelTCP":7,"disableOOMKiller":true},
               "blockIO":{"throttleReadIOPSDevice":[{"major":8,"minor":1,"rate":9}]},
               "network":{"classID":5}}"#,
        )
        .unwrap();
        let memory = resources.memory.unwrap();
        assert_eq!((memory.kernel_tcp, memory.disable_oom_killer), (Some(7), Some(true)));
        assert_eq!(resources.block_io.unwrap().throttle_read_iops_device[0].rate, 9);
        assert_eq!(resources.network.unwrap().class_id, Some(5));
        let mapping: IdMapping =
            serde_json::from_str(r#"{"containerID":1,"hostID":2,"size":3}"#).unwrap();
        assert_eq!(mapping, IdMapping { container_id: 1, host_id: 2, size: 3 });
    }
}
