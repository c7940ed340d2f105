//! One attack a test, after the record of runc, crun and youki. Every one must fail, whatever the
//! runtime answers, and the host must look as before. More of them in `escapes`, `races`, `adversary`; the
//! README has the table, with the runtime or the mutation of ours that each test was red on.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::bundle::{Bundle, ours_only, stderr};

/// CVE-2019-16884, CVE-2019-19921, CVE-2023-27561.
#[test]
fn a_proc_that_is_a_link_is_refused() {
    let bundle = Bundle::new("true");
    fs::create_dir(bundle.rootfs().join("elsewhere")).unwrap();
    symlink("elsewhere", bundle.rootfs().join("proc")).unwrap();
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("must be mounted on ordinary directory"),
        "{}",
        stderr(&output)
    );
}

/// The same, by a mount of the configuration on top.
#[test]
fn a_proc_that_is_a_volume_is_refused() {
    let mut bundle = Bundle::new("true");
    bundle.add_mount(json!({
        "destination": "/proc", "type": "bind", "source": "/tmp", "options": ["rbind"],
    }));
    assert_eq!(bundle.run().status.code(), Some(1));
}

/// CVE-2018-15664 and its kin: destinations that lead outside.
#[test]
fn a_mount_destination_cannot_leave_the_root() {
    let mut bundle = Bundle::new("cat /inside/file");
    let outside = bundle.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, bundle.rootfs().join("absolute")).unwrap();
    symlink("../../../../../../..", bundle.rootfs().join("up")).unwrap();
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "x\n").unwrap();
    for destination in ["/inside", "/up/relative"] {
        bundle.add_mount(json!({
            "destination": destination, "type": "bind", "source": source, "options": ["rbind"],
        }));
    }
    assert_eq!(bundle.output(), "x\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(bundle.rootfs().join("relative").is_dir());
}

/// CVE-2024-45310.
#[test]
fn nothing_is_made_behind_a_link_to_the_host() {
    let mut bundle = Bundle::new("true");
    let outside = bundle.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, bundle.rootfs().join("link")).unwrap();
    bundle.add_mount(json!({
        "destination": "/link/a/b", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"],
    }));
    // Inside the root the link dangles: refused, or made below the root.
    drop(bundle.run());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

/// CVE-2026-41579, CVE-2026-47766.
#[test]
fn a_dev_that_is_a_link_gets_no_device() {
    let mut bundle = Bundle::new("true");
    let outside = bundle.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, bundle.rootfs().join("dev")).unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    drop(bundle.run());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

/// CVE-2024-21626.
#[test]
fn a_working_directory_behind_a_descriptor_is_refused() {
    for number in 3..16 {
        let mut bundle = Bundle::new("pwd; ls -d ../../../../etc/shadow");
        bundle.process()["cwd"] = json!(format!("/proc/self/fd/{number}"));
        let output = bundle.run();
        assert!(!output.status.success(), "fd {number}");
        assert_eq!(output.stdout, b"", "fd {number}: {}", stderr(&output));
    }
}

/// CVE-2025-31133: only the null device masks, whatever bears its name.
#[test]
fn a_false_null_device_does_not_mask() {
    let mut bundle = Bundle::new("cat /secret");
    fs::write(bundle.rootfs().join("secret"), "hidden\n").unwrap();
    fs::write(bundle.rootfs().join("prize"), "prize\n").unwrap();
    fs::create_dir(bundle.rootfs().join("dev")).unwrap();
    symlink("/prize", bundle.rootfs().join("dev/null")).unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    bundle.linux()["maskedPaths"] = json!(["/secret"]);
    assert_eq!(bundle.run().stdout, b"");
}

/// CVE-2019-5736: what the container sees of the runtime cannot be opened for writing.
#[test]
fn the_runtimes_own_file_is_not_writable_through_its_process() {
    let bundle = Bundle::new("true");
    bundle.detached(&["create", "--bundle", bundle.path().to_str().unwrap(), &bundle.id]);
    let exe = format!("/proc/{}/exe", bundle.pid());
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let handle = rustix::fs::open(exe, flags, rustix::fs::Mode::empty()).unwrap();
    bundle.ok(&["delete", "--force", &bundle.id]);
    // A handle taken before must not lead to the file for writing either.
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    assert!(fs::OpenOptions::new().write(true).open(path).is_err());
    if ours_only() {
        // Parallel tests keep the file busy, which would hide a writable mount.
        let mount = rustix::fs::fstatvfs(&handle).unwrap();
        assert!(mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    }
}

/// CVE-2026-30892.
#[test]
fn a_user_that_is_no_number_is_refused() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    for user in ["", "root", "-1", "1:", "4294967296"] {
        let output = bundle.call(&["exec", "--user", user, &bundle.id, "id", "-u"]);
        assert_eq!(output.status.code(), Some(255), "{user:?}");
    }
}

#[test]
fn a_descriptor_the_caller_did_not_open_cannot_be_preserved() {
    if !crate::bundle::ours_only() {
        return;
    }
    // The runtime's own descriptors have such numbers by then: none may reach the container.
    let bundle = Bundle::new("ls /proc/self/fd");
    let directory = bundle.path().to_str().unwrap();
    let output = bundle.call(&["run", "--preserve-fds", "5", "--bundle", directory, &bundle.id]);
    assert_eq!(output.status.code(), Some(1));
    let text = crate::bundle::stderr(&output);
    assert!(text.contains("preserved file descriptor 3 is not open"), "{text}");
}
