//! Mounts into a running container and out of it. Oracle: crun 1.28, which has the command.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use crate::bundle::{Bundle, ours_only, stderr};

fn change(bundle: &Bundle, what: &str, mounts: &Value) -> Output {
    let path = bundle.path().join("mounts.json");
    fs::write(&path, mounts.to_string()).unwrap();
    bundle.call(&["mounts", what, &bundle.id, path.to_str().unwrap()])
}

fn changed(bundle: &Bundle, what: &str, mounts: &Value) {
    let output = change(bundle, what, mounts);
    assert!(output.status.success(), "{mounts}: {}", stderr(&output));
}

/// Options, filesystem and what follows, of what the container has at `place`.
fn at(bundle: &Bundle, place: &str) -> Option<String> {
    let text = bundle.ok(&["exec", &bundle.id, "cat", "/proc/self/mountinfo"]);
    let line = text.lines().rev().find(|line| line.split(' ').nth(4) == Some(place))?;
    Some(line.split(' ').skip(5).collect::<Vec<_>>().join(" "))
}

fn source(bundle: &Bundle) -> PathBuf {
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "from the host\n").unwrap();
    source
}

#[test]
fn mounts_come_and_go_while_the_container_runs() {
    let bundle = Bundle::new("sleep 100");
    let source = source(&bundle);
    bundle.start();
    changed(
        &bundle,
        "add",
        &json!([
            {"destination": "/bind", "type": "bind", "source": source, "options": ["bind", "ro"]},
            {"destination": "/deep/down", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
            {"destination": "/one", "type": "bind", "source": source.join("file"),
             "options": ["bind"]},
        ]),
    );
    let bind = at(&bundle, "/bind").unwrap();
    assert!(bind.starts_with("ro,relatime - "), "{bind}");
    assert!(at(&bundle, "/deep/down").unwrap().contains("nosuid"));
    let read = ["exec", bundle.id.as_str(), "cat", "/bind/file", "/one"];
    assert_eq!(bundle.ok(&read), "from the host\nfrom the host\n");
    // Somebody stands in it.
    bundle.detached(&["exec", "-d", "--cwd", "/deep/down", &bundle.id, "sleep", "100"]);
    changed(
        &bundle,
        "remove",
        &json!([{"destination": "/bind"}, {"destination": "/deep/down"}, {"destination": "/one"}]),
    );
    for place in ["/bind", "/deep/down", "/one"] {
        assert_eq!(at(&bundle, place), None);
    }
    let again = change(&bundle, "remove", &json!([{"destination": "/bind"}]));
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).to_lowercase().contains("invalid argument"), "{}", stderr(&again));
}

#[test]
fn mounts_are_added_to_a_container_that_waits_or_is_paused() {
    let bundle = Bundle::new("sleep 100");
    let tmpfs = |place: &str| json!([{"destination": place, "type": "tmpfs"}]);
    bundle.detached(&["create", "--bundle", bundle.path().to_str().unwrap(), &bundle.id]);
    changed(&bundle, "add", &tmpfs("/early"));
    bundle.detached(&["start", &bundle.id]);
    bundle.ok(&["pause", &bundle.id]);
    changed(&bundle, "add", &tmpfs("/frozen"));
    bundle.ok(&["resume", &bundle.id]);
    assert!(at(&bundle, "/early").is_some() && at(&bundle, "/frozen").is_some());
}

#[test]
fn a_link_in_the_container_leads_to_nowhere_outside() {
    let bundle = Bundle::new("sleep 100");
    let victim = bundle.path().join("victim");
    fs::create_dir(&victim).unwrap();
    // In the container the same path names a directory of its own.
    let inside = bundle.rootfs().join(victim.strip_prefix("/").unwrap());
    fs::create_dir_all(&inside).unwrap();
    std::os::unix::fs::symlink(&victim, bundle.rootfs().join("link")).unwrap();
    bundle.start();
    changed(&bundle, "add", &json!([{"destination": "/link", "type": "tmpfs"}]));
    changed(&bundle, "add", &json!([{"destination": "/link/below", "type": "tmpfs"}]));
    let place = victim.to_str().unwrap();
    assert!(at(&bundle, place).is_some() && at(&bundle, &format!("{place}/below")).is_some());
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(place));
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    changed(&bundle, "remove", &json!([{"destination": "/link"}]));
    assert_eq!(at(&bundle, place), None);
}

#[test]
fn a_container_that_exchanges_its_directories_gains_nothing() {
    let mut bundle = Bundle::new("");
    let victim = bundle.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "whole").unwrap();
    for applet in ["rm", "ln"] {
        std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin").join(applet)).unwrap();
    }
    let place = victim.to_str().unwrap().to_owned();
    let script = format!(
        "while :; do mkdir /d; rm -rf /d; ln -s {place} /d; rm -f /d; ln -s /proc/1/root/../.. /d; \
         rm -f /d; done 2>/dev/null"
    );
    bundle.process()["args"] = json!(["/bin/sh", "-c", script]);
    bundle.start();
    let mut added = 0;
    for _ in 0..50 {
        let output = change(&bundle, "add", &json!([{"destination": "/d/x", "type": "tmpfs"}]));
        added += i32::from(output.status.success());
    }
    assert!(added > 0);
    assert_eq!(bundle.status(), "running");
    assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "whole");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    assert!(!std::path::Path::new("/x").exists());
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&place));
}

#[test]
fn of_mounts_with_a_mistake_none_is_added() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let missing = json!([
        {"destination": "/good", "type": "tmpfs"},
        {"destination": "/bad", "type": "bind", "source": "/no/such", "options": ["bind"]},
    ]);
    let output = change(&bundle, "add", &missing);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("/no/such") && text.to_lowercase().contains("no such file"), "{text}");
    assert_eq!(at(&bundle, "/good"), None);
    if !ours_only() {
        return;
    }
    std::os::unix::fs::symlink("/proc/self", bundle.rootfs().join("link")).unwrap();
    for place in ["/proc/kcore", "/link/attr"] {
        let late = json!([
            {"destination": "/good", "type": "tmpfs"},
            {"destination": place, "type": "tmpfs"},
        ]);
        let output = change(&bundle, "add", &late);
        let words = "cannot be mounted because it is inside /proc";
        assert!(stderr(&output).contains(words), "{place}: {}", stderr(&output));
        assert_eq!(at(&bundle, "/good"), None);
    }
    let cover = json!([
        {"destination": "/proc", "type": "bind", "source": bundle.path(), "options": ["bind"]},
    ]);
    let output = change(&bundle, "add", &cover);
    assert!(stderr(&output).contains("/proc can only be a procfs"), "{}", stderr(&output));
    let cgroup = json!([{"destination": "/sys/fs/cgroup", "type": "cgroup"}]);
    assert!(stderr(&change(&bundle, "add", &cgroup)).contains("not supported"));
    let root = change(&bundle, "remove", &json!([{"destination": "/bin/.."}]));
    assert!(stderr(&root).contains("invalid argument"), "{}", stderr(&root));
    let root = change(&bundle, "remove", &json!([{"destination": "/"}]));
    assert!(stderr(&root).contains("root of a container cannot"), "{}", stderr(&root));
    assert_eq!(bundle.ok(&["exec", &bundle.id, "sh", "-c", "echo whole"]), "whole\n");
}

#[test]
fn a_mounted_file_goes_by_any_name_it_has() {
    let bundle = Bundle::new("sleep 100");
    if !ours_only() {
        return;
    }
    let file = source(&bundle).join("file");
    std::os::unix::fs::symlink("dir/file", bundle.rootfs().join("alias")).unwrap();
    bundle.start();
    let mount = json!([
        {"destination": "/dir/file", "type": "bind", "source": file, "options": ["bind"]},
    ]);
    changed(&bundle, "add", &mount);
    assert!(at(&bundle, "/dir/file").is_some());
    changed(&bundle, "remove", &json!([{"destination": "/alias"}]));
    assert_eq!(at(&bundle, "/dir/file"), None);
    let again = change(&bundle, "remove", &json!([{"destination": "/alias"}]));
    assert!(stderr(&again).contains("invalid argument"), "{}", stderr(&again));
}

#[test]
fn what_is_no_list_of_mounts_is_told_so() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    for (document, words) in [
        (json!({"mounts": []}), "mounts must be an array"),
        (json!("x"), "mounts must be an array"),
        (json!([{"type": "tmpfs"}]), "destination"),
    ] {
        let output = change(&bundle, "add", &document);
        assert_eq!(output.status.code(), Some(1), "{document}");
        assert!(stderr(&output).contains(words), "{document}: {}", stderr(&output));
    }
    changed(&bundle, "add", &json!([]));
    let file = bundle.call(&["mounts", "add", &bundle.id, "/no/such"]);
    assert!(stderr(&file).to_lowercase().contains("no such file or directory"));
    for wrong in [vec!["mounts", "add", &bundle.id], vec!["mounts"]] {
        assert_eq!(bundle.call(&wrong).status.code(), Some(1), "{wrong:?}");
    }
    let pid = bundle.pid();
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    bundle.wait_gone(pid);
    let output = change(&bundle, "add", &json!([{"destination": "/m", "type": "tmpfs"}]));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_bind_with_mappings_shows_other_owners() {
    let bundle = Bundle::new("sleep 100");
    let source = source(&bundle);
    bundle.start();
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    let mount = json!([{
        "destination": "/mapped", "type": "bind", "source": source, "options": ["bind"],
        "uidMappings": mapping, "gidMappings": mapping,
    }]);
    changed(&bundle, "add", &mount);
    let listed = bundle.ok(&["exec", &bundle.id, "ls", "-ln", "/mapped"]);
    assert!(listed.contains(" 1000     1000 "), "{listed}");
}

#[test]
fn a_user_namespace_gets_its_own_filesystems_and_the_hosts_directories() {
    let mut bundle = Bundle::new("sleep 100");
    bundle.use_user_namespace();
    let source = source(&bundle);
    bundle.start();
    changed(
        &bundle,
        "add",
        &json!([
            {"destination": "/bind", "type": "bind", "source": source, "options": ["bind"]},
            {"destination": "/own", "type": "tmpfs"},
        ]),
    );
    let script = "cat /bind/file; touch /own/made; ls -ln /own";
    let text = bundle.ok(&["exec", &bundle.id, "sh", "-c", script]);
    assert!(text.starts_with("from the host\n"), "{text}");
    assert!(text.contains(" 0        0 "), "{text}");
}

#[test]
fn options_of_a_new_filesystem_hold() {
    if !ours_only() {
        // crun 1.28 drops what the filesystem itself would read.
        return;
    }
    let bundle = Bundle::new("sleep 100");
    fs::create_dir(bundle.rootfs().join("filled")).unwrap();
    fs::write(bundle.rootfs().join("filled/file"), "below\n").unwrap();
    bundle.start();
    changed(
        &bundle,
        "add",
        &json!([
            {"destination": "/small", "type": "tmpfs", "source": "name",
             "options": ["size=64k", "mode=700", "noexec", "ro"]},
            {"destination": "/filled", "type": "tmpfs", "options": ["tmpcopyup"]},
        ]),
    );
    let small = at(&bundle, "/small").unwrap();
    assert!(small.starts_with("ro,noexec,relatime - tmpfs name rw,size=64k,mode=700"), "{small}");
    assert_eq!(bundle.ok(&["exec", &bundle.id, "cat", "/filled/file"]), "below\n");
    let wrong = json!([{"destination": "/x", "type": "tmpfs", "options": ["bogus=1"]}]);
    let output = change(&bundle, "add", &wrong);
    assert!(stderr(&output).contains("invalid argument"), "{}", stderr(&output));
}
