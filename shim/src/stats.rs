//! A container's metrics from its cgroup, in containerd's messages.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use prost_types::Any;
use proto::cgroups::{v1, v2};

use crate::cgroup::Cgroup;

pub(crate) fn read(cgroup: &Cgroup) -> Any {
    match cgroup {
        Cgroup::V1(_) => proto::any::pack(&read_v1(cgroup)),
        Cgroup::V2(path) => proto::any::pack(&read_v2(path)),
    }
}

fn read_v1(cgroup: &Cgroup) -> v1::Metrics {
    let mut metrics = v1::Metrics::default();
    if let Some(dir) = cgroup.directory("pids") {
        metrics.pids = Some(v1::PidsStat {
            current: number(dir, "pids.current"),
            limit: number(dir, "pids.max"),
        });
    }
    let usage = cgroup.directory("cpuacct").map(|dir| {
        let stat = table(dir, "cpuacct.stat");
        let ticks = |key: &str| get(&stat, key).saturating_mul(NANOS_PER_TICK);
        v1::CpuUsage {
            total: number(dir, "cpuacct.usage"),
            kernel: ticks("system"),
            user: ticks("user"),
            per_cpu: text(dir, "cpuacct.usage_percpu")
                .split_whitespace()
                .filter_map(|value| value.parse().ok())
                .collect(),
        }
    });
    let throttling = cgroup.directory("cpu").map(|dir| {
        let stat = table(dir, "cpu.stat");
        v1::Throttle {
            periods: get(&stat, "nr_periods"),
            throttled_periods: get(&stat, "nr_throttled"),
            throttled_time: get(&stat, "throttled_time"),
        }
    });
    if usage.is_some() || throttling.is_some() {
        metrics.cpu = Some(v1::CpuStat { usage, throttling });
    }
    if let Some(dir) = cgroup.directory("memory") {
        metrics.memory = Some(memory_v1(dir));
        let control = table(dir, "memory.oom_control");
        metrics.memory_oom_control = Some(v1::MemoryOomControl {
            oom_kill_disable: get(&control, "oom_kill_disable"),
            under_oom: get(&control, "under_oom"),
            oom_kill: get(&control, "oom_kill"),
        });
    }
    if let Some(dir) = cgroup.directory("blkio") {
        metrics.blkio = Some(v1::BlkIoStat {
            io_service_bytes_recursive: blkio(dir, "io_service_bytes"),
            io_serviced_recursive: blkio(dir, "io_serviced"),
            ..Default::default()
        });
    }
    metrics
}

fn memory_v1(dir: &Path) -> v1::MemoryStat {
    let stat = table(dir, "memory.stat");
    let get = |key: &str| get(&stat, key);
    let entry = |name: &str| {
        Some(v1::MemoryEntry {
            limit: number(dir, &format!("{name}.limit_in_bytes")),
            usage: number(dir, &format!("{name}.usage_in_bytes")),
            max: number(dir, &format!("{name}.max_usage_in_bytes")),
            failcnt: number(dir, &format!("{name}.failcnt")),
        })
    };
    v1::MemoryStat {
        cache: get("cache"),
        rss: get("rss"),
        rss_huge: get("rss_huge"),
        mapped_file: get("mapped_file"),
        dirty: get("dirty"),
        writeback: get("writeback"),
        pg_pg_in: get("pgpgin"),
        pg_pg_out: get("pgpgout"),
        pg_fault: get("pgfault"),
        pg_maj_fault: get("pgmajfault"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        hierarchical_memory_limit: get("hierarchical_memory_limit"),
        hierarchical_swap_limit: get("hierarchical_memsw_limit"),
        total_cache: get("total_cache"),
        total_rss: get("total_rss"),
        total_rss_huge: get("total_rss_huge"),
        total_mapped_file: get("total_mapped_file"),
        total_dirty: get("total_dirty"),
        total_writeback: get("total_writeback"),
        total_pg_pg_in: get("total_pgpgin"),
        total_pg_pg_out: get("total_pgpgout"),
        total_pg_fault: get("total_pgfault"),
        total_pg_maj_fault: get("total_pgmajfault"),
        total_inactive_anon: get("total_inactive_anon"),
        total_active_anon: get("total_active_anon"),
        total_inactive_file: get("total_inactive_file"),
        total_active_file: get("total_active_file"),
        total_unevictable: get("total_unevictable"),
        usage: entry("memory"),
        swap: entry("memory.memsw"),
        kernel: entry("memory.kmem"),
        kernel_tcp: entry("memory.kmem.tcp"),
    }
}

/// `major:minor Operation value` lines; with CFQ gone the throttling files hold the numbers.
fn blkio(dir: &Path, name: &str) -> Vec<v1::BlkIoEntry> {
    let throttled = format!("blkio.throttle.{name}_recursive");
    let source = text(dir, &throttled);
    source
        .lines()
        .filter_map(|line| {
            let mut parts = line.split_whitespace();
            let (major, minor) = parts.next()?.split_once(':')?;
            Some(v1::BlkIoEntry {
                op: parts.next()?.to_owned(),
                device: String::new(),
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                value: parts.next()?.parse().ok()?,
            })
        })
        .collect()
}

fn read_v2(dir: &Path) -> v2::Metrics {
    let cpu = table(dir, "cpu.stat");
    let stat = table(dir, "memory.stat");
    let events = table(dir, "memory.events");
    let memory = |key: &str| get(&stat, key);
    v2::Metrics {
        pids: Some(v2::PidsStat {
            current: number(dir, "pids.current"),
            limit: number(dir, "pids.max"),
        }),
        cpu: Some(v2::CpuStat {
            usage_usec: get(&cpu, "usage_usec"),
            user_usec: get(&cpu, "user_usec"),
            system_usec: get(&cpu, "system_usec"),
            nr_periods: get(&cpu, "nr_periods"),
            nr_throttled: get(&cpu, "nr_throttled"),
            throttled_usec: get(&cpu, "throttled_usec"),
            nr_bursts: get(&cpu, "nr_bursts"),
            burst_usec: get(&cpu, "burst_usec"),
            ..Default::default()
        }),
        memory: Some(v2::MemoryStat {
            anon: memory("anon"),
            file: memory("file"),
            kernel_stack: memory("kernel_stack"),
            slab: memory("slab"),
            sock: memory("sock"),
            shmem: memory("shmem"),
            file_mapped: memory("file_mapped"),
            file_dirty: memory("file_dirty"),
            file_writeback: memory("file_writeback"),
            anon_thp: memory("anon_thp"),
            inactive_anon: memory("inactive_anon"),
            active_anon: memory("active_anon"),
            inactive_file: memory("inactive_file"),
            active_file: memory("active_file"),
            unevictable: memory("unevictable"),
            slab_reclaimable: memory("slab_reclaimable"),
            slab_unreclaimable: memory("slab_unreclaimable"),
            pgfault: memory("pgfault"),
            pgmajfault: memory("pgmajfault"),
            workingset_refault: memory("workingset_refault"),
            workingset_activate: memory("workingset_activate"),
            workingset_nodereclaim: memory("workingset_nodereclaim"),
            pgrefill: memory("pgrefill"),
            pgscan: memory("pgscan"),
            pgsteal: memory("pgsteal"),
            pgactivate: memory("pgactivate"),
            pgdeactivate: memory("pgdeactivate"),
            pglazyfree: memory("pglazyfree"),
            pglazyfreed: memory("pglazyfreed"),
            thp_fault_alloc: memory("thp_fault_alloc"),
            thp_collapse_alloc: memory("thp_collapse_alloc"),
            usage: number(dir, "memory.current"),
            usage_limit: number(dir, "memory.max"),
            max_usage: number(dir, "memory.peak"),
            swap_usage: number(dir, "memory.swap.current"),
            swap_limit: number(dir, "memory.swap.max"),
            swap_max_usage: number(dir, "memory.swap.peak"),
            psi: None,
        }),
        io: Some(v2::IoStat { usage: io_v2(dir), psi: None }),
        memory_events: Some(v2::MemoryEvents {
            low: get(&events, "low"),
            high: get(&events, "high"),
            max: get(&events, "max"),
            oom: get(&events, "oom"),
            oom_kill: get(&events, "oom_kill"),
            oom_group_kill: get(&events, "oom_group_kill"),
        }),
        ..Default::default()
    }
}

fn io_v2(dir: &Path) -> Vec<v2::IoEntry> {
    text(dir, "io.stat").lines().filter_map(io_line).collect()
}

fn io_line(line: &str) -> Option<v2::IoEntry> {
    let mut parts = line.split_whitespace();
    let (major, minor) = parts.next()?.split_once(':')?;
    let mut entry = v2::IoEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        ..Default::default()
    };
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        let value = value.parse().unwrap_or(0);
        match key {
            "rbytes" => entry.rbytes = value,
            "wbytes" => entry.wbytes = value,
            "rios" => entry.rios = value,
            "wios" => entry.wios = value,
            _ => {}
        }
    }
    Some(entry)
}

fn text(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default()
}

/// A file with one number; `max` is the greatest there is, a missing file 0.
fn number(dir: &Path, file: &str) -> u64 {
    match text(dir, file).trim() {
        "max" => u64::MAX,
        value => value.parse().unwrap_or(0),
    }
}

fn table(dir: &Path, file: &str) -> BTreeMap<String, u64> {
    text(dir, file)
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

fn get(table: &BTreeMap<String, u64>, key: &str) -> u64 {
    table.get(key).copied().unwrap_or(0)
}

/// Linux reports these times in hundredths of a second on every platform we build for.
const NANOS_PER_TICK: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn v2_files_become_metrics() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| fs::write(dir.path().join(name), content).unwrap();
        write("pids.current", "3\n");
        write("pids.max", "max\n");
        write("cpu.stat", "usage_usec 70\nuser_usec 50\n");
        write("memory.stat", "anon 4096\nfile 1\n");
        write("memory.current", "8192\n");
        write("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n");
        let metrics = read_v2(dir.path());
        assert_eq!(metrics.pids, Some(v2::PidsStat { current: 3, limit: u64::MAX }));
        assert_eq!(metrics.cpu.unwrap().usage_usec, 70);
        let memory = metrics.memory.unwrap();
        assert_eq!((memory.anon, memory.usage), (4096, 8192));
        assert_eq!(metrics.io.unwrap().usage[0].wbytes, 2);
    }

    proptest! {
        #[test]
        fn broken_files_are_nothing(
            text in "((anon|usage_usec|oom|8:0|253:1|max|[a-z:]{0,3})[ =]{0,2}(rbytes=)?[-0-9a-z]{0,22}[ \n]){0,5}",
        ) {
            let dir = tempfile::tempdir().unwrap();
            for name in ["cpu.stat", "memory.stat", "memory.events", "io.stat", "pids.max", "memory.current", "cpuacct.usage_percpu", "blkio.throttle.io_serviced_recursive"] {
                fs::write(dir.path().join(name), &text).unwrap();
            }
            let metrics = read_v2(dir.path());
            prop_assert!(metrics.io.unwrap().usage.len() <= text.lines().count());
            let all = ["pids", "cpuacct", "cpu", "memory", "blkio"];
            let cgroup = Cgroup::V1(all.map(|name| (name.to_owned(), dir.path().to_owned())).to_vec());
            let metrics = read_v1(&cgroup);
            prop_assert!(metrics.blkio.unwrap().io_serviced_recursive.len() <= text.lines().count());
        }
    }
}
