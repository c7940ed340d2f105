//! Shares of caches and memory bandwidth (`linux.intelRdt`) on a host that has none: the files of the
//! resctrl filesystem are a directory of ours, in a mount namespace where it lies at their place, and a
//! tracer says what kind of filesystem that is.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bundle::Bundle;

const PLACE: &str = "/sys/fs/resctrl";
const MAGIC: i64 = 0x0765_5821;
/// `$1` is a directory, and what follows is executed with its `resctrl` at that place.
const HOST: &str = "set -e; at=$1; shift
mount -t tmpfs none $at/sys
mkdir $at/sys/cgroup $at/sys/resctrl
mount --move /sys/fs/cgroup $at/sys/cgroup
mount --bind $at/resctrl $at/sys/resctrl
mount --move $at/sys /sys/fs
kill -STOP $$; exec \"$@\"";

/// A container in the group `group`, and the host that it runs on.
struct Host {
    bundle: Bundle,
    dir: tempfile::TempDir,
}

impl Host {
    fn new(config: Value) -> Self {
        let mut bundle = Bundle::new("sleep 100");
        bundle.linux()["intelRdt"] = config;
        let host = Self { bundle, dir: tempfile::tempdir().unwrap() };
        fs::create_dir(host.dir.path().join("sys")).unwrap();
        for (name, text) in [
            ("schemata", "    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n"),
            ("info/last_cmd_status", "ok\n"),
            ("info/L3/cbm_mask", "fffff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/L3/num_closids", "16\n"),
            ("info/MB/bandwidth_gran", "10\n"),
            ("info/MB/delay_linear", "1\n"),
            ("info/MB/min_bandwidth", "10\n"),
            ("info/MB/num_closids", "8\n"),
            ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n"),
            ("group/schemata", "    L3:0=ff;1=f0\n    MB:0=20;1=70\n"),
            ("group/tasks", ""),
        ] {
            host.write(name, text);
        }
        host.counts("group", 1);
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("resctrl").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What is counted in a group, in two domains.
    fn counts(&self, group: &str, scale: u64) {
        for (domain, number) in [("mon_L3_00", scale), ("mon_L3_01", 10 * scale)] {
            for (name, count) in
                [("llc_occupancy", 1), ("mbm_total_bytes", 2), ("mbm_local_bytes", 3)]
            {
                let text = format!("{}\n", count * number);
                self.write(&format!("{group}/mon_data/{domain}/{name}"), &text);
            }
        }
    }

    fn create(&self) {
        let path = self.bundle.path().to_str().unwrap();
        let (code, text) = self.call(&["create", "--bundle", path, &self.bundle.id]);
        assert_eq!(code, 0, "{text}");
    }

    fn stats(&self) -> (i32, String) {
        self.call(&["events", "--stats", &self.bundle.id])
    }

    /// What `events` tells of it.
    fn told(&self) -> Value {
        let (code, text) = self.stats();
        assert_eq!(code, 0, "{text}");
        let event: Value = serde_json::from_str(&text).unwrap();
        assert!(event["data"]["pids"].is_object(), "{event}");
        event["data"]["intel_rdt"].clone()
    }

    /// Runs the command; its code, and what it wrote to both its outputs.
    fn call(&self, arguments: &[&str]) -> (i32, String) {
        let command = self.bundle.command(arguments);
        let output = self.dir.path().join("output");
        let file = File::create_new(&output).unwrap();
        let mut there = Command::new("unshare");
        there.args(["-m", "sh", "-c", HOST, "sh"]).arg(self.dir.path());
        there.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        there.stdout(file.try_clone().unwrap()).stderr(file);
        // The tracees of a thread are free when it ends.
        let code = std::thread::spawn(move || followed(&mut there)).join().unwrap();
        let text = fs::read_to_string(&output).unwrap();
        fs::remove_file(&output).unwrap();
        (code, text)
    }
}

/// Follows it and its threads to its end; its code.
#[expect(clippy::zombie_processes, reason = "the tracer waits for it")]
fn followed(command: &mut Command) -> i32 {
    let child = command.spawn().unwrap();
    let first = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let stop = waitpid(first, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(stop, WaitStatus::Stopped(first, Signal::SIGSTOP));
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_TRACECLONE;
    ptrace::seize(first, options).unwrap();
    kill(first, Signal::SIGCONT).unwrap();
    loop {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let status = waitpid(None, Some(flags)).unwrap();
        let signal = match status {
            WaitStatus::Exited(pid, code) if pid == first => return code,
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => continue,
            WaitStatus::PtraceSyscall(pid) => {
                pretend(pid);
                None
            }
            WaitStatus::Stopped(_, signal) => Some(signal),
            _ => None,
        };
        // A thread may have ended with its process.
        ptrace::syscall(status.pid().unwrap(), signal).ok();
    }
}

/// Before the call it changes what the kernel overwrites, after it what the caller reads.
fn pretend(pid: Pid) {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/syscall")) else { return };
    let mut words = text.split_whitespace();
    if words.next() != Some(&libc::SYS_statfs.to_string()) {
        return;
    }
    let mut argument = || {
        let word = words.next().unwrap().strip_prefix("0x").unwrap();
        u64::from_str_radix(word, 16).unwrap()
    };
    let (path, buffer) = (argument(), argument());
    let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem")).unwrap();
    let mut bytes = [0; PLACE.len() + 1];
    memory.read_exact_at(&mut bytes, path).unwrap();
    if &bytes[..PLACE.len()] == PLACE.as_bytes() && bytes[PLACE.len()] == 0 {
        memory.write_all_at(&MAGIC.to_ne_bytes(), buffer).unwrap();
    }
}

#[test]
fn events_tell_of_shares_and_counts_of_caches_and_memory_bandwidth() {
    let host = Host::new(json!({"closID": "group"}));
    host.create();
    assert_ne!(fs::read_to_string(host.path("group/tasks")).unwrap(), "");
    let counts = |scale: u64| {
        json!([
            {"mbm_total_bytes": 2 * scale, "mbm_local_bytes": 3 * scale},
            {"mbm_total_bytes": 20 * scale, "mbm_local_bytes": 30 * scale},
        ])
    };
    let whole = json!({
        "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16},
        "l3_cache_schema_root": "L3:0=fffff;1=fffff",
        "l3_cache_schema": "L3:0=ff;1=f0",
        "mem_bw_info":
            {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8},
        "mem_bw_schema_root": "MB:0=100;1=100",
        "mem_bw_schema": "MB:0=20;1=70",
        // Only the whole text loses the blanks at its ends.
        "schemata": ["L3:0=ff;1=f0", "    MB:0=20;1=70"],
        "mbm_stats": counts(1),
        "cmt_stats": [{"llc_occupancy": 1}, {"llc_occupancy": 10}],
    });
    assert_eq!(host.told(), whole);
}

#[test]
fn a_container_with_a_place_of_its_own_to_be_counted_in_is_counted_there() {
    let host = Host::new(json!({"closID": "group", "enableMonitoring": true}));
    let own = format!("group/mon_groups/{}", host.bundle.id);
    host.write(&format!("{own}/tasks"), "");
    host.counts(&own, 7);
    host.create();
    let told = host.told();
    assert_eq!(told["cmt_stats"], json!([{"llc_occupancy": 7}, {"llc_occupancy": 70}]));
    assert_eq!(told["mbm_stats"][1], json!({"mbm_total_bytes": 140, "mbm_local_bytes": 210}));
}

#[test]
fn what_the_hardware_cannot_do_is_not_told() {
    let host = Host::new(json!({"closID": "group"}));
    for name in ["info/L3", "info/MB"] {
        fs::remove_dir_all(host.path(name)).unwrap();
    }
    host.write("info/L3_MON/mon_features", "mbm_local_bytes\nmbm_of_tomorrow\n");
    host.create();
    let schemata = ["L3:0=ff;1=f0", "    MB:0=20;1=70"];
    let local = |count: u64| json!({"mbm_total_bytes": 0, "mbm_local_bytes": count});
    let (_, text) = host.stats();
    let event = text.lines().find(|line| line.starts_with('{')).unwrap();
    let event: Value = serde_json::from_str(event).unwrap();
    let told = json!({"schemata": schemata, "mbm_stats": [local(3), local(30)]});
    assert_eq!(event["data"]["intel_rdt"], told);
    fs::remove_dir_all(host.path("info/L3_MON")).unwrap();
    assert_eq!(host.told(), json!({"schemata": schemata}));
}

#[test]
fn a_group_that_is_gone_is_no_stats() {
    let host = Host::new(json!({"closID": "group"}));
    host.create();
    fs::remove_file(host.path("group/schemata")).unwrap();
    let (code, text) = host.stats();
    let words = format!(
        "unable to get container Intel RDT stats: open {}: no such file or directory",
        Path::new(PLACE).join("group/schemata").display()
    );
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(&words), "{text}");
}
