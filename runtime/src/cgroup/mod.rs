//! The container's place in the cgroup hierarchies: v1, v2, hybrid.
//!
//! Order of calls by the runtime (parent, host mount namespace):
//! `plan` (reads /proc/self/mountinfo and /proc/self/cgroup, changes nothing) → `create` (makes
//! the directories) → `doors` (the process enters by itself), or `join(pid)` where that is not to be
//! had → `apply` (limits, device rules).
//! A later command uses `load(paths)` from state.json.
//!
//! In `paths` the key is the v1 controller name (`memory`, `cpu`, `name=systemd`…) or `""` for the
//! unified hierarchy, as in runc's state.json.

mod by_unit;
mod devices;
mod doors;
mod file;
mod layout;
mod oom;
mod processes;
mod rights;
mod stats;
mod sys;
mod systemd;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::spec::oci::{LinuxRdma, LinuxResources};
use crate::sys::{errno_of, errno_text};
use devices::{DevicePolicy, DeviceRuleError};
use layout::Layout;

pub(crate) use CgroupError as Error;

/// Who makes the container's cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    Cgroupfs,
    Systemd,
    /// Nobody: it stays in the caller's.
    Disabled,
}
pub(crate) use doors::Doors;
pub(crate) use oom::OomWatch;
pub(crate) use rights::Rights;
pub(crate) use systemd::Unit;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupError {
    // Compat: runc's sentences.
    #[error("systemd not running on this host, cannot use systemd cgroups manager")]
    NoSystemd,
    #[error("cannot use rootless systemd cgroups manager on cgroup v1")]
    SystemdOfUserOnV1,
    #[error(
        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {0:?} \
         instead"
    )]
    UnitPath(String),
    #[error("invalid slice name: {0}")]
    Slice(String),
    #[error(transparent)]
    Annotation(systemd::AnnotationError),
    #[error(
        "failed to connect to dbus (hint: for rootless containers, maybe you need to install \
         dbus-user-session package, see \
         https://github.com/opencontainers/runc/blob/master/docs/cgroup-v2.md): {0}"
    )]
    Bus(systemd::BusError),
    #[error("unable to start unit {0:?}: {1}")]
    UnitStart(String, systemd::BusError),
    #[error("error creating systemd unit `{0}`: got `{1}`")]
    UnitResult(String, String),
    #[error("unable to stop unit {0:?}: {1}")]
    UnitStop(String, systemd::BusError),
    #[error("unable to set unit properties: {0}")]
    UnitSet(systemd::BusError),
    #[error("unable to attach to the unit: {0}")]
    UnitAttach(systemd::BusError),
    #[error("{0}")]
    Conversion(String),
    #[error("the container has no cgroup of its own")]
    Disabled,
    // Compat: runc's sentences.
    #[error(
        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups: {0}"
    )]
    LimitsWithoutRights(String),
    #[error("cannot set {0} limit: container could not join or create cgroup")]
    NotJoined(&'static str),
    #[error("no cgroup file system is mounted")]
    NotMounted,
    // Compat: runc's sentences.
    #[error("container's cgroup is not empty: {0} process(es) found")]
    NotEmpty(usize),
    #[error("container's cgroup unexpectedly frozen")]
    Frozen,
    #[error("cgroupsPath {0:?} names no cgroup")]
    EmptyPath(String),
    #[error("read {}: {}", path.display(), errno_text(errno_of(cause)))]
    Read { path: PathBuf, cause: io::Error },
    // Compat: `failed to write` is what runc's callers look for.
    #[error("failed to write {value:?}: write {}: {}", path.display(), errno_text(errno_of(cause)))]
    Write { path: PathBuf, value: String, cause: io::Error },
    #[error("create cgroup {}: {}", path.display(), errno_text(errno_of(cause)))]
    Create { path: PathBuf, cause: io::Error },
    #[error("unable to remove cgroup {}: {}", path.display(), errno_text(errno_of(cause)))]
    Remove { path: PathBuf, cause: io::Error },
    #[error("cannot set {0} limit: the controller is not mounted")]
    NoController(&'static str),
    #[error("cannot set {file}: controller {controller} is not available here")]
    Unavailable { file: String, controller: String },
    #[error("unified resource {0:?} must be a file name (no slashes)")]
    UnifiedName(String),
    #[error("invalid configuration: cannot use unified ({0}) on cgroup v1")]
    UnifiedOnV1(String),
    #[error("unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})")]
    MemoryInUse { limit: i64, usage: String, peak: String },
    // Compat: runc's sentences.
    #[error("invalid --cgroup argument: {0}")]
    SubCgroup(String),
    #[error("invalid --cgroup argument: {0} (missing <controller>: prefix)")]
    SubCgroupPrefix(String),
    #[error("bad sub cgroup path: {0} is not a sub cgroup path")]
    NotBelow(String),
    #[error("unknown controller {0} in SubCgroupPaths")]
    UnknownController(String),
    #[error("rejecting memory limit {limit}: {usage} bytes are in use")]
    MemoryBelowUsage { limit: i64, usage: String },
    #[error("invalid memory swappiness value: {0} (valid range is 0-100)")]
    Swappiness(u64),
    #[error("unable to set swap limit without memory limit")]
    SwapWithoutMemory,
    #[error("memory+swap limit should be >= memory limit ({both} < {memory})")]
    SwapBelowMemory { memory: i64, both: i64 },
    #[error("the maximum allowed cpu-shares is {0}")]
    SharesAbove(u64),
    #[error("the minimum allowed cpu-shares is {0}")]
    SharesBelow(u64),
    #[error("{0}")]
    DeviceRule(DeviceRuleError),
    #[error("device program of {}: {}", path.display(), errno_text(errno_of(cause)))]
    DeviceProgram { path: PathBuf, cause: io::Error },
    #[error("kill process {pid}: {}", errno_text(errno_of(cause)))]
    Kill { pid: i32, cause: io::Error },
    #[error("{count} processes in {path} outlive SIGKILL")]
    StillAlive { path: PathBuf, count: usize },
    #[error("freezer of {0} is not supported here")]
    NoFreezer(String),
    #[error("unable to freeze {0}")]
    Freeze(PathBuf),
}

/// The container's directories.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cgroup {
    paths: BTreeMap<String, PathBuf>,
    /// As `plan` found it.
    layout: Option<Layout>,
    rights: Rights,
    /// What kept it from the unified hierarchy, where it may do without.
    denied: Option<String>,
    /// Of systemd's, where that makes it.
    unit: Option<Unit>,
}

/// What a container asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    /// As in the spec: relative ones are below the runtime's own cgroup, absent = the container's id.
    pub(crate) path: Option<&'a str>,
    pub(crate) id: &'a str,
    pub(crate) resources: &'a LinuxResources,
    pub(crate) annotations: &'a BTreeMap<String, String>,
    /// For systemd: the user's own manager makes it.
    pub(crate) user: bool,
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
    /// v2: a cgroup2 mount; or a bind of this directory where no cgroup namespace is made. Where
    /// neither can be, nothing is to be seen.
    V2 { bind: Option<PathBuf> },
}

impl Cgroup {
    pub(crate) fn plan(wish: Wish<'_>, driver: Driver) -> Result<Self, Error> {
        DevicePolicy::new(&wish.resources.devices).map_err(Error::DeviceRule)?;
        match driver {
            Driver::Cgroupfs => Self::planned(Layout::read()?, wish.path, wish.id),
            Driver::Systemd => Self::planned_unit(wish),
            Driver::Disabled => Ok(Self::default()),
        }
    }

    fn planned(layout: Layout, cgroups_path: Option<&str>, id: &str) -> Result<Self, Error> {
        let wanted = cgroups_path.filter(|path| !path.is_empty()).unwrap_or(id);
        let inner = layout::clean(wanted);
        if inner.file_name().is_none() {
            return Err(Error::EmptyPath(wanted.to_owned()));
        }
        Ok(Self { paths: layout.paths(&inner)?, layout: Some(layout), ..Self::default() })
    }

    pub(crate) fn load(paths: BTreeMap<String, PathBuf>) -> Self {
        Self { paths, ..Self::default() }
    }

    fn layout(&self) -> Result<Cow<'_, Layout>, Error> {
        match &self.layout {
            Some(layout) => Ok(Cow::Borrowed(layout)),
            None => Ok(Cow::Owned(Layout::read()?)),
        }
    }

    /// Without a place of its own.
    pub(crate) fn is_disabled(&self) -> bool {
        self.paths.is_empty()
    }

    pub(crate) fn paths(&self) -> &BTreeMap<String, PathBuf> {
        &self.paths
    }

    /// The same places, each a way further down: `exec --cgroup [CONTROLLERS:]PATH`.
    pub(crate) fn within(&self, wanted: &[String]) -> Result<Self, Error> {
        let mut paths = self.paths.clone();
        for argument in wanted {
            let (controllers, path) = match argument.split(':').collect::<Vec<_>>().as_slice() {
                // Compat: one path without controllers is meant for all of them.
                [path] if wanted.len() == 1 => (None, *path),
                [_] => return Err(Error::SubCgroupPrefix(argument.clone())),
                [controllers, path] => (Some(*controllers), *path),
                _ => return Err(Error::SubCgroup(argument.clone())),
            };
            if Path::new(path).components().any(|part| part == std::path::Component::ParentDir) {
                return Err(Error::NotBelow(path.to_owned()));
            }
            let below = path.trim_start_matches('/');
            match controllers {
                None => paths.values_mut().for_each(|place| place.push(below)),
                Some(names) => {
                    for name in names.split(',') {
                        let place = paths
                            .get_mut(name)
                            .ok_or_else(|| Error::UnknownController(name.to_owned()))?;
                        place.push(below);
                    }
                }
            }
        }
        Ok(Self { paths, unit: self.unit.clone(), ..Self::default() })
    }

    /// A place that exists already must be free: its processes would share the limits, and what is
    /// frozen would never start.
    pub(crate) fn check_unused(&self) -> Result<(), Error> {
        let found = self.pids(true)?.len();
        if found > 0 {
            return Err(Error::NotEmpty(found));
        }
        if self.is_frozen().unwrap_or(false) {
            return Err(Error::Frozen);
        }
        Ok(())
    }

    pub(crate) fn create(&mut self) -> Result<(), Error> {
        // Systemd makes the first directories.
        if self.is_disabled() || self.unit.is_some() {
            return Ok(());
        }
        self.make_directories()
    }

    fn make_directories(&mut self) -> Result<(), Error> {
        let layout = self.layout()?;
        let unified = layout.unified.as_ref().map(|(mount_point, _)| mount_point.clone());
        self.create_below(unified.as_deref())
    }

    fn create_below(&mut self, unified: Option<&Path>) -> Result<(), Error> {
        for (controller, directory) in self.paths.clone() {
            let made = create_one(unified, &controller, &directory);
            self.allowed(made, &directory)?;
        }
        Ok(())
    }

    /// Takes the first process in, which is not there yet.
    pub(crate) fn take(&mut self, pid: i32, resources: &LinuxResources) -> Result<(), Error> {
        if self.unit.is_some() { self.take_by_unit(pid, resources) } else { self.join(pid) }
    }

    /// Moves a process into every hierarchy.
    pub(crate) fn join(&mut self, pid: i32) -> Result<(), Error> {
        let pid = pid.to_string();
        // Hierarchies with several controllers are joined once.
        let directories: BTreeSet<PathBuf> = self.paths.values().cloned().collect();
        directories.into_iter().try_for_each(|directory| {
            let joined = file::write(&directory, "cgroup.procs", &pid);
            self.allowed(joined, &directory)
        })
    }

    /// Of systemd's, as the record keeps it.
    pub(crate) fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// For a process that is yet to be born; `join` is for where this is not to be had.
    pub(crate) fn doors(&self) -> Option<Doors> {
        Doors::open(self)
    }

    /// For a process that is to stand beside `first`, which may have moved further down: where
    /// groups below hand controllers on, cgroup2 takes no process any more.
    pub(crate) fn join_beside(&mut self, pid: i32, first: i32) -> Result<(), Error> {
        let Err(error) = self.join_or_attach(pid) else { return Ok(()) };
        let refused = matches!(
            file::errno(&error),
            Some(libc::EBUSY | libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)
        );
        if !refused || self.v2_directory().is_none() {
            return Err(error);
        }
        let Some(directory) = Layout::read()?.unified_of(first) else { return Err(error) };
        file::write(&directory, "cgroup.procs", &pid.to_string())
    }

    /// Writes the limits of a new container. Without any device rule it still gets only the
    /// devices that every container has.
    pub(crate) fn apply(&self, resources: &LinuxResources) -> Result<(), Error> {
        if self.is_disabled() {
            return self.do_without(resources);
        }
        let devices = DevicePolicy::new(&resources.devices).map_err(Error::DeviceRule)?;
        if let Some(unit) = &self.unit {
            unit.set(self.v2_directory().is_some(), resources, Some(&devices))?;
        }
        let applied = match self.v2_directory() {
            Some(directory) => v2::apply_devices(directory, &devices),
            None => v1::apply_devices(&self.paths, &devices),
        };
        if self.rights == Rights::All {
            applied?;
        }
        self.write_limits(&self.as_systemd_counts(resources)).map_err(|error| self.explain(error))
    }

    /// Writes the limits, leaving devices as they are.
    pub(crate) fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        if self.is_disabled() {
            return Err(Error::Disabled);
        }
        self.update_unit(resources)?;
        self.write_limits(&self.as_systemd_counts(resources))
    }

    fn write_limits(&self, resources: &LinuxResources) -> Result<(), Error> {
        match self.v2_directory() {
            Some(directory) => v2::apply(directory, resources),
            None => v1::apply(&self.paths, resources),
        }
    }

    /// Fields of `resources` that this host's cgroups have no file for. Compat: runc passes over
    /// them, so that a configuration written for another host still runs.
    pub(crate) fn ignored(resources: &LinuxResources) -> Vec<&'static str> {
        let mut ignored = Vec::new();
        if resources.memory.as_ref().is_some_and(|memory| limit(memory.kernel).is_some()) {
            ignored.push("memory.kernel");
        }
        let old_only = v2::without_a_file(resources);
        // Reading where cgroups are mounted costs time; almost nobody sets these.
        if !old_only.is_empty() && Layout::read().is_ok_and(|layout| layout.is_v2()) {
            ignored.extend(old_only);
        }
        ignored
    }

    pub(crate) fn pids(&self, recursive: bool) -> Result<Vec<i32>, Error> {
        self.any().map_or(Ok(Vec::new()), |directory| processes::all_pids(directory, recursive))
    }

    /// SIGKILL (or `signal`) to everything below; `cgroup.kill` where it exists.
    pub(crate) fn kill_all(&self, signal: i32) -> Result<(), Error> {
        if signal == libc::SIGKILL
            && let Some(unified) = self.paths.get("")
            && processes::kill_tree(unified)?
        {
            // Hybrid: what the old freezer holds dies when it lets go.
            if self.paths.contains_key("freezer") && self.is_frozen().unwrap_or(false) {
                self.freeze(false)?;
            }
            return Ok(());
        }
        let Some(directory) = self.any() else { return Ok(()) };
        if signal != libc::SIGKILL {
            return processes::signal_all(directory, signal);
        }
        // Frozen processes cannot fork away from their signals; a freezer that fails only makes
        // this take more rounds.
        let frozen = self.freeze(true).is_ok();
        let pids = processes::all_pids(directory, true)?;
        for pid in pids {
            // Who is gone already needs none.
            drop(crate::sys::process::kill(pid, signal));
        }
        if frozen {
            self.freeze(false)?;
        }
        processes::signal_all(directory, signal)
    }

    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), Error> {
        match (self.v2_directory(), self.paths.get("freezer"), self.paths.get("")) {
            (Some(directory), ..) => processes::freeze_v2(directory, frozen),
            (None, Some(directory), _) => processes::freeze_v1(directory, frozen),
            (None, None, Some(unified)) => processes::freeze_v2(unified, frozen),
            (None, None, None) if self.is_disabled() => Err(Error::Disabled),
            (None, None, None) => Err(Error::NoFreezer("this host".to_owned())),
        }
    }

    pub(crate) fn is_frozen(&self) -> Result<bool, Error> {
        match (self.v2_directory(), self.paths.get("freezer"), self.paths.get("")) {
            (Some(directory), ..) => processes::is_frozen_v2(directory),
            (None, Some(directory), _) => Ok(file::read(directory, "freezer.state")? != "THAWED"),
            (None, None, Some(unified)) => processes::is_frozen_v2(unified),
            (None, None, None) => Ok(false),
        }
    }

    /// Removes the directories, children first, waiting briefly for the kernel. Absent = done.
    pub(crate) fn destroy(&self) -> Result<(), Error> {
        let directories: BTreeSet<&PathBuf> = self.paths.values().collect();
        let mut first = self.unit.as_ref().map_or(Ok(()), Unit::stop);
        for directory in directories {
            let result = processes::remove(directory);
            first = first.and(result);
        }
        first
    }

    /// What a `cgroup` mount in the container is made of; `private`: it has a namespace for them.
    pub(crate) fn mounts(&self, private: bool) -> Result<CgroupMount, Error> {
        if let Some(directory) = self.v2_directory() {
            return Ok(CgroupMount::V2 { bind: Some(directory.clone()) });
        }
        let layout = self.layout()?;
        match &layout.unified {
            Some((mount_point, _)) if self.is_disabled() && layout.is_v2() => {
                // CVE-2023-25809: the host's whole hierarchy is not what was asked for.
                Ok(CgroupMount::V2 { bind: (!private).then(|| mount_point.clone()) })
            }
            _ => self.mounts_of(&layout),
        }
    }

    fn mounts_of(&self, layout: &Layout) -> Result<CgroupMount, Error> {
        // Where a user's has none of its own it is in the caller's.
        let own = match self.rights {
            Rights::Optional => layout.paths(Path::new(""))?,
            _ => BTreeMap::new(),
        };
        let (mut binds, mut links, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
        for hierarchy in &layout.v1 {
            let place = |name| self.paths.get(name).or_else(|| own.get(name));
            let directory = hierarchy.controllers.iter().find_map(place);
            let (Some(directory), Some(name)) = (directory, hierarchy.mount_point.file_name())
            else {
                continue;
            };
            let name = name.to_string_lossy().into_owned();
            let data = match hierarchy.controllers.as_slice() {
                [named] if named.starts_with("name=") => format!("none,{named}"),
                controllers => controllers.join(","),
            };
            if hierarchy.controllers.len() > 1 {
                links.extend(
                    hierarchy
                        .controllers
                        .iter()
                        .filter(|controller| **controller != name)
                        .map(|controller| (controller.clone(), name.clone())),
                );
            }
            binds.push((directory.clone(), name.clone()));
            fresh.push((data, name));
        }
        // Compat: runc shows a container the v1 hierarchies only.
        Ok(CgroupMount::V1 { binds, links, fresh, unified: None })
    }

    /// The one directory, where there is only the unified hierarchy.
    fn v2_directory(&self) -> Option<&PathBuf> {
        self.paths.get("").filter(|_| self.paths.len() == 1)
    }

    /// A directory that knows all processes.
    fn any(&self) -> Option<&PathBuf> {
        let keys = ["", "freezer", "devices", "pids", "memory", "cpu"];
        let named = keys.iter().filter_map(|key| self.paths.get(*key));
        named.chain(self.paths.values()).find(|directory| directory.exists())
    }
}

fn create_one(unified: Option<&Path>, controller: &str, directory: &Path) -> Result<(), Error> {
    match unified {
        Some(mount_point) if controller.is_empty() => v2::create(mount_point, directory)?,
        _ => fs::create_dir_all(directory)
            .map_err(|cause| Error::Create { path: directory.to_owned(), cause })?,
    }
    if controller == "cpuset" { v1::inherit_cpuset(directory) } else { Ok(()) }
}

/// Whether cgroup2 is all there is.
pub(crate) fn is_unified() -> bool {
    Layout::read().is_ok_and(|layout| layout.is_v2())
}

/// Compat: no process at all is one, as systemd has it.
fn pids_max(limit: i64) -> String {
    match limit {
        0 => "1".to_owned(),
        1.. => limit.to_string(),
        _ => "max".to_owned(),
    }
}

/// Zero is how the spec's callers spell unset.
fn limit(value: Option<i64>) -> Option<i64> {
    value.filter(|value| *value != 0)
}

fn rdma_line(device: &str, rdma: &LinuxRdma) -> String {
    let max = |value: Option<u32>| value.map_or_else(|| "max".to_owned(), |n| n.to_string());
    format!("{device} hca_handle={} hca_object={}", max(rdma.hca_handles), max(rdma.hca_objects))
}
