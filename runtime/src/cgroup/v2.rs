//! The unified hierarchy: handing controllers down and limits (the kernel's `cgroup-v2.rst`).
//! The spec speaks v1; the conversions are runc's.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use super::devices::DevicePolicy;
use super::file::{errno, raw_write, read, write};
use super::{Error, limit, sys};
use crate::spec::oci::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

/// Makes `directory` below `mount_point`, with every controller that can be handed down to it.
pub(super) fn create(mount_point: &Path, directory: &Path) -> Result<(), Error> {
    let inner = directory.strip_prefix(mount_point).unwrap_or(Path::new(""));
    let mut parent = mount_point.to_path_buf();
    for name in inner {
        let controllers = read(&parent, "cgroup.controllers").unwrap_or_default();
        hand_down(&parent, &controllers);
        let child = parent.join(name);
        match fs::create_dir(&child) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::Create { path: child, cause: error });
            }
            _ => {}
        }
        // Below a threaded parent a new group takes no process until it is threaded too.
        if read(&child, "cgroup.type").is_ok_and(|kind| kind == "domain invalid") {
            write(&child, "cgroup.type", "threaded")?;
        }
        parent = child;
    }
    Ok(())
}

/// All at once, or as many as go: a node with processes refuses some, a threaded one others.
/// What is missing shows when a limit needs it.
fn hand_down(parent: &Path, controllers: &str) {
    let enable: Vec<String> =
        controllers.split_ascii_whitespace().map(|name| format!("+{name}")).collect();
    if enable.is_empty() {
        return;
    }
    if raw_write(parent, "cgroup.subtree_control", &enable.join(" ")).is_err() {
        for one in &enable {
            raw_write(parent, "cgroup.subtree_control", one).unwrap_or_default();
        }
    }
}

pub(super) fn apply(directory: &Path, resources: &LinuxResources) -> Result<(), Error> {
    let set = |file: &str, value: &str| {
        write(directory, file, value).map_err(|error| explain(directory, file, error))
    };
    if let Some(value) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        set("pids.max", &super::pids_max(value))?;
    }
    if let Some(memory) = &resources.memory {
        if let Some(limit) = limit(memory.limit).filter(|limit| *limit > 0)
            && memory.check_before_update == Some(true)
        {
            let usage = read(directory, "memory.current")?;
            if usage.parse::<i64>().is_ok_and(|usage| usage > limit) {
                return Err(Error::MemoryBelowUsage { limit, usage });
            }
        }
        apply_memory(memory, &set)?;
    }
    if let Some(io) = &resources.block_io {
        apply_io(directory, io, &set)?;
    }
    if let Some(cpu) = &resources.cpu {
        apply_cpu(cpu, &set)?;
    }
    for huge in &resources.hugepage_limits {
        let name = |part: &str| format!("hugetlb.{}{part}.max", huge.page_size);
        set(&name(""), &huge.limit.to_string())?;
        if directory.join(name(".rsvd")).exists() {
            set(&name(".rsvd"), &huge.limit.to_string())?;
        }
    }
    for (device, rdma) in &resources.rdma {
        set("rdma.max", &super::rdma_line(device, rdma))?;
    }
    for (file, value) in &resources.unified {
        if file.contains('/') || file.starts_with('.') {
            return Err(Error::UnifiedName(file.clone()));
        }
        // A file of several lines takes them one by one.
        for line in value.lines() {
            set(file, line)?;
        }
    }
    Ok(())
}

/// What only v1 can do.
pub(super) fn without_a_file(resources: &LinuxResources) -> Vec<&'static str> {
    let memory = resources.memory.clone().unwrap_or_default();
    let cpu = resources.cpu.clone().unwrap_or_default();
    let io = resources.block_io.as_ref();
    let network = resources.network.as_ref();
    let leaf = |io: &LinuxBlockIo| {
        io.leaf_weight.is_some_and(|weight| weight != 0)
            || io.weight_device.iter().any(|device| device.leaf_weight.is_some_and(|w| w != 0))
    };
    [
        (limit(memory.kernel_tcp).is_some(), "memory.kernelTCP"),
        (memory.swappiness.is_some_and(|value| value != u64::MAX), "memory.swappiness"),
        (memory.disable_oom_killer == Some(true), "memory.disableOOMKiller"),
        (limit(cpu.realtime_runtime).is_some(), "cpu.realtimeRuntime"),
        (cpu.realtime_period.is_some_and(|period| period != 0), "cpu.realtimePeriod"),
        (io.is_some_and(leaf), "blockIO.leafWeight"),
        (
            network.is_some_and(|network| network.class_id.is_some_and(|id| id != 0)),
            "network.classID",
        ),
        (network.is_some_and(|network| !network.priorities.is_empty()), "network.priorities"),
    ]
    .into_iter()
    .filter_map(|(is_set, name)| is_set.then_some(name))
    .collect()
}

/// A file that is not there mostly means a controller that was not handed down.
fn explain(directory: &Path, file: &str, error: Error) -> Error {
    let controller = file.split('.').next().unwrap_or(file).to_owned();
    let missing = matches!(errno(&error), Some(libc::ENOENT | libc::EPERM | libc::EACCES))
        && controller != "cgroup"
        && read(directory, "cgroup.controllers")
            .is_ok_and(|known| !known.split(' ').any(|name| name == controller));
    if missing { Error::Unavailable { file: file.to_owned(), controller } } else { error }
}

type Set<'a> = &'a dyn Fn(&str, &str) -> Result<(), Error>;

fn apply_memory(memory: &LinuxMemory, set: Set<'_>) -> Result<(), Error> {
    let bytes = limit(memory.limit);
    // Compat: a swap file that is missing is only an error when swap is really limited.
    if let Some(swap) = swap_only(bytes, limit(memory.swap))? {
        match set("memory.swap.max", &max_or(swap)) {
            Err(error) if swap == -1 && missing(&error) => {}
            result => result?,
        }
    }
    if let Some(bytes) = bytes {
        set("memory.max", &max_or(bytes))?;
    }
    if let Some(reservation) = limit(memory.reservation) {
        set("memory.low", &max_or(reservation))?;
    }
    Ok(())
}

fn missing(error: &Error) -> bool {
    matches!(error, Error::Unavailable { .. }) || errno(error) == Some(libc::ENOENT)
}

/// v1 limits memory and swap together, v2 swap alone. `None`: leave it.
pub(super) fn swap_only(memory: Option<i64>, both: Option<i64>) -> Result<Option<i64>, Error> {
    match (memory, both) {
        // Without a limit on memory there is none on swap.
        (Some(-1), None) => Ok(Some(-1)),
        (_, None) => Ok(None),
        (_, Some(-1)) => Ok(Some(-1)),
        (None | Some(-1), Some(_)) => Err(Error::SwapWithoutMemory),
        (Some(memory), Some(both)) if memory < 0 || both < memory => {
            Err(Error::SwapBelowMemory { memory, both })
        }
        (Some(memory), Some(both)) => Ok(Some(both - memory)),
    }
}

fn apply_cpu(cpu: &LinuxCpu, set: Set<'_>) -> Result<(), Error> {
    if let Some(idle) = cpu.idle {
        set("cpu.idle", &idle.to_string())?;
    }
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        set("cpu.weight", &weight_of_shares(shares).to_string())?;
    }
    let burst = cpu.burst.map(|burst| burst.to_string());
    let early = burst.as_ref().is_some_and(|burst| set("cpu.max.burst", burst).is_ok());
    let quota = limit(cpu.quota);
    let period = cpu.period.filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |q| q.to_string());
        // A missing period keeps what the file has.
        let period = period.map_or_else(String::new, |period| format!(" {period}"));
        set("cpu.max", &format!("{quota}{period}"))?;
    }
    if let Some(burst) = burst.filter(|_| !early) {
        set("cpu.max.burst", &burst)?;
    }
    if !cpu.cpus.is_empty() {
        set("cpuset.cpus", &cpu.cpus)?;
    }
    if !cpu.mems.is_empty() {
        set("cpuset.mems", &cpu.mems)?;
    }
    Ok(())
}

fn apply_io(directory: &Path, io: &LinuxBlockIo, set: Set<'_>) -> Result<(), Error> {
    let bfq = directory.join("io.bfq.weight").exists();
    let file = if bfq { "io.bfq.weight" } else { "io.weight" };
    let value = |weight: u16| if bfq { u64::from(weight) } else { io_weight(weight) };
    if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
        set(file, &value(weight).to_string())?;
    }
    for device in &io.weight_device {
        if let Some(weight) = device.weight.filter(|weight| *weight != 0) {
            set(file, &format!("{}:{} {}", device.major, device.minor, value(weight)))?;
        }
    }
    for (word, devices) in [
        ("rbps", &io.throttle_read_bps_device),
        ("wbps", &io.throttle_write_bps_device),
        ("riops", &io.throttle_read_iops_device),
        ("wiops", &io.throttle_write_iops_device),
    ] {
        for device in devices {
            // Compat: 0 lifts a limit on v1; v2 spells that out.
            let rate = if device.rate == 0 { "max".to_owned() } else { device.rate.to_string() };
            set("io.max", &format!("{}:{} {word}={rate}", device.major, device.minor))?;
        }
    }
    Ok(())
}

pub(super) fn apply_devices(directory: &Path, policy: &DevicePolicy) -> Result<(), Error> {
    let fail = |cause| Error::DeviceProgram { path: directory.to_owned(), cause };
    let cgroup = fs::File::open(directory).map_err(fail)?;
    let before = sys::attached(cgroup.as_fd()).map_err(fail)?;
    let program = sys::load_device_program(&policy.program()).map_err(fail)?;
    sys::attach(cgroup.as_fd(), program.as_fd()).map_err(fail)?;
    // All programs must agree: the older ones go, after the new one holds.
    for old in &before {
        sys::detach(cgroup.as_fd(), old.as_fd()).map_err(fail)?;
    }
    Ok(())
}

/// Compat: runc's straight line from 2..262144 to 1..10000.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// From blkio's 10..1000 to 1..10000.
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

fn max_or(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}
