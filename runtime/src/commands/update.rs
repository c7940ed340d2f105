//! `update`: other limits for a container that runs.

use std::io::Read as _;

use anyhow::{Context as _, anyhow, bail};

use super::{Globals, caches, parse_one};
use crate::args::{Flag, Parsed};
use crate::container::{Container, Status};
use crate::resctrl::Group;
use crate::spec::oci::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use crate::sys::{errno_of, errno_text};

pub(super) const FLAGS: &[Flag] = &[
    ("resources", "r", true),
    ("blkio-weight", "", true),
    ("cpu-period", "", true),
    ("cpu-quota", "", true),
    ("cpu-burst", "", true),
    ("cpu-share", "", true),
    ("cpu-rt-period", "", true),
    ("cpu-rt-runtime", "", true),
    ("cpuset-cpus", "", true),
    ("cpuset-mems", "", true),
    ("cpu-idle", "", true),
    ("kernel-memory", "", true),
    ("kernel-memory-tcp", "", true),
    ("memory", "", true),
    ("memory-reservation", "", true),
    ("memory-swap", "", true),
    ("pids-limit", "", true),
    ("l3-cache-schema", "", true),
    ("mem-bw-schema", "", true),
];

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let (parsed, id) = parse_one("update", arguments, FLAGS)?;
    let (mut container, _lock) = Container::load_locked(&globals.root, &id)?;
    if container.status() == Status::Stopped {
        bail!("container not running");
    }
    let wanted = match parsed.get("resources") {
        // Compat: with a document the other flags do not count.
        Some(path) => read(path)?,
        None => from_flags(&parsed)?,
    };
    let group = caches::changed(&container, &parsed)?;
    if wanted.memory.as_ref().is_some_and(|memory| memory.kernel.is_some_and(|limit| limit != 0)) {
        globals.log.warn("Kernel memory settings are ignored and will be removed");
    }
    let before = container.record.resources.clone();
    let wanted = complete(wanted, &before);
    let cgroup = container.cgroup();
    if let Err(error) = cgroup.update(&wanted) {
        // Half a change is none.
        if let Err(also) = cgroup.update(&before) {
            globals.log.warn(&format!(
                "Setting back cgroup configs failed due to error: {also}, your state.json and \
                 actual configs might be inconsistent."
            ));
        }
        return Err(error.into());
    }
    if let Some(group) = group {
        if let Err(error) = group.set() {
            let old = container.record.resctrl.as_ref().map_or(Ok(()), Group::set);
            for also in [
                old.err().map(|e| e.to_string()),
                cgroup.update(&before).err().map(|e| e.to_string()),
            ] {
                also.inspect(|also| {
                    globals.log.warn(&format!("Setting back failed due to error: {also}"))
                });
            }
            return Err(error.into());
        }
        container.record.resctrl = Some(group);
    }
    container.record.resources = merge(before, wanted);
    container.save()?;
    Ok(0)
}

fn read(path: &str) -> anyhow::Result<LinuxResources> {
    let mut text = String::new();
    if path == "-" {
        std::io::stdin().read_to_string(&mut text).context("read stdin")?;
    } else {
        text = std::fs::read_to_string(path)
            .map_err(|error| anyhow!("open {path}: {}", errno_text(errno_of(&error))))?;
    }
    // Read as all else is: each way of reading is a copy of the reader.
    Ok(serde_json::from_slice(text.as_bytes())?)
}

fn from_flags(parsed: &Parsed) -> anyhow::Result<LinuxResources> {
    let text = |name: &str| parsed.get(name).unwrap_or_default().to_owned();
    let memory = LinuxMemory {
        limit: bytes(parsed, "memory")?,
        reservation: bytes(parsed, "memory-reservation")?,
        swap: bytes(parsed, "memory-swap")?,
        kernel: bytes(parsed, "kernel-memory")?,
        kernel_tcp: bytes(parsed, "kernel-memory-tcp")?,
        ..LinuxMemory::default()
    };
    let cpu = LinuxCpu {
        shares: number(parsed, "cpu-share")?,
        quota: number(parsed, "cpu-quota")?,
        burst: number(parsed, "cpu-burst")?,
        period: number(parsed, "cpu-period")?,
        realtime_runtime: number(parsed, "cpu-rt-runtime")?,
        realtime_period: number(parsed, "cpu-rt-period")?,
        cpus: text("cpuset-cpus"),
        mems: text("cpuset-mems"),
        idle: number(parsed, "cpu-idle")?,
    };
    Ok(LinuxResources {
        memory: Some(memory),
        cpu: Some(cpu),
        pids: Some(LinuxPids { limit: number(parsed, "pids-limit")? }),
        block_io: Some(LinuxBlockIo {
            weight: number(parsed, "blkio-weight")?,
            ..LinuxBlockIo::default()
        }),
        ..LinuxResources::default()
    })
}

fn number<T: std::str::FromStr>(parsed: &Parsed, name: &str) -> anyhow::Result<Option<T>> {
    let Some(text) = parsed.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let value =
        text.parse().map_err(|_| anyhow!("invalid value for {name}: {text:?}: invalid syntax"))?;
    Ok(Some(value))
}

fn bytes(parsed: &Parsed, name: &str) -> anyhow::Result<Option<i64>> {
    match parsed.get(name) {
        None | Some("") => Ok(None),
        Some("-1") => Ok(Some(-1)),
        Some(text) => size(text)
            .map(Some)
            // Compat: Docker's go-units.
            .ok_or_else(|| anyhow!("invalid value for {name}: invalid size: '{text}'")),
    }
}

/// `100`, `1.5g`, `20 MiB`: powers of 1024.
fn size(text: &str) -> Option<i64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let scale = 1024_i64.checked_pow(power)?;
    let whole = whole.parse::<i64>().ok()?.checked_mul(scale)?;
    // Six digits behind the point are more than anyone writes.
    let fraction: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let fraction = i128::from(fraction.parse::<i64>().ok()?) * i128::from(scale) / 1_000_000;
    whole.checked_add(i64::try_from(fraction).ok()?)
}

/// Values that only make sense in pairs take the missing half from what was set before.
fn complete(mut wanted: LinuxResources, before: &LinuxResources) -> LinuxResources {
    if let (Some(memory), Some(old)) = (&mut wanted.memory, &before.memory) {
        match (is_set(memory.limit), is_set(memory.swap)) {
            // Without a limit there is none with swap either.
            (true, false) if memory.limit == Some(-1) => memory.swap = Some(-1),
            (true, false) => memory.swap = old.swap,
            (false, true) => memory.limit = old.limit,
            _ => {}
        }
    }
    if let (Some(cpu), Some(old)) = (&mut wanted.cpu, &before.cpu) {
        let period = cpu.period.is_some_and(|period| period != 0);
        match (period, is_set(cpu.quota)) {
            (true, false) => cpu.quota = old.quota,
            (false, true) => cpu.period = old.period,
            _ => {}
        }
    }
    wanted
}

fn is_set(value: Option<i64>) -> bool {
    value.is_some_and(|value| value != 0)
}

/// What holds after an update: the new values, the old ones where it had none.
fn merge(before: LinuxResources, wanted: LinuxResources) -> LinuxResources {
    let value = |resources: &LinuxResources| serde_json::to_value(resources).unwrap_or_default();
    let pids = wanted.pids.clone().filter(|pids| pids.limit.is_some());
    let merged = merge_json(value(&before), value(&wanted));
    let merged: LinuxResources = serde_json::from_value(merged).unwrap_or(before);
    // Of processes none is a limit too.
    LinuxResources { pids: pids.or(merged.pids), ..merged }
}

fn merge_json(old: serde_json::Value, new: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match (old, new) {
        (Value::Object(mut old), Value::Object(new)) => {
            for (key, value) in new {
                let before = old.remove(&key).unwrap_or_default();
                old.insert(key, merge_json(before, value));
            }
            Value::Object(old)
        }
        (old, new) if is_unset(&new) => old,
        (_, new) => new,
    }
}

/// Zero and empty are how callers spell "unchanged".
fn is_unset(value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Bool(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::text;
    use proptest::array::uniform3;
    use proptest::prelude::*;
    use proptest::sample::select;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("1k", 1024),
            ("1.5M", 1_572_864),
            ("20 MiB", 20_971_520),
            ("1gb", 1_073_741_824),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "x", "1x", "-5", "1..2", "99999999999p", "k"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    fn memory(limit: i64, swap: i64) -> LinuxResources {
        let memory = LinuxMemory { limit: Some(limit), swap: Some(swap), ..LinuxMemory::default() };
        LinuxResources { memory: Some(memory), ..LinuxResources::default() }
    }

    #[test]
    fn a_memory_limit_alone_keeps_the_one_with_swap() {
        let both = complete(memory(5, 0), &memory(1, 9)).memory.unwrap();
        assert_eq!((both.limit, both.swap), (Some(5), Some(9)));
    }

    #[test]
    fn no_memory_limit_is_none_with_swap() {
        let both = complete(memory(-1, 0), &memory(1, 9)).memory.unwrap();
        assert_eq!((both.limit, both.swap), (Some(-1), Some(-1)));
    }

    #[test]
    fn merging_keeps_what_was_not_named() {
        let merged = merge(memory(1, 9), memory(5, 0)).memory.unwrap();
        assert_eq!((merged.limit, merged.swap), (Some(5), Some(9)));
    }

    prop_compose! {
        /// Limits that an update may name or not.
        fn limits()(
            named: bool, limits in uniform3(select(&[None, Some(0), Some(1), Some(-1), Some(1 << 40)])),
            cpus in select(&["", "0", "0-3"]),
        ) -> LinuxResources {
            let [limit, swap, quota] = limits;
            let memory = named.then(|| LinuxMemory { limit, swap, ..LinuxMemory::default() });
            let cpu = LinuxCpu { quota, cpus: cpus.into(), ..LinuxCpu::default() };
            LinuxResources { memory, cpu: Some(cpu), ..LinuxResources::default() }
        }
    }

    proptest! {
        #[test]
        fn a_size_is_its_number_of_units(
            number in 0_i64..1 << 20, power in 0_usize..4, unit in select(&["", "i", "ib", "b", "B"]),
            blank in select(&["", " "]),
        ) {
            let unit = ["", "k", "M", "g"][power].to_owned() + if power == 0 { "" } else { unit };
            let bytes = number << (10 * power);
            prop_assert_eq!(size(&format!("{number}{blank}{unit}")), Some(bytes));
            let half = bytes + (1 << (10 * power) >> 1);
            prop_assert_eq!(size(&format!("{number}.5{blank}{unit}")), Some(half));
        }

        #[test]
        fn a_broken_size_is_none_or_of_bytes(
            text in text(&["9", "0", ".", "-", "+", "e", "k", "p", "b", "i", " ", "é", "9223372036854775807"], 6),
        ) {
            if let Some(bytes) = size(&text) {
                prop_assert!(bytes >= 0 && text.starts_with(|c: char| c.is_ascii_digit()), "{}", bytes);
            }
        }

        #[test]
        fn what_an_update_does_not_name_stays(before in limits(), wanted in limits()) {
            let merged = merge(before.clone(), wanted.clone());
            let limit = |resources: &LinuxResources| {
                let limit = resources.memory.as_ref().and_then(|memory| memory.limit);
                limit.filter(|limit| *limit != 0)
            };
            prop_assert_eq!(limit(&merged), limit(&wanted).or(limit(&before)));
            let cpus = |resources: &LinuxResources| resources.cpu.clone().unwrap().cpus;
            let new = Some(cpus(&wanted)).filter(|cpus| !cpus.is_empty());
            prop_assert_eq!(cpus(&merged), new.unwrap_or(cpus(&before)));
            prop_assert_eq!(merge(merged.clone(), wanted), merged);
        }
    }
}
