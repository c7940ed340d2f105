//! A world for a stack or for runtimes: namespaces of its own under an init that ends with the bench,
//! cgroups of its own, and a bill for the CPU time of everything in it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;

use crate::bill::Bill;

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
    bill: Bill,
}

impl World {
    /// `work` names the cgroups; each of `files` takes the place of another inside.
    pub(crate) fn new(
        work: &Path,
        name: &str,
        files: &[(PathBuf, PathBuf)],
    ) -> anyhow::Result<Self> {
        let work = work.file_name().context("the bench's directory has no name")?;
        let group = format!("{}/{name}", work.to_string_lossy());
        let bill = Bill::open(&group)?;
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
        let world = Self { unshare, _stdin: stdin, init, group, bill };
        world.inside(|| files.iter().try_for_each(|(from, to)| bind(from, to)))?;
        Ok(world)
    }

    /// crun and podman refuse a host that shows v1 and a unified hierarchy with controllers: inside
    /// there is no unified one then.
    pub(crate) fn hide_the_unified_of_a_hybrid(&self) -> anyhow::Result<()> {
        let unified = Path::new("/sys/fs/cgroup/unified");
        self.inside(|| {
            if unified.join("cgroup.controllers").exists() {
                umount2(unified, MntFlags::MNT_DETACH).context("hide the unified hierarchy")?;
            }
            Ok(())
        })
    }

    /// Inside, libraries are found in these directories as if their packages were installed: what runs
    /// there is not slowed down by looking for them, and need not hand a variable on.
    pub(crate) fn add_libraries(&self, directories: &str, work: &Path) -> anyhow::Result<()> {
        let (list, cache) = (work.join("ld.so.conf"), work.join("ld.so.cache"));
        let directories = directories.replace(':', "\n");
        fs::write(&list, format!("include /etc/ld.so.conf\n{directories}\n"))?;
        // Where ldconfig remembers what it saw, for the next time: not the host's.
        let memory = work.join("ldconfig");
        fs::create_dir_all(&memory)?;
        let place = Path::new("/var/cache/ldconfig");
        self.inside(|| if place.exists() { bind(&memory, place) } else { Ok(()) })?;
        let mut command = Command::new("/sbin/ldconfig");
        command.arg("-X").arg("-f").arg(&list).arg("-C").arg(&cache);
        self.run(&mut command)?;
        self.inside(|| bind(&cache, Path::new("/etc/ld.so.cache")))
    }

    /// What `--cgroup-parent` is told.
    pub(crate) fn container_parent(&self) -> String {
        format!("/{}/containers", self.group)
    }

    /// Runs something on a thread in the namespaces; namespaces belong to a thread, and this one ends
    /// with the work.
    pub(crate) fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        thread::scope(|scope| {
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
                work()
            });
            inside.join().map_err(|_| anyhow::anyhow!("a thread inside panicked"))?
        })
    }

    /// Starts a program inside; with `apart` in one more network namespace. With the moment before.
    pub(crate) fn spawn(
        &self,
        command: &mut Command,
        apart: bool,
    ) -> anyhow::Result<(Child, Instant)> {
        self.inside(|| {
            if apart {
                nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
            }
            let started = Instant::now();
            let child = command.spawn();
            Ok((child.with_context(|| format!("{:?}", command.get_program()))?, started))
        })
    }

    /// What is started by the work goes on the world's bill.
    pub(crate) fn charge<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.bill.charge(work)
    }

    /// Runs a program inside, on the bill, to its end; its failure is ours.
    pub(crate) fn run(&self, command: &mut Command) -> anyhow::Result<Duration> {
        command.stdout(Stdio::null());
        Ok(self.finish(command)?.1)
    }

    /// The same for what it prints.
    pub(crate) fn output(&self, command: &mut Command) -> anyhow::Result<String> {
        command.stdout(Stdio::piped());
        Ok(String::from_utf8_lossy(&self.finish(command)?.0).into_owned())
    }

    fn finish(&self, command: &mut Command) -> anyhow::Result<(Vec<u8>, Duration)> {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let (output, took) = self.charge(|| {
            self.inside(|| {
                let started = Instant::now();
                let child = command.spawn();
                let child = child.with_context(|| format!("{:?}", command.get_program()))?;
                let output = child.wait_with_output()?;
                Ok((output, started.elapsed()))
            })
        })?;
        let errors = String::from_utf8_lossy(&output.stderr);
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        let program = command.get_program().display();
        ensure!(
            output.status.success(),
            "{program} {}: {}: {errors}",
            words.join(" "),
            output.status
        );
        Ok((output.stdout, took))
    }

    /// CPU time of everything that ever ran in the world.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.bill.read()
    }

    /// Waits until the world does next to nothing any more; gives the CPU time.
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

    /// Every process on the bill.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        collect_processes(&self.bill.directory, &mut found);
        found.retain(|pid| u32::try_from(*pid) != Ok(std::process::id()));
        found
    }

    /// Every process inside but init, whoever's bill it is on.
    pub(crate) fn inhabitants(&self) -> anyhow::Result<Vec<String>> {
        let proc = PathBuf::from(format!("/proc/{}/root/proc", self.init));
        let entries = fs::read_dir(&proc).with_context(|| proc.display().to_string())?.flatten();
        let pids = entries.filter(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().parse::<u32>().is_ok_and(|pid| pid != 1)
        });
        let name = |path: PathBuf| fs::read_to_string(path.join("comm")).unwrap_or_default();
        Ok(pids.map(|entry| name(entry.path()).trim().to_owned()).collect())
    }

    /// The mount points inside.
    pub(crate) fn mounts(&self) -> anyhow::Result<Vec<String>> {
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", self.init))?;
        Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect())
    }

    /// The interfaces inside.
    pub(crate) fn interfaces(&self) -> anyhow::Result<Vec<String>> {
        let text = fs::read_to_string(format!("/proc/{}/net/dev", self.init))?;
        let names = text.lines().filter_map(|line| line.split_once(':'));
        Ok(names.map(|(name, _)| name.trim().to_owned()).collect())
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

fn bind(from: &Path, to: &Path) -> anyhow::Result<()> {
    let none = None::<&str>;
    mount(Some(from), to, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("{} on {}", from.display(), to.display()))
}

/// Where cgroup hierarchies are mounted.
pub(crate) fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| matches!(fields[2], "cgroup" | "cgroup2"))
        .map(|fields| PathBuf::from(fields[1]))
        .collect()
}

fn children(pid: u32) -> anyhow::Result<Vec<i32>> {
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
