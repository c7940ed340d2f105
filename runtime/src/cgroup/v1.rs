//! Limits on v1 hierarchies, one directory a controller (the kernel's `cgroup-v1` documents).
//! A value of 0 means unset, as runc reads it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::devices::DevicePolicy;
use super::file::{errno, read, write, write_all};
use super::{Error, limit};
use crate::spec::oci::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, ThrottleDevice, WeightDevice,
};

/// A new directory of the cpuset hierarchy is empty and takes no process until it is filled.
pub(super) fn inherit_cpuset(directory: &Path) -> Result<(), Error> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        fill_cpuset(directory, name)?;
    }
    Ok(())
}

fn fill_cpuset(directory: &Path, name: &str) -> Result<String, Error> {
    let value = read(directory, name)?;
    if !value.is_empty() {
        return Ok(value);
    }
    let Some(parent) = directory.parent() else { return Ok(value) };
    let inherited = fill_cpuset(parent, name)?;
    write(directory, name, &inherited)?;
    Ok(inherited)
}

struct Controllers<'a>(&'a BTreeMap<String, PathBuf>);

impl<'a> Controllers<'a> {
    fn of(&self, name: &'static str) -> Result<&'a Path, Error> {
        self.0.get(name).map(PathBuf::as_path).ok_or(Error::NoController(name))
    }

    fn set(&self, controller: &'static str, file: &str, value: &str) -> Result<(), Error> {
        write(self.of(controller)?, file, value)
    }
}

pub(super) fn apply(
    paths: &BTreeMap<String, PathBuf>,
    resources: &LinuxResources,
) -> Result<(), Error> {
    let controllers = Controllers(paths);
    if let Some(name) = resources.unified.keys().next() {
        return Err(Error::UnifiedOnV1(name.clone()));
    }
    if let Some(memory) = &resources.memory {
        apply_memory(&controllers, memory)?;
    }
    if let Some(cpu) = &resources.cpu {
        apply_cpu(&controllers, cpu)?;
        for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
            if !value.is_empty() {
                controllers.set("cpuset", file, value)?;
            }
        }
    }
    if let Some(value) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        controllers.set("pids", "pids.max", &super::pids_max(value))?;
    }
    if let Some(io) = &resources.block_io {
        apply_block_io(&controllers, io)?;
    }
    for huge in &resources.hugepage_limits {
        let value = huge.limit.to_string();
        let name = |part: &str| format!("hugetlb.{}{part}.limit_in_bytes", huge.page_size);
        controllers.set("hugetlb", &name(""), &value)?;
        let reserved = controllers.set("hugetlb", &name(".rsvd"), &value);
        optional(reserved)?;
    }
    if let Some(network) = &resources.network {
        if let Some(class) = network.class_id.filter(|class| *class != 0) {
            controllers.set("net_cls", "net_cls.classid", &class.to_string())?;
        }
        for interface in &network.priorities {
            let value = format!("{} {}", interface.name, interface.priority);
            controllers.set("net_prio", "net_prio.ifpriomap", &value)?;
        }
    }
    for (device, rdma) in &resources.rdma {
        controllers.set("rdma", "rdma.max", &super::rdma_line(device, rdma))?;
    }
    Ok(())
}

pub(super) fn apply_devices(
    paths: &BTreeMap<String, PathBuf>,
    policy: &DevicePolicy,
) -> Result<(), Error> {
    let directory = Controllers(paths).of("devices")?;
    // The first line is for one file and says what holds by default, the others are for the other.
    for lines in policy.lines().chunk_by(|(one, _), (next, _)| one == next) {
        let values: Vec<String> = lines.iter().map(|(_, line)| line.clone()).collect();
        write_all(directory, lines[0].0, &values)?;
    }
    Ok(())
}

fn apply_memory(controllers: &Controllers<'_>, memory: &LinuxMemory) -> Result<(), Error> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    let set = |file: &str, value: i64| controllers.set("memory", file, &value.to_string());
    // Memory without a limit can have no limit with swap either.
    let bytes = limit(memory.limit);
    let swap = limit(memory.swap).or((bytes == Some(-1)).then_some(-1));
    match (bytes, swap) {
        (Some(bytes), Some(swap)) => {
            // The limit with swap may never be the smaller one: raise it first, lower it last.
            let raising = swap == -1
                || read(controllers.of("memory")?, SWAP)
                    .ok()
                    .and_then(|now| now.parse::<u64>().ok())
                    .zip(u64::try_from(swap).ok())
                    .is_some_and(|(now, swap)| now < swap);
            let swap_is_there = controllers.of("memory")?.join(SWAP).exists();
            if raising {
                if swap_is_there || swap != -1 {
                    set(SWAP, swap)?;
                }
                set_memory_limit(controllers, LIMIT, bytes)?;
            } else {
                set_memory_limit(controllers, LIMIT, bytes)?;
                set(SWAP, swap)?;
            }
        }
        (Some(bytes), None) => set_memory_limit(controllers, LIMIT, bytes)?,
        (None, Some(swap)) => set(SWAP, swap)?,
        (None, None) => {}
    }
    if let Some(value) = limit(memory.reservation) {
        set("memory.soft_limit_in_bytes", value)?;
    }
    if let Some(value) = limit(memory.kernel_tcp) {
        optional(set("memory.kmem.tcp.limit_in_bytes", value))?;
    }
    // Compat: runc 1.1 accepts a kernel memory limit and ignores it; kernels no longer have it.
    if memory.disable_oom_killer == Some(true) {
        controllers.set("memory", "memory.oom_control", "1")?;
    }
    match memory.swappiness {
        None | Some(u64::MAX) => Ok(()),
        Some(value @ 0..=100) => controllers.set("memory", "memory.swappiness", &value.to_string()),
        Some(value) => Err(Error::Swappiness(value)),
    }
}

fn set_memory_limit(controllers: &Controllers<'_>, file: &str, bytes: i64) -> Result<(), Error> {
    let directory = controllers.of("memory")?;
    match write(directory, file, &bytes.to_string()) {
        Err(error) if errno(&error) == Some(libc::EBUSY) => Err(Error::MemoryInUse {
            limit: bytes,
            usage: read(directory, "memory.usage_in_bytes")?,
            peak: read(directory, "memory.max_usage_in_bytes")?,
        }),
        result => result,
    }
}

fn apply_cpu(controllers: &Controllers<'_>, cpu: &LinuxCpu) -> Result<(), Error> {
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        controllers.set("cpu", "cpu.shares", &shares.to_string())?;
        // The kernel clamps in silence.
        let now = read(controllers.of("cpu")?, "cpu.shares")?.parse::<u64>().unwrap_or(shares);
        if now < shares {
            return Err(Error::SharesAbove(now));
        } else if now > shares {
            return Err(Error::SharesBelow(now));
        }
    }
    // Each pair is checked as a whole on each write, so a period may have to wait for its quota.
    let period = cpu.period.filter(|period| *period != 0).map(|period| period.to_string());
    let mut late = false;
    if let Some(period) = &period {
        match controllers.set("cpu", "cpu.cfs_period_us", period) {
            Err(error)
                if errno(&error) == Some(libc::EINVAL) && cpu.quota.is_some_and(|q| q != 0) =>
            {
                late = true;
            }
            result => result?,
        }
    }
    if let Some(quota) = limit(cpu.quota) {
        controllers.set("cpu", "cpu.cfs_quota_us", &quota.to_string())?;
    }
    if let Some(period) = period.filter(|_| late) {
        controllers.set("cpu", "cpu.cfs_period_us", &period)?;
    }
    if let Some(burst) = cpu.burst {
        controllers.set("cpu", "cpu.cfs_burst_us", &burst.to_string())?;
    }
    if let Some(period) = cpu.realtime_period.filter(|period| *period != 0) {
        controllers.set("cpu", "cpu.rt_period_us", &period.to_string())?;
    }
    if let Some(runtime) = limit(cpu.realtime_runtime) {
        controllers.set("cpu", "cpu.rt_runtime_us", &runtime.to_string())?;
    }
    if let Some(idle) = cpu.idle {
        controllers.set("cpu", "cpu.idle", &idle.to_string())?;
    }
    Ok(())
}

fn apply_block_io(controllers: &Controllers<'_>, io: &LinuxBlockIo) -> Result<(), Error> {
    let weights = |name: &str| -> Result<String, Error> {
        let bfq = format!("blkio.bfq.{name}");
        Ok(if controllers.of("blkio")?.join(&bfq).exists() { bfq } else { format!("blkio.{name}") })
    };
    if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
        controllers.set("blkio", &weights("weight")?, &weight.to_string())?;
    }
    if let Some(weight) = io.leaf_weight.filter(|weight| *weight != 0) {
        controllers.set("blkio", "blkio.leaf_weight", &weight.to_string())?;
    }
    for WeightDevice { major, minor, weight, leaf_weight } in &io.weight_device {
        if let Some(weight) = weight.filter(|weight| *weight != 0) {
            let line = format!("{major}:{minor} {weight}");
            controllers.set("blkio", &weights("weight_device")?, &line)?;
        }
        if let Some(weight) = leaf_weight.filter(|weight| *weight != 0) {
            let line = format!("{major}:{minor} {weight}");
            controllers.set("blkio", "blkio.leaf_weight_device", &line)?;
        }
    }
    for (file, devices) in [
        ("blkio.throttle.read_bps_device", &io.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", &io.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", &io.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", &io.throttle_write_iops_device),
    ] {
        for ThrottleDevice { major, minor, rate } in devices {
            controllers.set("blkio", file, &format!("{major}:{minor} {rate}"))?;
        }
    }
    Ok(())
}

/// A file that older kernels lack.
fn optional(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}
