//! Kernel parameters: which a container may set, and the file below `/proc/sys` that a key means.

/// Dots separate, unless the key is written with slashes (interface names may contain dots). `None`
/// for what is no plain name: what is judged here is the very path that is written to.
pub(crate) fn path(key: &str) -> Option<String> {
    let path: String = match (key.find('.'), key.find('/')) {
        (Some(dot), Some(slash)) if slash < dot => key.to_owned(),
        (None, _) => key.to_owned(),
        _ => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
    };
    let plain = |name: &str| !matches!(name, "" | "." | "..") && !name.contains(char::is_control);
    path.split('/').all(plain).then_some(path)
}

/// Whether a namespace of the container's own takes it.
pub(super) fn is_allowed(key: &str, has: &impl Fn(libc::c_int) -> bool) -> bool {
    const IPC: [&str; 8] = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    let Some(path) = path(key) else { return false };
    if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
        has(libc::CLONE_NEWIPC)
    } else if path.starts_with("net/") {
        has(libc::CLONE_NEWNET)
    } else if path == "kernel/domainname" || path == "kernel/hostname" {
        has(libc::CLONE_NEWUTS)
    } else {
        path.starts_with("user/") && has(libc::CLONE_NEWUSER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_may_use_either_separator() {
        for (key, wanted) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.1/arp", "net/ipv4/conf/eth0.1/arp"),
            ("net.ipv4.conf.eth0/1.arp", "net/ipv4/conf/eth0.1/arp"),
        ] {
            assert_eq!(path(key).as_deref(), Some(wanted), "{key}");
        }
    }

    #[test]
    fn a_key_names_one_file_and_no_way_to_it() {
        for key in [
            "",
            "net",
            "net.",
            "net..ipv4",
            "net/../kernel/core_pattern",
            "net.//.kernel.core_pattern",
            "net./.kernel.core_pattern",
            "net//.kernel.core_pattern",
            "net.../../kernel.core_pattern",
            "net.ipv4\nkernel",
            "/net/ipv4",
        ] {
            assert!(!is_allowed(key, &|_| true), "{key:?}");
        }
    }

    #[test]
    fn it_needs_the_namespace_that_owns_it() {
        let network = |flag: libc::c_int| flag == libc::CLONE_NEWNET;
        assert!(is_allowed("net.ipv4.ip_forward", &network));
        assert!(is_allowed("net/ipv4/ip_forward", &network));
        assert!(!is_allowed("kernel.shmmax", &network));
        assert!(is_allowed("kernel.shmmax", &|_| true));
        assert!(!is_allowed("kernel.core_pattern", &|_| true));
    }
}
