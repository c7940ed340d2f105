//! A container whose cgroup is made by a manager of the test's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::manager::{Manager, Mood};
use crate::bundle::{Bundle, ours_only, stderr, unified};

pub(super) struct Ruled {
    pub(super) bundle: Bundle,
    pub(super) manager: Manager,
    pub(super) slice: String,
    /// What the user's manager is in; "" for the system's.
    pub(super) root: String,
    /// No bus is there.
    pub(super) direct: bool,
}

impl Ruled {
    pub(super) fn new(mood: Mood) -> Self {
        Self::below(mood, false)
    }

    pub(super) fn of_user() -> Self {
        Self::below(Mood::Well, true)
    }

    pub(super) fn below(mood: Mood, of_user: bool) -> Self {
        let mut bundle = Bundle::new("sleep 100");
        let root = if of_user { format!("{}-manager", bundle.id) } else { String::new() };
        let manager = Manager::new(bundle.path(), mood, &format!("/{root}"));
        // A slice of its own, and one below, so that what is left behind shows.
        let stem = bundle.id.replace('-', "");
        let slice = format!("{stem}-in.slice");
        bundle.linux()["cgroupsPath"] = json!(format!("{slice}:pre:{}", bundle.id));
        Self { bundle, manager, slice, root, direct: mood == Mood::Direct }
    }

    pub(super) fn unit(&self) -> String {
        format!("pre-{}.scope", self.bundle.id)
    }

    /// On a host that systemd runs, as far as anyone can tell.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let inner = self.bundle.command(arguments);
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/system && \
                      ln -s $DOOR /run/systemd/private && exec \"$@\"";
        command.args(["-m", "sh", "-c", script, "sh"]).arg(inner.get_program());
        command.env("DOOR", self.bundle.path().join(if self.direct { "bus" } else { "none" }));
        command.arg("--systemd-cgroup");
        if self.direct {
            command.env_remove("DBUS_SYSTEM_BUS_ADDRESS");
            command.args(inner.get_args()).stdin(Stdio::null());
            return command;
        }
        let bus = if self.root.is_empty() {
            "DBUS_SYSTEM_BUS_ADDRESS"
        } else {
            command.args(["--rootless", "true"]);
            "DBUS_SESSION_BUS_ADDRESS"
        };
        command.env(bus, self.manager.address());
        command.args(inner.get_args()).stdin(Stdio::null());
        command
    }

    pub(super) fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(super) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(super) fn create(&self) {
        let log = self.bundle.path().join("log");
        let path = self.bundle.path().to_str().unwrap();
        let mut create =
            self.command(&["--log", log.to_str().unwrap(), "create", "-b", path, &self.bundle.id]);
        let status = create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{}", fs::read_to_string(log).unwrap_or_default());
    }

    pub(super) fn pid(&self) -> i64 {
        let state: Value = serde_json::from_str(&self.ok(&["state", &self.bundle.id])).unwrap();
        state["pid"].as_i64().unwrap()
    }

    pub(super) fn group(&self, controller: &str) -> PathBuf {
        let controller = if unified() { "" } else { controller };
        let below = expanded(&self.slice);
        let hierarchy = PathBuf::from("/sys/fs/cgroup").join(controller);
        hierarchy.join(&self.root).join(below).join(self.unit())
    }

    /// Creates it and answers the properties that were asked for, at the start and for the limits.
    /// Devices are among these, and for ours on v1 at the start: there systemd takes all processes of a
    /// slice out of their units when its first rules come later.
    pub(super) fn asked(&self) -> (Value, Value) {
        self.create();
        self.told()
    }

    /// The same of what was asked for already.
    pub(super) fn told(&self) -> (Value, Value) {
        let calls = self.manager.calls();
        let body = |member: &str| {
            let call = calls.iter().find(|(name, _)| name == member);
            call.unwrap_or_else(|| panic!("no {member} in {calls:?}")).1[2].as_array().unwrap()
        };
        let of_devices =
            |property: &&Value| property[0].as_str().unwrap_or_default().starts_with("Device");
        let (devices, start): (Vec<_>, Vec<_>) =
            body("StartTransientUnit").iter().partition(of_devices);
        assert_eq!(devices.is_empty(), unified() || !ours_only(), "{devices:?}");
        let limits: Vec<_> =
            [&devices[..], &body("SetUnitProperties").iter().collect::<Vec<_>>()].concat();
        (sorted(&json!(start)), sorted(&json!(limits)))
    }

    /// Why it is not made; nothing is left.
    pub(super) fn refused(&self) -> String {
        let path = self.bundle.path().to_str().unwrap();
        let output = self.call(&["create", "-b", path, &self.bundle.id]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(!self.bundle.root().join(&self.bundle.id).exists());
        assert!(!self.group("pids").exists());
        stderr(&output).replace('\\', "")
    }
}

impl Drop for Ruled {
    fn drop(&mut self) {
        if self.bundle.root().join(&self.bundle.id).exists() {
            let output = self.call(&["delete", "--force", &self.bundle.id]);
            assert!(output.status.success() || std::thread::panicking(), "{}", stderr(&output));
        }
        // Slices are systemd's to remove.
        let top = self.slice.split('-').next().unwrap();
        for mount in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let whole = PathBuf::from("/sys/fs/cgroup").join(&self.root);
            for base in [mount.unwrap().path(), whole] {
                drop(fs::remove_dir(base.join(format!("{top}.slice")).join(&self.slice)));
                drop(fs::remove_dir(base.join(format!("{top}.slice"))));
            }
        }
        if !self.root.is_empty() {
            drop(fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.root)));
        }
    }
}

/// `a-b.slice` as a path.
pub(super) fn expanded(slice: &str) -> PathBuf {
    let stem = slice.strip_suffix(".slice").unwrap();
    let parts: Vec<&str> = stem.split('-').collect();
    (1..=parts.len()).map(|count| format!("{}.slice", parts[..count].join("-"))).collect()
}

/// Their order says nothing.
pub(super) fn sorted(properties: &Value) -> Value {
    let mut all = properties.as_array().unwrap().clone();
    all.sort_by_key(Value::to_string);
    json!(all)
}
