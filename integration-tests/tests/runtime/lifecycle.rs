//! create, start, run, state, list, kill, delete, and what they say when it cannot be.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::{Bundle, ours_only, stderr, unified};

#[test]
fn run_answers_output_and_exit_code() {
    let bundle = Bundle::new("echo out; echo err >&2; exit 7");
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");
    assert!(!bundle.root().join(&bundle.id).exists(), "the state is gone after run");
}

#[test]
fn run_answers_128_and_the_signal() {
    let bundle = Bundle::new("kill -9 $$");
    // The first process of a pid namespace cannot kill itself; a child can be killed.
    assert_eq!(bundle.run().status.code(), Some(0));
    let bundle = Bundle::new("sh -c 'kill -9 $$'; exit $?");
    assert_eq!(bundle.run().status.code(), Some(137));
}

#[test]
fn a_container_goes_from_created_over_running_to_stopped() {
    let bundle = Bundle::new("sleep 100");
    let pid_file = bundle.path().join("pid");
    bundle.detached(&[
        "create",
        "--bundle",
        bundle.path().to_str().unwrap(),
        "--pid-file",
        pid_file.to_str().unwrap(),
        &bundle.id,
    ]);
    let state = bundle.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], json!(bundle.id));
    assert_eq!(state["bundle"], json!(bundle.path()));
    assert_eq!(state["rootfs"], json!(bundle.rootfs()));
    assert_eq!(fs::read_to_string(pid_file).unwrap(), state["pid"].to_string());

    bundle.detached(&["start", &bundle.id]);
    assert_eq!(bundle.status(), "running");
    let again = bundle.call(&["start", &bundle.id]);
    assert!(stderr(&again).contains("cannot start an already running container"));

    let refused = bundle.call(&["delete", &bundle.id]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("that is not stopped: running"), "{}", stderr(&refused));

    let pid = bundle.pid();
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    bundle.wait_gone(pid);
    assert_eq!(bundle.state()["pid"], 0);
    assert_eq!(bundle.status(), "stopped");
    let late = bundle.call(&["kill", &bundle.id, "9"]);
    assert_eq!(late.status.code(), Some(1));
    assert!(stderr(&late).contains("container not running"));

    bundle.ok(&["delete", &bundle.id]);
    let unknown = bundle.call(&["state", &bundle.id]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("container does not exist"));
}

#[test]
fn a_created_container_can_be_deleted_without_force() {
    let bundle = Bundle::new("true");
    bundle.detached(&["create", "--bundle", bundle.path().to_str().unwrap(), &bundle.id]);
    bundle.ok(&["delete", &bundle.id]);
    assert!(!bundle.root().join(&bundle.id).exists());
}

#[test]
fn force_deletes_what_runs_and_what_is_not_there() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let pid = bundle.pid();
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.wait_gone(pid);
    bundle.ok(&["delete", "--force", &bundle.id]);
}

#[test]
fn an_id_can_be_used_once_at_a_time() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let second = bundle.call(&["create", "--bundle", bundle.path().to_str().unwrap(), &bundle.id]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("container with given ID already exists"));
    assert_eq!(bundle.status(), "running");
}

#[test]
fn ids_that_are_no_names_are_refused() {
    let bundle = Bundle::new("true");
    for id in ["../x", "a/b", "a b"] {
        let output = bundle.call(&["state", id]);
        assert_eq!(output.status.code(), Some(1), "{id}");
        assert!(stderr(&output).contains("invalid container ID format"), "{id}");
    }
}

#[test]
fn a_missing_program_is_told_in_words_and_in_the_log_and_leaves_nothing() {
    for (program, words) in [
        ("no-such", r#"exec: "no-such": executable file not found in $PATH"#),
        ("/no/such", r#"exec: "/no/such": stat /no/such: no such file or directory"#),
        ("/tmp", r#"exec: "/tmp": permission denied"#),
    ] {
        let mut bundle = Bundle::new("");
        bundle.process()["args"] = json!([program]);
        let log = bundle.path().join("log");
        let output = bundle.call(&[
            "--log",
            log.to_str().unwrap(),
            "--log-format=json",
            "create",
            "--bundle",
            bundle.path().to_str().unwrap(),
            &bundle.id,
        ]);
        assert_eq!(output.status.code(), Some(1), "{program}");
        assert_eq!(output.stdout, b"", "{program}");
        let wanted = format!("runc create failed: unable to start container process: {words}");
        assert_eq!(stderr(&output).trim_end(), wanted);
        let text = fs::read_to_string(&log).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!((&last["level"], &last["msg"]), (&json!("error"), &json!(wanted)));
        assert!(!bundle.root().join(&bundle.id).exists(), "{program}: state left behind");
    }
}

#[test]
fn a_program_the_kernel_refuses_is_told_on_the_containers_stderr() {
    let mut bundle = Bundle::new("");
    let script = bundle.rootfs().join("bin/broken");
    fs::write(&script, "no interpreter line").unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    bundle.process()["args"] = json!(["/bin/broken"]);
    let output = bundle.run();
    assert!(!output.status.success());
    assert!(stderr(&output).contains("exec /bin/broken: exec format error"), "{}", stderr(&output));
}

#[test]
fn a_bundle_without_configuration_is_told() {
    let bundle = Bundle::new("true");
    let empty = bundle.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let output = bundle.call(&["create", "--bundle", empty.to_str().unwrap(), &bundle.id]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("JSON specification file config.json not found"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn flags_that_are_not_known_are_told() {
    let bundle = Bundle::new("true");
    let output = bundle.call(&["create", "--foo", &bundle.id]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("flag provided but not defined: -foo"));
}

#[test]
fn list_shows_what_runs() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let list: Value = serde_json::from_str(&bundle.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!(list[0]["id"], json!(bundle.id));
    assert_eq!(list[0]["status"], "running");
    assert_eq!(list[0]["owner"], "root");
    assert_eq!(bundle.ok(&["list", "-q"]), format!("{}\n", bundle.id));
}

#[test]
fn hooks_run_in_order_with_the_state_on_stdin() {
    let mut bundle = Bundle::new("true");
    let log = bundle.path().join("hooks");
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let script = format!("(echo {kind}; cat; echo) >> {}", log.display());
        bundle.config["hooks"][kind] =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]);
    }
    bundle.config["annotations"] = json!({"key": "value"});
    bundle.output();
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let names: Vec<&str> = lines.iter().step_by(2).copied().collect();
    assert_eq!(names, ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]);
    for state in lines.iter().skip(1).step_by(2) {
        let state: Value = serde_json::from_str(state).unwrap();
        assert_eq!(state["id"], json!(bundle.id));
        assert_eq!(state["bundle"], json!(bundle.path()));
        assert_eq!(state["annotations"]["key"], "value");
    }
    assert!(lines[9].contains("stopped"));
}

#[test]
fn a_failing_hook_ends_the_create_and_leaves_nothing() {
    let mut bundle = Bundle::new("true");
    bundle.config["hooks"]["createRuntime"] =
        json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo no >&2; exit 3"]}]);
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("error running hook: exit status 3, stdout: , stderr: no"), "{text}");
    assert!(!bundle.root().join(&bundle.id).exists());
}

#[test]
fn signals_to_run_reach_the_container() {
    let bundle = Bundle::new("trap 'exit 9' TERM; echo ready; while :; do sleep 1 & wait; done");
    let mut child = bundle
        .command(&["run", "--bundle", bundle.path().to_str().unwrap(), &bundle.id])
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn kill_all_reaches_every_process() {
    let mut bundle = Bundle::new("sleep 100 & sleep 100 & wait");
    // Without a pid namespace nothing dies with the first process.
    let namespaces = bundle.linux()["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    bundle.config["mounts"].as_array_mut().unwrap().remove(0);
    bundle.linux()["maskedPaths"] = json!([]);
    bundle.linux()["readonlyPaths"] = json!([]);
    bundle.start();
    let pid = bundle.pid();
    let pids = || -> Vec<i32> {
        serde_json::from_str(&bundle.ok(&["ps", "--format", "json", &bundle.id])).unwrap()
    };
    let mut all = pids();
    while all.len() < 3 {
        std::thread::yield_now();
        all = pids();
    }
    assert!(all.contains(&pid));
    bundle.ok(&["kill", "--all", &bundle.id, "KILL"]);
    for pid in all {
        bundle.wait_gone(pid);
    }
    assert_eq!(bundle.status(), "stopped");
}

#[test]
fn a_signal_to_all_is_no_error_where_nobody_is_left() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let pid = bundle.pid();
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    bundle.wait_gone(pid);
    for signal in ["0", "KILL"] {
        let output = bundle.call(&["kill", &bundle.id, signal]);
        assert!(stderr(&output).contains("container not running"), "{signal}: {}", stderr(&output));
        bundle.ok(&["kill", "--all", &bundle.id, signal]);
    }
}

#[test]
fn a_created_container_ends_when_it_is_asked_to() {
    for signal in ["TERM", "INT", "HUP"] {
        let bundle = Bundle::new("true");
        bundle.detached(&["create", "--bundle", bundle.path().to_str().unwrap(), &bundle.id]);
        let pid = bundle.pid();
        bundle.ok(&["kill", &bundle.id, signal]);
        bundle.wait_gone(pid);
        assert_eq!(bundle.status(), "stopped", "{signal}");
    }
}

#[test]
fn ps_hands_on_the_flags_behind_the_id() {
    let bundle = Bundle::new("echo > /started; read it < /never");
    let [started, never] = ["started", "never"].map(|name| bundle.rootfs().join(name));
    assert!(Command::new("mkfifo").args([&started, &never]).status().unwrap().success());
    bundle.start();
    // Before that it may still be the runtime, and in an exec it has no arguments for a moment.
    assert_eq!(fs::read(&started).unwrap(), b"\n");
    let pid = bundle.pid().to_string();
    let text = bundle.ok(&["ps", &bundle.id, "-e", "-o", "pid,args"]);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[1].starts_with(&pid) && lines[1].ends_with("read it < /never"), "{text}");
    assert_eq!(bundle.ok(&["ps", "-f", "json", &bundle.id]).trim(), format!("[{pid}]"));
}

#[test]
fn without_a_pivot_the_hosts_procfs_is_no_way_around_the_masks() {
    let script = "busybox unshare -mrpf busybox mount -t proc none /proc 2>&1; echo $?";
    let mut bundle = Bundle::new(script);
    let all = json!(["CAP_SYS_ADMIN", "CAP_SETFCAP"]);
    for set in ["bounding", "effective", "permitted"] {
        bundle.process()["capabilities"][set] = all.clone();
    }
    let path = bundle.path().to_str().unwrap();
    let output = bundle.ok(&["run", "--no-pivot", "--bundle", path, &bundle.id]);
    assert!(output.contains("permission denied") || output.contains("not permitted"), "{output}");
}

#[test]
fn those_that_outlived_the_first_process_can_be_killed() {
    let mut bundle = Bundle::new("exec sleep 100");
    bundle.linux()["namespaces"].as_array_mut().unwrap().retain(|kind| kind["type"] != "pid");
    bundle.start();
    let file = bundle.path().join("pid");
    bundle.detached(&[
        "exec",
        "-d",
        "--pid-file",
        file.to_str().unwrap(),
        &bundle.id,
        "sleep",
        "99",
    ]);
    let other: i32 = fs::read_to_string(&file).unwrap().parse().unwrap();
    let first = bundle.pid();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::SIGKILL).unwrap();
    bundle.wait_gone(first);
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    bundle.wait_gone(other);
    // To runc a SIGKILL without anyone left is a success here.
    if ours_only() {
        let again = bundle.call(&["kill", &bundle.id, "KILL"]);
        assert!(stderr(&again).contains("container not running"), "{}", stderr(&again));
    }
}

#[test]
fn a_start_hook_without_an_environment_has_the_processs() {
    let mut bundle = Bundle::new("cat /made");
    bundle.process()["env"] = json!(["PATH=/bin", "ONE=two"]);
    let hook = |script: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
    let mut own = hook("echo own $ONE $TWO >> /made");
    own["env"] = json!(["TWO=three"]);
    let inherits = hook("echo $ONE $HOME > /made");
    bundle.config["hooks"] = json!({"startContainer": [inherits, own]});
    assert_eq!(bundle.output(), "two /\nown three\n");
}

#[test]
fn pause_and_resume_show_in_the_state() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    bundle.ok(&["pause", &bundle.id]);
    assert_eq!(bundle.status(), "paused");
    let refused = bundle.call(&["exec", &bundle.id, "true"]);
    assert_eq!(refused.status.code(), Some(255));
    bundle.ok(&["resume", &bundle.id]);
    assert_eq!(bundle.status(), "running");
}

#[test]
fn limits_are_written_and_gone_after_delete() {
    let mut bundle = Bundle::new("sleep 100");
    bundle.linux()["resources"]["pids"] = json!({"limit": 33});
    bundle.start();
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid())).unwrap();
    let line = cgroups
        .lines()
        .find(|line| line.contains(":pids:") || line.starts_with("0::/runc-rs-test-"))
        .unwrap();
    let path = line.rsplit(':').next().unwrap();
    assert!(path.ends_with(&format!("/{}", bundle.id)), "{cgroups}");
    let dir = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .map(|mount| std::path::PathBuf::from(format!("{mount}{path}")))
        .into_iter()
        .find(|dir| dir.join("pids.max").exists())
        .unwrap();
    assert_eq!(fs::read_to_string(dir.join("pids.max")).unwrap(), "33\n");
    bundle.ok(&["delete", "--force", &bundle.id]);
    assert!(!dir.exists());
}

#[test]
fn another_runtimes_container_is_refused() {
    if !ours_only() {
        return;
    }
    let bundle = Bundle::new("true");
    let dir = bundle.root().join("foreign");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("state.json"), r#"{"id":"foreign","init_process_pid":1}"#).unwrap();
    let output = bundle.call(&["delete", "--force", "foreign"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("was made by another runtime"));
    assert!(dir.join("state.json").exists());
}

#[test]
fn what_a_command_line_cannot_mean_is_told_with_its_usage() {
    let bundle = Bundle::new("true");
    for (arguments, code, words) in [
        (["start"].as_slice(), 1, r#"\"start\" requires exactly 1 argument(s)"#),
        (&["kill"], 1, r#"\"kill\" requires a minimum of 1 argument(s)"#),
        (&["kill", "a", "b", "c"], 1, r#"\"kill\" requires a maximum of 2 argument(s)"#),
        (&["exec"], 1, r#"\"exec\" requires a minimum of 1 argument(s)"#),
        (&["list", "a"], 1, r#"\"list\" requires exactly 0 argument(s)"#),
        (&["state", "--foo"], 1, "flag provided but not defined: -foo"),
        (&["exec", "unknown", "true"], 255, "exec failed: container does not exist"),
        (&["kill", "unknown", "NOPE"], 1, "container does not exist"),
        (&["list", "--format", "foo"], 1, "invalid format option"),
        (&["no-such-command"], 3, "No help topic for 'no-such-command'"),
        (&["--log-format", "foo", "list"], 1, "invalid log-format: foo"),
    ] {
        let output = bundle.call(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.contains(words), "{arguments:?}: {text}");
        let usage = output.stdout.starts_with(b"Incorrect Usage");
        assert_eq!(usage, words.contains("requires") || words.contains("flag"), "{arguments:?}");
    }
    let help = bundle.ok(&["create", "--help"]);
    assert!(help.contains("create - ") && help.contains("--bundle value, -b value"), "{help}");
}

#[test]
fn a_program_named_help_keeps_its_own_flags() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    assert_eq!(bundle.ok(&["exec", &bundle.id, "sh", "-c", "echo $0", "--help"]), "--help\n");
}

#[test]
fn until_create_is_done_the_container_is_being_created() {
    // runc 1.1 has no state yet when these hooks run.
    if !ours_only() {
        return;
    }
    let mut bundle = Bundle::new("true");
    let state = bundle.path().join("seen");
    let command = bundle.command(&["state", &bundle.id]);
    let words: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
    let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
    let script = format!("exec {} > {}", words.join(" "), state.display());
    bundle.config["hooks"]["createRuntime"] =
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    bundle.detached(&["create", "--bundle", bundle.path().to_str().unwrap(), &bundle.id]);
    let seen: Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    assert_eq!(seen["status"], "creating");
    assert_eq!(seen["pid"], bundle.pid());
    assert_eq!(bundle.status(), "created");
}

#[test]
fn configurations_that_cannot_be_are_refused_and_leave_nothing() {
    for (pointer, value, words) in [
        ("/process/args", json!([]), "args must not be empty"),
        ("/process/cwd", json!(""), "Cwd property must not be empty"),
        ("/process/cwd", json!("x"), "Cwd must be an absolute path"),
        ("/root/path", json!("no-such"), "invalid rootfs: stat "),
        ("/linux/rootfsPropagation", json!("foo"), "rootfsPropagation=foo is not supported"),
        ("/process/rlimits", json!([{"type": "RLIMIT_X"}]), "wrong rlimit value: RLIMIT_X"),
        ("/process/env", json!(["A"]), r#"invalid environment variable: \"A\""#),
        ("/linux/resources", json!({"cpu": {"cpus": "999"}}), "numerical result out of range\""),
        ("/linux/resources", json!({"cpu": {"shares": 1}}), "minimum allowed cpu-shares is 2"),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "x"}]),
            r#"invalid device type \"x\""#,
        ),
        ("/linux/namespaces", json!([{"type": "foo"}]), "does not exist"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "FOO"}),
            "string FOO is not a valid action for seccomp",
        ),
    ] {
        // cgroup2 knows weights, and releases differ in what the smallest share is there.
        if unified() && words.contains("cpu-shares") {
            continue;
        }
        let mut bundle = Bundle::new("true");
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        bundle.config.pointer_mut(parent).unwrap()[name] = value;
        let output = bundle.run();
        assert_eq!(output.status.code(), Some(1), "{pointer}");
        assert!(stderr(&output).contains(words), "{pointer}: {}", stderr(&output));
        assert!(!bundle.root().join(&bundle.id).exists(), "{pointer}");
        for group in ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"] {
            assert!(!std::path::Path::new(group).join(&bundle.id).exists(), "{pointer}");
        }
    }
}
