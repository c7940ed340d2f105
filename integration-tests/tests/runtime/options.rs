//! Global options, and what the commands have beyond runc's: crun's extras.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output};

use serde_json::json;

use crate::bundle::{Bundle, binary, ours_only, stderr};

/// A command that must fail, with a socket of ours standing where the system's log listens.
fn logged(bundle: &Bundle, socket: &str, target: &str) -> (Output, String) {
    let ours = bundle.path().join(format!("{}.sock", &target[..3]));
    let listener = UnixDatagram::bind(&ours).unwrap();
    // Of its own: the host's directories stay as they are.
    let script = format!(
        "mount -t tmpfs none {parent} && mkdir -p $(dirname {socket}) && touch {socket} && \
         mount --bind {} {socket} && exec \"$@\"",
        ours.display(),
        parent = if socket.starts_with("/dev") { "/dev" } else { "/run" },
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script, "sh"])
        .arg(binary())
        .args(["--root", bundle.root().to_str().unwrap(), "--log", target, "state", "none"])
        .output()
        .unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut bytes = [0; 4096];
    let length = listener.recv(&mut bytes).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    (output, String::from_utf8_lossy(&bytes[..length]).into_owned())
}

#[test]
fn the_log_may_be_the_journal_the_systems_or_a_file() {
    if !ours_only() {
        return;
    }
    let bundle = Bundle::new("true");
    let (output, entry) = logged(&bundle, "/run/systemd/journal/socket", "journald:web");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"container does not exist\n");
    let wanted = "PRIORITY=3\nSYSLOG_IDENTIFIER=web\nMESSAGE=container does not exist\n";
    assert_eq!(entry, wanted);
    let (_, line) = logged(&bundle, "/dev/log", "syslog:web");
    assert!(
        line.starts_with("<11>web[") && line.ends_with("]: container does not exist"),
        "{line}"
    );
    let file = bundle.path().join("log");
    bundle.call(&["--log", &format!("file:{}", file.display()), "state", "none"]);
    assert!(fs::read_to_string(file).unwrap().contains("level=error"));
}

#[test]
fn the_log_tells_no_more_than_its_level() {
    if !ours_only() {
        return;
    }
    let mut bundle = Bundle::new("true");
    bundle.process()["capabilities"]["ambient"] = json!(["CAP_CHOWN"]);
    let run = |level: &[&str]| {
        let mut arguments = level.to_vec();
        arguments.extend(["run", "--bundle", bundle.path().to_str().unwrap(), &bundle.id]);
        stderr(&bundle.call(&arguments))
    };
    let (warning, debug) = ("level=warning", "level=debug");
    for (flags, wanted) in [
        (vec![], [true, false]),
        (vec!["--log-level", "error"], [false, false]),
        (vec!["--log-level=warning"], [true, false]),
        (vec!["--log-level=debug"], [true, true]),
        (vec!["--debug"], [true, true]),
    ] {
        let text = run(&flags);
        assert_eq!([text.contains(warning), text.contains(debug)], wanted, "{flags:?}: {text}");
    }
    assert!(run(&["--log-level", "loud"]).contains("invalid log-level: loud"));
}

#[test]
fn the_debug_log_tells_the_steps_of_run_and_exec() {
    let bundle = Bundle::new("sleep 100");
    let log = bundle.path().join("debug.log");
    let flags = ["--debug", "--log", log.to_str().unwrap()];
    let mut create = flags.to_vec();
    create.extend(["create", "--bundle", bundle.path().to_str().unwrap(), &bundle.id]);
    bundle.detached(&create);
    bundle.detached(&["start", &bundle.id]);
    let text = fs::read_to_string(&log).unwrap();
    for step in ["nsexec container setup", "child process in init()", "init: closing the pipe"] {
        assert!(text.contains(step), "{step}: {text}");
    }
    fs::remove_file(&log).unwrap();
    let mut exec = flags.to_vec();
    exec.extend(["exec", &bundle.id, "true"]);
    bundle.ok(&exec);
    let text = fs::read_to_string(&log).unwrap();
    for step in ["nsexec container setup", "setns_init: about to exec"] {
        assert!(text.contains(step), "{step}: {text}");
    }
}

#[test]
fn a_configuration_may_be_any_file_and_exec_finds_it_again() {
    if !ours_only() {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    let create = bundle.command(&["create", "--bundle", bundle.path().to_str().unwrap()]);
    fs::rename(bundle.path().join("config.json"), bundle.path().join("other.json")).unwrap();
    let mut create = create;
    // Relative to the caller, as crun has it.
    create.current_dir(bundle.path()).args(["-f", "other.json", &bundle.id]);
    let status = create.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    assert!(status.status().unwrap().success());
    let call = |arguments: &[&str]| {
        let root = bundle.root();
        let mut command = Command::new(binary());
        command.arg("--root").arg(root).args(arguments).output().unwrap()
    };
    assert_eq!(call(&["start", &bundle.id]).status.code(), Some(0));
    let exec = call(&["exec", &bundle.id, "sh", "-c", "echo $TERM"]);
    assert_eq!(exec.stdout, b"xterm\n", "{}", stderr(&exec));
    let missing =
        call(&["run", "-b", bundle.path().to_str().unwrap(), "--config", "no.json", "other"]);
    assert!(stderr(&missing).contains("JSON specification file no.json not found"));
}

#[test]
fn without_a_cgroup_of_its_own_a_container_stays_in_the_callers() {
    if !ours_only() {
        return;
    }
    let mut bundle = Bundle::new("exec sleep 100");
    bundle.linux()["resources"]["pids"] = json!({"limit": 33});
    let path = bundle.path().to_str().unwrap();
    let log = bundle.path().join("log");
    let log_path = log.to_str().unwrap();
    bundle.detached(&[
        "--log",
        log_path,
        "--cgroup-manager",
        "disabled",
        "create",
        "-b",
        path,
        &bundle.id,
    ]);
    bundle.detached(&["start", &bundle.id]);
    let place = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(place(&bundle.pid().to_string()), place("self"));
    assert!(fs::read_to_string(&log).unwrap().contains("ignoring linux.resources"));
    assert_eq!(bundle.ok(&["exec", &bundle.id, "sh", "-c", "echo in"]), "in\n");
    for refused in [vec!["pause", &bundle.id], vec!["update", "--memory", "9m", &bundle.id]] {
        let output = bundle.call(&refused);
        let words = "the container has no cgroup of its own";
        assert!(stderr(&output).contains(words), "{refused:?}: {}", stderr(&output));
    }
    let pid = bundle.pid();
    bundle.ok(&["kill", "--all", &bundle.id, "KILL"]);
    bundle.wait_gone(pid);
    bundle.ok(&["delete", &bundle.id]);
    let output = bundle.call(&["--cgroup-manager", "other", "state", &bundle.id]);
    assert!(stderr(&output).contains("unknown cgroup manager specified: other"));
}

#[test]
fn kill_and_delete_take_a_pattern_for_the_ids() {
    if !ours_only() {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    let names = ["web-1", "web-2", "data-1"].map(|name| format!("{}-{name}", bundle.id));
    for name in &names {
        let mut bundle_config = bundle.config.clone();
        bundle_config["linux"]["cgroupsPath"] = json!(format!("/{name}"));
        let directory = bundle.path().join(name);
        fs::create_dir(&directory).unwrap();
        bundle_config["root"]["path"] = json!(bundle.rootfs());
        fs::write(directory.join("config.json"), bundle_config.to_string()).unwrap();
        bundle.detached(&["run", "-d", "-b", directory.to_str().unwrap(), name]);
    }
    let pids = || bundle.ok(&["list", "-f", "json"]);
    bundle.ok(&["kill", "--regex", "web-[12]$", "KILL"]);
    bundle.ok(&["delete", "--force", "-r", "web-(1|2)$"]);
    assert!(pids().contains("data-1") && !pids().contains("web"), "{}", pids());
    let wrong = bundle.call(&["delete", "-f", "--regex", "("]);
    assert!(stderr(&wrong).contains("invalid regular expression \\\"(\\\""), "{}", stderr(&wrong));
    bundle.ok(&["delete", "--force", "--regex", "."]);
    assert_eq!(bundle.ok(&["list", "-q"]), "");
}

#[test]
fn list_wants_the_root_it_is_told_of() {
    let bundle = Bundle::new("true");
    let root = bundle.path().join("nowhere");
    let output = bundle.call(&["--root", root.to_str().unwrap(), "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no such file or directory"), "{}", stderr(&output));
}

#[test]
fn help_has_the_name_it_was_called_by() {
    if !ours_only() {
        return;
    }
    let bundle = Bundle::new("true");
    let name = bundle.path().join("other-name");
    std::os::unix::fs::symlink(binary(), &name).unwrap();
    for (arguments, second) in [
        (vec!["-h"], "   other-name - Open Container"),
        (vec!["kill", "-h"], "   other-name kill "),
    ] {
        let output = Command::new(&name).args(&arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with(second), "{arguments:?}: {text}");
    }
}

#[test]
fn explain_tells_what_run_would_do_and_does_nothing() {
    if !ours_only() {
        return;
    }
    let mut bundle = Bundle::new("true");
    bundle.add_mount(json!({
        "destination": "/data", "type": "bind", "source": bundle.path(), "options": ["bind", "ro"],
    }));
    bundle.config["hooks"] = json!({"poststop": [{"path": "/bin/after"}]});
    let path = bundle.path().to_str().unwrap().to_owned();
    let text = bundle.ok(&["explain", &path]);
    let has = |what: &str, value: &str| {
        let found = text.lines().any(|line| {
            line.split_once(' ').is_some_and(|(name, rest)| name == what && rest.trim() == value)
        });
        assert!(found, "{what} {value}: {text}");
    };
    has("root", &bundle.rootfs().display().to_string());
    has("namespaces", "mount pid network ipc uts");
    has("mount", &format!("/data <- {path}, read-only"));
    has("device", "/dev/null c 1:3");
    has("user", "0:0");
    has("rlimit", "7 256 512");
    has("capabilities", "CAP_CHOWN CAP_KILL CAP_NET_BIND_SERVICE");
    has("hook", "poststop /bin/after");
    has("exec", "/bin/sh -c true");
    assert!(!bundle.root().exists());
    bundle.config["process"]["cwd"] = json!("");
    let output = bundle.call(&["explain", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("Cwd property must not be empty"), "{}", stderr(&output));
}
