//! Capabilities: the default set, `--cap-add`, `--cap-drop`, `--privileged`.

use crate::container::ContainerError;

/// In the kernel's order.
const ALL: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

const DEFAULT: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// All capabilities there are to give: those the engine itself has.
pub(crate) fn all() -> Vec<String> {
    let mask = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let mask = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(mask.trim(), 16).ok()
        })
        .unwrap_or(u64::MAX);
    let names = ALL.iter().enumerate().filter(|(bit, _)| (mask >> bit) & 1 == 1);
    names.map(|(_, name)| (*name).to_owned()).collect()
}

/// What a container gets.
pub(crate) fn select(
    privileged: bool,
    add: &[String],
    drop: &[String],
) -> Result<Vec<String>, ContainerError> {
    if privileged {
        return Ok(all());
    }
    let add = normalise("CapAdd", add)?;
    let drop = normalise("CapDrop", drop)?;
    let has_all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let mut set: Vec<String> = if has_all(&add) {
        all()
    } else if has_all(&drop) {
        Vec::new()
    } else {
        DEFAULT.iter().map(|name| (*name).to_owned()).collect()
    };
    if !has_all(&drop) || has_all(&add) {
        set.retain(|name| !drop.contains(name));
    }
    for name in add.into_iter().filter(|name| name != "ALL") {
        if !set.contains(&name) {
            set.push(name);
        }
    }
    Ok(set)
}

fn normalise(field: &str, names: &[String]) -> Result<Vec<String>, ContainerError> {
    names
        .iter()
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            if upper == "ALL" {
                return Ok(upper);
            }
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            if ALL.contains(&full.as_str()) {
                Ok(full)
            } else {
                // Compat: dockerd's words.
                Err(ContainerError::Invalid(format!(
                    "invalid {field}: unknown capability: \"{full}\""
                )))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn adding_and_dropping_combine_as_dockers() {
        assert_eq!(select(false, &[], &[]).unwrap().len(), 14);
        let only = select(false, &list(&["net_admin"]), &list(&["ALL"])).unwrap();
        assert_eq!(only, list(&["CAP_NET_ADMIN"]));
        let most = select(false, &list(&["all"]), &list(&["CAP_KILL"])).unwrap();
        let kept = all().into_iter().filter(|name| name != "CAP_KILL").count();
        assert!(!most.contains(&"CAP_KILL".to_owned()) && most.len() == kept);
        let words = |error: ContainerError| error.to_string();
        let error = select(false, &list(&["wat"]), &[]).unwrap_err();
        assert_eq!(words(error), "invalid CapAdd: unknown capability: \"CAP_WAT\"");
        let error = select(false, &[], &list(&["wat"])).unwrap_err();
        assert_eq!(words(error), "invalid CapDrop: unknown capability: \"CAP_WAT\"");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

        #[test]
        fn a_container_has_what_was_added_and_not_what_was_dropped(
            add in proptest::collection::vec("(all|ALL|CAP_KILL|kill|net_admin|NET_RAW|Cap_Chown)", 0..4),
            drop in proptest::collection::vec("(ALL|cap_kill|CHOWN|NET_RAW|mknod)", 0..4),
            wrong in proptest::option::of("[A-Zé_]{0,4}"),
        ) {
            let has = |list: &[String], name: &str| {
                list.iter().any(|own| own.to_ascii_uppercase().trim_start_matches("CAP_") == name.trim_start_matches("CAP_"))
            };
            let set = select(false, &add, &drop).unwrap();
            for name in ALL {
                let by_default = DEFAULT.contains(name) && !has(&drop, "ALL");
                let base = by_default || has(&add, "ALL") && all().contains(&name.to_string());
                let wanted = has(&add, name) || base && !has(&drop, name);
                prop_assert_eq!(set.contains(&name.to_string()), wanted, "{} of {:?} without {:?}", name, add, drop);
            }
            if let Some(wrong) = wrong.filter(|name| !has(&list(ALL), name) && name != "ALL") {
                let error = select(false, &[wrong], &drop).unwrap_err().to_string();
                prop_assert!(error.starts_with("invalid CapAdd: unknown capability"), "{}", error);
            }
        }
    }
}
