//! Facts in a form that another host shows too: what is the host's becomes a word or goes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cases::{Case, Need};
use crate::facts::{Difference, Facts};
use crate::holding::Holding;
use crate::world::World;

/// Up to AUDIT_READ, which are those that stock 20.10 knows.
const CAPABILITIES: u64 = (1 << 38) - 1;

const HOSTS: &str = "the host's";

/// Paths that hosts have or not, and that the engine hides.
const MASKED: [&str; 13] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/sys/devices/system/cpu/",
];

/// What containers have from their host.
pub(crate) struct Host {
    unified: bool,
    name: String,
    block: String,
    capabilities: u64,
    /// The engine's own, by name.
    limits: Vec<(String, String)>,
    /// Flags of the file system that holds the stack's directory.
    flags: BTreeSet<String>,
    devices: Facts,
    cpus: String,
    mems: String,
    swappiness: String,
    cgroups: PathBuf,
}

impl Host {
    pub(crate) fn of(world: &World) -> Self {
        let sandbox = world.stack.sandbox();
        let engine = sandbox.outside(world.stack.engine());
        let read = |path: String| fs::read_to_string(&path).unwrap_or_default();
        let status = read(format!("/proc/{engine}/status"));
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        let mut limits = Facts::default();
        crate::probe::limits(&mut limits, &read(format!("/proc/{engine}/limits")));
        let control = |path: &str| {
            let text = fs::read_to_string(sandbox.path("/sys/fs/cgroup").join(path));
            text.unwrap_or_default().trim().to_owned()
        };
        let either = |v1: &str, v2: &str| {
            let own = control(v1);
            if own.is_empty() { control(v2) } else { own }
        };
        Self {
            unified: sandbox.path("/sys/fs/cgroup/cgroup.controllers").exists(),
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            block: world.block.clone(),
            capabilities: mask.expect("the engine's capabilities"),
            limits: limits
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            flags: Holding::of(sandbox).flags(),
            devices: devices(world),
            cpus: either("cpuset/cpuset.cpus", "cpuset.cpus.effective"),
            mems: either("cpuset/cpuset.mems", "cpuset.mems.effective"),
            swappiness: control("memory/memory.swappiness"),
            cgroups: sandbox.path("/sys/fs/cgroup"),
        }
    }

    /// The directory of golden files for what depends on the layout.
    pub(crate) fn layout(&self) -> &'static str {
        if self.unified { "cgroup-v2" } else { "cgroup-v1" }
    }

    /// Whether the host can do what a case needs.
    pub(crate) fn can(&self, case: &Case) -> bool {
        case.needs.is_none_or(|need| match need {
            Need::File(file) => {
                let (controller, name) = file.split_once('/').expect("CONTROLLER/FILE");
                self.cgroups.join(controller).join("docker").join(name).exists()
            }
            Need::NoAppArmor => !Path::new("/sys/module/apparmor").exists(),
            Need::AllCapabilities => self.capabilities & CAPABILITIES == CAPABILITIES,
        })
    }

    pub(crate) fn depends_on_layout(field: &str) -> bool {
        field.starts_with("cgroup ")
            || field.starts_with("mount /sys/fs/cgroup")
            || field.starts_with("written /sys/fs/cgroup")
            || field == "file /sys/fs/cgroup"
            || matches!(field, "namespace cgroup" | "inspect.HostConfig.CgroupnsMode")
    }

    /// A value of a controller, as against which cgroup it is.
    pub(crate) fn is_controllers(field: &str) -> bool {
        field.starts_with("cgroup ")
            && !["cgroup path", "cgroup inside", "cgroup mounts", "cgroup huge pages"]
                .iter()
                .any(|own| field.starts_with(own))
    }

    /// What is hidden can be judged where it exists on both hosts.
    pub(crate) fn judges(&self, difference: &Difference) -> bool {
        let absent = |value: &Option<String>| value.as_deref() == Some("absent");
        let field = &difference.field;
        let has = |value: &Option<String>| value.is_some() && !absent(value);
        // Neither can one be written that is not there.
        !(field.starts_with("masked ") || field.starts_with("written /proc/"))
            || has(&difference.stock) && has(&difference.ours)
    }

    pub(crate) fn portable(&self, facts: Facts) -> Facts {
        let mut portable = Facts::default();
        let mut hosts_devices = BTreeSet::new();
        for (field, value) in facts.iter() {
            if self.is_hosts(field, &facts) {
                continue;
            }
            let word = field.split(' ').next().unwrap_or_default();
            match word {
                "limit" => {
                    let own = self.limits.iter().any(|(name, own)| name == field && own == value);
                    portable.set(field, if own { HOSTS } else { value });
                }
                "status" => portable.set(field, self.status(field, value)),
                "dev" if self.devices.get(field) == Some(value) && !is_everybodys(field) => {
                    hosts_devices.insert(field);
                }
                "mount" => self.mount(&mut portable, field, value, &facts),
                "cgroup" => self.cgroup(&mut portable, field, value, &facts),
                "link" => portable.set(field, without_queue(value)),
                "address" | "routes" => {
                    let lines: Vec<&str> =
                        value.lines().filter(|line| !line.contains("::")).collect();
                    portable.set(field, lines.join("\n"));
                }
                "devices" => portable.set(field, access(value)),
                _ if value == self.name => portable.set(field, HOSTS),
                "file" if field.starts_with("file /etc/") => {
                    let words = value.replace(&self.name, "HOSTNAME");
                    portable.set(field, words);
                }
                _ => portable.set(field, value),
            }
        }
        let mut rest = self.devices.iter().filter(|(field, _)| !is_everybodys(field));
        let all = rest.all(|(field, _)| hosts_devices.contains(field));
        portable.set("dev of the host", if all { "all" } else { "not all" });
        portable
    }

    /// Fields that tell of the host alone.
    fn is_hosts(&self, field: &str, facts: &Facts) -> bool {
        let shared = |kind: &str| facts.get(&format!("namespace {kind}")) == Some(HOSTS);
        let asked = |name: &str| facts.get(&format!("inspect.HostConfig.Sysctls.{name}")).is_some();
        if let Some(name) = field.strip_prefix("sysctl ") {
            let kept =
                matches!(name, "net/ipv4/ip_unprivileged_port_start" | "net/ipv4/ping_group_range");
            if name.starts_with("net/") {
                return shared("net") || !kept && !asked(&name.replace('/', "."));
            }
            if name.starts_with("fs/mqueue") || !name.ends_with("name") {
                return shared("ipc");
            }
            return shared("uts");
        }
        let network = ["link ", "address ", "routes"].iter().any(|own| field.starts_with(own));
        let tunnels =
            ["tunl", "gre", "erspan", "ip_vti", "ip6", "sit", "dummy", "ifb", "teql", "bond"];
        let tunnel = |name: &str| tunnels.iter().any(|own| name.starts_with(own));
        network && shared("net")
            || field.strip_prefix("link ").is_some_and(tunnel)
            || field.strip_prefix("address ").is_some_and(tunnel)
            || matches!(
                field,
                "status SigQ"
                    | "status Cpus_allowed_list"
                    | "status Mems_allowed_list"
                    | "status Speculation_Store_Bypass"
                    | "process attr/current"
                    | "process coredump_filter"
                    | "inspect.AppArmorProfile"
            )
            || field.starts_with("created.Warnings")
            // Hierarchies and their links.
            || field.starts_with("file /sys/fs/cgroup/")
            || field
                .strip_prefix("mount ")
                .is_some_and(|rest| MASKED.iter().any(|masked| rest.starts_with(masked)))
    }

    /// Capabilities by what is missing of the engine's, where that is most of them; of those that
    /// stock 20.10 knows.
    fn status(&self, field: &str, value: &str) -> String {
        if !field.starts_with("status Cap") {
            return value.to_owned();
        }
        let mask = u64::from_str_radix(value, 16).unwrap_or(0);
        if mask.count_ones() < 25 {
            return value.to_owned();
        }
        match self.capabilities & CAPABILITIES & !mask {
            0 => "all".to_owned(),
            missing => format!("all but {missing:x}"),
        }
    }

    fn mount(&self, portable: &mut Facts, field: &str, value: &str, facts: &Facts) {
        let (place, part) = field.rsplit_once(' ').expect("a place and a part");
        let of = |part: &str| facts.get(&format!("{place} {part}")).unwrap_or_default();
        if place.starts_with("mount /sys/fs/cgroup/") {
            // Which hierarchies there are, and under which names, is the host's.
            if matches!(part, "options" | "root" | "propagation") {
                let field = format!("cgroup mounts {part}");
                let known = portable.get(&field).unwrap_or_default();
                if !known.lines().any(|line| line == value) {
                    portable.add(field, value);
                }
            }
            return;
        }
        let root = of("root");
        let hosts = root.starts_with("ROOT");
        let value = match part {
            "type" | "source" | "details" if hosts => HOSTS.to_owned(),
            "options" if hosts => {
                let words = value.split(',').filter(|word| !self.flags.contains(*word));
                words.collect::<Vec<_>>().join(",")
            }
            "details" if of("type") == "overlay" => {
                value.split(',').next().unwrap_or_default().to_owned()
            }
            "details" => {
                let own = ["inode64", "inode32", "seclabel"];
                let words = value.split(',').filter(|word| !own.contains(word));
                words.collect::<Vec<_>>().join(",")
            }
            _ => value.to_owned(),
        };
        portable.set(field, value);
    }

    fn cgroup(&self, portable: &mut Facts, field: &str, value: &str, facts: &Facts) {
        let words: Vec<&str> = field.split(' ').collect();
        let unset = |name: &str| {
            facts
                .get(&format!("inspect.HostConfig.{name}"))
                .is_none_or(|own| matches!(own, "" | "null"))
        };
        match words.as_slice() {
            // One path in all hierarchies; how many there are is the host's.
            ["cgroup", side @ ("path" | "inside"), ..] => {
                let field = format!("cgroup {side}");
                let known = portable.get(&field).unwrap_or_default();
                if !known.lines().any(|line| line == value) {
                    portable.add(field, value);
                }
            }
            ["cgroup", _, name] if name.starts_with("hugetlb.") => {
                let value = if is_unlimited(value) { "max" } else { value };
                let known = portable.get("cgroup huge pages").unwrap_or_default();
                if !known.lines().any(|line| line == value) {
                    portable.add("cgroup huge pages", value);
                }
            }
            ["cgroup", _, "cpuset.cpus"] if value == self.cpus && unset("CpusetCpus") => {
                portable.set(field, HOSTS);
            }
            ["cgroup", _, "cpuset.mems"] if value == self.mems && unset("CpusetMems") => {
                portable.set(field, HOSTS);
            }
            ["cgroup", _, "memory.swappiness"]
                if value == self.swappiness && unset("MemorySwappiness") =>
            {
                portable.set(field, HOSTS);
            }
            _ if is_unlimited(value) => portable.set(field, "max"),
            _ => portable.set(field, value.replace(&self.block, "BLOCK")),
        }
    }
}

/// v1's largest number depends on the size of pages.
fn is_unlimited(value: &str) -> bool {
    value.parse::<u64>().is_ok_and(|bytes| bytes >= 1 << 62)
}

/// Every container has these, whatever the host shows.
fn is_everybodys(field: &str) -> bool {
    const OWN: [&str; 10] =
        ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "core", "kmsg"];
    let path = field.trim_start_matches("dev /dev");
    let name = path.trim_start_matches('/');
    name.is_empty()
        || OWN.contains(&name)
        || ["pts", "shm", "mqueue", "fd", "std"].iter().any(|own| name.starts_with(own))
}

/// What the node's opening told of the rule; whether there is a device is the host's.
fn access(value: &str) -> String {
    let words: Vec<&str> = value.split('|').collect();
    let opened = |word: &&str| match *word {
        "" | "Permission denied" => (*word).to_owned(),
        "Operation not permitted" => "denied".to_owned(),
        _ => "allowed".to_owned(),
    };
    match words.as_slice() {
        ["made", rest @ ..] => {
            format!("made|{}", rest.iter().map(opened).collect::<Vec<_>>().join("|"))
        }
        [why, ..] => (*why).to_owned(),
        [] => String::new(),
    }
}

fn without_queue(value: &str) -> String {
    let mut words = Vec::new();
    let mut rest = value.split(' ');
    while let Some(word) = rest.next() {
        if matches!(word, "qdisc" | "qlen") {
            rest.next();
        } else {
            words.push(word);
        }
    }
    words.join(" ")
}

/// The host's /dev as the probe would show it.
fn devices(world: &World) -> Facts {
    let busybox = integration_tests::parts::busybox().display().to_string();
    let script =
        format!("{busybox} find /dev -exec {busybox} stat -c '%n|%F|%t:%T|%a|%u:%g|%N' {{}} +");
    let text = world.stack.inside(&[&busybox, "sh", "-c", &script]).stdout;
    let mut facts = Facts::default();
    text.lines().filter(|line| line.contains("special")).for_each(|line| {
        crate::probe::node(&mut facts, "nodes", line);
    });
    facts
}
