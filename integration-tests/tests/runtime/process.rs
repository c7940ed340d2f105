//! What the process in the container finds itself to be.

use std::process::Stdio;

use serde_json::json;

use crate::bundle::{Bundle, ours_only, stderr};

#[test]
fn user_groups_umask_and_home_are_as_configured() {
    let mut bundle = Bundle::new("id -u; id -g; grep Groups /proc/self/status; umask; echo $HOME");
    std::fs::create_dir(bundle.rootfs().join("etc")).unwrap();
    let passwd = "root:x:0:0::/root:/bin/sh\napp:x:7:8::/srv/app:/bin/sh\n";
    std::fs::write(bundle.rootfs().join("etc/passwd"), passwd).unwrap();
    bundle.process()["user"] =
        json!({"uid": 7, "gid": 8, "additionalGids": [9, 10], "umask": 0o077});
    let output = bundle.output();
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(words, ["7", "8", "Groups:", "9", "10", "0077", "/srv/app"]);
}

#[test]
fn capabilities_limits_and_no_new_privs_are_as_configured() {
    let mut bundle = Bundle::new(
        "grep -E 'Cap|NoNewPrivs' /proc/self/status; ulimit -n; ulimit -H -n; cat /proc/self/oom_score_adj",
    );
    bundle.process()["oomScoreAdj"] = json!(77);
    let output = bundle.output();
    let sets = "0000000000000421";
    for line in [
        "CapInh:\t0000000000000000".to_owned(),
        format!("CapPrm:\t{sets}"),
        format!("CapEff:\t{sets}"),
        format!("CapBnd:\t{sets}"),
        "CapAmb:\t0000000000000000".to_owned(),
        "NoNewPrivs:\t1".to_owned(),
    ] {
        assert!(output.contains(&line), "{line} in {output}");
    }
    assert!(output.ends_with("256\n512\n77\n"), "{output}");
}

#[test]
fn an_ambient_capability_that_is_not_inheritable_is_told_and_passed_over() {
    let mut bundle = Bundle::new("grep CapAmb /proc/self/status");
    let sets = &mut bundle.process()["capabilities"];
    sets["inheritable"] = json!(["CAP_KILL"]);
    sets["ambient"] = json!(["CAP_KILL", "CAP_CHOWN"]);
    let output = bundle.run();
    assert_eq!(output.stdout, b"CapAmb:\t0000000000000020\n");
    let words = "can't raise ambient capability CAP_CHOWN: operation not permitted";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
}

#[test]
fn no_signal_is_blocked_or_ignored() {
    if !ours_only() {
        return; // what the C library of who spawns it has left ignored, stock hands on
    }
    let mut bundle = Bundle::new("");
    bundle.process()["args"] = json!(["grep", "Sig[BI]", "/proc/self/status"]);
    assert_eq!(bundle.output(), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[test]
fn a_filter_refuses_what_the_profile_refuses() {
    let mut bundle = Bundle::new("grep Seccomp: /proc/self/status; mkdir /tmp/x");
    bundle.linux()["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    });
    for no_new_privileges in [true, false] {
        bundle.process()["noNewPrivileges"] = json!(no_new_privileges);
        let output = bundle.run();
        assert_eq!(output.stdout, b"Seccomp:\t2\n", "{}", stderr(&output));
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("Operation not permitted"));
    }
}

#[test]
fn namespaces_can_be_joined_by_path() {
    let first = Bundle::new("sleep 100");
    first.start();
    let pid = first.pid();
    let mut second = Bundle::new(
        "readlink /proc/self/ns/net; readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc",
    );
    for namespace in second.linux()["namespaces"].as_array_mut().unwrap() {
        let name = match namespace["type"].as_str().unwrap() {
            "network" => "net",
            "pid" => "pid",
            "ipc" => "ipc",
            _ => continue,
        };
        namespace["path"] = json!(format!("/proc/{pid}/ns/{name}"));
    }
    let output = second.output();
    for (line, name) in output.lines().zip(["net", "pid", "ipc"]) {
        let theirs = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(line, theirs.to_str().unwrap());
    }
    assert_eq!(output.lines().count(), 3);
}

#[test]
fn a_user_namespace_and_a_time_namespace_of_another_can_be_joined() {
    // Old releases know no time namespaces.
    if !ours_only() {
        return;
    }
    let mut first = Bundle::new("sleep 100");
    first.use_user_namespace();
    first.linux()["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    first.linux()["timeOffsets"] = json!({"monotonic": {"secs": 5_000_000, "nanosecs": 0}});
    first.start();
    let mut second = Bundle::new("readlink /proc/self/ns/user; readlink /proc/self/ns/time");
    second.use_user_namespace();
    let linux = second.linux().as_object_mut().unwrap();
    drop((linux.remove("uidMappings"), linux.remove("gidMappings")));
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", first.pid());
    let joined = ["user", "time", "pid", "ipc", "uts"];
    let spaces: Vec<_> = joined
        .iter()
        .map(|kind| json!({"type": kind, "path": path(kind)}))
        .chain([json!({"type": "mount"}), json!({"type": "network", "path": path("net")})])
        .collect();
    second.linux()["namespaces"] = json!(spaces);
    let link = |kind: &str| std::fs::read_link(path(kind)).unwrap().display().to_string();
    assert_eq!(second.output(), format!("{}\n{}\n", link("user"), link("time")));
}

#[test]
fn a_user_namespace_is_mapped_and_owned() {
    let mut bundle = Bundle::new("id -u; cat /proc/self/uid_map; touch /made; echo $?");
    bundle.use_user_namespace();
    let output = bundle.output();
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536", "0"]);
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(std::fs::metadata(bundle.rootfs().join("made")).unwrap().uid(), 100_000);
}

#[test]
fn sysctls_and_names_are_set() {
    let mut bundle = Bundle::new(
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax \
         /proc/sys/kernel/hostname /proc/sys/kernel/domainname",
    );
    bundle.linux()["sysctl"] =
        json!({"net.ipv4.ip_unprivileged_port_start": "77", "kernel.shmmax": "1234567"});
    bundle.config["domainname"] = json!("test.domain");
    // Compat: the domain name came with runtime-spec 1.1; older runtimes pass over it.
    let output = bundle.output();
    assert!(output.starts_with("77\n1234567\ntesthost\n"), "{output}");
    if crate::bundle::ours_only() {
        assert!(output.ends_with("test.domain\n"), "{output}");
    }
}

#[test]
fn a_sysctl_of_the_host_is_refused() {
    let mut bundle = Bundle::new("true");
    bundle.linux()["sysctl"] = json!({"kernel.core_pattern": "|/bin/sh"});
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("is not in a separate kernel namespace"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn only_preserved_descriptors_reach_the_container() {
    // The shell's own listing opens one more descriptor, for the directory.
    let bundle = Bundle::new("ls /proc/self/fd; cat <&3");
    let file = bundle.path().join("given");
    std::fs::write(&file, "preserved\n").unwrap();
    let runtime = bundle.command(&[]);
    let script = format!(
        "exec 3<{} 4</dev/null 5</dev/null; exec {} --root {} run --preserve-fds 1 --bundle {} {}",
        file.display(),
        runtime.get_program().to_str().unwrap(),
        bundle.root().display(),
        bundle.path().display(),
        bundle.id
    );
    let output = std::process::Command::new("/bin/sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "0\n1\n2\n3\n4\npreserved\n",
        "{}",
        stderr(&output)
    );
}

#[test]
fn unknown_fields_and_newer_versions_are_no_error() {
    let mut bundle = Bundle::new("echo fine");
    bundle.config["ociVersion"] = json!("1.3.0");
    bundle.config["future"] = json!({"field": [1]});
    bundle.linux()["future"] = json!(true);
    assert_eq!(bundle.output(), "fine\n");
}

#[test]
fn limits_that_cannot_be_are_told_whoever_sets_them() {
    for user_namespace in [false, true] {
        let mut bundle = Bundle::new("true");
        if user_namespace {
            bundle.use_user_namespace();
        }
        bundle.process()["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 5, "soft": 9}]);
        let output = bundle.run();
        assert_eq!(output.status.code(), Some(1));
        let words = "unable to start container process: error during container init: error setting \
                     rlimits for ready process: error setting rlimit type 7: invalid argument";
        assert!(stderr(&output).contains(words), "{user_namespace}: {}", stderr(&output));
    }
}

#[test]
fn the_loopback_interface_of_a_new_network_is_up() {
    let bundle = Bundle::new("cat /sys/class/net/lo/flags");
    assert_eq!(bundle.output(), "0x9\n");
}

#[test]
fn a_filter_may_deny_what_only_the_runtime_needs() {
    if !crate::bundle::ours_only() {
        // runc's own init needs more.
        return;
    }
    let mut bundle = Bundle::new("echo ran");
    bundle.process()["noNewPrivileges"] = json!(false);
    bundle.linux()["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getcwd", "chdir"], "action": "SCMP_ACT_ERRNO"}],
    });
    assert_eq!(bundle.output(), "ran\n");
}
