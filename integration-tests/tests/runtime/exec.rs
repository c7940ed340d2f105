//! exec: flags, process files, exit codes.

use std::fs;
use std::process::Output;

use serde_json::json;

use crate::bundle::{Bundle, ours_only, stderr};

fn running() -> Bundle {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    bundle
}

#[test]
fn exec_runs_inside_and_answers_the_exit_code() {
    let bundle = running();
    let output =
        bundle.call(&["exec", &bundle.id, "sh", "-c", "cat /proc/sys/kernel/hostname; exit 5"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert_eq!(output.stdout, b"testhost\n");
}

#[test]
fn exec_takes_user_environment_and_directory() {
    let bundle = running();
    let script = "id -u; id -g; pwd; echo $A; grep -E 'CapEff|NoNewPrivs' /proc/self/status";
    let output = bundle.ok(&[
        "exec",
        "--user",
        "5:6",
        "-e",
        "A=b",
        "--cwd=/tmp",
        &bundle.id,
        "sh",
        "-c",
        script,
    ]);
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(words[..4], ["5", "6", "/tmp", "b"]);
    assert_eq!(words[words.len() - 1], "1", "no_new_privs");
}

/// Numbers of the container's keyrings that can be seen in it: more than one if a process has its own.
fn keyrings(bundle: &Bundle) -> Vec<String> {
    let keys = bundle.ok(&["exec", &bundle.id, "cat", "/proc/keys"]);
    let name = format!("_ses.{}:", bundle.id);
    let number = |line: &str| line.split_whitespace().next().unwrap().to_owned();
    keys.lines().filter(|line| line.contains(&name)).map(number).collect()
}

#[test]
fn exec_shares_the_session_keyring_of_the_container() {
    let mut bundle = Bundle::new("sleep 100");
    bundle.linux()["maskedPaths"] = json!([]);
    bundle.start();
    let first = keyrings(&bundle);
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(keyrings(&bundle), first);
}

#[test]
fn exec_of_a_missing_program_is_told_with_255() {
    let bundle = running();
    let output = bundle.call(&["exec", &bundle.id, "no-such"]);
    assert_eq!(output.status.code(), Some(255));
    let wanted = r#"exec failed: unable to start container process: exec: \"no-such\": executable file not found in $PATH"#;
    assert!(stderr(&output).contains(wanted), "{}", stderr(&output));
}

#[test]
fn exec_takes_a_process_file_and_detaches() {
    let bundle = running();
    let file = bundle.path().join("process.json");
    let process = json!({
        "args": ["/bin/sh", "-c", "echo $X > /tmp/made; exec sleep 100"],
        "env": ["X=from-file", "PATH=/bin"],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
    });
    fs::write(&file, process.to_string()).unwrap();
    let pid_file = bundle.path().join("exec.pid");
    bundle.detached(&[
        "exec",
        "--process",
        file.to_str().unwrap(),
        "--detach",
        "--pid-file",
        pid_file.to_str().unwrap(),
        &bundle.id,
    ]);
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    assert_eq!(namespace(pid), namespace(bundle.pid()));
    let made = bundle.rootfs().join("tmp/made");
    while fs::read_to_string(&made).unwrap_or_default() != "from-file\n" {
        std::thread::yield_now();
    }
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.wait_gone(pid);
}

#[test]
fn exec_into_what_has_stopped_is_refused() {
    let bundle = Bundle::new("true");
    bundle.start();
    let patience = std::time::Instant::now();
    while bundle.status() != "stopped" {
        assert!(patience.elapsed().as_secs() < 20);
        std::thread::yield_now();
    }
    let output = bundle.call(&["exec", &bundle.id, "true"]);
    assert_eq!(output.status.code(), Some(255));
    assert!(stderr(&output).contains("cannot exec in a stopped container"), "{}", stderr(&output));
}

#[test]
fn exec_adds_capabilities_but_none_is_inheritable() {
    let bundle = running();
    let output = bundle.ok(&[
        "exec",
        "--cap",
        "CAP_NET_ADMIN",
        &bundle.id,
        "grep",
        "Cap",
        "/proc/self/status",
    ]);
    let value = |name: &str| {
        let line = output.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    assert_eq!(value("CapEff"), 1 | 1 << 5 | 1 << 10 | 1 << 12);
    assert_eq!(value("CapInh"), 0);
}

#[test]
fn an_added_capability_is_ambient_where_the_container_has_inheritable_ones() {
    let mut bundle = Bundle::new("sleep 100");
    let sets = &mut bundle.process()["capabilities"];
    let all = json!(["CAP_CHOWN", "CAP_KILL"]);
    for set in ["bounding", "permitted", "effective", "inheritable"] {
        sets[set] = all.clone();
    }
    sets["ambient"] = json!(["CAP_CHOWN"]);
    bundle.start();
    let ambient = |flags: &[&str]| {
        let mut arguments = vec!["exec"];
        arguments.extend(flags);
        arguments.extend([bundle.id.as_str(), "grep", "CapAmb", "/proc/self/status"]);
        bundle.ok(&arguments).trim_start_matches("CapAmb:\t").trim().to_owned()
    };
    assert_eq!(ambient(&[]), "0000000000000001");
    assert_eq!(ambient(&["--cap", "CAP_KILL"]), "0000000000000021");
}

#[test]
fn exec_in_a_user_namespace_is_root_only_inside() {
    let mut bundle = Bundle::new("sleep 100");
    bundle.use_user_namespace();
    bundle.start();
    let output = bundle.ok(&["exec", &bundle.id, "sh", "-c", "id -u; cat /proc/self/uid_map"]);
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536"]);
}

/// What a process that may hold `soft` of at most `hard` files says to its shell's `ulimit -n`.
fn exec_with_files(bundle: &Bundle, soft: u64, hard: u64) -> Output {
    let file = bundle.path().join("process.json");
    let process = json!({
        "args": ["/bin/sh", "-c", "ulimit -n"],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard}],
    });
    fs::write(&file, process.to_string()).unwrap();
    bundle.call(&["exec", "--process", file.to_str().unwrap(), &bundle.id])
}

#[test]
fn a_process_may_be_allowed_no_files_at_all() {
    // runc's own init needs more.
    if !ours_only() {
        return;
    }
    for (user_namespace, files) in [(false, 0), (false, 3), (true, 0), (true, 3)] {
        let mut bundle = Bundle::new("");
        if user_namespace {
            bundle.use_user_namespace();
        }
        let limit = json!([{"type": "RLIMIT_NOFILE", "soft": files, "hard": files}]);
        bundle.process()["args"][2] = json!("ulimit -n");
        bundle.process()["rlimits"] = limit;
        assert_eq!(bundle.output(), format!("{files}\n"));
        bundle.process()["args"][2] = json!("exec sleep 100");
        bundle.process()["rlimits"] = json!([]);
        bundle.start();
        let output = exec_with_files(&bundle, files, files);
        assert_eq!(stderr(&output), "", "{user_namespace} {files}");
        assert_eq!(output.stdout, format!("{files}\n").into_bytes());
    }
}

#[test]
fn limits_of_an_exec_that_cannot_be_are_told_whoever_sets_them() {
    for user_namespace in [false, true] {
        let mut bundle = Bundle::new("sleep 100");
        if user_namespace {
            bundle.use_user_namespace();
        }
        bundle.start();
        let output = exec_with_files(&bundle, 9, 5);
        assert_eq!(output.status.code(), Some(255), "{user_namespace}");
        // Older releases say `for process`.
        let told = stderr(&output).replace("for ready process", "for process");
        let words = "exec failed: unable to start container process: error setting rlimits for \
                     process: error setting rlimit type 7: invalid argument";
        assert!(told.contains(words), "{user_namespace}: {told}");
    }
}
