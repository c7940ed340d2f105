//! The specification's mounts: the system's, ours, the user's.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Facts;
use crate::container::record::{Mounted, Record};

/// All mounts, in dockerd's order: system first, then by depth and name.
pub(super) fn all(record: &Record, facts: &Facts<'_>, writable_cgroups: bool) -> Vec<Value> {
    let host = &record.host_config;
    let mount = |target: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": source, "options": options});
    let read = if host.privileged { "rw" } else { "ro" };
    let cgroups = if host.privileged || writable_cgroups { "rw" } else { "ro" };
    let mut list = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", read]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &[cgroups, "nosuid", "noexec", "nodev"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    match host.ipc_mode.as_str() {
        "none" => {}
        "host" => list.push(mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate"])),
        _ => match &facts.shm {
            Some(shm) => {
                list.push(mount("/dev/shm", "bind", &shm.to_string_lossy(), &["rbind", "rprivate"]))
            }
            None => {
                let size = format!("size={}", host.shm_size);
                list.push(mount(
                    "/dev/shm",
                    "tmpfs",
                    "shm",
                    &["nosuid", "noexec", "nodev", "mode=1777", &size],
                ));
            }
        },
    }
    // What the user mounts over a system's mount replaces it.
    list.retain(|entry| {
        !facts.mounts.iter().any(|(own, _)| entry["destination"] == own.destination.as_str())
    });
    let mut own: Vec<(String, Value)> = facts
        .mounts
        .iter()
        .map(|(mounted, source)| (mounted.destination.clone(), one(mounted, source)))
        .collect();
    own.sort_by_key(|(target, _)| (target.matches('/').count(), target.clone()));
    for (name, target) in [
        ("resolv.conf", "/etc/resolv.conf"),
        ("hostname", "/etc/hostname"),
        ("hosts", "/etc/hosts"),
    ] {
        // Compat: without a network nothing tells of one.
        let disabled = record.config.network_disabled == Some(true) && name != "hostname";
        if disabled || facts.mounts.iter().any(|(own, _)| own.destination == target) {
            continue;
        }
        let source = facts.files.join(name);
        let mut options = vec!["rbind", "rprivate"];
        if host.readonly_rootfs {
            options.insert(1, "rro");
        }
        let value = json!({"destination": target, "type": "bind", "source": source,
            "options": options});
        own.push((target.to_owned(), value));
    }
    // Compat: dockerd's order, by depth alone; what is equally deep stays in place.
    own.sort_by_key(|(target, _)| target.matches('/').count());
    list.extend(own.into_iter().map(|(_, value)| value));
    list
}

fn one(mounted: &Mounted, source: &PathBuf) -> Value {
    if mounted.kind == "tmpfs" {
        // Compat: what --tmpfs adds before the user's options.
        let mut options: Vec<String> =
            ["noexec", "nosuid", "nodev", "rprivate"].map(str::to_owned).to_vec();
        for option in mounted.tmpfs.split(',').filter(|option| !option.is_empty()) {
            let opposite = match option {
                "exec" => "noexec",
                "suid" => "nosuid",
                "dev" => "nodev",
                _ => "",
            };
            options.retain(|own| own != opposite && own != option);
            options.push(option.to_owned());
        }
        return json!({"destination": mounted.destination, "type": "tmpfs", "source": "tmpfs",
            "options": options});
    }
    let bind = if mounted.non_recursive { "bind" } else { "rbind" };
    let mut options = vec![bind.to_owned()];
    if !mounted.rw {
        // Read-only all the way down, as far as the kernel can.
        let recursive = !mounted.non_recursive && !mounted.read_only_top;
        options.push(if recursive { "rro" } else { "ro" }.to_owned());
    }
    // Compat: a volume has none of its own, the root's decides.
    if !mounted.propagation.is_empty() {
        options.push(mounted.propagation.clone());
    }
    json!({"destination": mounted.destination, "type": "bind", "source": source,
        "options": options})
}

/// Shared or slave mounts need a root that lets them through.
pub(super) fn rootfs_propagation(mounts: &[(Mounted, PathBuf)]) -> Option<&'static str> {
    let any = |kinds: [&str; 2]| {
        mounts.iter().any(|(mounted, _)| kinds.contains(&mounted.propagation.as_str()))
    };
    if any(["shared", "rshared"]) {
        Some("shared")
    } else if any(["slave", "rslave"]) {
        Some("rslave")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn of_opposite_options_of_a_tmpfs_the_last_counts(
            options in proptest::collection::vec("(exec|noexec|suid|nosuid|dev|nodev|ro|size=64k|mode=1777||é)", 0..7),
        ) {
            let mounted = Mounted { kind: "tmpfs".into(), destination: "/t".into(), tmpfs: options.join(","), ..Mounted::default() };
            let value = one(&mounted, &PathBuf::new());
            let words: Vec<&str> = value["options"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
            for (yes, no) in [("exec", "noexec"), ("suid", "nosuid"), ("dev", "nodev")] {
                let at = |word: &str| words.iter().rposition(|own| *own == word);
                let allowed = at(yes) > at(no);
                let last = options.iter().rev().find(|option| *option == yes || *option == no);
                prop_assert_eq!(allowed, last.is_some_and(|option| option == yes), "{:?}: {:?}", options, words);
            }
            let data = |option: &&String| ["ro", "size=64k", "mode=1777", "é"].contains(&option.as_str());
            prop_assert!(options.iter().filter(data).all(|option| words.contains(&option.as_str())));
            prop_assert!(!words.contains(&""));
        }
    }
}
