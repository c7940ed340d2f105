//! `features`: what this runtime can do, as `features.md` of the runtime specification has it.

use serde_json::json;

use super::{no_words, parse, print};
use crate::args::Order;
use crate::container::OCI_VERSION;
use crate::seccomp;
use crate::spec::{options, process::CAPABILITIES, schedule};
use crate::sys;

pub(crate) fn run(arguments: Vec<String>) -> anyhow::Result<u8> {
    no_words("features", &parse(arguments, &[], Order::Mixed)?)?;
    let flags = seccomp::known_flags();
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart",
            "poststop",
        ],
        "mountOptions": options::names(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": CAPABILITIES.as_slice(),
            "cgroup": {
                "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true,
            },
            "seccomp": {
                "enabled": true,
                "actions": seccomp::known_actions(),
                "operators": seccomp::known_operators(),
                "archs": seccomp::known_arches(),
                "knownFlags": flags.map(|flag| flag.0),
                "supportedFlags": flags
                    .iter()
                    .filter(|flag| sys::seccomp::knows_flag(flag.1))
                    .map(|flag| flag.0)
                    .collect::<Vec<_>>(),
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
            "memoryPolicy": {
                "modes": schedule::memory_modes().collect::<Vec<_>>(),
                "flags": schedule::memory_flags().collect::<Vec<_>>(),
            },
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "true",
        },
    });
    print(&(serde_json::to_string_pretty(&features)? + "\n"))?;
    Ok(0)
}
