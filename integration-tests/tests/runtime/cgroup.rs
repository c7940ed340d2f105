//! Where a container's processes are put: whose cgroup, which CPUs.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::bundle::{Bundle, stderr, unified};

fn directory(bundle: &Bundle, controller: &str) -> PathBuf {
    let controller = if unified() { "" } else { controller };
    PathBuf::from(format!("/sys/fs/cgroup/{controller}/{}", bundle.id))
}

#[test]
fn a_cgroup_in_use_is_refused_and_left_alone() {
    let first = Bundle::new("sleep 100");
    first.start();
    let mut second = Bundle::new("sleep 100");
    second.linux()["cgroupsPath"] = first.config["linux"]["cgroupsPath"].clone();
    for verb in ["create", "run"] {
        let path = second.path().to_str().unwrap();
        let output = second.call(&[verb, "--bundle", path, &second.id]);
        assert_eq!(output.status.code(), Some(1), "{verb}");
        let words = "container's cgroup is not empty: 1 process(es) found";
        assert!(stderr(&output).contains(words), "{verb}: {}", stderr(&output));
        assert!(!second.root().join(&second.id).exists(), "{verb}");
    }
    assert_eq!(first.status(), "running");
}

#[test]
fn a_frozen_cgroup_is_refused_and_left_alone() {
    let bundle = Bundle::new("sleep 100");
    let frozen = directory(&bundle, "freezer");
    let (name, value) =
        if unified() { ("cgroup.freeze", "1\n") } else { ("freezer.state", "FROZEN\n") };
    fs::create_dir(&frozen).unwrap();
    fs::write(frozen.join(name), value).unwrap();
    let output = bundle.run();
    let left = fs::read_to_string(frozen.join(name)).unwrap();
    fs::remove_dir(&frozen).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = "container's cgroup unexpectedly frozen";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
    assert_eq!(left, value);
}

#[test]
fn a_limit_of_no_process_is_one() {
    for (limit, wanted) in [(0, "1\n"), (-1, "max\n")] {
        let mut bundle = Bundle::new("sleep 100");
        bundle.linux()["resources"]["pids"] = json!({"limit": limit});
        bundle.start();
        let file = directory(&bundle, "pids").join("pids.max");
        assert_eq!(fs::read_to_string(file).unwrap(), wanted, "{limit}");
        bundle.ok(&["update", "--pids-limit", "20", &bundle.id]);
        bundle.ok(&["update", "--pids-limit", &limit.to_string(), &bundle.id]);
        let file = directory(&bundle, "pids").join("pids.max");
        assert_eq!(fs::read_to_string(file).unwrap(), wanted, "{limit} by update");
    }
}

fn allowed(text: &str) -> &str {
    text.trim().strip_prefix("Cpus_allowed_list:\t").unwrap()
}

#[test]
fn the_callers_cpus_are_not_the_containers() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let all = status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap();
    let script = "grep Cpus_allowed_list /proc/self/status";
    let bundle = Bundle::new(script);
    let path = bundle.path().to_str().unwrap();
    let pinned = |arguments: &[&str]| {
        let command = bundle.command(arguments);
        let mut all = vec!["-c", "0", command.get_program().to_str().unwrap()];
        all.extend(command.get_args().map(|argument| argument.to_str().unwrap()));
        let output = std::process::Command::new("taskset").args(all).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(allowed(&pinned(&["run", "--bundle", path, &bundle.id])), allowed(all));
    let mut bundle = Bundle::new("sleep 100");
    bundle.linux()["resources"]["cpu"] = json!({"cpus": "1"});
    bundle.start();
    let output = bundle.ok(&["exec", &bundle.id, "sh", "-c", script]);
    assert_eq!(allowed(&output), "1");
}
