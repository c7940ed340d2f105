//! What a stack holds of the kernel and the disk, and what of it should be gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::stack::Stack;

/// How long the engine may take to clear up after the last removal was answered.
const GRACE: Duration = Duration::from_secs(5);

/// Everything of a stack that a container may leave behind, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory(BTreeMap<&'static str, BTreeMap<String, usize>>);

impl Inventory {
    /// Looks around in the stack's namespaces, cgroups and directories.
    #[must_use]
    pub fn take(stack: &Stack) -> Self {
        let sandbox = stack.sandbox();
        let mut all = BTreeMap::new();
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", sandbox.init()));
        let mounts = mounts.unwrap_or_default();
        let mounts = mounts.lines().filter_map(|line| Some(line.split(' ').nth(4)?.to_owned()));
        all.insert("mount", count(mounts));
        let links = names(&sandbox.path("/sys/class/net"));
        all.insert("link", count(links));
        let mut cgroups = Vec::new();
        walk(&sandbox.path("/sys/fs/cgroup"), "", 3, &mut cgroups);
        all.insert("cgroup", count(cgroups));
        let mut files = Vec::new();
        for directory in ["netns", "a", "c", "rootfs", "network", "runtime-runc/moby"] {
            // Stock's network library takes them away a minute later.
            if directory == "netns" && stack.is_stock() {
                continue;
            }
            let path = stack.exec_root().join(directory);
            walk_files(&sandbox.path(&path), &path, &mut files);
        }
        for directory in ["containers", "volumes"] {
            let path = stack.data_root().join(directory);
            files.extend(
                names(&sandbox.path(&path)).map(|name| format!("{}/{name}", path.display())),
            );
        }
        files.retain(|file| !file.ends_with(".db"));
        all.insert("file", count(files));
        let processes = sandbox.processes();
        let running = processes.iter().map(|process| {
            format!("{} {}", process.name, process.command.get(1..).unwrap_or_default().join(" "))
        });
        all.insert("process", count(running));
        let daemons = processes.iter().filter(|process| {
            ["dockerd", "containerd", "dockerd-rs", "containerd-rs"].contains(&&*process.name)
        });
        all.insert("descriptor", count(daemons.flat_map(|process| descriptors(process.pid))));
        Self(all)
    }

    /// As [`Self::take`], with every path below the data root and the size of what is no database.
    #[must_use]
    pub fn whole(stack: &Stack) -> Self {
        let Self(mut all) = Self::take(stack);
        let mut data = Vec::new();
        walk_data(&stack.data_root(), &mut data);
        all.insert("data", count(data));
        Self(all)
    }

    /// Compares a [`Self::whole`] with how it is now: nothing may be more and nothing less, but
    /// that daemons may close what they held open. Gives the engine time to clear up.
    ///
    /// # Errors
    /// With one line a thing that differs.
    pub fn same(&self, stack: &Stack) -> Result<(), String> {
        let end = Instant::now() + GRACE;
        loop {
            let now = Self::whole(stack);
            let mut differs = now.beyond(self);
            let gone = self.beyond(&now).into_iter().filter(|line| !line.starts_with("descriptor"));
            differs.extend(gone.map(|line| format!("gone: {line} (read backwards)")));
            if differs.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(differs.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Compares with how it is now; what is more now has been left behind. Gives the engine time to
    /// clear up.
    ///
    /// # Errors
    /// With one line a thing left.
    pub fn compare(&self, stack: &Stack) -> Result<(), String> {
        let end = Instant::now() + GRACE;
        loop {
            let left = Self::take(stack).beyond(self);
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(left.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn beyond(&self, before: &Self) -> Vec<String> {
        let mut left = Vec::new();
        for (kind, things) in &self.0 {
            for (thing, now) in things {
                let had = before.0.get(kind).and_then(|had| had.get(thing)).copied().unwrap_or(0);
                if *now > had {
                    left.push(format!("{kind} {thing}: {had} before, {now} now"));
                }
            }
        }
        left
    }
}

/// What a daemon holds open that has a name: files, fifos, namespaces, pidfds. Sockets come and go
/// with clients; a database has its name once something is in it.
fn descriptors(pid: i32) -> Vec<String> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    links
        .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string()))
        .filter(|target| !target.starts_with("socket:") && !target.starts_with("pipe:"))
        .filter(|target| !target.ends_with(".redb"))
        .collect()
}

fn count(things: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for thing in things {
        *all.entry(thing).or_default() += 1;
    }
    all
}

fn names(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// Directories down to a depth. The parents that an engine, or ctr's namespace, keeps for all
/// containers are none of anybody's leaks.
fn walk(at: &Path, prefix: &str, depth: usize, into: &mut Vec<String>) {
    let keep: BTreeSet<&str> = BTreeSet::from(["default", "docker", "sandbox"]);
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}/{name}");
        if !keep.contains(&*name) {
            into.push(path.clone());
        }
        if depth > 1 {
            walk(&entry.path(), &path, depth - 1, into);
        }
    }
}

fn walk_files(at: &Path, shown: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        let shown = shown.join(entry.file_name());
        into.push(shown.display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && shown.components().count() < 6 {
            walk_files(&entry.path(), &shown, into);
        }
    }
}

/// Every path with its size. Databases grow and shrink by their own rules, and may come later.
fn walk_data(at: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(data) = fs::symlink_metadata(&path) else { continue };
        let shown = path.display();
        if data.is_dir() {
            into.push(format!("{shown}/"));
            walk_data(&path, into);
        } else if path.extension().is_some_and(|end| end == "db") {
            into.push(shown.to_string());
        } else if path.extension().is_none_or(|end| end != "redb") {
            into.push(format!("{shown} of {} bytes", data.len()));
        }
    }
}
