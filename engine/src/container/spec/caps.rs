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

/// All capabilities this kernel has.
pub(crate) fn all() -> Vec<String> {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")
        .ok()
        .and_then(|text| text.trim().parse::<usize>().ok())
        .unwrap_or(ALL.len() - 1);
    ALL.iter().take(last + 1).map(|name| (*name).to_owned()).collect()
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
    let add = normalise(add)?;
    let drop = normalise(drop)?;
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

fn normalise(names: &[String]) -> Result<Vec<String>, ContainerError> {
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
                    "invalid CapAdd: unknown capability: \"{full}\""
                )))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn adding_and_dropping_combine_as_dockers() {
        assert_eq!(select(false, &[], &[]).unwrap().len(), 14);
        let only = select(false, &list(&["net_admin"]), &list(&["ALL"])).unwrap();
        assert_eq!(only, list(&["CAP_NET_ADMIN"]));
        let most = select(false, &list(&["all"]), &list(&["CAP_KILL"])).unwrap();
        assert!(!most.contains(&"CAP_KILL".to_owned()) && most.len() > 30);
        assert!(select(false, &list(&["wat"]), &[]).is_err());
    }
}
