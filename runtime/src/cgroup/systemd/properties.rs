//! Limits as properties of a unit: systemd.resource-control(5) and org.freedesktop.systemd1(5). What
//! systemd has no property for is only written to the cgroup's files, after.

use std::collections::BTreeMap;

use super::super::devices::{DevicePolicy, Listed};
use super::super::{Error, limit, v2};
use super::wire::Value;
use crate::spec::oci::{LinuxCpu, LinuxMemory, LinuxResources};

pub(super) type Properties = Vec<(&'static str, Value)>;

/// As systemd spells "infinity".
const INFINITY: u64 = u64::MAX;
const DEFAULT_PERIOD: u64 = 100_000;

pub(super) fn devices_of_v1(devices: &DevicePolicy, version: u32) -> Properties {
    device_properties(devices, version, "strict")
}

/// `version` of systemd; some came late.
pub(super) fn of_v1(resources: &LinuxResources, version: u32) -> Result<Properties, Error> {
    let mut all = Properties::new();
    let mut set = |name, value| all.push((name, value));
    if let Some(bytes) = resources.memory.as_ref().and_then(|memory| limit(memory.limit)) {
        set("MemoryLimit", Value::U64(or_infinity(bytes)));
    }
    let none = LinuxCpu::default();
    let cpu = resources.cpu.as_ref().unwrap_or(&none);
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        set("CPUShares", Value::U64(shares));
    }
    quota(cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0), version, &mut set);
    let weight = resources.block_io.as_ref().and_then(|io| io.weight);
    if let Some(weight) = weight.filter(|weight| *weight != 0) {
        set("BlockIOWeight", Value::U64(u64::from(weight)));
    }
    tasks(resources, &mut set);
    cpuset(cpu, version, &mut set)?;
    Ok(all)
}

pub(super) fn of_v2(
    resources: &LinuxResources,
    devices: Option<&DevicePolicy>,
    version: u32,
) -> Result<Properties, Error> {
    // A program of systemd's would stand beside ours, and both must agree.
    let mut all =
        devices.map_or_else(Properties::new, |devices| device_properties(devices, version, "auto"));
    let mut set = |name, value| all.push((name, value));
    memory_v2(resources.memory.as_ref(), &mut set)?;
    let none = LinuxCpu::default();
    let cpu = resources.cpu.as_ref().unwrap_or(&none);
    // To systemd the idle have no weight.
    if cpu.idle == Some(1) && version >= IDLE_SINCE {
        set("CPUWeight", Value::U64(0));
    } else if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        set("CPUWeight", Value::U64(v2::weight_of_shares(shares)));
    }
    quota(cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0), version, &mut set);
    tasks(resources, &mut set);
    cpuset(cpu, version, &mut set)?;
    unified(&resources.unified, version, &mut set)?;
    Ok(all)
}

/// What a running scope cannot be told any more.
pub(super) fn oom_policy(resources: &LinuxResources) -> Option<Value> {
    match resources.unified.get("memory.oom.group").map(|value| value.trim()) {
        Some("0") => Some(Value::text("continue")),
        Some("1") => Some(Value::text("kill")),
        _ => None,
    }
}

pub(super) const OOM_POLICY_SINCE: u32 = 253;
const IDLE_SINCE: u32 = 252;
const CPUSET_SINCE: u32 = 244;
const PERIOD_SINCE: u32 = 242;
const DEVICE_CLASS_SINCE: u32 = 240;

type Set<'a> = &'a mut dyn FnMut(&'static str, Value);

fn or_infinity(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(INFINITY)
}

fn memory_v2(memory: Option<&LinuxMemory>, set: Set<'_>) -> Result<(), Error> {
    let Some(memory) = memory else { return Ok(()) };
    let bytes = limit(memory.limit);
    if let Some(bytes) = bytes {
        set("MemoryMax", Value::U64(or_infinity(bytes)));
    }
    if let Some(bytes) = limit(memory.reservation) {
        set("MemoryLow", Value::U64(or_infinity(bytes)));
    }
    // Compat: no swap at all is left to the files.
    if let Some(swap) = v2::swap_only(bytes, limit(memory.swap))?.filter(|swap| *swap != 0) {
        set("MemorySwapMax", Value::U64(or_infinity(swap)));
    }
    Ok(())
}

fn quota(quota: i64, period: u64, version: u32, set: Set<'_>) {
    if period != 0 && version >= PERIOD_SINCE {
        set("CPUQuotaPeriodUSec", Value::U64(period));
    }
    if quota == 0 && period == 0 {
        return;
    }
    let per_second = match u64::try_from(quota) {
        Ok(quota) if quota > 0 => {
            let period = if period == 0 { DEFAULT_PERIOD } else { period };
            // Systemd counts in whole hundredths of a processor.
            let exact = u128::from(quota) * 1_000_000 / u128::from(period);
            u64::try_from(exact.next_multiple_of(10_000)).unwrap_or(INFINITY)
        }
        _ => INFINITY,
    };
    set("CPUQuotaPerSecUSec", Value::U64(per_second));
}

/// The quota that systemd makes of the one that was asked for; the files must say the same.
pub(in crate::cgroup) fn rounded(resources: &LinuxResources) -> LinuxResources {
    let mut rounded = resources.clone();
    if let Some(cpu) = &mut rounded.cpu
        && let Some(quota) = cpu.quota.filter(|quota| *quota > 0)
    {
        let period = i128::from(cpu.period.filter(|period| *period != 0).unwrap_or(DEFAULT_PERIOD));
        let exact = i128::from(quota) * 1_000_000 / period;
        if exact % 10_000 != 0 {
            let next = (exact / 10_000 + 1) * 10_000 * period / 1_000_000;
            cpu.quota = i64::try_from(next).ok().or(cpu.quota);
        }
    }
    rounded
}

fn tasks(resources: &LinuxResources, set: Set<'_>) {
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        // Systemd takes no zero.
        set("TasksMax", Value::U64(if limit == 0 { 1 } else { or_infinity(limit) }));
    }
}

fn cpuset(cpu: &LinuxCpu, version: u32, set: Set<'_>) -> Result<(), Error> {
    if version < CPUSET_SINCE {
        return Ok(());
    }
    for (what, name, list) in
        [("Cpus", "AllowedCPUs", &cpu.cpus), ("Mems", "AllowedMemoryNodes", &cpu.mems)]
    {
        if !list.is_empty() {
            let wrong = |why| {
                Error::Conversion(format!("resources.CPU.{what}={list:?} conversion error: {why}"))
            };
            set(name, bits(list).map_err(wrong)?);
        }
    }
    Ok(())
}

/// `1,3-5` as a bit mask, the lowest byte first.
fn bits(list: &str) -> Result<Value, &'static str> {
    // More processors than any kernel is built for.
    const MOST: usize = 1 << 16;
    let mut mask: Vec<u8> = Vec::new();
    let number = |text: &str| match text.parse::<usize>() {
        Ok(number) if number < MOST => Ok(number),
        Ok(_) => Err("value out of range"),
        Err(_) => Err("invalid syntax"),
    };
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err("invalid range");
        }
        for bit in first..=last {
            if mask.len() <= bit / 8 {
                mask.resize(bit / 8 + 1, 0);
            }
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    if mask.is_empty() {
        return Err("empty value");
    }
    Ok(Value::array("y", mask.into_iter().map(Value::Byte)))
}

/// `of_exceptions`: the policy where all is allowed but some.
fn device_properties(
    policy: &DevicePolicy,
    version: u32,
    of_exceptions: &'static str,
) -> Properties {
    // Takes away what the unit had before.
    let none = || ("DeviceAllow", Value::array("(ss)", []));
    if policy.allow_by_default {
        // Systemd knows no exceptions from a yes. On v1, where it writes what we write, nothing then, until
        // the files say it all.
        let all = if policy.allows_all() { "auto" } else { of_exceptions };
        return vec![none(), ("DevicePolicy", Value::text(all))];
    }
    let entries = policy.listed().filter_map(|listed| {
        let path = device_path(&listed, version)?;
        Some(Value::Struct(vec![Value::Text(path), Value::Text(listed.access)]))
    });
    vec![
        none(),
        ("DevicePolicy", Value::text("strict")),
        ("DeviceAllow", Value::array("(ss)", entries)),
    ]
}

/// What systemd calls it; `None`: it has no name for that.
fn device_path(listed: &Listed, version: u32) -> Option<String> {
    let class = if listed.is_block { "block" } else { "char" };
    match (listed.major, listed.minor) {
        (None, None) => Some(format!("{class}-*")),
        (None, Some(_)) => None,
        (Some(major), Some(minor)) => {
            let path = format!("/dev/{class}/{major}:{minor}");
            // An old one looks at the file.
            let known = version >= DEVICE_CLASS_SINCE || std::fs::exists(&path).unwrap_or(false);
            known.then_some(path)
        }
        (Some(major), None) if version >= DEVICE_CLASS_SINCE => Some(format!("{class}-{major}")),
        (Some(major), None) => {
            let text = std::fs::read_to_string("/proc/devices").ok()?;
            Some(format!("{class}-{}", device_group(&text, listed.is_block, major)?))
        }
    }
}

/// The name of a major number in /proc/devices.
fn device_group(text: &str, is_block: bool, major: u32) -> Option<&str> {
    let (chars, blocks) = text.split_once("Block devices:")?;
    let lines = if is_block { blocks } else { chars };
    lines.lines().find_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        (number.parse() == Ok(major)).then_some(name)
    })
}

/// Files of cgroup2, as far as systemd has a property for them.
fn unified(files: &BTreeMap<String, String>, version: u32, set: Set<'_>) -> Result<(), Error> {
    let idle = files.get("cpu.idle").is_some_and(|value| value.trim() == "1");
    for (file, value) in files {
        let value = value.trim();
        let wrong = |why: &str| {
            Error::Conversion(format!("unified resource {file:?} value conversion error: {why}"))
        };
        let number = || value.parse::<u64>().map_err(|_| wrong("invalid syntax"));
        let number_or_max = || if value == "max" { Ok(INFINITY) } else { number() };
        if file.contains('/') {
            return Err(Error::UnifiedName(file.clone()));
        }
        if file.find('.').is_none_or(|at| at == 0) {
            return Err(Error::Conversion(format!(
                "unified resource {file:?} must be in the form CONTROLLER.PARAMETER"
            )));
        }
        match file.as_str() {
            "cpu.idle" if idle && version >= IDLE_SINCE => set("CPUWeight", Value::U64(0)),
            "cpu.weight" if !(idle && version >= IDLE_SINCE) => {
                set("CPUWeight", Value::U64(number()?));
            }
            "cpu.max" => {
                let mut words = value.split_whitespace();
                let most = match words.next() {
                    None => return Err(wrong("empty value")),
                    Some("max") => 0,
                    Some(word) => word.parse().map_err(|_| wrong("invalid syntax"))?,
                };
                let period = words.next().map(str::parse).transpose();
                let period = period.map_err(|_| wrong("invalid syntax"))?.unwrap_or(DEFAULT_PERIOD);
                quota(most, period, version, set);
            }
            "cpuset.cpus" | "cpuset.mems" if version >= CPUSET_SINCE => {
                let cpus = file == "cpuset.cpus";
                let name = if cpus { "AllowedCPUs" } else { "AllowedMemoryNodes" };
                set(name, bits(value).map_err(wrong)?);
            }
            "memory.high" => set("MemoryHigh", Value::U64(number_or_max()?)),
            "memory.low" => set("MemoryLow", Value::U64(number_or_max()?)),
            "memory.min" => set("MemoryMin", Value::U64(number_or_max()?)),
            "memory.max" => set("MemoryMax", Value::U64(number_or_max()?)),
            "memory.swap.max" => set("MemorySwapMax", Value::U64(number_or_max()?)),
            "pids.max" => set("TasksMax", Value::U64(number_or_max()?.max(1))),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(text: &str) -> LinuxResources {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn lists_become_masks() {
        let mask = |list| match bits(list) {
            Ok(Value::Array(_, bytes)) => Ok(bytes
                .into_iter()
                .map(|byte| if let Value::Byte(byte) = byte { byte } else { 0 })
                .collect::<Vec<u8>>()),
            Ok(_) => Err("no array"),
            Err(error) => Err(error),
        };
        assert_eq!(mask("0"), Ok(vec![1]));
        assert_eq!(mask("1, 3-5,"), Ok(vec![0b11_1010]));
        assert_eq!(mask("8-9,16"), Ok(vec![0, 3, 1]));
        assert_eq!(mask(""), Err("empty value"));
        assert_eq!(mask("5-3"), Err("invalid range"));
        assert_eq!(mask("x"), Err("invalid syntax"));
        assert_eq!(mask("99999999"), Err("value out of range"));
    }

    #[test]
    fn a_quota_is_rounded_up_to_a_hundredth() {
        let asked = resources(r#"{"cpu": {"quota": 25001, "period": 100000}}"#);
        let all = of_v1(&asked, 250).unwrap();
        assert_eq!(
            all,
            [
                ("CPUQuotaPeriodUSec", Value::U64(100_000)),
                ("CPUQuotaPerSecUSec", Value::U64(260_000))
            ]
        );
        assert_eq!(rounded(&asked).cpu.unwrap().quota, Some(26_000));
        let none = resources(r#"{"cpu": {"quota": -1}}"#);
        assert_eq!(of_v1(&none, 250).unwrap(), [("CPUQuotaPerSecUSec", Value::U64(INFINITY))]);
        assert_eq!(rounded(&none).cpu.unwrap().quota, Some(-1));
        assert!(of_v1(&resources("{}"), 250).unwrap().is_empty());
    }

    #[test]
    fn an_old_systemd_is_told_what_it_knows() {
        let asked = resources(r#"{"cpu": {"period": 5000, "cpus": "0", "idle": 1, "shares": 2}}"#);
        assert_eq!(
            of_v2(&asked, None, 239).unwrap(),
            [("CPUWeight", Value::U64(1)), ("CPUQuotaPerSecUSec", Value::U64(INFINITY))]
        );
        assert_eq!(of_v2(&asked, None, 252).unwrap()[0], ("CPUWeight", Value::U64(0)));
    }

    #[test]
    fn files_of_cgroup2_become_properties() {
        let asked = resources(
            r#"{"unified": {"cpu.max": "20000 50000", "memory.high": "max", "pids.max": "0",
                "cpuset.mems": "0", "io.max": "8:0 rbps=1"}}"#,
        );
        assert_eq!(
            of_v2(&asked, None, 252).unwrap(),
            [
                ("CPUQuotaPeriodUSec", Value::U64(50_000)),
                ("CPUQuotaPerSecUSec", Value::U64(400_000)),
                ("AllowedMemoryNodes", Value::array("y", [Value::Byte(1)])),
                ("MemoryHigh", Value::U64(INFINITY)),
                ("TasksMax", Value::U64(1)),
            ]
        );
        for wrong in [r#"{"unified": {"pids.max": "x"}}"#, r#"{"unified": {"pids": "1"}}"#] {
            assert!(of_v2(&resources(wrong), None, 252).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_group_of_devices_has_its_name_from_the_kernel() {
        let text = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n";
        assert_eq!(device_group(text, false, 136), Some("pts"));
        assert_eq!(device_group(text, true, 8), Some("sd"));
        assert_eq!(device_group(text, true, 136), None);
    }
}
