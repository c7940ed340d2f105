//! The container's place in the cgroup hierarchies: v1, v2, hybrid (owner: seccgroup).
//!
//! Order of calls by the runtime (parent, host mount namespace):
//! `plan` (reads /proc/self/mountinfo and /proc/self/cgroup, changes nothing) → `create` (makes
//! the directories) → `apply` (limits, device rules; before or after `join`, as each controller
//! wants: the runtime calls create, join, apply as runc does) → `join(pid)`.
//! A later command uses `load(paths)` from state.json.
//!
//! In `paths` the key is the v1 controller name (`memory`, `cpu`, `name=systemd`…) or `""` for the
//! unified hierarchy, as in runc's state.json.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::spec::oci::LinuxResources;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cgroups: not compiled in")]
    Missing,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Cgroup {
    paths: BTreeMap<String, PathBuf>,
}

/// One step of filling a container's `cgroup` mount.
#[derive(Debug, Clone)]
pub(crate) enum CgroupMount {
    /// v1: a tmpfs at the destination, then each bind below it, then the symlinks.
    V1 {
        /// (host directory, name below the destination)
        binds: Vec<(PathBuf, String)>,
        /// (link name below the destination, target)
        links: Vec<(String, String)>,
        /// Same hierarchies for a fresh mount when the container has a cgroup namespace of its
        /// own: (mount data such as `cpu,cpuacct` or `none,name=systemd`, name).
        fresh: Vec<(String, String)>,
        /// Hybrid: where the unified hierarchy is shown, if it is (`unified`).
        unified: Option<(PathBuf, String)>,
    },
    /// v2: a cgroup2 mount; or a bind of this directory where no cgroup namespace is made.
    V2 { bind: PathBuf },
}

impl Cgroup {
    /// `cgroups_path` as in the spec (relative ones are below the runtime's own cgroup, absent =
    /// the container's id). `systemd` = `--systemd-cgroup`.
    pub(crate) fn plan(
        _cgroups_path: Option<&str>,
        _id: &str,
        _resources: &LinuxResources,
        _systemd: bool,
    ) -> Result<Self, Error> {
        Err(Error::Missing)
    }

    pub(crate) fn load(paths: BTreeMap<String, PathBuf>) -> Self {
        Self { paths }
    }

    pub(crate) fn paths(&self) -> &BTreeMap<String, PathBuf> {
        &self.paths
    }

    pub(crate) fn create(&self) -> Result<(), Error> {
        Err(Error::Missing)
    }

    /// Moves a process into every hierarchy.
    pub(crate) fn join(&self, _pid: i32) -> Result<(), Error> {
        Err(Error::Missing)
    }

    /// Writes the limits of `resources`.
    pub(crate) fn apply(&self, _resources: &LinuxResources) -> Result<(), Error> {
        Err(Error::Missing)
    }

    pub(crate) fn pids(&self, _recursive: bool) -> Result<Vec<i32>, Error> {
        Err(Error::Missing)
    }

    /// SIGKILL (or `signal`) to everything below; `cgroup.kill` where it exists.
    pub(crate) fn kill_all(&self, _signal: i32) -> Result<(), Error> {
        Err(Error::Missing)
    }

    pub(crate) fn freeze(&self, _frozen: bool) -> Result<(), Error> {
        Err(Error::Missing)
    }

    pub(crate) fn is_frozen(&self) -> Result<bool, Error> {
        Err(Error::Missing)
    }

    /// Removes the directories, children first, waiting briefly for the kernel. Absent = done.
    pub(crate) fn destroy(&self) -> Result<(), Error> {
        Err(Error::Missing)
    }

    /// What a `cgroup` mount in the container is made of.
    pub(crate) fn mounts(&self) -> Result<CgroupMount, Error> {
        Err(Error::Missing)
    }
}
