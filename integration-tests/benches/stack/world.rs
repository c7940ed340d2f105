//! A stack's world: namespaces of its own under an init that ends with the bench, and a cgroup of
//! its own that counts the CPU time of everything in it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sched::CloneFlags;

/// Init reaps what is reparented to it, and ends when its standard input does.
const INIT: &str = "mount -t tmpfs tmpfs /run && ip link set lo up && echo ready && read -r _";

#[derive(Debug)]
pub(crate) struct World {
    unshare: Child,
    /// Open as long as the world is to stand.
    _stdin: ChildStdin,
    init: i32,
    /// Below the root of every hierarchy.
    group: String,
    counter: Counter,
}

/// Where CPU time is counted: v1's cpuacct, else the unified hierarchy.
#[derive(Debug)]
struct Counter {
    directory: PathBuf,
    unified: bool,
}

impl World {
    /// `work` names the cgroups.
    pub(crate) fn new(work: &Path, name: &str) -> anyhow::Result<Self> {
        let work = work.file_name().context("the bench's directory has no name")?;
        let group = format!("{}/{name}", work.to_string_lossy());
        let counter = Counter::find(&group)?;
        for part in ["daemons", "client"] {
            let path = counter.directory.join(part);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        let mut unshare = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "bash", "-c", INIT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("unshare")?;
        let stdin = unshare.stdin.take().context("standard input of init")?;
        let mut ready = [0; 6];
        let mut stdout = unshare.stdout.take().context("standard output of init")?;
        stdout.read_exact(&mut ready).context("namespaces of its own")?;
        let init = children(unshare.id())?.first().copied().context("init is gone")?;
        Ok(Self { unshare, _stdin: stdin, init, group, counter })
    }

    /// What `--cgroup-parent` is told.
    pub(crate) fn container_parent(&self) -> String {
        format!("/{}/containers", self.group)
    }

    /// Starts a daemon inside; with `apart` in one more network namespace.
    pub(crate) fn spawn(&self, command: &mut Command, apart: bool) -> anyhow::Result<Child> {
        self.counter.enter("daemons")?;
        // Namespaces belong to a thread; this one ends with the work.
        let child = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                nix::sched::unshare(CloneFlags::CLONE_FS)?;
                for (name, flag) in [
                    ("ipc", CloneFlags::CLONE_NEWIPC),
                    ("net", CloneFlags::CLONE_NEWNET),
                    ("pid", CloneFlags::CLONE_NEWPID),
                    ("mnt", CloneFlags::CLONE_NEWNS),
                ] {
                    let path = format!("/proc/{}/ns/{name}", self.init);
                    let file = File::open(&path).with_context(|| path.clone())?;
                    nix::sched::setns(file, flag).with_context(|| path.clone())?;
                }
                if apart {
                    nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
                }
                command.spawn().with_context(|| format!("{:?}", command.get_program()))
            });
            inside.join().map_err(|_| anyhow::anyhow!("the starting thread panicked"))?
        });
        self.counter.leave()?;
        child
    }

    /// Runs something that only talks to the stack, on the stack's bill.
    pub(crate) fn client(&self, command: &mut Command) -> anyhow::Result<Child> {
        self.counter.enter("client")?;
        let child = command.spawn().with_context(|| format!("{:?}", command.get_program()));
        self.counter.leave()?;
        child
    }

    /// CPU time of everything that ever ran in the stack.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.counter.read()
    }

    /// Waits until the stack does next to nothing any more; gives the CPU time.
    pub(crate) fn quiet(&self) -> anyhow::Result<Duration> {
        const WINDOW: Duration = Duration::from_millis(60);
        // Idle daemons tick too.
        const IDLE: Duration = Duration::from_micros(1500);
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut last = self.cpu()?;
        loop {
            thread::sleep(WINDOW);
            let now = self.cpu()?;
            if now.saturating_sub(last) < IDLE || Instant::now() > deadline {
                return Ok(now);
            }
            last = now;
        }
    }

    /// Every process inside but init.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        collect_processes(&self.counter.directory, &mut found);
        found
    }

    /// The cgroups of containers, in every hierarchy.
    pub(crate) fn container_groups(&self) -> Vec<PathBuf> {
        hierarchies()
            .into_iter()
            .flat_map(|root| subdirectories(&root.join(&self.group).join("containers")))
            .collect()
    }

    pub(crate) fn stop(&mut self) {
        drop(self.unshare.kill());
        drop(self.unshare.wait());
        // The kernel lets go of an ended process's cgroup a moment later.
        let deadline = Instant::now() + Duration::from_secs(2);
        for root in hierarchies() {
            let path = root.join(&self.group);
            while path.exists() && !remove_tree(&path) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            if let Some(parent) = path.parent() {
                drop(fs::remove_dir(parent));
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Counter {
    fn find(group: &str) -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
        let find = |kind: &str, option: &str| {
            mounts.lines().find_map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                (fields[2] == kind
                    && (option.is_empty() || fields[3].split(',').any(|o| o == option)))
                .then(|| PathBuf::from(fields[1]).join(group))
            })
        };
        if let Some(directory) = find("cgroup", "cpuacct") {
            return Ok(Self { directory, unified: false });
        }
        let Some(directory) = find("cgroup2", "") else { bail!("no cgroup hierarchy is mounted") };
        Ok(Self { directory, unified: true })
    }

    fn read(&self) -> anyhow::Result<Duration> {
        let file = self.directory.join(if self.unified { "cpu.stat" } else { "cpuacct.usage" });
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        if self.unified {
            let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
            return Ok(Duration::from_micros(line.context("no usage_usec")?.trim().parse()?));
        }
        Ok(Duration::from_nanos(text.trim().parse()?))
    }

    /// Moves the bench itself there, so that what it starts is born there.
    fn enter(&self, part: &str) -> anyhow::Result<()> {
        fs::write(self.directory.join(part).join("cgroup.procs"), "0").context("enter a cgroup")
    }

    fn leave(&self) -> anyhow::Result<()> {
        let root = self.directory.ancestors().nth(2).context("the root of the hierarchy")?;
        fs::write(root.join("cgroup.procs"), "0").context("leave a cgroup")
    }
}

pub(crate) fn children(pid: u32) -> anyhow::Result<Vec<i32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(text.split_whitespace().filter_map(|word| word.parse().ok()).collect())
}

fn collect_processes(directory: &Path, into: &mut Vec<i32>) {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    into.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for child in subdirectories(directory) {
        collect_processes(&child, into);
    }
}

fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| matches!(fields[2], "cgroup" | "cgroup2"))
        .map(|fields| PathBuf::from(fields[1]))
        .collect()
}

fn subdirectories(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_tree(path: &Path) -> bool {
    for child in subdirectories(path) {
        remove_tree(&child);
    }
    fs::remove_dir(path).is_ok()
}
