//! What a container uses, in the shape of runc's `events --stats`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::Cgroup;
use super::file::read;

impl Cgroup {
    pub(crate) fn stats(&self) -> Value {
        match self.v2_directory() {
            Some(directory) => v2(directory),
            None => self.v1_stats(),
        }
    }

    fn v1_stats(&self) -> Value {
        let of = |controller: &str| self.paths.get(controller).map_or(Path::new(""), |path| path);
        let (cpu, cpuacct) = (of("cpu"), of("cpuacct"));
        let ticks = table(cpuacct, "cpuacct.stat");
        let nanoseconds =
            |key: &str| ticks.get(key).map_or(0, |ticks| ticks.saturating_mul(10_000_000));
        let throttling = table(cpu, "cpu.stat");
        let per_cpu = read(cpuacct, "cpuacct.usage_percpu").unwrap_or_default();
        let per_cpu: Vec<u64> =
            per_cpu.split_whitespace().filter_map(|value| value.parse().ok()).collect();
        let memory = of("memory");
        let raw = table(memory, "memory.stat");
        json!({
            "cpu": {
                "usage": without_zeros(json!({
                    "total": number(cpuacct, "cpuacct.usage"),
                    "percpu": per_cpu,
                    "kernel": nanoseconds("system"),
                    "user": nanoseconds("user"),
                })),
                "throttling": without_zeros(json!({
                    "periods": throttling.get("nr_periods"),
                    "throttledPeriods": throttling.get("nr_throttled"),
                    "throttledTime": throttling.get("throttled_time"),
                })),
            },
            "memory": without_zeros(json!({
                "cache": raw.get("cache"),
                "usage": memory_entry(memory, "memory"),
                "swap": memory_entry(memory, "memory.memsw"),
                "kernel": memory_entry(memory, "memory.kmem"),
                "kernelTCP": memory_entry(memory, "memory.kmem.tcp"),
                "raw": raw,
            })),
            "pids": pids(of("pids")),
            "blkio": without_zeros(json!({
                "ioServiceBytesRecursive":
                    v1_devices(of("blkio"), "blkio.throttle.io_service_bytes"),
                "ioServicedRecursive": v1_devices(of("blkio"), "blkio.throttle.io_serviced"),
            })),
            "hugetlb": huge_pages(of("hugetlb"), "usage_in_bytes", "max_usage_in_bytes"),
            "intel_rdt": {},
            "network_interfaces": null,
        })
    }
}

fn v2(directory: &Path) -> Value {
    let cpu = table(directory, "cpu.stat");
    let nanoseconds = |key: &str| cpu.get(key).map_or(0, |value| value.saturating_mul(1000));
    let raw = table(directory, "memory.stat");
    let entry = |prefix: &str| {
        without_zeros(json!({
            "limit": number(directory, &format!("{prefix}.max")),
            "usage": number(directory, &format!("{prefix}.current")),
            "max": number(directory, &format!("{prefix}.peak")),
        }))
    };
    json!({
        "cpu": {
            "usage": without_zeros(json!({
                "total": nanoseconds("usage_usec"),
                "kernel": nanoseconds("system_usec"),
                "user": nanoseconds("user_usec"),
            })),
            "throttling": without_zeros(json!({
                "periods": cpu.get("nr_periods"),
                "throttledPeriods": cpu.get("nr_throttled"),
                "throttledTime": nanoseconds("throttled_usec"),
            })),
        },
        "memory": without_zeros(json!({
            "cache": raw.get("file"),
            "usage": entry("memory"),
            "swap": entry("memory.swap"),
            "raw": raw,
        })),
        "pids": pids(directory),
        "blkio": without_zeros(json!({
            "ioServiceBytesRecursive": v2_devices(directory, &[("Read", "rbytes"), ("Write", "wbytes")]),
            "ioServicedRecursive": v2_devices(directory, &[("Read", "rios"), ("Write", "wios")]),
        })),
        "hugetlb": huge_pages(directory, "current", "max"),
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn memory_entry(directory: &Path, prefix: &str) -> Value {
    let value = |name: &str| number(directory, &format!("{prefix}.{name}"));
    let limit = value("limit_in_bytes");
    if limit.is_none() {
        return Value::Null;
    }
    json!({
        "limit": limit,
        "usage": value("usage_in_bytes").unwrap_or(0),
        "max": value("max_usage_in_bytes").unwrap_or(0),
        "failcnt": value("failcnt").unwrap_or(0),
    })
}

fn pids(directory: &Path) -> Value {
    without_zeros(json!({
        "current": number(directory, "pids.current"),
        // Without a limit there is none to show.
        "limit": number(directory, "pids.max").filter(|limit| *limit != u64::MAX),
    }))
}

/// Lines like `8:0 Read 4096`; the last is a total.
fn v1_devices(directory: &Path, file: &str) -> Vec<Value> {
    let text = read(directory, &format!("{file}_recursive"))
        .or_else(|_| read(directory, file))
        .unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (major, minor) = fields.next()?.split_once(':')?;
            let (operation, value) = (fields.next()?, fields.next()?);
            device(major, minor, operation, value)
        })
        .collect()
}

/// Lines like `8:0 rbytes=4096 wbytes=0`.
fn v2_devices(directory: &Path, keys: &[(&str, &str)]) -> Vec<Value> {
    let text = read(directory, "io.stat").unwrap_or_default();
    let mut devices = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some((major, minor)) = fields.next().and_then(|name| name.split_once(':')) else {
            continue;
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let operation = keys.iter().find(|known| known.1 == key);
            devices.extend(operation.and_then(|known| device(major, minor, known.0, value)));
        }
    }
    devices
}

fn device(major: &str, minor: &str, operation: &str, value: &str) -> Option<Value> {
    Some(json!({
        "major": major.parse::<u64>().ok()?,
        "minor": minor.parse::<u64>().ok()?,
        "op": operation,
        "value": value.parse::<u64>().ok()?,
    }))
}

/// By page size, from the files `hugetlb.<size>.<usage>`.
fn huge_pages(directory: &Path, usage: &str, most: &str) -> Value {
    let mut sizes = Map::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let size = name
            .to_str()
            .and_then(|name| name.strip_prefix("hugetlb."))
            .and_then(|rest| rest.strip_suffix(&format!(".{usage}")))
            .filter(|size| !size.contains('.'));
        if let Some(size) = size {
            let value = |part: &str| number(directory, &format!("hugetlb.{size}.{part}"));
            let entry = json!({
                "usage": value(usage),
                "max": value(most).filter(|value| *value != u64::MAX),
                "failcnt": value("failcnt").unwrap_or(0),
            });
            sizes.insert(size.to_owned(), without_zeros(entry));
        }
    }
    Value::Object(sizes)
}

/// The file's one number; `max` is the largest.
fn number(directory: &Path, name: &str) -> Option<u64> {
    let text = read(directory, name).ok()?;
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

fn table(directory: &Path, name: &str) -> BTreeMap<String, u64> {
    let text = read(directory, name).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// Compat: Go leaves out what is empty.
fn without_zeros(mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.retain(|_, value| match value {
            Value::Null => false,
            Value::Number(number) => number.as_u64() != Some(0),
            Value::Array(list) => !list.is_empty(),
            _ => true,
        });
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::{Bytes, fewer, lines, number, torn};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    #[test]
    fn a_v2_directory_is_read_into_runcs_shape() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("cpu.stat", "usage_usec 7\nuser_usec 4\nsystem_usec 3\nnr_periods 0\n");
        write("memory.current", "4096\n");
        write("memory.max", "max\n");
        write("memory.stat", "anon 1\nfile 2\n");
        write("pids.current", "3\n");
        write("pids.max", "max\n");
        write("io.stat", "8:0 rbytes=512 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n");
        write("hugetlb.2MB.current", "0\n");
        let stats = v2(dir.path());
        assert_eq!(stats["cpu"]["usage"], json!({"total": 7000, "kernel": 3000, "user": 4000}));
        assert_eq!(stats["cpu"]["throttling"], json!({}));
        assert_eq!(stats["memory"]["usage"], json!({"limit": u64::MAX, "usage": 4096}));
        assert_eq!(stats["memory"]["cache"], 2);
        assert_eq!(stats["pids"], json!({"current": 3}));
        assert_eq!(
            stats["blkio"]["ioServiceBytesRecursive"][0],
            json!({"major": 8, "minor": 0, "op": "Read", "value": 512})
        );
        assert!(stats["hugetlb"]["2MB"].is_object());
    }

    #[test]
    fn counters_near_their_end_stay_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let most = u64::MAX.to_string();
        std::fs::write(dir.path().join("cpu.stat"), format!("usage_usec {most}\n")).unwrap();
        std::fs::write(dir.path().join("cpuacct.stat"), format!("user {most}\n")).unwrap();
        assert_eq!(v2(dir.path())["cpu"]["usage"]["total"], u64::MAX);
        let cgroup = Cgroup::load([("cpuacct".to_owned(), dir.path().to_owned())].into());
        assert_eq!(cgroup.v1_stats()["cpu"]["usage"]["user"], u64::MAX);
    }

    /// Files that v1 and v2 have, and lines that are in one of them.
    const FILES: [&str; 14] = [
        "cpu.stat",
        "memory.stat",
        "memory.current",
        "memory.max",
        "pids.current",
        "pids.max",
        "io.stat",
        "hugetlb.2MB.current",
        "hugetlb.2MB.max",
        "cpuacct.stat",
        "cpuacct.usage_percpu",
        "blkio.throttle.io_serviced",
        "memory.limit_in_bytes",
        "memory.events",
    ];
    const PIECES: [&str; 21] = [
        "usage_usec",
        "system",
        "nr_periods",
        "file",
        "8:0",
        ":",
        "Read",
        "rbytes=",
        "wios=",
        " ",
        " ",
        "\n",
        "7",
        "-1",
        "max",
        "18446744073709551615",
        "=",
        "\0",
        "é",
        "total_cache",
        "oom_kill ",
    ];

    /// What stands in a file: lines nearly as the kernel's, lines of anything, now and then torn.
    fn content() -> impl Strategy<Value = Bytes> {
        let near = (select(&PIECES), select(&[" ", " ", "="]), number());
        let near = near.prop_map(|(name, between, number)| format!("{name}{between}{number}\n"));
        let text = (vec(near, 0..=5), lines(&PIECES)).prop_map(|(near, any)| near.concat() + &any);
        prop_oneof![4 => text.clone().prop_map(|text| Bytes(text.into())), 1 => torn(text)]
    }

    proptest! {
        #![proptest_config(fewer())]

        #[test]
        fn whatever_the_files_hold_there_are_numbers_in_runcs_shape(contents in vec(content(), FILES.len())) {
            let dir = tempfile::tempdir().unwrap();
            for (name, bytes) in FILES.iter().zip(contents) {
                std::fs::write(dir.path().join(name), bytes.0).unwrap();
            }
            let whole = ["cpu", "cpuacct", "memory", "pids", "blkio", "hugetlb"];
            let place = |name: &str| (name.to_owned(), dir.path().to_owned());
            let v1 = Cgroup::load(whole.into_iter().map(place).collect()).stats();
            for stats in [v1, Cgroup::load([place("")].into()).stats()] {
                for part in whole.into_iter().filter(|part| *part != "cpuacct") {
                    prop_assert!(stats[part].is_object(), "{}: {}", part, stats);
                }
                for device in stats["blkio"].as_object().unwrap().values().flat_map(|list| list.as_array().unwrap()) {
                    prop_assert!(device["major"].is_u64() && device["value"].is_u64(), "{}", device);
                }
                let raw = stats["memory"]["raw"].as_object().unwrap();
                prop_assert!(raw.values().all(Value::is_u64), "{:?}", raw);
            }
        }

        #[test]
        fn what_the_kernel_writes_is_what_is_told(
            used in number().prop_map(|number| number >> 11), limit in number(), rate in number(),
            major in 0_u32..4096, minor in 0_u32..1 << 20,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
            write("cpu.stat", &format!("usage_usec {used}\nuser_usec 1\nsystem_usec 2\n"));
            write("memory.current", &format!("{limit}\n"));
            write("io.stat", &format!("{major}:{minor} rbytes={rate} wbytes=0 rios={used} wios=1\n"));
            let stats = v2(dir.path());
            let total = &stats["cpu"]["usage"]["total"];
            prop_assert_eq!(total.as_u64().unwrap_or(0), used * 1000);
            prop_assert_eq!(stats["memory"]["usage"]["usage"].as_u64().unwrap_or(0), limit);
            let read = json!({"major": major, "minor": minor, "op": "Read", "value": rate});
            prop_assert_eq!(&stats["blkio"]["ioServiceBytesRecursive"][0], &read);
        }
    }
}
