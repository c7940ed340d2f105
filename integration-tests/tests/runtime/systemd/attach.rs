//! A process that its runtime may not put into the container's cgroup is put there by systemd.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Output;

use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

use super::manager::Mood;
use super::ruled::Ruled;
use crate::bundle::{stderr, unified};

/// The files that take processes are somebody else's from now on.
fn close(group: &Path) {
    for name in ["cgroup.procs", "tasks"] {
        let file = group.join(name);
        if file.exists() {
            chown(file, Some(65_534), None).unwrap();
        }
    }
}

fn running() -> Ruled {
    let ruled = Ruled::new(Mood::Well);
    ruled.create();
    ruled.ok(&["start", &ruled.bundle.id]);
    for mount in fs::read_dir("/sys/fs/cgroup").unwrap() {
        let controller = mount.unwrap().file_name();
        let group = ruled.group(controller.to_str().unwrap());
        close(&group);
    }
    ruled.manager.forget();
    ruled
}

/// By a runtime that may not write to what is others'.
fn exec(ruled: &Ruled, arguments: &[&str]) -> Output {
    std::thread::scope(|scope| {
        let call = || {
            let right = CapabilitySet::DAC_OVERRIDE;
            rustix::thread::remove_capability_from_bounding_set(right).unwrap();
            let script = ["sh", "-c", "cat /proc/self/cgroup"];
            ruled.call(&[&["exec"], arguments, &[&ruled.bundle.id], &script].concat())
        };
        scope.spawn(call).join().unwrap()
    })
}

/// Where systemd was asked to put a process.
fn asked(ruled: &Ruled) -> Value {
    let calls = ruled.manager.calls();
    let [(member, body)] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!(member, "AttachProcessesToUnit");
    assert_eq!(body[0], json!(ruled.unit()));
    assert_eq!(body[2].as_array().unwrap().len(), 1, "{body:?}");
    body[1].clone()
}

#[test]
fn a_process_that_its_runtime_may_not_move_is_attached_by_systemd() {
    let ruled = running();
    let output = exec(&ruled, &[]);
    if !unified() {
        // Of the older hierarchies systemd knows only some.
        assert_eq!(output.status.code(), Some(255), "{}", stderr(&output));
        assert!(stderr(&output).contains("to cgroups: "), "{}", stderr(&output));
        return;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.ends_with(&format!("/{}\n", ruled.unit())), "{text} {}", stderr(&output));
    assert_eq!(asked(&ruled), "/");
}

#[test]
fn a_process_is_attached_below_the_unit_where_that_was_asked_for() {
    let ruled = running();
    let below = ruled.group("pids").join("below");
    fs::create_dir(&below).unwrap();
    close(&below);
    let output = exec(&ruled, &["--cgroup", "below"]);
    if !unified() {
        assert_eq!(output.status.code(), Some(255), "{}", stderr(&output));
        assert!(stderr(&output).contains("to cgroups: "), "{}", stderr(&output));
        return;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.ends_with(&format!("/{}/below\n", ruled.unit())), "{text} {}", stderr(&output));
    assert_eq!(asked(&ruled), "/below");
}
