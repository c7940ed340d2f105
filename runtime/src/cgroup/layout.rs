//! Where the hierarchies are mounted and where this process stands in them: proc_pid_mountinfo(5)
//! and cgroups(7).

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::Error;
use crate::sys::file;
use crate::sys::mountinfo::{self, Mounted};

/// A mounted v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) mount_point: PathBuf,
    /// The directory of the hierarchy that the mount shows.
    pub(super) root: PathBuf,
    /// Mounted together: `cpu,cpuacct`, or `name=systemd`.
    pub(super) controllers: Vec<String>,
}

/// The host's cgroup file systems as this process sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) v1: Vec<Hierarchy>,
    pub(super) unified: Option<(PathBuf, PathBuf)>,
    /// Own place: v1 controller, or `""` for the unified hierarchy.
    own: BTreeMap<String, PathBuf>,
}

impl Layout {
    pub(super) fn read() -> Result<Self, Error> {
        let read = |path: &str| {
            file::read(Path::new(path)).map_err(|cause| Error::Read { path: path.into(), cause })
        };
        let own = read("/proc/self/cgroup")?;
        let layout = Self::parse(read("/proc/self/mountinfo")?, &String::from_utf8_lossy(&own));
        if layout.v1.is_empty() && layout.unified.is_none() {
            return Err(Error::NotMounted);
        }
        Ok(layout)
    }

    pub(super) fn parse(mountinfo: impl AsRef<[u8]>, own: &str) -> Self {
        let mut layout = Self { own: parse_own(own), ..Self::default() };
        for Mounted { root, point, kind, options } in mountinfo::parse(mountinfo.as_ref()) {
            match kind.as_str() {
                "cgroup" => layout.add_v1(root, point, &options),
                "cgroup2" if layout.unified.is_none() => layout.unified = Some((point, root)),
                _ => {}
            }
        }
        layout
    }

    /// Only the unified hierarchy.
    pub(super) fn is_v2(&self) -> bool {
        self.v1.is_empty()
    }

    /// Every place of the container: one per controller, and `""` for the unified hierarchy.
    pub(super) fn paths(&self, inner: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
        let mut paths = BTreeMap::new();
        for hierarchy in &self.v1 {
            for controller in &hierarchy.controllers {
                let own = self.own.get(controller).map_or(Path::new("/"), PathBuf::as_path);
                let path = below(&hierarchy.mount_point, &hierarchy.root, own, inner);
                paths.insert(controller.clone(), path);
            }
        }
        if let Some((mount_point, root)) = &self.unified {
            let own = self.own.get("").map_or(Path::new("/"), PathBuf::as_path);
            // Compat: beside runc's own cgroup, not below it: that one holds processes, so it
            // cannot hand controllers down.
            let own = if self.is_v2() { own.parent().unwrap_or(own) } else { own };
            paths.insert(String::new(), below(mount_point, root, own, inner));
        }
        Ok(paths)
    }

    /// Where another process stands in the unified hierarchy.
    pub(super) fn unified_of(&self, pid: i32) -> Option<PathBuf> {
        let (mount_point, root) = self.unified.as_ref()?;
        let places = parse_own(&file::read_text(Path::new(&format!("/proc/{pid}/cgroup"))).ok()?);
        Some(mount_point.join(places.get("")?.strip_prefix(root).ok()?))
    }

    fn add_v1(&mut self, root: PathBuf, mount_point: PathBuf, options: &str) {
        let controllers: Vec<String> = options
            .split(',')
            .filter(|word| KNOWN.contains(word) || word.starts_with("name="))
            .map(str::to_owned)
            .collect();
        let seen = |name: &String| self.v1.iter().any(|other| other.controllers.contains(name));
        if !controllers.is_empty() && !controllers.iter().any(seen) {
            self.v1.push(Hierarchy { mount_point, root, controllers });
        }
    }
}

/// `cgroupsPath` made safe: no way up and no way out.
pub(super) fn clean(path: &str) -> PathBuf {
    let absolute = path.starts_with('/');
    let mut clean = if absolute { PathBuf::from("/") } else { PathBuf::new() };
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

/// An absolute `inner` starts at the mount; a relative one at this process's own cgroup, as far
/// as the mount shows it.
fn below(mount_point: &Path, root: &Path, own: &Path, inner: &Path) -> PathBuf {
    match inner.strip_prefix("/") {
        Ok(inner) => mount_point.join(inner),
        Err(_) => {
            let own = own.strip_prefix(root).or_else(|_| own.strip_prefix("/")).unwrap_or(own);
            mount_point.join(own).join(inner)
        }
    }
}

fn parse_own(text: &str) -> BTreeMap<String, PathBuf> {
    let mut own = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        for controller in controllers.split(',') {
            own.insert(controller.to_owned(), clean(path));
        }
    }
    own
}

/// Controllers of v1 (cgroup-v1 documents of the kernel).
const KNOWN: &[&str] = &[
    "cpuset",
    "cpu",
    "cpuacct",
    "blkio",
    "memory",
    "devices",
    "freezer",
    "net_cls",
    "perf_event",
    "net_prio",
    "hugetlb",
    "pids",
    "rdma",
    "misc",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::{lines, text};
    use proptest::prelude::*;

    const HYBRID: &str = "\
25 1 0:20 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:21 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
27 25 0:22 /docker/abc /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
28 25 0:23 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
29 25 0:24 / /sys/fs/cgroup/unified\\040x rw - cgroup2 cgroup2 rw
30 25 0:22 / /mnt/again rw - cgroup cgroup rw,memory
";

    #[test]
    fn a_hybrid_host_is_read_from_mountinfo() {
        let layout = Layout::parse(HYBRID, "2:cpu,cpuacct:/own\n1:name=systemd:/s\n0::/u\n");
        assert_eq!(layout.v1.len(), 3);
        assert!(!layout.is_v2());
        let paths = layout.paths(Path::new("/docker/c1")).unwrap();
        let path = |key: &str| paths[key].to_str().unwrap();
        assert_eq!(path("cpu"), "/sys/fs/cgroup/cpu,cpuacct/docker/c1");
        assert_eq!(path("cpuacct"), path("cpu"));
        assert_eq!(path("memory"), "/sys/fs/cgroup/memory/docker/c1");
        assert_eq!(path(""), "/sys/fs/cgroup/unified x/docker/c1");
        assert_eq!(path("name=systemd"), "/sys/fs/cgroup/systemd/docker/c1");
    }

    #[test]
    fn a_relative_path_is_below_the_own_cgroup() {
        let layout = Layout::parse(HYBRID, "3:memory:/docker/abc/in\n2:cpu,cpuacct:/own\n0::/u\n");
        let paths = layout.paths(Path::new("c1")).unwrap();
        assert_eq!(paths["cpu"], Path::new("/sys/fs/cgroup/cpu,cpuacct/own/c1"));
        assert_eq!(paths["memory"], Path::new("/sys/fs/cgroup/memory/in/c1"));
        assert_eq!(paths["name=systemd"], Path::new("/sys/fs/cgroup/systemd/c1"));
    }

    #[test]
    fn on_v2_a_relative_path_is_beside_the_own_cgroup() {
        let layout = Layout::parse(
            "29 25 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "0::/user.slice/shell.scope\n",
        );
        assert!(layout.is_v2());
        let paths = layout.paths(Path::new("c1")).unwrap();
        assert_eq!(paths[""], Path::new("/sys/fs/cgroup/user.slice/c1"));
        assert_eq!(layout.paths(Path::new("/x")).unwrap()[""], Path::new("/sys/fs/cgroup/x"));
    }

    #[test]
    fn a_path_cannot_climb_out() {
        assert_eq!(clean("/a/../../b//./c"), Path::new("/b/c"));
        assert_eq!(clean("../../a"), Path::new("a"));
    }

    const PIECES: &[&str] = &[
        "1", " ", " ", "/", "/cg", "..", " - ", "cgroup", "cgroup2", "memory", "name=", ":", ",",
        "0::/", "\\040", "\\", "é", "rw", "-",
    ];

    proptest! {
        #[test]
        fn whatever_stands_in_procfs_a_container_gets_a_place_of_its_own(
            mounts in (lines(PIECES), lines(PIECES)), own in lines(PIECES), wanted in text(&["/", "..", "a", ".", "é"], 6),
        ) {
            let mountinfo = HYBRID.to_owned() + &mounts.0 + &mounts.1;
            let layout = Layout::parse(&mountinfo, &own);
            let inner = clean(&format!("{wanted}c1"));
            for (controller, path) in layout.paths(&inner).unwrap() {
                prop_assert!(path.ends_with(inner.file_name().unwrap()), "{}: {:?}", controller, path);
                let climbs = path.components().any(|part| part == Component::ParentDir);
                prop_assert!(!climbs || mountinfo.contains(".."), "{}: {:?}", controller, path);
            }
        }

        #[test]
        fn a_clean_path_stays_below_and_clean(text in text(&["/", "..", "a", ".", "é", " ", "//"], 10)) {
            let path = clean(&text);
            let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir);
            prop_assert!(path.components().all(plain), "{:?}", path);
            prop_assert_eq!(path.is_absolute(), text.starts_with('/'));
            prop_assert_eq!(clean(path.to_str().unwrap()), path);
        }
    }
}
