//! Limits: memory, cpu, pids, ulimits, sysctls, oom, as the cgroup and the process show them.

use integration_tests::Stack;
use integration_tests::pool::lease;
use serde_json::json;

use crate::{output, run, shell, with};

/// A cgroup file of a container, by its v1 or v2 name, seen from inside.
fn cgroup(stack: &Stack, host: serde_json::Value, v1: &str, v2: &str) -> String {
    let script = format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}");
    output(stack, &with(shell(&script), json!({"HostConfig": host})))
}

fn is_v2(stack: &Stack) -> bool {
    stack.sandbox().path("/sys/fs/cgroup/cgroup.controllers").exists()
}

#[test]
fn memory_limits_are_in_the_cgroup() {
    let stack = lease();
    let host = json!({"Memory": 67_108_864, "MemoryReservation": 33_554_432});
    let read = |v1, v2| cgroup(&stack, host.clone(), v1, v2);
    assert_eq!(read("memory/memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(read("memory/memory.soft_limit_in_bytes", "memory.low"), "33554432");
    // As much swap again.
    let swap = if is_v2(&stack) { "67108864" } else { "134217728" };
    assert_eq!(read("memory/memory.memsw.limit_in_bytes", "memory.swap.max"), swap);
    let refused = stack.api().post_json(
        "/containers/create",
        &with(shell("true"), json!({"HostConfig": {"Memory": 1000}})),
    );
    assert_eq!(refused.expect(400).message(), "Minimum memory limit allowed is 6MB");
}

#[test]
fn cpu_limits_are_in_the_cgroup() {
    let stack = lease();
    let read = |host, v1, v2| cgroup(&stack, host, v1, v2);
    let half = json!({"NanoCpus": 500_000_000});
    if is_v2(&stack) {
        assert_eq!(read(half, "cpu/none", "cpu.max"), "50000 100000");
    } else {
        assert_eq!(read(half, "cpu/cpu.cfs_quota_us", "none"), "50000");
    }
    let shares = json!({"CpuShares": 512});
    assert_eq!(
        read(shares, "cpu/cpu.shares", "cpu.weight"),
        if is_v2(&stack) { "20" } else { "512" }
    );
    assert_eq!(read(json!({"CpusetCpus": "0"}), "cpuset/cpuset.cpus", "cpuset.cpus"), "0");
}

#[test]
fn no_more_processes_than_allowed() {
    let stack = lease();
    let host = json!({"PidsLimit": 5});
    assert_eq!(cgroup(&stack, host.clone(), "pids/pids.max", "pids.max"), "5");
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 0.1 & done; wait";
    let (_, _, err) = run(&stack, &with(shell(script), json!({"HostConfig": host})));
    assert!(err.contains("can't fork"), "{err}");
}

#[test]
fn who_eats_too_much_memory_is_killed() {
    let stack = lease();
    let host = json!({"Memory": 16_777_216, "MemorySwap": 16_777_216});
    let script = "head -c 100000000 /dev/zero | tail -c 90000000 | wc -c";
    let (code, out, _) = run(
        &stack,
        &with(shell(&format!("exec sh -c 'x=$({script})'")), json!({"HostConfig": host})),
    );
    // tail holds what it is to give; it, or its shell, is what the kernel ends.
    assert!(code == 137 || out.trim() != "90000000", "{code} {out}");
}

#[test]
fn ulimits_are_the_processs() {
    let stack = lease();
    let ulimits = json!([{"Name": "nofile", "Soft": 1000, "Hard": 2000}, {"Name": "core", "Soft": 0, "Hard": 0}]);
    let out = output(
        &stack,
        &with(
            shell("ulimit -n; ulimit -Hn; ulimit -c"),
            json!({"HostConfig": {"Ulimits": ulimits}}),
        ),
    );
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["1000", "2000", "0"]);
}

#[test]
fn sysctls_of_the_containers_namespaces_are_set() {
    let stack = lease();
    let host = json!({"Sysctls": {"net.ipv4.ip_forward": "0", "net.core.somaxconn": "1234", "kernel.msgmax": "9000"}});
    let script =
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax";
    let out = output(&stack, &with(shell(script), json!({"HostConfig": host})));
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "1234", "9000"]);
    let (code, _, err) = run(&stack, &with(shell("echo 1 > /proc/sys/kernel/msgmax"), json!({})));
    assert!(code != 0 && err.contains("Read-only file system"), "{err}");
}

#[test]
fn the_oom_score_is_the_processs() {
    let stack = lease();
    let out = output(
        &stack,
        &with(shell("cat /proc/self/oom_score_adj"), json!({"HostConfig": {"OomScoreAdj": 321}})),
    );
    assert_eq!(out, "321");
}
