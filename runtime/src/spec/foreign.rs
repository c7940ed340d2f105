//! Configurations as wrong as somebody can write them: a plan that holds together, or one sentence.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::oci::{LinuxResources, MemoryPolicy, Process, Spec};
use super::options::{self, MountOptions};
use super::plan::{Choices, Plan};
use super::process::ProcessPlan;
use super::schedule::{MemoryPolicyPlan, mask};
use crate::foreign::{assert_sentence, damaged, fewer, text};

fn process() -> Value {
    json!({
        "terminal": true, "consoleSize": {"height": 24, "width": 80}, "cwd": "/",
        "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3, 4]},
        "args": ["sh", "-c", "true"], "env": ["PATH=/bin", "A=1", "A=2"],
        "capabilities": {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": null,
                         "inheritable": [], "ambient": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}, {"type": "RLIMIT_CORE", "hard": 0, "soft": 0}],
        "noNewPrivileges": true, "apparmorProfile": "p", "oomScoreAdj": -5, "selinuxLabel": "",
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "scheduler": {"policy": "SCHED_FIFO", "nice": 1, "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        "execCPUAffinity": {"initial": "0-1", "final": "0"},
    })
}

fn config() -> Value {
    json!({
        "ociVersion": "1.2.0", "hostname": "h", "domainname": "d", "annotations": {"a": "b"},
        "process": process(), "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=1777", "tmpcopyup"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
            {"destination": "/a", "type": "bind", "source": "rootfs", "options": ["rbind", "ro", "rslave", "rro"]},
            {"destination": "b", "source": "rootfs", "options": ["bind"], "uidMappings": [], "gidMappings": null},
        ],
        "hooks": {
            "prestart": [{"path": "/h", "args": ["h"], "env": ["A=b"], "timeout": 3}], "createRuntime": [],
            "createContainer": null, "poststop": [{"path": "/p"}],
        },
        "linux": {
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmax": "7"}, "cgroupsPath": "/a/b",
            "namespaces": [
                {"type": "pid"}, {"type": "user"}, {"type": "network", "path": "/proc/self/ns/net"},
                {"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "cgroup"}, {"type": "time"},
            ],
            "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86"],
                "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "", "listenerMetadata": "m",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_EQ"}]}],
            },
            "resources": resources(),
            "rootfsPropagation": "rslave", "maskedPaths": ["/proc/kcore", "/proc//kcore"], "readonlyPaths": ["/proc/sys"],
            "mountLabel": "l", "personality": {"domain": "LINUX32", "flags": []},
            "timeOffsets": {"monotonic": {"secs": 3, "nanosecs": 4}}, "intelRdt": null, "netDevices": null,
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        },
    })
}

fn resources() -> Value {
    json!({
        "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": null, "access": "r"}],
        "memory": {"limit": 1, "reservation": 2, "swap": 3, "kernelTCP": 4, "swappiness": 5, "disableOOMKiller": true},
        "cpu": {"shares": 1, "quota": -1, "period": 2, "burst": 3, "cpus": "0", "mems": "0", "idle": 0},
        "pids": {"limit": 5}, "unified": {"memory.high": "1"}, "rdma": {"m": {"hcaHandles": 1}},
        "blockIO": {"weight": 10, "weightDevice": [{"major": 8, "minor": 0, "weight": 9}],
                    "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 7}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
        "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 2}]},
    })
}

/// Without what needs a process of the host's, or all of it.
fn config_of(user_namespace: bool) -> Value {
    let mut whole = config();
    if !user_namespace {
        let linux = &mut whole["linux"];
        (linux["uidMappings"], linux["gidMappings"]) = (Value::Null, Value::Null);
        linux["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "user");
    }
    whole
}

/// What every step behind the plan relies on.
fn assert_process(plan: &ProcessPlan) {
    assert!(plan.cwd.starts_with('/') && !plan.args.is_empty(), "{plan:?}");
    assert!(plan.args.iter().chain(&plan.env).all(|text| !text.contains('\0')), "{plan:?}");
    assert!(plan.uid != u32::MAX && plan.gid != u32::MAX && !plan.groups.contains(&u32::MAX));
    assert!(plan.umask <= 0o777 && plan.rlimits.len() <= 16);
    let mut names: Vec<&str> =
        plan.env.iter().map(|pair| pair.split_once('=').unwrap().0).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "{:?}", plan.env);
}

#[test]
fn the_documents_themselves_are_plans() {
    let bundle = tempfile::tempdir().unwrap();
    std::fs::create_dir(bundle.path().join("rootfs")).unwrap();
    let spec: Spec = serde_json::from_value(config()).unwrap();
    let plan = Plan::new(&spec, "c", bundle.path(), Choices::default()).unwrap();
    assert_eq!((plan.mounts.len(), plan.masked_paths.len(), plan.join.len()), (5, 1, 1));
}

#[test]
fn a_namespace_that_is_a_fifo_keeps_nobody_waiting() {
    let bundle = tempfile::tempdir().unwrap();
    std::fs::create_dir(bundle.path().join("rootfs")).unwrap();
    let fifo = bundle.path().join("f");
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let mut whole = config();
    whole["linux"]["namespaces"][2]["path"] = json!(fifo);
    let spec: Spec = serde_json::from_value(whole).unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let plan = Plan::new(&spec, "c", bundle.path(), Choices::default());
        told.send(plan.unwrap_err().to_string()).unwrap();
    });
    let error = heard.recv_timeout(std::time::Duration::from_secs(20)).expect("an answer");
    assert_eq!(error, format!("error opening namespace path {}: invalid argument", fifo.display()));
}

/// The numbers from one to another, and how that is written.
fn range() -> impl Strategy<Value = (usize, usize, String)> {
    let far = (0_usize..3, 0_usize..40).prop_map(|(times, few)| times * few);
    (0_usize..200, far, select(&["", " "]), any::<bool>()).prop_map(|(first, far, blank, short)| {
        let last = first + far;
        let text = match short && far == 0 {
            true => format!("{blank}{first}"),
            false => format!("{first}{blank}-{last}"),
        };
        (first, last, text)
    })
}

fn mount_option() -> impl Strategy<Value = String> {
    prop_oneof![
        select(options::names()).prop_map(str::to_owned),
        text(&["size=", "64k", "mode", "=", "rro", "é", "ro"], 3),
    ]
}

fn variable() -> impl Strategy<Value = String> {
    (select(&["A", "B", "AB", "é"]), select(&["", "1", "=", "A=2"]))
        .prop_map(|(name, value)| format!("{name}={value}"))
}

proptest! {
    #![proptest_config(fewer())]

    #[test]
    fn any_configuration_is_a_plan_or_one_sentence(bytes in damaged(any::<bool>().prop_map(config_of))) {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::create_dir(bundle.path().join("rootfs")).unwrap();
        let path = bundle.path().join("config.json");
        std::fs::write(&path, bytes.0).unwrap();
        match super::load(&path) {
            Err(error) => assert_sentence(error.to_string().trim()),
            Ok(spec) => match Plan::new(&spec, "c", bundle.path(), Choices::default()) {
                Err(error) => assert_sentence(error.to_string().trim()),
                Ok(plan) => {
                    assert_process(&plan.process);
                    prop_assert!(plan.rootfs.is_absolute() && plan.rootfs.is_dir());
                    prop_assert!(plan.mounts.iter().all(|mount| mount.destination.starts_with('/')));
                    prop_assert!(plan.sysctl.keys().all(|key| !key.contains("..")));
                    prop_assert!(plan.join.iter().all(|join| plan.create & join.flag.unsigned_abs() as u64 == 0));
                }
            },
        }
    }

    #[test]
    fn any_process_is_one_to_start_or_one_sentence(bytes in damaged(Just(process())), held: u64) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("process.json");
        std::fs::write(&path, bytes.0).unwrap();
        match super::load_process(&path) {
            Err(error) => assert_sentence(error.to_string().trim()),
            Ok(process) => match ProcessPlan::new(&process, held) {
                Ok(plan) => assert_process(&plan),
                Err(error) => assert_sentence(error.to_string().trim()),
            },
        }
    }
}

proptest! {
    #[test]
    fn limits_survive_their_text(bytes in damaged(Just(resources()))) {
        if let Ok(limits) = serde_json::from_slice::<LinuxResources>(&bytes.0) {
            let again: LinuxResources = serde_json::from_value(serde_json::to_value(&limits).unwrap()).unwrap();
            prop_assert_eq!(again, limits);
        }
    }

    #[test]
    fn the_last_value_of_each_variable_counts(env in vec(variable(), 0..=12)) {
        let process = Process { env: env.clone(), args: vec!["a".into()], cwd: "/".into(), ..Process::default() };
        let plan = ProcessPlan::new(&process, 0).unwrap();
        assert_process(&plan);
        for pair in &env {
            let name = pair.split_once('=').unwrap().0;
            let last = env.iter().rev().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            prop_assert_eq!(plan.variable(name), last);
        }
    }

    #[test]
    fn a_list_of_numbers_is_its_bits(
        ranges in vec(range(), 0..=5),
        broken in text(&["-", ",", "0", "7", "8191", "8192", "99999999999999999999", " ", "+", "é"], 7),
    ) {
        let list = ranges.iter().map(|range| range.2.as_str()).collect::<Vec<_>>().join(",");
        let words = mask("cpus", &list).unwrap();
        for bit in 0..words.len() * 64 + 64 {
            let is = words.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1);
            let wanted = ranges.iter().any(|(first, last, _)| (*first..=*last).contains(&bit));
            prop_assert_eq!(is, wanted, "{} of {:?}", bit, list);
        }
        if let Ok(words) = mask("cpus", &broken) {
            prop_assert!(words.len() <= 128);
        }
        let policy = MemoryPolicy { mode: "MPOL_BIND".into(), nodes: broken, flags: vec![] };
        if let Err(error) = MemoryPolicyPlan::new(&policy) {
            assert_sentence(error.to_string().trim());
        }
    }

    #[test]
    fn every_option_of_a_mount_is_a_flag_or_data(options in vec(mount_option(), 0..=8)) {
        let names = options::names();
        let parsed = MountOptions::parse(&options);
        prop_assert_eq!(parsed.flags & parsed.cleared, 0);
        prop_assert_eq!(parsed.recursive_set & parsed.recursive_clear, 0);
        let data: Vec<&str> = options.iter().map(String::as_str).filter(|name| !names.contains(name)).collect();
        prop_assert_eq!(&parsed.data, &data.join(","));
        for (on, off, flag) in [("ro", "rw", libc::MS_RDONLY), ("noexec", "exec", libc::MS_NOEXEC)] {
            let last = options.iter().rev().find(|name| *name == on || *name == off);
            prop_assert_eq!(parsed.flags & flag != 0, last.is_some_and(|name| name == on), "{}", on);
        }
    }
}
