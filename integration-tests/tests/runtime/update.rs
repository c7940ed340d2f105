//! update, events, exec into a sub-cgroup, and what a frozen container does when it is killed.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::bundle::{Bundle, ours_only, stderr, unified};

/// The file of a v1 controller, or of the unified hierarchy where there is only that.
fn file(bundle: &Bundle, v1: &str, v2: &str) -> PathBuf {
    let controller = v1.split('.').next().unwrap();
    let old = PathBuf::from(format!("/sys/fs/cgroup/{controller}/{}/{v1}", bundle.id));
    if old.exists() { old } else { PathBuf::from(format!("/sys/fs/cgroup/{}/{v2}", bundle.id)) }
}

fn value(bundle: &Bundle, v1: &str, v2: &str) -> String {
    let path = file(bundle, v1, v2);
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .trim()
        .to_owned()
}

fn limited() -> Bundle {
    let mut bundle = Bundle::new("sleep 100");
    bundle.linux()["resources"]["memory"] = json!({"limit": 52_428_800});
    bundle.linux()["resources"]["pids"] = json!({"limit": 50});
    bundle.start();
    bundle
}

#[test]
fn update_changes_what_its_flags_name_and_nothing_else() {
    let bundle = limited();
    bundle.ok(&["update", "--memory", "64M", "--cpu-share", "512", &bundle.id]);
    assert_eq!(value(&bundle, "memory.limit_in_bytes", "memory.max"), "67108864");
    let shares = value(&bundle, "cpu.shares", "cpu.weight");
    assert!(shares == "512" || shares == "20", "{shares}");
    assert_eq!(value(&bundle, "pids.max", "pids.max"), "50");
    bundle.ok(&["update", "--pids-limit", "77", "--cpu-quota", "20000", &bundle.id]);
    assert_eq!(value(&bundle, "pids.max", "pids.max"), "77");
    assert!(value(&bundle, "cpu.cfs_quota_us", "cpu.max").starts_with("20000"));
    assert_eq!(value(&bundle, "memory.limit_in_bytes", "memory.max"), "67108864");
    bundle.ok(&["update", "--pids-limit=-1", &bundle.id]);
    assert_eq!(value(&bundle, "pids.max", "pids.max"), "max");
}

#[test]
fn update_reads_a_document_from_a_file_or_standard_input() {
    let bundle = limited();
    let path = bundle.path().join("resources.json");
    fs::write(&path, r#"{"pids":{"limit":61},"unknown":1,"devices":[{"allow":true}]}"#).unwrap();
    bundle.ok(&["update", "--resources", path.to_str().unwrap(), &bundle.id]);
    assert_eq!(value(&bundle, "pids.max", "pids.max"), "61");
    let mut child = bundle
        .command(&["update", "--resources=-", &bundle.id])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(br#"{"pids":{"limit":62}}"#).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(value(&bundle, "pids.max", "pids.max"), "62");
}

#[test]
fn an_update_that_fails_says_why_and_changes_nothing() {
    let bundle = limited();
    for (flag, given, words) in [
        ("--memory", "1x", "invalid value for memory: invalid size: '1x'"),
        ("--cpu-period", "abc", "invalid value for cpu-period: "),
        ("--resources", "/no/such", "open /no/such: no such file or directory"),
        ("--cpu-share", "1", "the minimum allowed cpu-shares is 2"),
        ("--l3-cache-schema", "L3:0=f", "Intel RDT/CAT: l3 cache schema is not enabled"),
        ("--mem-bw-schema", "MB:0=9", "Intel RDT/MBA: memory bandwidth schema is not enabled"),
        ("--foo", "1", "flag provided but not defined: -foo"),
    ] {
        // cgroup2 knows weights, and releases differ in what the smallest share is there.
        if unified() && flag == "--cpu-share" {
            continue;
        }
        let output = bundle.call(&["update", flag, given, "--pids-limit", "99", &bundle.id]);
        assert_eq!(output.status.code(), Some(1), "{flag}");
        assert!(stderr(&output).contains(words), "{flag}: {}", stderr(&output));
        assert_eq!(value(&bundle, "pids.max", "pids.max"), "50", "{flag}");
    }
    let pid = bundle.pid();
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    bundle.wait_gone(pid);
    let output = bundle.call(&["update", "--pids-limit", "99", &bundle.id]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_memory_limit_cannot_pass_the_one_with_swap() {
    let mut bundle = Bundle::new("sleep 100");
    bundle.linux()["resources"]["memory"] = json!({"limit": 52_428_800, "swap": 62_914_560});
    bundle.start();
    let both = file(&bundle, "memory.memsw.limit_in_bytes", "memory.swap.max");
    let output = bundle.call(&["update", "--memory", "70M", &bundle.id]);
    assert_eq!(output.status.code(), Some(1), "{}", fs::read_to_string(&both).unwrap());
    assert_eq!(value(&bundle, "memory.limit_in_bytes", "memory.max"), "52428800");
    bundle.ok(&["update", "--memory", "70M", "--memory-swap", "80M", &bundle.id]);
    assert_eq!(value(&bundle, "memory.limit_in_bytes", "memory.max"), "73400320");
    bundle.ok(&["update", "--memory", "20M", "--memory-swap", "30M", &bundle.id]);
    assert_eq!(value(&bundle, "memory.limit_in_bytes", "memory.max"), "20971520");
}

#[test]
fn a_memory_limit_can_be_taken_back_with_its_swap() {
    let mut bundle = Bundle::new("sleep 100");
    bundle.linux()["resources"]["memory"] = json!({"limit": 52_428_800, "swap": 62_914_560});
    bundle.start();
    bundle.ok(&["update", "--memory", "-1", &bundle.id]);
    let limit = value(&bundle, "memory.limit_in_bytes", "memory.max");
    // v1 shows the largest number of whole pages.
    assert!(limit == "max" || limit == "9223372036854771712", "{limit}");
}

#[test]
fn events_shows_the_limits_and_the_usage() {
    let bundle = limited();
    let text = bundle.ok(&["events", "--stats", &bundle.id]);
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(bundle.id)));
    let data = &event["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 52_428_800);
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0);
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    assert_eq!(data["pids"], json!({"current": 1, "limit": 50}));
}

#[test]
fn exec_can_enter_a_cgroup_below_the_containers() {
    let bundle = limited();
    let pids = file(&bundle, "pids.max", "pids.max");
    let below = pids.parent().unwrap().join("sub");
    fs::create_dir(&below).unwrap();
    // The unified hierarchy has no name to give.
    let (group, line) = if unified() { ("sub", "0::") } else { ("pids:sub", ":pids:") };
    let output =
        bundle.ok(&["exec", "--cgroup", group, &bundle.id, "grep", line, "/proc/self/cgroup"]);
    assert!(output.trim_end().ends_with(&format!("/{}/sub", bundle.id)), "{output}");
    let words = [
        ("pids:nowhere", "no such file or directory"),
        ("pids:../..", "../.. is not a sub cgroup path"),
        ("foo:sub", "unknown controller foo in SubCgroupPaths"),
        ("a:b:c", "invalid --cgroup argument: a:b:c"),
    ];
    for (argument, wanted) in words {
        let argument = if unified() { argument.trim_start_matches("pids:") } else { argument };
        let output = bundle.call(&["exec", "--cgroup", argument, &bundle.id, "true"]);
        assert_eq!(output.status.code(), Some(255), "{argument}");
        assert!(stderr(&output).contains(wanted), "{argument}: {}", stderr(&output));
    }
}

#[test]
fn a_killed_container_that_was_frozen_dies() {
    for arguments in [["kill", "KILL"].as_slice(), &["kill", "--all", "KILL"]] {
        let bundle = Bundle::new("sleep 100");
        bundle.start();
        let pid = bundle.pid();
        bundle.ok(&["pause", &bundle.id]);
        let (signal, verb) = arguments.split_last().unwrap();
        let mut all = verb.to_vec();
        all.extend([bundle.id.as_str(), signal]);
        bundle.ok(&all);
        bundle.wait_gone(pid);
        bundle.ok(&["delete", &bundle.id]);
    }
}

#[test]
fn the_pidfd_of_the_first_process_and_of_an_exec_is_sent() {
    if !ours_only() {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    let path = bundle.path().join("pidfd.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let receive = || {
        let (stream, _) = listener.accept().unwrap();
        let (kind, fd) = crate::terminal::receive(&stream);
        let link = format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        let info = fs::read_to_string(link).unwrap();
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim();
        (kind, pid.parse::<i32>().unwrap())
    };
    let socket = path.to_str().unwrap();
    let directory = bundle.path().to_str().unwrap();
    bundle.detached(&["create", "--bundle", directory, "--pidfd-socket", socket, &bundle.id]);
    assert_eq!(receive(), ("standard".to_owned(), bundle.pid()));
    bundle.detached(&["start", &bundle.id]);
    let file = bundle.path().join("pid");
    let file = file.to_str().unwrap();
    bundle.detached(&[
        "exec",
        "--detach",
        "--pid-file",
        file,
        "--pidfd-socket",
        socket,
        &bundle.id,
        "sleep",
        "9",
    ]);
    let pid = fs::read_to_string(file).unwrap().parse().unwrap();
    assert_eq!(receive(), ("setns".to_owned(), pid));
}
