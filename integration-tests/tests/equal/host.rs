//! A container seen from the host: whose namespaces, which cgroups with which values.

use std::fs;
use std::path::{Path, PathBuf};

use integration_tests::Stack;
use serde_json::Value;

use crate::facts::Facts;

const NAMESPACES: [&str; 9] =
    ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "user", "uts"];

/// What a request may set, by controller; v1's and v2's names.
const FILES: [(&str, &[&str]); 10] = [
    (
        "memory",
        &[
            "memory.limit_in_bytes",
            "memory.soft_limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "memory.kmem.limit_in_bytes",
            "memory.kmem.tcp.limit_in_bytes",
            "memory.swappiness",
            "memory.use_hierarchy",
            "memory.move_charge_at_immigrate",
            "memory.oom_control",
            "memory.max",
            "memory.high",
            "memory.low",
            "memory.min",
            "memory.swap.max",
            "memory.swap.high",
            "memory.oom.group",
        ],
    ),
    (
        "cpu",
        &[
            "cpu.shares",
            "cpu.cfs_period_us",
            "cpu.cfs_quota_us",
            "cpu.cfs_burst_us",
            "cpu.rt_period_us",
            "cpu.rt_runtime_us",
            "cpu.idle",
            "cpu.max",
            "cpu.max.burst",
            "cpu.weight",
        ],
    ),
    (
        "cpuset",
        &[
            "cpuset.cpus",
            "cpuset.mems",
            "cpuset.cpu_exclusive",
            "cpuset.mem_exclusive",
            "cpuset.mem_hardwall",
            "cpuset.memory_migrate",
            "cpuset.sched_load_balance",
            "cpuset.cpus.partition",
        ],
    ),
    ("pids", &["pids.max"]),
    (
        "blkio",
        &[
            "blkio.weight",
            "blkio.weight_device",
            "blkio.leaf_weight",
            "blkio.bfq.weight",
            "blkio.bfq.weight_device",
            "blkio.throttle.read_bps_device",
            "blkio.throttle.write_bps_device",
            "blkio.throttle.read_iops_device",
            "blkio.throttle.write_iops_device",
        ],
    ),
    ("io", &["io.weight", "io.bfq.weight", "io.max"]),
    ("devices", &["devices.list"]),
    ("freezer", &["freezer.state", "cgroup.freeze"]),
    ("net_cls", &["net_cls.classid"]),
    ("rdma", &["rdma.max"]),
];

pub(crate) fn look(stack: &Stack, shown: &Value, first: Option<&str>) -> Facts {
    let sandbox = stack.sandbox();
    let mut facts = Facts::default();
    let pid = shown["State"]["Pid"].as_i64().unwrap_or(0);
    assert!(pid > 1, "it runs: {}", shown["State"]);
    let process = sandbox.path(format!("/proc/{pid}"));
    let other = first.map(|first| {
        let pid = stack.api().inspect(first)["State"]["Pid"].as_i64().unwrap_or(0);
        sandbox.path(format!("/proc/{pid}"))
    });
    let init = PathBuf::from(format!("/proc/{}", sandbox.init()));
    for kind in NAMESPACES {
        let namespace = |process: &Path| fs::read_link(process.join("ns").join(kind)).ok();
        let own = namespace(&process);
        let word = match own {
            None => continue,
            own if own == namespace(&init) => "host's",
            own if other.as_ref().is_some_and(|other| own == namespace(other)) => "first's",
            _ => "its own",
        };
        facts.set(format!("namespace {kind}"), word);
    }
    cgroups(&mut facts, stack, pid);
    facts
}

/// The cgroup of each hierarchy, and what was set there.
fn cgroups(facts: &mut Facts, stack: &Stack, pid: i64) {
    let text = stack.inside(&["cat", &format!("/proc/{pid}/cgroup")]).ok();
    let top = stack.sandbox().path("/sys/fs/cgroup");
    for line in text.lines() {
        let fields: Vec<&str> = line.splitn(3, ':').collect();
        let [_, controllers, path] = fields[..] else { continue };
        facts.set(format!("cgroup path {controllers}"), path);
        let below = path.trim_start_matches('/');
        if controllers.is_empty() {
            // The whole of v2, or the part of it that a v1 host shows.
            let at = [top.join(below), top.join("unified").join(below)];
            let at = at.iter().find(|at| at.join("cgroup.controllers").exists());
            let Some(at) = at else { continue };
            FILES.iter().for_each(|(_, files)| values(facts, "unified", at, files));
            limits_of_pages(facts, "unified", at, ".max");
            continue;
        }
        for controller in controllers.split(',') {
            let at = top.join(controller).join(below);
            if let Some((_, files)) = FILES.iter().find(|(name, _)| *name == controller) {
                values(facts, controller, &at, files);
            }
            if controller == "hugetlb" {
                limits_of_pages(facts, controller, &at, ".limit_in_bytes");
            }
        }
    }
}

fn values(facts: &mut Facts, controller: &str, at: &Path, files: &[&str]) {
    for name in files {
        let Ok(text) = fs::read_to_string(at.join(name)) else { continue };
        let mut lines: Vec<&str> = text.trim_end().lines().collect();
        if *name == "devices.list" {
            // In the order in which they were written; what is allowed is a set.
            lines.sort_unstable();
            lines.dedup();
        }
        facts.set(format!("cgroup {controller} {name}"), lines.join("\n"));
    }
}

/// One file a size of huge pages.
fn limits_of_pages(facts: &mut Facts, controller: &str, at: &Path, ending: &str) {
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("hugetlb.") && name.ends_with(ending) {
            values(facts, controller, at, &[&name]);
        }
    }
}
