//! The programs' files are replaced by newer builds below what runs: the daemons are started again
//! from the new files, containers go on, and old and new work together.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use integration_tests::Stack;
use integration_tests::sandbox::{Ended, until};
use serde_json::json;

use crate::shims::shim;
use crate::{ENDING, output, pid, ready, shell};

const PROGRAMS: [&str; 5] = [
    "dockerd-rs",
    "containerd-rs",
    "containerd-shim-runc-v2",
    "containerd-shim-runc-rs-v2",
    "runc-rs",
];

/// As a package manager does it: another file, renamed over the old one.
fn replace(stack: &Stack, program: &str) {
    let path = stack.root().join("bin").join(program);
    let fresh = path.with_extension("new");
    let mut bytes = fs::read(&path).unwrap();
    // What follows the last section of a program is not looked at.
    bytes.extend_from_slice(b"newer");
    fs::write(&fresh, bytes).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(fresh, path).unwrap();
}

/// Whether the process runs the file that has this program's name now.
fn is_new(stack: &Stack, inner: i32, program: &str) -> bool {
    let inode = |path: &Path| fs::metadata(path).ok().map(|data| (data.dev(), data.ino()));
    let outside = stack.sandbox().outside(inner);
    inode(Path::new(&format!("/proc/{outside}/exe")))
        == inode(&stack.root().join("bin").join(program))
}

#[test]
fn newer_programs_take_over_and_containers_go_on() {
    let stack = Stack::ours().with_copies_of_programs().with_busybox().start();
    let api = stack.api();
    let old = ready(&stack, "old", &shell(ENDING));
    let policy = json!({"RestartPolicy": {"Name": "always"}});
    let always = ready(&stack, "always", &crate::shell_with(ENDING, policy));
    let (before, shim_before) = (pid(&stack, &old), shim(&stack, &old));
    let started = api.inspect(&old)["State"]["StartedAt"].clone();
    assert!(is_new(&stack, stack.engine(), "dockerd-rs"));
    for round in 0..2 {
        for program in PROGRAMS {
            replace(&stack, program);
        }
        assert!(!is_new(&stack, stack.engine(), "dockerd-rs"));
        assert!(!is_new(&stack, stack.containerd(), "containerd-rs"));
        if round == 0 {
            // The engine, which is the old one still, starts the new containerd.
            stack.stop_containerd();
            until("containerd answers", || stack.containerd_listens());
            assert_eq!(stack.stop_engine(), Ended::Exit(0));
        } else {
            assert_eq!(stack.stop_engine(), Ended::Exit(0));
            stack.stop_containerd();
        }
        stack.start_engine();
        assert!(is_new(&stack, stack.engine(), "dockerd-rs"));
        assert!(is_new(&stack, stack.containerd(), "containerd-rs"));
        assert_eq!((pid(&stack, &old), shim(&stack, &old)), (before, shim_before));
        assert_eq!(api.inspect(&old)["State"]["StartedAt"], started);
        // An old shim with the new runtime.
        let body = json!({"Cmd": ["sh", "-c", "kill -USR2 $$; exit 1"]});
        let exec = api.post_json("/containers/old/exec", &body).expect(201).json();
        let exec = exec["Id"].as_str().unwrap();
        api.post_json(&format!("/exec/{exec}/start"), &json!({"Detach": true})).expect(200);
        until("the exec ends", || {
            api.get(&format!("/exec/{exec}/json")).expect(200).json()["ExitCode"] == 140
        });
        let new = ready(&stack, "new", &shell(ENDING));
        assert!(is_new(&stack, shim(&stack, &new), "containerd-shim-runc-rs-v2"));
        api.post("/containers/new/stop").expect(204);
        assert_eq!(api.wait("new"), 7);
        api.delete("/containers/new").expect(204);
    }
    assert_eq!(api.inspect(&always)["RestartCount"], 0);
    api.post("/containers/old/restart").expect(204);
    assert!(is_new(&stack, shim(&stack, &old), "containerd-shim-runc-rs-v2"));
    assert_eq!(output(&stack, "echo well"), "well");
    stack.end();
}
