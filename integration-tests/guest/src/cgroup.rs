//! The cgroups of a sandbox: one of its name in every hierarchy of the host, and a view of them that
//! shows the wanted layout as a machine of its own would have it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

/// Where hierarchies are mounted.
pub(crate) const TOP: &str = "/sys/fs/cgroup";

/// One hierarchy of the host.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchy {
    at: PathBuf,
    unified: bool,
    /// What selects a v1 hierarchy: `cpu,cpuacct` or `none,name=systemd`.
    options: String,
}

/// The host's hierarchies, as far as the layout wants to see them.
pub(crate) fn hierarchies(layout: &str) -> io::Result<Vec<Hierarchy>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found: BTreeMap<PathBuf, Hierarchy> = BTreeMap::new();
    for line in table.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let mut after = after.split(' ');
        let kind = after.next().unwrap_or_default();
        let options = after.nth(1).unwrap_or_default();
        let Some(at) = before.split(' ').nth(4).map(PathBuf::from) else { continue };
        if !at.starts_with(TOP) || !matches!(kind, "cgroup" | "cgroup2") {
            continue;
        }
        let mut words: Vec<&str> = options
            .split(',')
            .filter(|word| !matches!(*word, "rw" | "ro" | "xattr" | "clone_children"))
            .filter(|word| !word.starts_with("release_agent="))
            .collect();
        if words.iter().any(|word| word.starts_with("name=")) {
            words.insert(0, "none");
        }
        let options = words.join(",");
        found.insert(at.clone(), Hierarchy { at, unified: kind == "cgroup2", options });
    }
    let all: Vec<Hierarchy> = found.into_values().collect();
    let v1 = all.iter().any(|hierarchy| !hierarchy.unified);
    let v2 = all.iter().find(|hierarchy| hierarchy.unified);
    let selected: Vec<Hierarchy> = match layout {
        "host" => all,
        "v1" if v1 => all.into_iter().filter(|hierarchy| !hierarchy.unified).collect(),
        "hybrid" if v1 && v2.is_some() => all,
        "v2" => {
            let found = v2.cloned().filter(Hierarchy::has_memory);
            let found = found.ok_or_else(|| impossible(layout))?;
            vec![found]
        }
        _ => return Err(impossible(layout)),
    };
    if selected.is_empty() { Err(impossible(layout)) } else { Ok(selected) }
}

impl Hierarchy {
    fn has_memory(&self) -> bool {
        fs::read_to_string(self.at.join("cgroup.controllers"))
            .is_ok_and(|names| names.split_whitespace().any(|name| name == "memory"))
    }

    /// Makes the sandbox's cgroup.
    pub(crate) fn make(&self, name: &str) -> io::Result<()> {
        if self.unified {
            enable_all(&self.at);
        }
        let own = self.at.join(name);
        fs::create_dir(&own).map_err(|error| about(&own, &error))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if !self.unified && self.at.join(file).exists() {
                fs::write(own.join(file), fs::read(self.at.join(file))?)?;
            }
        }
        Ok(())
    }

    /// Whether it fills the place where all are mounted.
    pub(crate) fn is_top(&self) -> bool {
        self.at == Path::new(TOP)
    }

    /// Puts the caller into it.
    pub(crate) fn join(&self, name: &str) -> io::Result<()> {
        let file = self.at.join(name).join("cgroup.procs");
        fs::write(&file, "0").map_err(|error| about(&file, &error))
    }

    /// Takes it and all below away.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        remove_tree(&self.at.join(name))
    }

    /// Mounts it in the new view; the caller's cgroup is the root of what is seen.
    pub(crate) fn show(&self, alone: bool) -> io::Result<()> {
        let at = if alone { Path::new(TOP) } else { &self.at };
        fs::create_dir_all(at)?;
        let kind = if self.unified { "cgroup2" } else { "cgroup" };
        let options = (!self.unified).then_some(self.options.as_str());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some(kind), at, Some(kind), flags, options)
            .map_err(|error| about(at, &io::Error::from(error)))?;
        if self.unified && self.has_memory() {
            // Where processes are, no controller can be handed on: away from the root.
            let inner = at.join("sandbox");
            fs::create_dir(&inner)?;
            fs::write(inner.join("cgroup.procs"), "0")?;
            enable_all(at);
        }
        if !self.unified && self.options.contains(',') && !self.options.contains("name=") {
            for part in self.options.split(',') {
                let link = Path::new(TOP).join(part);
                if !link.exists() {
                    symlink(at, &link)?;
                }
            }
        }
        Ok(())
    }
}

/// Lets everything run that stands still: what is frozen does not even die.
pub(crate) fn thaw(at: &Path) {
    fs::write(at.join("freezer.state"), "THAWED").ok();
    fs::write(at.join("cgroup.freeze"), "0").ok();
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            thaw(&entry.path());
        }
    }
}

/// Hands every controller on to the children; those that cannot be are seen by who needs them.
fn enable_all(at: &Path) {
    let names = fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
    for name in names.split_whitespace() {
        fs::write(at.join("cgroup.subtree_control"), format!("+{name}")).ok();
    }
}

fn remove_tree(at: &Path) -> io::Result<()> {
    for entry in fs::read_dir(at)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(at).map_err(|error| about(at, &error))
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn impossible(layout: &str) -> io::Error {
    io::Error::other(format!("this host cannot show the cgroup layout {layout}"))
}
