//! A bundle in a temporary directory, a state root of its own, and the runtime on both.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use integration_tests::parts::{ours, root_file_system};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) struct Bundle {
    dir: TempDir,
    pub(crate) id: String,
    pub(crate) config: Value,
}

pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("RUNTIME") {
        return PathBuf::from(path);
    }
    ours("runc-rs")
}

/// Whether the tests run against our own runtime.
pub(crate) fn ours_only() -> bool {
    std::env::var_os("RUNTIME").is_none()
}

/// Whether cgroup2 is all there is.
pub(crate) fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

impl Bundle {
    /// A container that runs `script` in busybox's shell.
    pub(crate) fn new(script: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let dir = TempDir::new().unwrap();
        root_file_system(
            &dir.path().join("rootfs"),
            &[
                "sh", "cat", "id", "ls", "sleep", "grep", "touch", "mkdir", "readlink", "pwd",
                "env", "tty", "true",
            ],
        );
        let id = format!("runc-rs-test-{}-{number}", std::process::id());
        let config = config(script, &id);
        Self { dir, id, config }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The runtime with the state root and one command; the configuration is written first.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let text = serde_json::to_vec(&self.config).unwrap();
        fs::write(self.dir.path().join("config.json"), text).unwrap();
        let mut command = Command::new(binary());
        command.arg("--root").arg(self.root()).args(arguments).stdin(Stdio::null());
        command
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Like `call`, but the command must succeed; its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the container in the foreground.
    pub(crate) fn run(&self) -> Output {
        self.call(&["run", "--bundle", self.path().to_str().unwrap(), &self.id])
    }

    /// Runs it to a good end; its standard output.
    pub(crate) fn output(&self) -> String {
        let output = self.run();
        assert!(output.status.success(), "{:?} {}", output.status, stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command whose container must not hold our pipes.
    pub(crate) fn detached(&self, arguments: &[&str]) {
        let log = self.path().join("log.json");
        let mut all = vec!["--log", log.to_str().unwrap(), "--log-format", "json"];
        all.extend(arguments);
        let status =
            self.command(&all).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let text = fs::read_to_string(&log).unwrap_or_default();
        assert!(status.success(), "{arguments:?}: {text}");
    }

    /// `create` and `start`.
    pub(crate) fn start(&self) {
        self.detached(&["create", "--bundle", self.path().to_str().unwrap(), &self.id]);
        self.detached(&["start", &self.id]);
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", &self.id])).unwrap()
    }

    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.state()["pid"].as_i64().unwrap()).unwrap()
    }

    /// Waits for the end of the first process, by pidfd.
    pub(crate) fn wait_gone(&self, pid: i32) {
        let Some(pid) = rustix::process::Pid::from_raw(pid) else { return };
        let flags = rustix::process::PidfdFlags::empty();
        let Ok(pidfd) = rustix::process::pidfd_open(pid, flags) else { return };
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let patience = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&patience)).unwrap(), 1, "still running");
    }

    pub(crate) fn process(&mut self) -> &mut Value {
        &mut self.config["process"]
    }

    pub(crate) fn linux(&mut self) -> &mut Value {
        &mut self.config["linux"]
    }

    pub(crate) fn add_mount(&mut self, mount: Value) {
        self.config["mounts"].as_array_mut().unwrap().push(mount);
    }

    /// Hands the files of the root to the host id that is root in a user namespace.
    pub(crate) fn use_user_namespace(&mut self) {
        let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        self.linux()["uidMappings"] = mapping.clone();
        self.linux()["gidMappings"] = mapping;
        self.linux()["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        chown_tree(&self.rootfs(), 100_000);
        // The temporary directory is closed to others.
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if self.root().exists() {
            drop(
                Command::new(binary())
                    .arg("--root")
                    .arg(self.root())
                    .args(["delete", "--force", &self.id])
                    .stderr(Stdio::null())
                    .status(),
            );
        }
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn chown_tree(path: &Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(id), Some(id)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            chown_tree(&entry.unwrap().path(), id);
        }
    }
}

fn config(script: &str, id: &str) -> Value {
    let capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 512, "soft": 256}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs"},
        "hostname": "testhost",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
            {
                "destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"],
            },
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"},
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/acpi", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
