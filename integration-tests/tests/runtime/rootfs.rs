//! Mounts, devices, masked and read-only paths.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::json;

use crate::bundle::{Bundle, ours_only, stderr};

/// The line of `/proc/self/mountinfo` for a mount point, without its numbers.
fn mount_of<'a>(mountinfo: &'a str, point: &str) -> Vec<&'a str> {
    let line = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some(point));
    line.unwrap_or_else(|| panic!("{point} is no mount:\n{mountinfo}")).split(' ').skip(4).collect()
}

#[test]
fn binds_have_the_options_asked_for() {
    let mut bundle = Bundle::new("cat /proc/self/mountinfo; cat /ro/file /single");
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content\n").unwrap();
    for (destination, from, options) in [
        ("/ro", source.clone(), vec!["rbind", "ro", "rprivate"]),
        ("/rw", source.clone(), vec!["bind", "nosuid", "noexec"]),
        ("/single", source.join("file"), vec!["rbind", "rprivate"]),
    ] {
        bundle.add_mount(json!({
            "destination": destination, "type": "bind", "source": from, "options": options,
        }));
    }
    let output = bundle.output();
    assert!(output.ends_with("content\ncontent\n"), "{output}");
    let options = |point: &str| mount_of(&output, point)[1].to_owned();
    assert!(options("/ro").starts_with("ro,"), "{output}");
    assert!(options("/rw").starts_with("rw,nosuid,noexec"), "{output}");
    assert!(options("/single").starts_with("rw"), "{output}");
}

#[test]
fn a_tmpfs_may_start_with_what_it_covers() {
    let mut bundle = Bundle::new("cat /data/below/file; touch /data/new; ls -l /data/below");
    fs::create_dir_all(bundle.rootfs().join("data/below")).unwrap();
    fs::write(bundle.rootfs().join("data/below/file"), "copied\n").unwrap();
    bundle.add_mount(json!({
        "destination": "/data", "type": "tmpfs", "source": "tmpfs",
        "options": ["tmpcopyup", "nosuid"],
    }));
    assert!(bundle.output().starts_with("copied\n"));
    assert!(!bundle.rootfs().join("data/new").exists());
}

#[test]
fn standard_streams_that_are_the_null_device_become_the_containers() {
    let with_dev = |bundle: &mut Bundle| {
        bundle.add_mount(
            json!({"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]}),
        );
    };
    for (changed, inside) in [(None, true), (Some(&with_dev), false)] {
        let mut bundle = Bundle::new("exec sleep 1000");
        if let Some(change) = changed {
            change(&mut bundle);
        }
        bundle.start();
        let pid = bundle.pid();
        let host = fs::metadata("/dev/null").unwrap();
        for stream in 0..3 {
            let file = fs::metadata(format!("/proc/{pid}/fd/{stream}")).unwrap();
            assert_eq!(file.dev() == host.dev(), !inside, "stream {stream}");
            assert_eq!(file.rdev(), host.rdev(), "stream {stream}");
        }
        bundle.ok(&["delete", "--force", &bundle.id]);
    }
}

#[test]
fn a_mount_source_that_is_missing_is_named() {
    let mut bundle = Bundle::new("true");
    bundle.add_mount(json!({
        "destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["rbind"],
    }));
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("/no/such/source") && text.contains("no such file or directory"),
        "{text}"
    );
}

#[test]
fn masked_paths_are_empty_and_readonly_paths_are_read_only() {
    let mut bundle = Bundle::new(
        "cat /proc/keys; ls /secret; cat /single; echo 1 > /proc/sys/net/ipv4/ip_forward; echo $?; \
         touch /fixed/x; echo $?",
    );
    fs::create_dir(bundle.rootfs().join("secret")).unwrap();
    fs::write(bundle.rootfs().join("secret/inside"), "x").unwrap();
    fs::write(bundle.rootfs().join("single"), "x").unwrap();
    fs::create_dir(bundle.rootfs().join("fixed")).unwrap();
    let masked = bundle.linux()["maskedPaths"].as_array_mut().unwrap();
    masked.extend([json!("/secret"), json!("/single"), json!("/absent")]);
    let fixed = bundle.linux()["readonlyPaths"].as_array_mut().unwrap();
    fixed.extend([json!("/fixed"), json!("/absent")]);
    assert_eq!(bundle.output(), "1\n1\n");
}

#[test]
fn a_read_only_root_cannot_be_written() {
    let mut bundle = Bundle::new("touch /x; echo $?; touch /dev/x; echo $?");
    bundle.config["root"]["readonly"] = json!(true);
    assert_eq!(bundle.output(), "1\n0\n");
}

#[test]
fn devices_have_number_mode_and_owner() {
    let mut bundle = Bundle::new(
        "busybox stat -c '%t %T %a %u %g' /dev/null /dev/extra; readlink /dev/ptmx; readlink /dev/fd; \
         echo x > /dev/full; echo $?",
    );
    bundle.linux()["devices"] = json!([{
        "path": "/dev/extra", "type": "c", "major": 1, "minor": 7, "fileMode": 0o640, "uid": 5,
        "gid": 6,
    }]);
    assert_eq!(bundle.output(), "1 3 666 0 0\n1 7 640 5 6\npts/ptmx\n/proc/self/fd\n1\n");
}

#[test]
fn device_rules_hold() {
    let mut bundle = Bundle::new("cat /dev/extra > /dev/null; echo $?");
    // The kernel's ring buffer: not among the devices that are always allowed.
    bundle.linux()["devices"] =
        json!([{"path": "/dev/extra", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}]);
    assert_eq!(bundle.output(), "1\n");
}

#[test]
fn a_working_directory_that_is_missing_is_made() {
    let mut bundle = Bundle::new("pwd");
    bundle.process()["cwd"] = json!("/made/for/you");
    assert_eq!(bundle.output(), "/made/for/you\n");
}

#[test]
fn the_cgroup_mount_shows_only_our_own() {
    let mut bundle = Bundle::new("ls /sys/fs/cgroup; cat /proc/self/cgroup");
    bundle.linux()["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
    bundle.add_mount(json!({
        "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
    }));
    let output = bundle.output();
    assert!(output.contains("pids"), "{output}");
    for line in output.lines().filter(|line| line.contains(':')) {
        assert!(line.ends_with(":/"), "{output}");
    }
}

#[test]
fn a_dangling_link_of_the_image_is_followed_inside_the_root() {
    let script = "cat /etc/resolv.conf /run/resolve/stub.conf /linked/made/file";
    let mut bundle = Bundle::new(script);
    let etc = bundle.rootfs().join("etc");
    fs::create_dir(&etc).unwrap();
    std::os::unix::fs::symlink("../run/resolve/stub.conf", etc.join("resolv.conf")).unwrap();
    std::os::unix::fs::symlink("/nowhere/yet", bundle.rootfs().join("linked")).unwrap();
    let source = bundle.path().join("source");
    fs::write(&source, "mounted\n").unwrap();
    for destination in ["/etc/resolv.conf", "/linked/made/file"] {
        bundle.add_mount(json!({
            "destination": destination, "type": "bind", "source": source, "options": ["bind"],
        }));
    }
    assert_eq!(bundle.output(), "mounted\n".repeat(3));
    assert!(bundle.rootfs().join("run/resolve/stub.conf").is_file());
    assert!(bundle.rootfs().join("nowhere/yet/made/file").is_file());
    assert!(!std::path::Path::new("/nowhere").exists());
}

#[test]
fn a_later_mount_may_take_what_an_earlier_one_brings() {
    let mut bundle = Bundle::new("cat /first/below/file /second/file");
    let source = bundle.path().join("source");
    fs::create_dir_all(source.join("below")).unwrap();
    fs::write(source.join("below/file"), "there\n").unwrap();
    let inside = bundle.rootfs().join("first/below");
    // The root's own place on the host may stand before a destination.
    let second = bundle.rootfs().join("second");
    for (from, to) in
        [(source.as_path(), std::path::Path::new("/first")), (&inside, second.as_path())]
    {
        bundle.add_mount(json!({
            "destination": to, "type": "bind", "source": from, "options": ["rbind"],
        }));
    }
    assert_eq!(bundle.output(), "there\nthere\n");
}

#[test]
fn a_path_named_twice_is_masked_once() {
    let mut bundle = Bundle::new("grep -c ' /secret ' /proc/self/mountinfo");
    fs::create_dir(bundle.rootfs().join("secret")).unwrap();
    let masked = bundle.linux()["maskedPaths"].as_array_mut().unwrap();
    masked.extend([json!("/secret"), json!("/secret"), json!("/secret/")]);
    assert_eq!(bundle.output(), "1\n");
}

#[test]
fn more_mounts_than_the_process_may_hold_files_are_no_problem() {
    let mut bundle = Bundle::new("grep -c ' /m/' /proc/self/mountinfo; ulimit -n");
    bundle.process()["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 64, "soft": 64}]);
    let mapping = json!([{"containerID": 0, "hostID": 0, "size": 65_536}]);
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..100 {
        bundle.add_mount(json!({
            "destination": format!("/m/{number}"), "type": "bind", "source": source,
            "options": ["bind"], "uidMappings": mapping, "gidMappings": mapping,
        }));
    }
    assert_eq!(bundle.output(), "100\n64\n");
}

#[test]
fn proc_behind_a_link_is_refused_in_runcs_words() {
    let bundle = Bundle::new("true");
    fs::create_dir(bundle.rootfs().join("real")).unwrap();
    drop(fs::remove_dir(bundle.rootfs().join("proc")));
    std::os::unix::fs::symlink("/real", bundle.rootfs().join("proc")).unwrap();
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    let words = "must be mounted on ordinary directory";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
}

#[test]
fn in_a_user_namespace_a_bind_keeps_what_its_source_may_not() {
    // Older releases make such binds otherwise.
    if !ours_only() {
        return;
    }
    let inside = |options: &[&str]| {
        let mut bundle = Bundle::new("grep ' /mnt ' /proc/self/mountinfo");
        bundle.use_user_namespace();
        // The test's own mount: made and taken away in a namespace of the runtime's.
        let source = bundle.path().join("source");
        fs::create_dir(&source).unwrap();
        bundle.add_mount(json!({
            "destination": "/mnt", "type": "bind", "source": source, "options": options,
        }));
        let run = bundle.command(&["run", "-b", bundle.path().to_str().unwrap(), &bundle.id]);
        let script = format!(
            "mount -t tmpfs none {0} && mount --bind -o remount,ro,noexec,nosymfollow {0} && \
             exec \"$@\"",
            source.display()
        );
        let mut command = std::process::Command::new("unshare");
        command.args(["-m", "sh", "-c", &script, "sh"]).arg(run.get_program()).args(run.get_args());
        command.output().unwrap()
    };
    let output = inside(&["bind", "nodev"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let flags = text.split(' ').nth(5).unwrap_or_else(|| panic!("{}", stderr(&output)));
    assert_eq!(flags, "ro,nodev,noexec,relatime");
    let output = inside(&["bind", "rw"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("operation not permitted"), "{}", stderr(&output));
}
