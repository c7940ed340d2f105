//! Kernels and sandboxes that lack a system call, and a runtime that is killed half-way.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bundle::{Bundle, ours_only, stderr};

/// Runs `command` of the runtime where the named system calls do not exist: inside a container of
/// ours that has the host's root and a filter.
pub(crate) fn without(calls: &[&str], inner: &Bundle, arguments: &[&str]) -> std::process::Output {
    let mut outer = Bundle::new("");
    let command = inner.command(arguments);
    let mut args = vec![command.get_program().to_str().unwrap().to_owned()];
    args.extend(command.get_args().map(|argument| argument.to_str().unwrap().to_owned()));
    let features: Value = serde_json::from_str(&inner.ok(&["features"])).unwrap();
    let all = &features["linux"]["capabilities"];
    outer.config["process"] = json!({
        "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/",
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        "capabilities": {"bounding": all, "effective": all, "permitted": all},
    });
    outer.config["root"] = json!({"path": "/"});
    outer.config["mounts"] = json!([
        {"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]},
    ]);
    outer.config["hostname"] = json!("");
    let linux = outer.linux();
    linux["namespaces"] = json!([{"type": "mount"}]);
    linux["maskedPaths"] = json!([]);
    linux["readonlyPaths"] = json!([]);
    linux["resources"] = json!({"devices": [{"allow": true, "access": "rwm"}]});
    linux["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": calls, "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
    });
    outer.run()
}

/// The mounts as the container sees them, without the numbers that change.
fn mounts(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.contains(" - "))
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let kind = line.split_once(" - ").unwrap().1.split(' ').next().unwrap();
            // Optional fields hold peer groups: only their kind is the same each time.
            let shared: Vec<&str> = fields[6..]
                .iter()
                .take_while(|field| **field != "-")
                .map(|field| field.split(':').next().unwrap())
                .collect();
            format!("{} {} {shared:?} {kind}", fields[4], fields[5])
        })
        .collect()
}

#[test]
fn a_container_is_the_same_where_newer_system_calls_are_missing() {
    if !ours_only() {
        return;
    }
    let mut bundle = Bundle::new(
        "cat /proc/self/mountinfo /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /proc/self/fd",
    );
    let host = bundle.path().join("host");
    std::fs::create_dir(&host).unwrap();
    for (destination, options) in [
        ("/plain", json!(["rbind", "rprivate"])),
        ("/ro", json!(["rbind", "ro", "nosuid", "noexec"])),
        ("/noatime", json!(["bind", "noatime", "nodev"])),
        ("/strict", json!(["bind", "strictatime"])),
        ("/shared", json!(["bind", "rshared"])),
    ] {
        bundle.add_mount(json!({
            "destination": destination, "type": "bind", "source": host, "options": options,
        }));
    }
    bundle.add_mount(json!({
        "destination": "/late", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "mode=755"],
    }));
    bundle.config["root"]["readonly"] = json!(true);
    bundle.linux()["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
    let wanted = bundle.output();
    assert!(mounts(&wanted).iter().any(|line| line.starts_with("/ro ro,nosuid,noexec")));
    let directory = bundle.path().to_str().unwrap();
    for calls in [
        ["mount_setattr"].as_slice(),
        &["clone3"],
        &["close_range"],
        &["fsopen"],
        &["mount_setattr", "clone3", "close_range", "fsopen", "statx"],
    ] {
        let output = without(calls, &bundle, &["run", "--bundle", directory, &bundle.id]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{calls:?}: {}", stderr(&output));
        assert_eq!(mounts(&text), mounts(&wanted), "{calls:?}");
        let tail =
            |text: &str| text.rsplit_once(" - ").unwrap().1.split_once('\n').unwrap().1.to_owned();
        assert_eq!(tail(&text), tail(&wanted), "{calls:?}");
    }
}

#[test]
fn exec_works_where_newer_system_calls_are_missing() {
    if !ours_only() {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let calls = ["clone3", "close_range", "mount_setattr"];
    let output = without(&calls, &bundle, &["exec", &bundle.id, "sh", "-c", "pwd; exit 6"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(6), b"/\n".as_slice()));
}

#[test]
fn processes_are_in_every_cgroup_whatever_way_in_the_kernel_has() {
    if !ours_only() {
        return;
    }
    let bundle = Bundle::new("cat /proc/self/cgroup; sleep 100");
    bundle.start();
    let places = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let wanted = places(&bundle.pid().to_string());
    let own: Vec<&str> = wanted.lines().filter(|line| line.ends_with(&bundle.id)).collect();
    let mounted = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounted = mounted.lines().filter(|line| line.contains(" - cgroup")).count();
    assert_eq!(own.len(), mounted, "{wanted}");
    let exec = ["exec", &bundle.id, "cat", "/proc/self/cgroup"];
    assert_eq!(bundle.ok(&exec), wanted);
    let output = without(&["clone3"], &bundle, &exec);
    assert_eq!(String::from_utf8_lossy(&output.stdout), wanted, "{}", stderr(&output));

    let bundle = Bundle::new("cat /proc/self/cgroup");
    let directory = bundle.path().to_str().unwrap();
    let output = without(&["clone3"], &bundle, &["run", "--bundle", directory, &bundle.id]);
    let text = String::from_utf8_lossy(&output.stdout);
    let own = text.lines().filter(|line| line.ends_with(&bundle.id));
    assert_eq!(own.count(), mounted, "{text} {}", stderr(&output));
}

#[test]
fn options_that_need_a_newer_kernel_are_refused_without_it() {
    if !ours_only() {
        return;
    }
    let mut bundle = Bundle::new("true");
    bundle.add_mount(json!({
        "destination": "/m", "type": "bind", "source": "/tmp", "options": ["rbind", "rro"],
    }));
    let directory = bundle.path().to_str().unwrap();
    let output = without(&["mount_setattr"], &bundle, &["run", "--bundle", directory, &bundle.id]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("function not implemented"), "{}", stderr(&output));
}

/// What is there of a container: processes that carry its id, groups, the state.
pub(crate) fn remains(bundle: &Bundle) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.split(' ').any(|word| word == bundle.id) {
            found.push(format!("process {:?}: {command}", entry.file_name()));
        }
    }
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let places = hierarchies.map(|entry| entry.path().join(&bundle.id));
    let more = [PathBuf::from("/sys/fs/cgroup").join(&bundle.id), bundle.root().join(&bundle.id)];
    found.extend(places.chain(more).filter(|path| path.exists()).map(|p| p.display().to_string()));
    found
}

/// Runs `arguments` and kills the runtime after `delay`.
fn kill_after(bundle: &Bundle, arguments: &[&str], delay: Duration) {
    let mut command = bundle.command(arguments);
    let begin = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Shorter than a timer is exact.
    while begin.elapsed() < delay {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

fn delete_leaves_nothing(bundle: &Bundle, what: &str) {
    bundle.ok(&["delete", "--force", &bundle.id]);
    let patience = Instant::now();
    loop {
        let found = remains(bundle);
        if found.is_empty() {
            return;
        }
        assert!(patience.elapsed() < Duration::from_secs(10), "{what}: {found:#?}");
        std::thread::yield_now();
    }
}

/// `prepare`, then `arguments` killed at moments spread over the time it takes.
fn killed_at_any_moment(bundle: &Bundle, prepare: &dyn Fn(), arguments: &[&str], rounds: u32) {
    prepare();
    let begin = Instant::now();
    let mut command = bundle.command(arguments);
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    let whole = begin.elapsed();
    delete_leaves_nothing(bundle, "unharmed");
    for round in 0..rounds {
        prepare();
        let delay = whole * round / rounds;
        kill_after(bundle, arguments, delay);
        delete_leaves_nothing(bundle, &format!("{arguments:?} killed after {delay:?}"));
    }
}

#[test]
fn a_create_killed_at_any_moment_can_be_deleted() {
    let bundle = Bundle::new("sleep 100");
    let directory = bundle.path().to_str().unwrap();
    let create = ["create", "--bundle", directory, &bundle.id];
    killed_at_any_moment(&bundle, &|| (), &create, 40);
    bundle.start();
    assert_eq!(bundle.status(), "running");
}

#[test]
fn a_create_through_a_stage_killed_at_any_moment_can_be_deleted() {
    let first = Bundle::new("sleep 100");
    first.start();
    let mut bundle = Bundle::new("sleep 100");
    for namespace in bundle.linux()["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "pid" {
            namespace["path"] = json!(format!("/proc/{}/ns/pid", first.pid()));
        }
    }
    let directory = bundle.path().to_str().unwrap();
    let create = ["create", "--bundle", directory, &bundle.id];
    killed_at_any_moment(&bundle, &|| (), &create, 20);
}

#[test]
fn a_start_killed_at_any_moment_can_be_deleted() {
    let bundle = Bundle::new("sleep 100");
    let directory = bundle.path().to_str().unwrap();
    let prepare = || bundle.detached(&["create", "--bundle", directory, &bundle.id]);
    killed_at_any_moment(&bundle, &prepare, &["start", &bundle.id], 20);
}

#[test]
fn an_exec_killed_at_any_moment_can_be_deleted() {
    let bundle = Bundle::new("sleep 100");
    let exec = ["exec", "--detach", &bundle.id, "sleep", "100"];
    // Few: what is left by each is reaped when the host's init comes to it; `killed` goes call by call.
    killed_at_any_moment(&bundle, &|| bundle.start(), &exec, 8);
}

#[test]
fn a_delete_killed_at_any_moment_can_be_done_again() {
    let bundle = Bundle::new("sleep 100");
    let delete = ["delete", "--force", &bundle.id];
    killed_at_any_moment(&bundle, &|| bundle.start(), &delete, 20);
}

#[test]
fn a_container_whose_runtime_dies_before_the_hand_over_ends() {
    if !ours_only() {
        return;
    }
    // The hook kills its parent: the runtime, in the middle of create.
    let mut bundle = Bundle::new("sleep 100");
    bundle.config["hooks"]["createRuntime"] =
        json!([{"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"]}]);
    let directory = bundle.path().to_str().unwrap();
    let status = bundle
        .command(&["create", "--bundle", directory, &bundle.id])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), None, "killed");
    // Init notices by itself.
    let patience = Instant::now();
    while bundle.status() != "stopped" {
        assert!(patience.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    let again = bundle.call(&["create", "--bundle", directory, &bundle.id]);
    assert!(stderr(&again).contains("container with given ID already exists"));
    delete_leaves_nothing(&bundle, "hook");
}

#[test]
fn a_start_that_was_killed_after_its_byte_does_not_look_created() {
    if !ours_only() {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    // What such a start leaves: the fifo, with nobody at its other end.
    let fifo = bundle.root().join(&bundle.id).join("exec.fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert_eq!(bundle.status(), "running");
}
