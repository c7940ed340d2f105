//! Killed at any step: the runtime, or the process it makes, dies after its n-th system call, for
//! n = 1, 2, 3 … until the command completes. Whatever was half-made, the next create of the same id
//! works (after `delete --force`, where runc too would ask for it), and nothing of the first is left.
//!
//! Every seventh n, from an offset that moves with the day; `SEED=` sets the offset, `EVERY=1` takes all.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;

use crate::bundle::{Bundle, ours_only, stderr};

fn number(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap())
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Runtime,
    /// The first process it clones.
    Child,
}

/// How it went.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Killed { code: Option<i32> },
    Completed { code: Option<i32> },
}

/// Runs the command and kills the victim after its n-th system call.
#[expect(clippy::zombie_processes, reason = "the tracer waits for it")]
fn killed_after(command: &Command, victim: Victim, n: u64) -> End {
    let mut stopped = Command::new("sh");
    stopped.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]);
    stopped.arg(command.get_program()).args(command.get_args());
    let child = stopped.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = child.spawn().unwrap();
    let runtime = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let stop = waitpid(runtime, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(stop, WaitStatus::Stopped(runtime, Signal::SIGSTOP));
    let mut options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC;
    if victim == Victim::Child {
        options |= Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACECLONE;
    }
    ptrace::seize(runtime, options).unwrap();
    kill(runtime, Signal::SIGCONT).unwrap();
    Trace { runtime, victim, n, born: None, calls: 0, inside: false, executed: false }.follow()
}

struct Trace {
    runtime: Pid,
    victim: Victim,
    n: u64,
    /// The first child of the runtime.
    born: Option<Pid>,
    /// Of the victim, completed.
    calls: u64,
    inside: bool,
    /// The shell has become the runtime.
    executed: bool,
}

impl Trace {
    fn follow(mut self) -> End {
        let mut killed = false;
        loop {
            // Tracees of this thread alone: other tests have children too.
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            let status = waitpid(None, Some(flags)).unwrap();
            let pid = status.pid().unwrap();
            match status {
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) if pid != self.runtime => {}
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                    let code = match status {
                        WaitStatus::Exited(_, code) => Some(code),
                        _ => None,
                    };
                    if let Some(born) = self.born.filter(|_| !killed) {
                        let_go(born);
                    }
                    return if killed { End::Killed { code } } else { End::Completed { code } };
                }
                WaitStatus::PtraceSyscall(_) => {
                    self.inside = !self.inside;
                    self.calls += u64::from(!self.inside);
                    if self.calls == self.n && !killed {
                        killed = true;
                        kill(pid, Signal::SIGKILL).unwrap();
                        continue;
                    }
                    self.resume(pid, None);
                }
                WaitStatus::PtraceEvent(_, _, event) => {
                    if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 && pid == self.runtime {
                        (self.executed, self.inside) = (true, true);
                    } else if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 {
                        self.inside = true;
                    } else if event == ptrace::Event::PTRACE_EVENT_FORK as i32
                        || event == ptrace::Event::PTRACE_EVENT_CLONE as i32
                    {
                        let child = i32::try_from(ptrace::getevent(pid).unwrap()).unwrap();
                        self.born = self.born.or(Some(Pid::from_raw(child)));
                    }
                    self.resume(pid, None);
                }
                WaitStatus::Stopped(_, signal) => self.resume(pid, Some(signal)),
                other => panic!("{other:?}"),
            }
        }
    }

    fn resume(&self, pid: Pid, signal: Option<Signal>) {
        let counted = match self.victim {
            Victim::Runtime => self.executed,
            Victim::Child => pid != self.runtime,
        };
        // It may have been killed by another meanwhile.
        let resume = if counted { ptrace::syscall } else { ptrace::cont };
        resume(pid, signal).ok();
    }
}

/// A tracee that runs on is stopped and left to itself.
fn let_go(pid: Pid) {
    if ptrace::interrupt(pid).is_err() {
        return;
    }
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::PtraceEvent(..) | WaitStatus::PtraceSyscall(_)) => {
                ptrace::detach(pid, None).ok();
                return;
            }
            Ok(WaitStatus::Stopped(_, signal)) => ptrace::cont(pid, signal).unwrap_or_default(),
            _ => return,
        }
    }
}

/// What is there of a container: processes that carry its id, groups, mounts, the state.
fn remains(bundle: &Bundle) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let text = std::fs::read(entry.path().join(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).replace('\0', " ");
            if text.split(' ').any(|word| word.ends_with(&bundle.id)) {
                found.push(format!("process {:?}: {text}", entry.file_name()));
            }
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = bundle.path().to_str().unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(place)).map(str::to_owned));
    let groups = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(groups).unwrap().flatten();
    let places = hierarchies.map(|entry| entry.path().join(&bundle.id));
    let more = [groups.join(&bundle.id), bundle.root().join(&bundle.id)];
    found.extend(places.chain(more).filter(|path| path.exists()).map(|p| p.display().to_string()));
    found
}

/// A process that was killed is given the time to go; nothing else.
fn nothing_is_left(bundle: &Bundle, what: &str) {
    let begin = Instant::now();
    loop {
        let found = remains(bundle);
        if found.is_empty() {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "{what}: {found:#?}");
        std::thread::yield_now();
    }
}

/// The next create of this id works, after a delete where it says so, as runc does.
fn can_be_made_again(bundle: &Bundle, what: &str) {
    let log = bundle.path().join("log");
    drop(std::fs::remove_file(&log));
    let directory = bundle.path().to_str().unwrap();
    let create = ["--log", log.to_str().unwrap(), "create", "--bundle", directory, &bundle.id];
    let run = || {
        let mut command = bundle.command(&create);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    if !run() {
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(said.contains("container with given ID already exists"), "{what}: {said}");
        delete_leaves_nothing(bundle, what);
        assert!(run(), "{what}: {}", std::fs::read_to_string(&log).unwrap());
    }
    assert_eq!(bundle.status(), "created", "{what}");
    delete_leaves_nothing(bundle, what);
}

fn delete_leaves_nothing(bundle: &Bundle, what: &str) {
    let output = bundle.call(&["delete", "--force", &bundle.id]);
    assert!(output.status.success(), "{what}: {}", stderr(&output));
    nothing_is_left(bundle, what);
}

fn bundle() -> Bundle {
    let mut bundle = Bundle::new("sleep 1000");
    let mark = format!("CONTAINER={}", bundle.id);
    bundle.process()["env"].as_array_mut().unwrap().push(json!(mark));
    // As engines have it: a filter, a group mount.
    bundle.linux()["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}],
    });
    bundle.add_mount(json!({
        "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
    }));
    bundle
}

/// `prepare`, the command killed at its n-th call, `judge`; for each n that is due.
#[expect(clippy::print_stdout, reason = "repeats the run")]
fn killed_at_any_call(
    bundle: &Bundle,
    victim: Victim,
    arguments: &[&str],
    prepare: &dyn Fn(),
    judge: &dyn Fn(&End, &str),
) {
    let every = number("EVERY").unwrap_or(7).max(1);
    let today = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() / (24 * 60 * 60);
    let offset = number("SEED").unwrap_or(today) % every;
    let mut n = 1 + offset;
    loop {
        prepare();
        let end = killed_after(&bundle.command(arguments), victim, n);
        let what = format!("{victim:?} of {:?} killed after call {n}", arguments[0]);
        judge(&end, &what);
        if let End::Completed { code } = end {
            assert_eq!(code, Some(0), "{what}");
            println!("SEED={offset} EVERY={every}: {arguments:?} completed before call {n}");
            assert!(n > 20, "{what}");
            return;
        }
        n += every;
    }
}

#[test]
fn a_create_killed_after_any_system_call() {
    let bundle = bundle();
    let directory = bundle.path().to_str().unwrap();
    let create = ["create", "--bundle", directory, &bundle.id];
    killed_at_any_call(&bundle, Victim::Runtime, &create, &|| (), &|_, what| {
        can_be_made_again(&bundle, what);
    });
}

#[test]
fn a_start_killed_after_any_system_call() {
    let bundle = bundle();
    let directory = bundle.path().to_str().unwrap();
    let prepare = || bundle.detached(&["create", "--bundle", directory, &bundle.id]);
    let start = ["start", &bundle.id];
    killed_at_any_call(&bundle, Victim::Runtime, &start, &prepare, &|_, what| {
        let status = bundle.status();
        assert!(["created", "running"].contains(&status.as_str()), "{what}: {status}");
        can_be_made_again(&bundle, what);
    });
}

#[test]
fn an_exec_killed_after_any_system_call() {
    let bundle = bundle();
    bundle.start();
    let exec = ["exec", "--detach", &bundle.id, "true"];
    killed_at_any_call(&bundle, Victim::Runtime, &exec, &|| (), &|_, what| {
        assert_eq!(bundle.ok(&["exec", &bundle.id, "pwd"]), "/\n", "{what}");
        only_the_first_process_is_left(&bundle, what);
    });
    can_be_made_again(&bundle, "at last");
}

/// What an exec has left ends by itself.
fn only_the_first_process_is_left(bundle: &Bundle, what: &str) {
    let begin = Instant::now();
    loop {
        let pids = bundle.ok(&["ps", "--format", "json", &bundle.id]);
        let pids: Vec<i32> = serde_json::from_str(&pids).unwrap();
        if pids == [bundle.pid()] {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "{what}: {pids:?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_delete_killed_after_any_system_call() {
    let bundle = bundle();
    let delete = ["delete", "--force", &bundle.id];
    killed_at_any_call(&bundle, Victim::Runtime, &delete, &|| bundle.start(), &|_, what| {
        can_be_made_again(&bundle, what);
    });
}

/// The runtime outlives what it makes, and says so: then it has cleaned up itself.
#[test]
fn a_create_whose_init_is_killed_after_any_system_call() {
    let bundle = bundle();
    let directory = bundle.path().to_str().unwrap();
    let create = ["create", "--bundle", directory, &bundle.id];
    killed_at_any_call(&bundle, Victim::Child, &create, &|| (), &|end, what| {
        if let End::Killed { code: Some(1) } = end {
            nothing_is_left(&bundle, what);
        }
        can_be_made_again(&bundle, what);
    });
}

#[test]
fn an_exec_whose_process_is_killed_after_any_system_call() {
    if !ours_only() {
        return;
    }
    let bundle = bundle();
    bundle.start();
    let exec = ["exec", &bundle.id, "true"];
    killed_at_any_call(&bundle, Victim::Child, &exec, &|| (), &|end, what| {
        if let End::Killed { code } = end {
            // Its own failure before the program is there, the program's after.
            assert!([Some(255), Some(137)].contains(code), "{what}: {code:?}");
        }
        only_the_first_process_is_left(&bundle, what);
    });
    can_be_made_again(&bundle, "at last");
}
