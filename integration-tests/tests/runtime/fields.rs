//! Fields of config.json that few callers set: each does what it says, or is refused by name.

use std::fs;

use serde_json::{Value, json};

use crate::bundle::{Bundle, ours_only, stderr};

/// Busybox under one more name.
fn applet(bundle: &Bundle, name: &str) {
    std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin").join(name)).unwrap();
}

/// Fields of `/proc/self/stat` from the third on.
fn stat(text: &str) -> Vec<&str> {
    text.rsplit_once(')').unwrap().1.split_whitespace().collect()
}

#[test]
fn a_scheduler_and_an_io_priority_hold_for_the_first_process_and_for_exec() {
    if !ours_only() {
        return;
    }
    let mut bundle = Bundle::new("sleep 100");
    applet(&bundle, "ionice");
    bundle.process()["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
    bundle.process()["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    bundle.start();
    let first = fs::read_to_string(format!("/proc/{}/stat", bundle.pid())).unwrap();
    // Nice is field 19 and the policy field 41, counted from 1.
    assert_eq!((stat(&first)[16], stat(&first)[38]), ("5", "3"), "{first}");
    let output = bundle.ok(&["exec", &bundle.id, "sh", "-c", "cat /proc/self/stat; ionice"]);
    let (line, priority) = output.split_once('\n').unwrap();
    assert_eq!((stat(line)[16], stat(line)[38]), ("5", "3"), "{output}");
    assert_eq!(priority, "best-effort: prio 6\n");
}

#[test]
fn a_personality_holds_for_the_first_process_and_for_exec() {
    if !ours_only() {
        return;
    }
    let mut bundle = Bundle::new("uname -m; sleep 100");
    applet(&bundle, "uname");
    bundle.linux()["personality"] = json!({"domain": "LINUX32"});
    bundle.start();
    assert_eq!(bundle.ok(&["exec", &bundle.id, "uname", "-m"]), "i686\n");
    bundle.ok(&["delete", "--force", &bundle.id]);
    let mut bundle = Bundle::new("uname -m");
    applet(&bundle, "uname");
    bundle.linux()["personality"] = json!({"domain": "LINUX32"});
    assert_eq!(bundle.output(), "i686\n");
}

#[test]
fn personality_flags_are_told_and_passed_over() {
    let mut bundle = Bundle::new("uname -m");
    applet(&bundle, "uname");
    bundle.linux()["personality"] = json!({"domain": "LINUX32", "flags": ["ADDR_NO_RANDOMIZE"]});
    let output = bundle.run();
    assert_eq!(output.stdout, b"i686\n");
    let words = "ignoring unsupported personality flags: [ADDR_NO_RANDOMIZE]";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
}

#[test]
fn memory_policies_that_cannot_be_are_refused_in_runcs_words() {
    for (mode, nodes, words) in [
        ("MPOL_DEFAULT", "0-7", "memory policy mode requires 0 nodes but got 8"),
        ("MPOL_BIND", "", "memory policy mode requires at least one node but got 0"),
        ("MPOL_BIND", "0-9876543210", "invalid memory policy node"),
        ("MPOL_OTHER", "0", "invalid memory policy mode"),
    ] {
        let mut bundle = Bundle::new("true");
        bundle.linux()["memoryPolicy"] = json!({"mode": mode, "nodes": nodes});
        let output = bundle.run();
        assert_eq!(output.status.code(), Some(1), "{mode}");
        assert!(stderr(&output).contains(words), "{mode}: {}", stderr(&output));
    }
}

#[test]
fn exec_runs_on_the_cpus_it_is_given() {
    if !ours_only() {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let file = bundle.path().join("process.json");
    let process = json!({
        "args": ["grep", "Cpus_allowed_list", "/proc/self/status"],
        "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0},
        "execCPUAffinity": {"initial": "0-1", "final": "0"},
    });
    fs::write(&file, process.to_string()).unwrap();
    let output = bundle.ok(&["exec", "--process", file.to_str().unwrap(), &bundle.id]);
    assert_eq!(output, "Cpus_allowed_list:\t0\n");
}

#[test]
fn a_bind_mount_can_map_its_owners() {
    if !ours_only() {
        return;
    }
    let mut bundle = Bundle::new("ls -ln /mapped; touch /mapped/made");
    let host = bundle.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "").unwrap();
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    bundle.add_mount(json!({
        "destination": "/mapped", "type": "bind", "source": host, "options": ["bind"],
        "uidMappings": mapping, "gidMappings": mapping,
    }));
    let output = bundle.run();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(" 1000     1000 "), "{text}{}", stderr(&output));
    // Root has no number on the other side of this mapping.
    assert!(stderr(&output).contains("Value too large"), "{}", stderr(&output));
    assert!(!host.join("made").exists());
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    if !ours_only() {
        return;
    }
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut bundle = Bundle::new("true");
        change(&mut bundle.config);
        let output = bundle.run();
        assert_eq!(output.status.code(), Some(1));
        assert!(!bundle.root().join(&bundle.id).exists());
        stderr(&output)
    };
    for (path, value, words) in [
        ("/linux/netDevices", json!({"a/b": {}}), "invalid network device name"),
        (
            "/linux/intelRdt",
            json!({"closID": "x"}),
            "intelRdt is specified in config, but Intel RDT is not enabled",
        ),
        ("/linux/personality", json!({"domain": "MIPS"}), "invalid personality domain"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_X"}), "invalid memory policy mode"),
        ("/process/scheduler", json!({"policy": "SCHED_X"}), "invalid scheduler policy"),
        ("/process/ioPriority", json!({"class": "X"}), "invalid ioPriority class"),
        (
            "/linux/timeOffsets",
            json!({"boottime": {"secs": 1}}),
            "time namespace offsets specified, but time namespace isn't enabled",
        ),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 0, "size": 1}]),
            "user namespace mappings specified, but user namespace isn't enabled",
        ),
    ] {
        let text = refused(&|config| {
            let (parent, name) = path.rsplit_once('/').unwrap();
            config.pointer_mut(parent).unwrap()[name] = value.clone();
        });
        assert!(text.contains(words), "{path}: {text}");
    }
}

#[test]
fn empty_values_of_refused_fields_are_no_error() {
    let mut bundle = Bundle::new("echo fine");
    bundle.linux()["netDevices"] = json!({});
    bundle.linux()["intelRdt"] = json!(null);
    bundle.linux()["mountLabel"] = json!("");
    bundle.process()["selinuxLabel"] = json!("");
    assert_eq!(bundle.output(), "fine\n");
}

#[test]
fn a_process_label_without_selinux_is_refused_in_runcs_words() {
    assert!(!std::path::Path::new("/sys/fs/selinux/enforce").exists(), "this host has SELinux");
    let mut bundle = Bundle::new("true");
    bundle.process()["selinuxLabel"] = json!("system_u:system_r:container_t:s0");
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    let words = "selinux label is specified in config, but selinux is disabled or not supported";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
}

#[test]
fn an_apparmor_profile_that_is_not_there_is_told_in_runcs_words() {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let cause = match enabled.as_deref().map(str::trim) {
        Ok("Y") => "apparmor/exec: no such file or directory",
        _ => "exec: invalid argument",
    };
    let words = format!("apparmor failed to apply profile: write /proc/self/attr/{cause}");
    let mut bundle = Bundle::new("true");
    bundle.process()["apparmorProfile"] = json!("no-such-profile");
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    let wanted = format!("error during container init: unable to apply apparmor profile: {words}");
    assert!(stderr(&output).contains(&wanted), "{}", stderr(&output));
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let output = bundle.call(&["exec", "--apparmor", "no-such-profile", &bundle.id, "true"]);
    assert_eq!(output.status.code(), Some(255));
    let wanted = format!("exec failed: unable to start container process: {words}");
    assert!(stderr(&output).contains(&wanted), "{}", stderr(&output));
}

#[test]
fn a_mount_label_without_selinux_is_told_and_passed_over() {
    if !ours_only() {
        return;
    }
    let mut bundle = Bundle::new("echo fine");
    bundle.linux()["mountLabel"] = json!("system_u:object_r:container_file_t:s0");
    let output = bundle.run();
    assert_eq!(output.stdout, b"fine\n");
    assert!(stderr(&output).contains("ignoring linux.mountLabel"), "{}", stderr(&output));
}

#[test]
fn paths_cannot_be_hidden_without_a_mount_namespace() {
    let mut bundle = Bundle::new("true");
    let namespaces = bundle.linux()["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "mount");
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    let words = "unable to restrict sys entries without a private MNT namespace";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
}
