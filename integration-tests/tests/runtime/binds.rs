//! Bind mounts: what they keep of their source, and sources that only the container knows.

use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, mount, mount_remount};
use serde_json::json;

use crate::bundle::{Bundle, stderr};
use crate::holder::Holder;

#[test]
fn a_mount_namespace_can_be_one_that_exists() {
    let mut bundle = Bundle::new("cat /here/file; ls /; grep ' / ' /proc/self/mountinfo");
    let place = bundle.path().join("place");
    fs::create_dir(&place).unwrap();
    let path = place.to_str().unwrap();
    let there = place.clone();
    let holder = Holder::mounts(move || {
        mount("t", &there, "tmpfs", MountFlags::empty(), None).unwrap();
        fs::write(there.join("file"), "only in there\n").unwrap();
    });
    for namespace in bundle.linux()["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "mount" {
            namespace["path"] = json!(holder.namespace("mnt"));
        }
    }
    bundle.add_mount(json!({
        "destination": "/here", "type": "bind", "source": path, "options": ["bind", "ro"],
    }));
    let output = bundle.run();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("only in there\n"), "{text}{}", stderr(&output));
    assert!(text.contains("\nhere\n") && !text.contains("home"), "{text}");
    assert!(!Path::new(path).join("file").exists());
}

fn flag(name: &str) -> MountFlags {
    match name {
        "noatime" => MountFlags::NOATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "relatime" => MountFlags::RELATIME,
        "strictatime" => MountFlags::STRICTATIME,
        other => panic!("{other}"),
    }
}

/// `noatime`, `nodiratime`, `relatime` or none of them, as the container sees it.
fn access_times(source: &str, options: &str, users: bool) -> Result<String, String> {
    let mut bundle = Bundle::new("grep ' /m ' /proc/self/mounts");
    let place = bundle.path().join("place");
    fs::create_dir(&place).unwrap();
    let there = place.clone();
    let flags = source.split(',').map(flag).fold(MountFlags::BIND, |all, one| all | one);
    let holder = Holder::mounts(move || {
        mount("t", &there, "tmpfs", MountFlags::empty(), None).unwrap();
        // By one step at a time: what is not named stays.
        mount_remount(&there, MountFlags::BIND | MountFlags::STRICTATIME, "").unwrap();
        mount_remount(&there, flags, "").unwrap();
    });
    if users {
        bundle.use_user_namespace();
    }
    let options: Vec<&str> = options.split(',').collect();
    bundle.add_mount(json!({
        "destination": "/m", "type": "bind", "source": place, "options": options,
    }));
    let output = holder.run(&bundle);
    if !output.status.success() {
        return Err(stderr(&output));
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let flags = text.split(' ').nth(3).unwrap().split(',');
    Ok(flags.filter(|flag| flag.ends_with("atime")).collect::<Vec<_>>().join(","))
}

#[test]
fn access_times_stay_as_they_are_until_others_are_named() {
    for (source, options, wanted) in [
        ("noatime", "bind", "noatime"),
        ("noatime", "bind,norelatime", "noatime"),
        ("noatime", "bind,atime", "noatime"),
        ("noatime", "bind,relatime", "relatime"),
        ("noatime", "bind,nodiratime", "nodiratime,relatime"),
        ("noatime", "bind,ro", "noatime"),
        ("nodiratime", "bind,strictatime", ""),
        ("noatime", "bind,nodiratime,strictatime", "nodiratime"),
        ("noatime", "bind,nodiratime,norelatime", "nodiratime,relatime"),
        ("strictatime", "bind,nosuid", ""),
    ] {
        assert_eq!(access_times(source, options, false).unwrap(), wanted, "{source} {options}");
    }
}

#[test]
fn a_user_namespace_cannot_change_the_access_times_of_the_host() {
    for (source, options, wanted) in [
        ("strictatime", "bind", ""),
        ("noatime,nodiratime", "bind,norelatime", "noatime,nodiratime"),
        ("noatime", "bind,atime", "noatime"),
        ("relatime", "bind,relatime", "relatime"),
        ("relatime", "bind,ro", "relatime"),
    ] {
        assert_eq!(access_times(source, options, true).unwrap(), wanted, "{source} {options}");
    }
    for (source, options) in [
        ("nodiratime", "bind,strictatime"),
        ("relatime", "bind,noatime"),
        ("relatime", "bind,nodiratime"),
        ("strictatime", "bind,relatime"),
        ("noatime", "bind,relatime"),
    ] {
        let text = access_times(source, options, true).unwrap_err();
        assert!(text.contains("operation not permitted"), "{source} {options}: {text}");
    }
}

#[test]
fn an_id_mapped_mount_can_show_what_an_earlier_one_brought() {
    for users in [false, true] {
        let mut bundle = Bundle::new("ls -ln /second");
        let host = bundle.path().join("host");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("file"), "").unwrap();
        if users {
            bundle.use_user_namespace();
        }
        let first = bundle.rootfs().join("first");
        fs::create_dir(&first).unwrap();
        bundle.add_mount(json!({
            "destination": "/first", "type": "bind", "source": host, "options": ["bind"],
        }));
        // Files of the host's root belong to root of the container, or to its 1000.
        let id = if users { 100_000 + 1000 } else { 1000 };
        let mapping = json!([{"containerID": 0, "hostID": id, "size": 10}]);
        bundle.add_mount(json!({
            "destination": "/second", "type": "bind", "source": first, "options": ["bind"],
            "uidMappings": mapping, "gidMappings": mapping,
        }));
        let text = bundle.output();
        assert!(text.contains(" 1000     1000 ") && text.contains("file"), "{users}: {text}");
    }
}

#[test]
fn a_missing_source_of_an_id_mapped_mount_is_named() {
    let mut bundle = Bundle::new("true");
    bundle.use_user_namespace();
    let missing = bundle.rootfs().join("no-such");
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    bundle.add_mount(json!({
        "destination": "/m", "type": "bind", "source": missing, "options": ["bind"],
        "uidMappings": mapping, "gidMappings": mapping,
    }));
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("/no-such") && text.contains("no such file or directory"), "{text}");
}
