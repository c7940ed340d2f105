//! An ordinary user's containers: no privilege anywhere, state below `XDG_RUNTIME_DIR`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use integration_tests::parts::root_file_system;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bundle::{binary, ours_only, stderr, unified};

const USER: u32 = 54321;

struct User {
    dir: TempDir,
    id: String,
    config: Value,
    /// Groups of its own, if it was given some, and what its commands are put into.
    delegated: Vec<PathBuf>,
}

impl User {
    /// What `spec --rootless` makes, with `script` to run and without a terminal.
    fn new(script: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let dir = TempDir::new().unwrap();
        let applets = ["sh", "cat", "id", "ls", "sleep", "grep", "mkdir", "readlink"];
        root_file_system(&dir.path().join("rootfs"), &applets);
        fs::create_dir(dir.path().join("run")).unwrap();
        // The user may not reach where it was built.
        install(&binary(), &dir.path().join("runtime"));
        for path in ["", "run", "rootfs", "rootfs/tmp", "rootfs/bin"] {
            chown(dir.path().join(path), Some(USER), Some(USER)).unwrap();
        }
        let id = format!("rootless-{}-{number}", std::process::id());
        let mut user = Self { dir, id, config: Value::Null, delegated: Vec::new() };
        let made = user.command(&["spec", "--rootless"]).output().unwrap();
        assert!(made.status.success(), "{}", stderr(&made));
        let path = user.dir.path().join("config.json");
        user.config = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        user.config["process"]["terminal"] = json!(false);
        user.config["root"]["readonly"] = json!(false);
        user.config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        user.config["process"]["env"] = json!(["PATH=/bin"]);
        user
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("run").join(if ours_only() { "runc-rs" } else { "runc" })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        if !self.config.is_null() {
            let path = self.dir.path().join("config.json");
            fs::write(path, self.config.to_string()).unwrap();
        }
        let mut command = Command::new(self.dir.path().join("runtime"));
        command.args(arguments).stdin(Stdio::null());
        self.lowered(command)
    }

    fn lowered(&self, mut command: Command) -> Command {
        command.uid(USER).gid(USER).current_dir(self.dir.path());
        command.env("XDG_RUNTIME_DIR", self.dir.path().join("run"));
        command
    }

    fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn run(&self) -> Output {
        self.call(&["run", &self.id])
    }

    /// Why it does not run; nothing is left.
    fn refused(&self) -> String {
        let output = self.run();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(!self.root().join(&self.id).exists());
        stderr(&output)
    }

    fn detached(&self, arguments: &[&str]) {
        let log = self.dir.path().join("run/log");
        let mut command = self.command(&[&["--log", log.to_str().unwrap()], arguments].concat());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let text = fs::read_to_string(&log).unwrap_or_default();
        assert!(status.success(), "{arguments:?}: {text}");
    }

    /// Creates it from within the user's own groups, as a session would.
    fn create_from_group(&self) {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read go; exec \"$@\" </dev/null", "sh"]);
        shell.arg(self.dir.path().join("runtime")).args(["create", &self.id]);
        drop(self.command(&[]));
        let mut shell = self.lowered(shell);
        let log = self.dir.path().join("errors");
        let errors = fs::File::create_new(&log).unwrap();
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(errors);
        let mut child = shell.spawn().unwrap();
        for group in &self.delegated {
            let procs = group.join("session/cgroup.procs");
            fs::write(procs, child.id().to_string()).unwrap();
        }
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success(), "{}", fs::read_to_string(log).unwrap());
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", &self.id])).unwrap()
    }

    /// Groups that the user may do with as it likes, one a hierarchy.
    fn delegate(&mut self) {
        for mount in hierarchies() {
            let group = mount.join(&self.id);
            for directory in [group.clone(), group.join("session")] {
                fs::create_dir(&directory).unwrap();
                for name in ["cpuset.cpus", "cpuset.mems"] {
                    if !unified() && directory.join(name).exists() {
                        let all = fs::read(mount.join(name)).unwrap();
                        fs::write(directory.join(name), all).unwrap();
                    }
                }
                chown(&directory, Some(USER), Some(USER)).unwrap();
                for name in ["cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads"] {
                    if directory.join(name).exists() {
                        chown(directory.join(name), Some(USER), Some(USER)).unwrap();
                    }
                }
            }
            self.delegated.push(group);
        }
        self.config["linux"]["cgroupsPath"] = json!(format!("/{}/box", self.id));
    }

    fn group(&self, controller: &str) -> PathBuf {
        let controller = if unified() { "" } else { controller };
        PathBuf::from(format!("/sys/fs/cgroup/{controller}/{}/box", self.id))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.root().join(&self.id).exists() {
            let mut delete = Command::new(binary());
            delete.arg("--root").arg(self.root()).args(["delete", "--force", &self.id]);
            drop(delete.stderr(Stdio::null()).status());
        }
        for group in &self.delegated {
            drop(fs::remove_dir(group.join("session")));
            fs::remove_dir(group).unwrap();
        }
    }
}

/// By a process of its own: what this one has open for writing, children of other threads hold on to,
/// and it cannot be executed.
fn install(from: &Path, to: &Path) {
    assert!(Command::new("cp").args([from, to]).status().unwrap().success());
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}

fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let cgroups = mounts.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        matches!(fields[2], "cgroup" | "cgroup2").then(|| PathBuf::from(fields[1]))
    });
    cgroups.filter(|path| path.starts_with("/sys/fs/cgroup")).collect()
}

#[test]
fn a_users_bundle_runs_as_root_of_its_own_world() {
    let user = User::new(
        "id -u; id -g; cat /proc/self/uid_map /proc/self/setgroups; grep -E 'Cap(Prm|Inh)' \
         /proc/self/status; echo x >/tmp/made; exit 7",
    );
    let output = user.run();
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    let sets = ["CapInh:", "0000000000000000", "CapPrm:", "0000000020000420"];
    assert_eq!(words, [&["0", "0", "0", "54321", "1", "deny"][..], &sets].concat());
    assert_eq!(fs::metadata(user.dir.path().join("rootfs/tmp/made")).unwrap().uid(), USER);
    assert_eq!(stderr(&output), "");
    let root = fs::metadata(user.root()).unwrap();
    assert_eq!((root.uid(), root.permissions().mode() & 0o7777), (USER, 0o1700));
    assert!(!user.root().join(&user.id).exists());
}

#[test]
fn all_commands_are_a_users_own() {
    let user = User::new("sleep 100");
    user.detached(&["create", &user.id]);
    assert_eq!(user.state()["status"], "created");
    assert_eq!(
        user.ok(&["exec", &user.id, "sh", "-c", "id -u; readlink /proc/1/exe"]).lines().next(),
        Some("0")
    );
    user.detached(&["start", &user.id]);
    assert_eq!(user.state()["status"], "running");
    let text = user.ok(&[
        "exec",
        "--env",
        "A=b",
        &user.id,
        "sh",
        "-c",
        "echo $A $$; cat /proc/self/uid_map",
    ]);
    assert_eq!(text.lines().next().unwrap().split(' ').next(), Some("b"));
    assert!(text.split_whitespace().any(|word| word == "54321"), "{text}");
    let status = user.call(&["exec", &user.id, "sh", "-c", "exit 9"]).status;
    assert_eq!(status.code(), Some(9));
    let list: Value = serde_json::from_str(&user.ok(&["list", "-f", "json"])).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["owner"]), (&json!(user.id), &json!("#54321")));
    let pid = user.state()["pid"].as_i64().unwrap();
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), USER);
    if ours_only() {
        // Stock has no group to look into, and fails.
        let pids: Vec<i64> =
            serde_json::from_str(&user.ok(&["ps", "-f", "json", &user.id])).unwrap();
        assert!(pids.contains(&pid) && pids.len() <= 2, "{pids:?}");
    }
    for (arguments, words) in [
        (
            &["exec", "-g", "7", &user.id, "id"][..],
            "cannot set any additional groups in a rootless container",
        ),
        (&["update", "--memory", "9000000", &user.id], "cgroup"),
        (&["pause", &user.id], "cgroup"),
    ] {
        let output = user.call(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
    }
    let refused = user.call(&["delete", &user.id]);
    assert!(stderr(&refused).contains("that is not stopped: running"), "{}", stderr(&refused));
    let pidfd = rustix::process::pidfd_open(
        rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(),
        rustix::process::PidfdFlags::empty(),
    )
    .unwrap();
    user.ok(&["kill", &user.id, "KILL"]);
    let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut fds, None).unwrap(), 1);
    assert_eq!(user.state()["status"], "stopped");
    let gone = user.call(&["kill", &user.id, "0"]);
    assert!(stderr(&gone).contains("container not running"), "{}", stderr(&gone));
    user.ok(&["kill", "-a", &user.id, "0"]);
    user.ok(&["delete", &user.id]);
    assert!(!user.root().join(&user.id).exists());
}

#[test]
fn a_user_can_have_a_time_of_its_own() {
    let mut user = User::new("cat /proc/self/timens_offsets; cat /proc/self/uid_map; sleep 100");
    user.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    user.config["linux"]["timeOffsets"] =
        json!({"monotonic": {"secs": 7881, "nanosecs": 2}, "boottime": {"secs": 1337}});
    user.detached(&["create", &user.id]);
    user.detached(&["start", &user.id]);
    let pid = user.state()["pid"].as_i64().unwrap();
    let time = |link: &str| fs::read_link(format!("/proc/{link}/ns/time")).unwrap();
    assert_ne!(time(&pid.to_string()), time("self"));
    let text = user.ok(&["exec", &user.id, "cat", "/proc/self/timens_offsets"]);
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, ["monotonic", "7881", "2", "boottime", "1337", "0"]);
    let own = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    assert_eq!(own.split_whitespace().collect::<Vec<_>>(), ["0", "54321", "1"]);
    user.ok(&["delete", "--force", &user.id]);
}

#[test]
fn what_a_user_cannot_have_is_told_in_words() {
    type Change = fn(&mut Value);
    let rows: [(Change, &str); 7] = [
        (
            |config| config["process"]["user"]["additionalGids"] = json!([7]),
            "cannot set any additional groups in a rootless container",
        ),
        (
            |config| {
                let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
                namespaces.retain(|namespace| namespace["type"] != "user");
                config["linux"]["uidMappings"] = json!([]);
                config["linux"]["gidMappings"] = json!([]);
            },
            "rootless container requires user namespaces",
        ),
        (
            |config| {
                config["mounts"].as_array_mut().unwrap().push(json!({
                    "destination": "/t", "type": "tmpfs", "source": "t", "options": ["gid=5"],
                }));
            },
            "cannot specify gid=5 mount option for rootless container: user namespaces enabled, \
             but no mapping found for gid 5",
        ),
        (
            |config| {
                let one = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
                config["mounts"].as_array_mut().unwrap().push(json!({
                    "destination": "/t", "type": "bind", "source": "/tmp", "options": ["bind"],
                    "uidMappings": one, "gidMappings": one,
                }));
            },
            "id-mapped mounts are not supported for rootless containers",
        ),
        (
            |config| {
                config["process"]["rlimits"] =
                    json!([{"type": "RLIMIT_NOFILE", "hard": 1_000_000, "soft": 1_000_000}]);
            },
            "error setting rlimits for ready process: error setting rlimit type 7: operation not \
             permitted",
        ),
        (|config| config["process"]["oomScoreAdj"] = json!(-500), "oom_score_adj: "),
        (|config| config["process"]["user"]["gid"] = json!(5), "setgid"),
    ];
    for (change, words) in rows {
        let mut user = User::new("true");
        change(&mut user.config);
        let told = user.refused();
        assert!(told.replace('\\', "").contains(words), "{words}: {told}");
    }
}

#[test]
fn a_users_score_is_the_containers_and_not_the_runtimes() {
    let mut user = User::new("cat /proc/self/oom_score_adj; sleep 100");
    user.config["process"]["oomScoreAdj"] = json!(500);
    user.detached(&["create", &user.id]);
    user.detached(&["start", &user.id]);
    let score = |pid: i64| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score(user.state()["pid"].as_i64().unwrap()), "500\n");
    let text = user.ok(&["exec", &user.id, "cat", "/proc/self/oom_score_adj"]);
    assert_eq!(text, "500\n");
}

#[test]
fn rootless_says_whether_a_missing_cgroup_is_an_error() {
    let user = User::new("exit 3");
    let run = |choice: &str| user.call(&["--rootless", choice, "run", &user.id]);
    for choice in ["auto", "true"] {
        assert_eq!(run(choice).status.code(), Some(3), "{choice}");
    }
    for (choice, words) in [
        ("false", "unable to apply cgroup configuration: "),
        ("maybe", "strconv.ParseBool: parsing \"maybe\": invalid syntax"),
    ] {
        let output = run(choice);
        assert_eq!(output.status.code(), Some(1), "{choice}");
        let told = stderr(&output).replace('\\', "");
        assert!(told.contains(words), "{choice}: {told}");
        assert!(!user.root().join(&user.id).exists(), "{choice}");
    }
}

#[test]
fn limits_or_a_named_place_need_a_cgroup() {
    for limits in [json!({"memory": {"limit": 100_000_000}}), json!({"pids": {"limit": 10}})] {
        let mut user = User::new("true");
        user.config["linux"]["resources"] = limits.clone();
        let told = user.refused();
        let words = if unified() {
            let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
            if !ours_only() && !controllers.contains("memory") {
                return; // stock counts only limits that the host has a controller for
            }
            "unable to apply cgroup configuration: rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
        } else if limits.get("memory").is_some() {
            "cannot set memory limit: container could not join or create cgroup"
        } else {
            "cannot set pids limit: container could not join or create cgroup"
        };
        assert!(told.contains(words), "{told}");
    }
    let mut user = User::new("true");
    user.config["linux"]["cgroupsPath"] = json!(format!("/{}", user.id));
    let told = user.refused();
    assert!(told.contains("unable to apply cgroup configuration: "), "{told}");
    assert!(told.contains("permission denied"), "{told}");
}

#[test]
fn a_delegated_cgroup_is_used_as_any_other() {
    let mut user = User::new("sleep 100");
    user.delegate();
    user.create_from_group();
    user.detached(&["start", &user.id]);
    let pid = user.state()["pid"].as_i64().unwrap();
    let group = user.group("freezer");
    let inside = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    assert_eq!(inside, format!("{pid}\n"));
    assert_eq!(fs::metadata(&group).unwrap().uid(), USER);
    let pids: Vec<i64> = serde_json::from_str(&user.ok(&["ps", "-f", "json", &user.id])).unwrap();
    assert_eq!(pids, [pid]);
    user.ok(&["pause", &user.id]);
    assert_eq!(user.state()["status"], "paused");
    user.ok(&["resume", &user.id]);
    assert_eq!(user.state()["status"], "running");
    if !unified() {
        user.ok(&["update", "--pids-limit", "20", &user.id]);
        let limit = fs::read_to_string(user.group("pids").join("pids.max")).unwrap();
        assert_eq!(limit, "20\n");
    }
    user.ok(&["delete", "--force", &user.id]);
    assert!(!group.exists());
}

/// A program in `PATH` that has done by the test, which is root, what the real one does by setuid.
fn with_helpers(user: &User, names: &[&str]) -> PathBuf {
    let bin = user.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in names {
        let script = format!(
            "#!/bin/sh\necho {name} \"$@\" >{0}/ask-{name}\nread answer <{0}/answer-{name}\n\
             [ \"$answer\" = done ] || {{ echo \"$answer\" >&2; exit 1; }}\n",
            bin.display()
        );
        let text = bin.join(format!("{name}.text"));
        fs::write(&text, script).unwrap();
        install(&text, &bin.join(name));
        for end in ["ask", "answer"] {
            let fifo = bin.join(format!("{end}-{name}"));
            assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
            chown(fifo, Some(USER), Some(USER)).unwrap();
        }
    }
    bin
}

/// Answers one call of a helper; what it was asked, without the pid.
fn help(bin: &Path, name: &str) -> String {
    let asked = fs::read_to_string(bin.join(format!("ask-{name}"))).unwrap();
    let words: Vec<&str> = asked.split_whitespace().collect();
    let map: String = words[2..].chunks(3).map(|line| format!("{}\n", line.join(" "))).collect();
    let file = name.replace("new", "").replace("map", "_map");
    let written = fs::write(format!("/proc/{}/{file}", words[1]), map);
    let answer = written.map_or_else(|error| error.to_string(), |()| "done".to_owned());
    let mut to =
        fs::OpenOptions::new().write(true).open(bin.join(format!("answer-{name}"))).unwrap();
    writeln!(to, "{answer}").unwrap();
    words[2..].join(" ")
}

fn path_with(bin: &Path) -> String {
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

#[test]
fn more_than_ones_own_id_is_mapped_by_the_helpers() {
    let mut user =
        User::new("cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; exit 5");
    let map = json!([
        {"containerID": 0, "hostID": USER, "size": 1},
        {"containerID": 1, "hostID": 200_000, "size": 1000},
    ]);
    user.config["linux"]["uidMappings"] = map.clone();
    user.config["linux"]["gidMappings"] = map;
    user.config["process"]["user"] = json!({"uid": 7, "gid": 8});
    let bin = with_helpers(&user, &["newuidmap", "newgidmap"]);
    fs::set_permissions(user.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut run = user.command(&["run", &user.id]);
    run.env("PATH", path_with(&bin)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = run.spawn().unwrap();
    for name in ["newuidmap", "newgidmap"] {
        assert_eq!(help(&bin, name), "0 54321 1 1 200000 1000", "{name}");
    }
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    let map = ["0", "54321", "1", "1", "200000", "1000"];
    assert_eq!(words, [&map[..], &map, &["allow"]].concat());

    // A process of another id than the user's can be entered, killed and removed.
    user.config["process"]["args"] = json!(["/bin/sleep", "100"]);
    let mut create = user.command(&["create", &user.id]);
    create.env("PATH", path_with(&bin)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut create = create.spawn().unwrap();
    help(&bin, "newuidmap");
    help(&bin, "newgidmap");
    assert!(create.wait().unwrap().success());
    user.detached(&["start", &user.id]);
    let pid = user.state()["pid"].as_i64().unwrap();
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 200_006);
    assert_eq!(user.ok(&["exec", "-u", "9:9", &user.id, "id", "-u"]), "9\n");
    user.ok(&["delete", "--force", &user.id]);
}

#[test]
fn without_the_helpers_or_their_consent_it_is_an_error() {
    let mut user = User::new("true");
    user.config["linux"]["uidMappings"] = json!([
        {"containerID": 0, "hostID": USER, "size": 1},
        {"containerID": 1, "hostID": 200_000, "size": 1000},
    ]);
    let nowhere = user.dir.path().join("run");
    let output = user.command(&["run", &user.id]).env("PATH", nowhere).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!user.root().join(&user.id).exists());
    if ours_only() {
        let words = "failed to write uid_map: operation not permitted (exec: \"newuidmap\": \
                     executable file not found in $PATH)";
        let told = stderr(&output).replace('\\', "");
        assert!(told.contains(words), "{told}");
    }
    let bin = user.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let text = bin.join("text");
    fs::write(&text, "#!/bin/sh\necho range is not allowed >&2\nexit 1\n").unwrap();
    install(&text, &bin.join("newuidmap"));
    let output = user.command(&["run", &user.id]).env("PATH", path_with(&bin)).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("range is not allowed"), "{}", stderr(&output));
    assert!(!user.root().join(&user.id).exists());
}

/// CVE-2023-25809: a group that its user may write to is none the container may write to.
#[test]
fn the_users_own_cgroups_are_read_only_inside() {
    let mut user = User::new("sleep 100");
    user.delegate();
    user.create_from_group();
    let id = user.id.clone();
    let script = format!(
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/victim $d/{id}/victim \
         $d/{id}/session/victim; done 2>/dev/null; echo tried"
    );
    assert_eq!(user.ok(&["exec", &user.id, "sh", "-c", &script]), "tried\n");
    for group in &user.delegated {
        for place in ["victim", "session/victim", "box/victim"] {
            assert!(!group.join(place).exists(), "{}", group.join(place).display());
        }
    }
    user.ok(&["delete", "--force", &user.id]);
}
