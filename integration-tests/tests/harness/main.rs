//! The harness itself: stacks start, run, are private and leave nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use integration_tests::Stack;
use integration_tests::parts::ours;
use integration_tests::sandbox::{Ended, Layout, Sandbox};

#[test]
fn a_stack_runs_a_container() {
    let stack = Stack::from_environment().with_busybox().start();
    assert_eq!(stack.docker_ok(&["run", "--rm", "busybox", "echo", "hi"]), "hi");
    stack.end();
}

#[test]
fn a_stack_of_upstreams_programs_runs_a_container() {
    let stack = Stack::stock().with_busybox().start();
    assert_eq!(stack.docker_ok(&["run", "--rm", "busybox", "echo", "hi"]), "hi");
    stack.end();
}

#[test]
fn a_killed_engine_comes_back() {
    let stack = Stack::ours().with_busybox().start();
    let api = stack.api();
    let id = api.run("c1", &serde_json::json!({"Image": "busybox", "Cmd": ["sleep", "1000"]}));
    let pid = api.inspect(&id)["State"]["Pid"].clone();
    stack.kill_engine();
    assert!(!api.answers());
    stack.start_engine();
    assert_eq!(api.inspect(&id)["State"]["Pid"], pid);
    assert_eq!(stack.stop_engine(), Ended::Exit(0));
    stack.start_engine();
    stack.end();
}

#[test]
fn a_sandbox_leaves_nothing_on_the_host() {
    let mut sandbox = Sandbox::start(Layout::Host);
    let (name, root, init) = (sandbox.name().to_owned(), sandbox.root().to_owned(), sandbox.init());
    let cgroups = || {
        let top = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        top.filter(|entry| entry.path().join(&name).exists()).count()
            + usize::from(std::path::Path::new("/sys/fs/cgroup").join(&name).exists())
    };
    assert!(cgroups() > 0);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&name), "{mounts}");
    sandbox.end();
    assert_eq!(cgroups(), 0);
    assert!(!root.exists());
    assert!(!std::path::Path::new(&format!("/proc/{init}")).exists());
}

#[test]
fn a_cgroup_layout_is_shown_or_refused() {
    for layout in [Layout::V1, Layout::Hybrid, Layout::V2] {
        let sandbox = match Sandbox::try_start(layout) {
            Ok(sandbox) => sandbox,
            Err(problem) => {
                let word = format!("{layout:?}").to_lowercase();
                assert_eq!(problem, format!("this host cannot show the cgroup layout {word}"));
                let root = tempfile::tempdir().unwrap().keep();
                let mut guest = Command::new(ours("guest"));
                guest.args(["sandbox", "it-refused"]).arg(&root).arg(word);
                assert!(!guest.output().unwrap().status.success());
                assert!(!root.exists(), "{} stays", root.display());
                continue;
            }
        };
        let mounts = format!("/proc/{}/mountinfo", sandbox.init());
        let mounts = std::fs::read_to_string(mounts).unwrap();
        let kinds: Vec<&str> = mounts
            .lines()
            // The host's own mounts lie below, out of sight.
            .filter(|line| line.contains(sandbox.name()))
            .filter_map(|line| line.split_once(" - ")?.1.split(' ').next())
            .filter(|kind| kind.starts_with("cgroup"))
            .collect();
        let (v1, v2) = (kinds.contains(&"cgroup"), kinds.contains(&"cgroup2"));
        assert_eq!((v1, v2), (layout != Layout::V2, layout != Layout::V1), "{layout:?}: {mounts}");
        // What is seen begins at the sandbox's own cgroup.
        let own = std::fs::read_to_string(format!("/proc/{}/cgroup", sandbox.init())).unwrap();
        assert!(own.contains(sandbox.name()), "{own}");
        let mut inside = sandbox.inside("cat");
        let seen = inside.arg("/proc/1/cgroup").output().unwrap().stdout;
        assert!(!String::from_utf8_lossy(&seen).contains(sandbox.name()));
    }
}
