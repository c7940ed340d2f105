use super::*;
use proptest::prelude::*;

/// Whether a glob of apparmor.d(5) is this path: `*` and `?` stop at a slash, `**` and `[^…]` do not.
fn matches(glob: &[char], path: &[char]) -> bool {
    match glob {
        [] => path.is_empty(),
        ['*', '*', rest @ ..] => (0..=path.len()).any(|at| matches(rest, &path[at..])),
        ['*', rest @ ..] => {
            let end = path.iter().position(|&letter| letter == '/').unwrap_or(path.len());
            (0..=end).any(|at| matches(rest, &path[at..]))
        }
        ['[', '^', rest @ ..] => {
            let end = rest.iter().position(|&letter| letter == ']').unwrap();
            let class: String = rest[..end].iter().collect();
            let class = class.replace("0-9", "0123456789");
            matches!(path, [first, others @ ..]
                if !class.contains(*first) && matches(&rest[end + 1..], others))
        }
        [letter, rest @ ..] => {
            matches!(path, [first, others @ ..]
                if (letter == first || (*letter == '?' && *first != '/')) && matches(rest, others))
        }
    }
}

fn is(glob: &str, path: &str) -> bool {
    let letters = |text: &str| text.chars().collect::<Vec<_>>();
    matches(&letters(glob), &letters(path))
}

/// What is denied of a path.
fn denied(path: &str) -> String {
    let mut all: Vec<char> = text(DEFAULT, "unconfined")
        .lines()
        .filter_map(|line| line.strip_prefix("deny /")?.strip_suffix(',')?.split_once(' '))
        .filter(|(glob, _)| is(&format!("/{glob}"), path))
        .flat_map(|(_, access)| access.chars())
        .collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().collect()
}

const DEFAULT: &str = "docker-default";

#[test]
fn paths_are_denied_as_by_dockerd() {
    for (path, access) in [
        ("/proc/kcore", "klrwx"),
        ("/proc/sysrq-trigger", "klrwx"),
        ("/proc/meminfo", "w"),
        ("/proc/1/oom_score_adj", ""),
        ("/proc/1/attr/exec", ""),
        ("/proc/irq/1/smp_affinity", "w"),
        ("/proc/fs/x", "w"),
        ("/proc/sysvipc/shm", "w"),
        ("/proc/s/x", "w"),
        ("/proc/bus/pci/00/00.0", ""),
        ("/proc/sys/vm/swappiness", "w"),
        ("/proc/sys/net/ipv4/ip_forward", "w"),
        ("/proc/sys/kernel/core_pattern", "w"),
        ("/proc/sys/kernel/random/boot_id", "w"),
        ("/proc/sys/kernel/ab", "w"),
        ("/proc/sys/kernel/shmmax", ""),
        ("/proc/sys/kernel/sem", ""),
        ("/proc/sys/kernel/threads-max", ""),
        ("/proc/sys/kernel/domainname", ""),
        ("/sys/kernel/mm/x", "klwx"),
        ("/sys/firmware/acpi/x", "klrwx"),
        ("/sys/fs/cgroup/x", ""),
        ("/sys/fs/cgroupx/x", "klwx"),
        ("/sys/fs/fuse/x", "klwx"),
        ("/sys/kernel/security/apparmor/profiles", "klrwx"),
        ("/sys/devices/virtual/powercap/x", "klrwx"),
        ("/sys/devices/virtual/net/x", "klwx"),
        ("/etc/passwd", ""),
        ("/tmp/sys/fs/x", ""),
    ] {
        assert_eq!(denied(path), access, "{path}");
    }
}

#[test]
fn signals_come_from_the_host_the_daemon_and_runtimes() {
    let text = text(DEFAULT, "/usr/sbin/a \"daemon\" [x]");
    let peers: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("signal (receive) peer=")).collect();
    let daemon = r#""/usr/sbin/a \"daemon\" \[x\]","#;
    assert_eq!(peers, [r#""unconfined","#, daemon, r#""runc","#, r#""crun","#]);
    assert!(text.contains("\nsignal (receive, send) peer=docker-default,\n"));
    assert!(text.contains("\nptrace (read, readby, trace, tracedby) peer=docker-default,\n"));
}

proptest! {
    #[test]
    fn others_are_all_names_but_these(
        names in proptest::collection::btree_set("[a-c]{1,4}", 1..4),
        name in "[a-c1]{1,5}",
    ) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let other = !names.contains(&name.as_str()) && !name.starts_with('1');
        let globs = others(&names, "0-9");
        prop_assert_eq!(globs.iter().any(|glob| is(glob, &name)), other, "{:?}", globs);
    }
}
