//! Where ours differs from stock 20.10, and why. The list is to shrink: an entry that holds no longer
//! fails `live`.

use crate::facts::{Difference, escape};

struct Known {
    /// A field; `*` stands for any text.
    field: &'static str,
    /// What ours shows; `-` for no such field.
    ours: &'static str,
    shows: Shows,
    why: &'static str,
}

/// In which cases it does.
enum Shows {
    Everywhere,
    /// In these, named by their beginnings.
    In(&'static [&'static str]),
    /// Everywhere, on hosts that have such a thing.
    OnSome,
}

use Shows::{Everywhere, In, OnSome};

const STORE: &str = "images and layers are containerd's, as in 28.5 with that store";
const MASKED: &str = "28.5 hides more";
const FIELDS: &str = "as 28.5 writes it";
const IPV6: &str = "links may have IPv6 but for eth0, as with 28.5";
const NOT_YET: &str = "no IPv6 addresses on the host's side yet";
const TREES: &str = "read-only all the way down, as since 25";
const SHARED: &str = "the root is what the request makes it, as with current runc";
const MODE: &str = "the mode of what a tmpfs covers stands among its options, as with current runc";
const CAPABILITIES: &str = "28.5 knows three more: PERFMON, BPF, CHECKPOINT_RESTORE";
const SANDBOX: &str = "networks that need none show no sandbox and no endpoint";
const BRIDGE: &str = "the bridge's hardware address follows from its address, and it has a queue";
const TCP: &str = "runc passes over it since 1.1; runc-rs does what it is asked";
const DATA: &str =
    "the data root's propagation is left as it is; stock makes it a shared mount of its own";

#[rustfmt::skip]
const KNOWN: &[Known] = &[
    Known { field: "inspect.Driver", ours: "overlayfs", shows: Everywhere, why: STORE },
    Known { field: "inspect.GraphDriver.*", ours: "*", shows: Everywhere, why: STORE },
    Known { field: "inspect.HostConfig.MaskedPaths", ours: "*\"/proc/interrupts\"*", shows: Everywhere, why: MASKED },
    Known { field: "masked /proc/interrupts", ours: "device 1:3", shows: Everywhere, why: MASKED },
    Known { field: "mount /proc/interrupts *", ours: "*", shows: Everywhere, why: MASKED },
    Known { field: "masked /sys/devices/*", ours: "empty directory", shows: OnSome, why: MASKED },
    Known { field: "mount /sys/devices/*", ours: "*", shows: OnSome, why: MASKED },
    Known { field: "inspect.HostConfig.KernelMemory*", ours: "-", shows: Everywhere, why: FIELDS },
    Known { field: "inspect.HostConfig.NetworkMode", ours: "bridge", shows: Everywhere, why: FIELDS },
    Known { field: "inspect.HostConfig.RestartPolicy.Name", ours: "no", shows: Everywhere, why: FIELDS },
    Known { field: "inspect.NetworkSettings.Networks.*.DNSNames", ours: "*", shows: Everywhere, why: FIELDS },
    Known { field: "sysctl net/ipv6/conf/all/disable_ipv6", ours: "0", shows: OnSome, why: IPV6 },
    Known { field: "sysctl net/ipv6/conf/default/disable_ipv6", ours: "0", shows: OnSome, why: IPV6 },
    Known { field: "sysctl net/ipv6/conf/lo/disable_ipv6", ours: "0", shows: OnSome, why: IPV6 },
    Known { field: "address lo", ours: "inet 127.*\\ninet6 ::1/128 scope host", shows: OnSome, why: IPV6 },
    Known { field: "inspect.NetworkSettings.Ports.*.1.*", ours: "-", shows: OnSome, why: NOT_YET },
    Known { field: "mount / propagation", ours: "", shows: Everywhere, why: DATA },
    Known { field: "mount * propagation", ours: "", shows: In(&["named volume", "volume", "anonymous volume", "mount of a volume", "mount of an anonymous volume"]), why: DATA },
    Known { field: "mount / propagation", ours: "shared", shows: In(&["bind rshared"]), why: SHARED },
    Known { field: "mount /var details", ours: "rw,mode=755", shows: In(&["tmpfs over what is there"]), why: MODE },
    Known { field: "mount /bound/below options", ours: "ro,*", shows: In(&["bind with a mount below read-only", "bind slave read-only"]), why: TREES },
    Known { field: "status Cap*", ours: "000001ff*", shows: In(&["privileged", "all capabilities", "all but some"]), why: CAPABILITIES },
    Known { field: "inspect.NetworkSettings.Sandbox*", ours: "", shows: In(&["host's network", "no network", "dns all of it on the host's network", "further hosts on"]), why: SANDBOX },
    Known { field: "inspect.NetworkSettings.Networks.*ID", ours: "", shows: In(&["host's network", "no network", "dns all of it on the host's network", "further hosts on"]), why: SANDBOX },
    Known { field: "link BRIDGE", ours: "*", shows: In(&["host's network", "dns all of it on the host's network", "further hosts on the host's network"]), why: BRIDGE },
    Known { field: "address BRIDGE", ours: "*", shows: OnSome, why: BRIDGE },
    Known { field: "cgroup memory memory.kmem.tcp.limit_in_bytes", ours: "16777216", shows: In(&["memory of tcp"]), why: TCP },
];

impl Known {
    fn covers(&self, case: &str, difference: &Difference) -> bool {
        let ours = difference.ours.as_ref().map_or_else(|| "-".to_owned(), |value| escape(value));
        let here = match self.shows {
            In(cases) => cases.iter().any(|own| case.starts_with(own)),
            Everywhere | OnSome => true,
        };
        here && matches(self.field, &difference.field) && matches(self.ours, &ours)
    }

    /// Whether it has to show in the case.
    fn must(&self, case: &str) -> bool {
        match self.shows {
            In(cases) => cases.contains(&case),
            // Where nothing was asked for.
            Everywhere => case == "default",
            OnSome => false,
        }
    }
}

/// What is left of the differences of a case, and the entries that should have been needed.
pub(crate) fn unknown(case: &str, differences: Vec<Difference>) -> (Vec<Difference>, Vec<String>) {
    let stale = KNOWN
        .iter()
        .filter(|known| known.must(case))
        .filter(|known| !differences.iter().any(|difference| known.covers(case, difference)))
        .map(|known| format!("{} ({})", known.field, known.why));
    let stale = stale.collect();
    let covered =
        |difference: &Difference| KNOWN.iter().any(|known| known.covers(case, difference));
    (differences.into_iter().filter(|difference| !covered(difference)).collect(), stale)
}

fn matches(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(before) else { return false };
    (0..=rest.len()).filter(|&at| rest.is_char_boundary(at)).any(|at| matches(after, &rest[at..]))
}

#[test]
fn patterns_match_whole_texts() {
    assert!(matches("a.*.c", "a.b.c") && matches("*", "") && matches("a*", "abc"));
    assert!(!matches("a", "ab") && !matches("a*c", "abd"));
}
