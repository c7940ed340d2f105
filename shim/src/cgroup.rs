//! A container's cgroup, found from its init: processes in it, and its files.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a process is, by hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cgroup {
    /// Directory of each v1 controller.
    V1(Vec<(String, PathBuf)>),
    V2(PathBuf),
}

impl Cgroup {
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        parse(&text, Path::new(ROOT), Path::new(ROOT).join("cgroup.controllers").exists())
    }

    /// The directory of a controller.
    pub(crate) fn directory(&self, controller: &str) -> Option<&Path> {
        match self {
            Self::V2(path) => Some(path),
            Self::V1(paths) => {
                paths.iter().find(|(name, _)| name == controller).map(|(_, path)| path.as_path())
            }
        }
    }

    /// All processes in it and below.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let directory = ["pids", "memory", "devices", "cpu"].iter().find_map(|c| self.directory(c));
        let mut pids = Vec::new();
        if let Some(directory) = directory {
            collect(directory, 0, &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

fn parse(text: &str, root: &Path, unified: bool) -> Option<Cgroup> {
    let mut v1 = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        // Outside of our cgroup namespace there is nothing for us to read.
        if path.split('/').any(|part| part == "..") {
            continue;
        }
        if controllers.contains('/') || controllers.contains("..") {
            continue;
        }
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            if unified {
                return Some(Cgroup::V2(root.join(path)));
            }
            continue;
        }
        for controller in controllers.split(',') {
            // A hierarchy is mounted under all its names, or at least linked by each.
            let mounted = root.join(controller.trim_start_matches("name="));
            v1.push((controller.to_owned(), mounted.join(path)));
        }
    }
    (!v1.is_empty()).then_some(Cgroup::V1(v1))
}

fn collect(directory: &Path, depth: usize, pids: &mut Vec<u32>) {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    if depth > 16 {
        return;
    }
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), depth + 1, pids);
        }
    }
}

/// Moves the shim into the cgroup that the options name. Best effort: the shim runs anywhere.
pub(crate) fn join(path: &str, pid: i32) {
    if path.is_empty() {
        return;
    }
    let relative = path.trim_start_matches('/');
    let mut directories = vec![Path::new(ROOT).join(relative)];
    if !Path::new(ROOT).join("cgroup.controllers").exists() {
        let hierarchies = fs::read_dir(ROOT).into_iter().flatten().flatten();
        directories = hierarchies.map(|entry| entry.path().join(relative)).collect();
    }
    for directory in directories {
        fs::write(directory.join("cgroup.procs"), pid.to_string()).ok();
    }
}

const ROOT: &str = "/sys/fs/cgroup";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hierarchies_are_told_apart() {
        let hybrid = "5:cpu,cpuacct:/a/b\n3:name=systemd:/a\n2:memory:/m\n0::/a/b\n";
        let root = Path::new("/cg");
        let v1 = parse(hybrid, root, false).unwrap();
        assert_eq!(v1.directory("cpuacct"), Some(Path::new("/cg/cpuacct/a/b")));
        assert_eq!(v1.directory("name=systemd"), Some(Path::new("/cg/systemd/a")));
        assert_eq!(v1.directory("pids"), None);
        assert_eq!(parse("0::/x\n", root, true), Some(Cgroup::V2("/cg/x".into())));
        assert_eq!(parse("0::/../x\n", root, true), None);
    }

    proptest! {
        #[test]
        fn a_cgroup_lies_below_its_root(
            text in "([0-9]{0,2}:(cpu|cpu,cpuacct|name=systemd|memory|){0,2}:[/a.]{0,8}\n?|[:a/.\n]{0,8}){0,5}",
            unified: bool,
        ) {
            let root = Path::new("/cg");
            let up = |path: &Path| path.components().any(|part| part == std::path::Component::ParentDir);
            match parse(&text, root, unified) {
                Some(Cgroup::V2(path)) => prop_assert!(unified && path.starts_with(root) && !up(&path)),
                Some(Cgroup::V1(paths)) => {
                    prop_assert!(paths.iter().all(|(_, path)| path.starts_with(root) && !up(path)));
                }
                None => {}
            }
        }
    }
}
