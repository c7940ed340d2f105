//! The container, decided before the first clone: what to make, what to join, every source open.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::landlock::{LandlockError, LandlockPlan};
use super::mounts::{self, PlannedMount, Surroundings};
use super::oci::{self, Device, IdMapping, Spec};
use super::process::{ProcessError, ProcessPlan};
use super::schedule::MemoryPolicyPlan;
use super::{options, sysctl};
use crate::resctrl::{self, Resctrl};
use crate::rootless;
use crate::seccomp;
use crate::sys::clone::{Flags, NEWTIME, ns};
use crate::sys::host::Host;
use crate::sys::{self, errno_of, errno_text};

#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("unsupported spec version: {0:?}")]
    Version(String),
    // Compat: runc's sentences.
    #[error("root must be specified")]
    NoRoot,
    #[error("process property must not be empty")]
    NoProcess,
    #[error(transparent)]
    Process(ProcessError),
    #[error("invalid rootfs: stat {path}: {}", errno_text(errno_of(cause)))]
    Rootfs { path: String, cause: io::Error },
    // Compat: as Go prints a namespace, type and path.
    #[error("namespace {{{0:?} \"\"}} does not exist")]
    UnknownNamespace(String),
    #[error("malformed spec file: duplicated ns {{{0:?} \"\"}}")]
    DuplicateNamespace(String),
    #[error("unable to move network devices without a NET namespace")]
    DevicesWithoutNetwork,
    #[error("invalid network device name {0:?}")]
    DeviceName(String),
    #[error("error opening namespace path {path}: {}", errno_text(errno_of(cause)))]
    NamespacePath { path: String, cause: io::Error },
    #[error(
        "unable to start container process: error during container init: error mounting {from:?} \
         to rootfs at {to:?}: {call} {from}: {}",
        errno_text(errno_of(cause))
    )]
    MountSource { from: String, to: String, call: &'static str, cause: io::Error },
    #[error("rootfsPropagation={0} is not supported")]
    Propagation(String),
    #[error("sysctl {0:?} is not in a separate kernel namespace")]
    Sysctl(String),
    #[error(transparent)]
    Seccomp(Box<dyn std::error::Error + Send + Sync>),
    #[error("unable to set hostname without a private UTS namespace")]
    HostnameWithoutUts,
    #[error("unable to set domainname without a private UTS namespace")]
    DomainnameWithoutUts,
    #[error("user namespace without mappings")]
    NoMappings,
    // Compat: runc's validator has these sentences.
    #[error("user namespace mappings specified, but user namespace isn't enabled in the config")]
    MappingsWithoutUser,
    #[error("time namespace offsets specified, but time namespace isn't enabled in the config")]
    OffsetsWithoutTime,
    #[error("unable to restrict sys entries without a private MNT namespace")]
    PathsWithoutMount,
    #[error("invalid time offset clock {0:?}")]
    Clock(String),
    #[error("invalid personality domain {0:?}")]
    Personality(String),
    #[error("mount {0}: id mappings are only for bind mounts")]
    IdMapNotBind(String),
    #[error("mount {0}: an id-mapped mount needs uidMappings and gidMappings")]
    IdMapIncomplete(String),
    #[error("invalid device type {0:?}")]
    DeviceType(String),
    #[error("device {0:?}: invalid owner")]
    DeviceOwner(String),
    #[error(transparent)]
    IntelRdt(resctrl::ResctrlError),
    #[error(transparent)]
    Landlock(LandlockError),
    #[error("{0}")]
    Rootless(String),
    #[error("a mount has no destination")]
    NoDestination,
}

/// A namespace joined by path.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) flag: libc::c_int,
    pub(crate) path: String,
    pub(crate) fd: OwnedFd,
}

/// Everything the child needs, and nothing it would have to look up.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) id: String,
    pub(crate) rootfs: PathBuf,
    pub(crate) rootfs_readonly: bool,
    /// All that needs a right is for init to do, in its own user namespace.
    pub(crate) unprivileged: bool,
    pub(crate) no_pivot: bool,
    pub(crate) new_keyring: bool,
    pub(crate) propagation: Option<u64>,
    /// Namespaces to be made, the cgroup's excepted.
    pub(crate) create: Flags,
    pub(crate) new_cgroup_namespace: bool,
    pub(crate) join: Vec<Join>,
    pub(crate) uid_mappings: Vec<IdMapping>,
    pub(crate) gid_mappings: Vec<IdMapping>,
    pub(crate) time_offsets: BTreeMap<String, oci::TimeOffset>,
    pub(crate) mounts: Vec<PlannedMount>,
    pub(crate) devices: Vec<Device>,
    /// False where the caller gave a `/dev` of its own.
    pub(crate) setup_dev: bool,
    pub(crate) masked_paths: Vec<String>,
    /// SELinux context of all filesystems that can carry one, or "".
    pub(crate) mount_label: String,
    pub(crate) readonly_paths: Vec<String>,
    pub(crate) sysctl: BTreeMap<String, String>,
    pub(crate) net_devices: BTreeMap<String, oci::NetDevice>,
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    pub(crate) process: ProcessPlan,
    pub(crate) seccomp: Option<seccomp::Program>,
    pub(crate) hooks: oci::Hooks,
}

/// How the command line changes the plan.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Choices {
    pub(crate) no_pivot: bool,
    pub(crate) new_keyring: bool,
    pub(crate) preserve_fds: u32,
    /// For an ordinary user.
    pub(crate) unprivileged: bool,
}

impl Plan {
    pub(crate) fn new(
        spec: &Spec,
        id: &str,
        bundle: &Path,
        choices: Choices,
    ) -> Result<Self, PlanError> {
        // Compat: only the major version matters; a newer minor one is no error.
        if !spec.oci_version.is_empty() && !spec.oci_version.starts_with("1.") {
            return Err(PlanError::Version(spec.oci_version.clone()));
        }
        let root = spec.root.as_ref().ok_or(PlanError::NoRoot)?;
        let process = spec.process.as_ref().ok_or(PlanError::NoProcess)?;
        let linux = spec.linux.clone().unwrap_or_default();
        if let Some(wanted) = &linux.intel_rdt {
            Resctrl::check(Resctrl::find().as_ref(), wanted).map_err(PlanError::IntelRdt)?;
        }
        let rootfs = bundle.join(&root.path);
        let rootfs = rootfs
            .canonicalize()
            .map_err(|cause| PlanError::Rootfs { path: rootfs.display().to_string(), cause })?;
        if choices.unprivileged {
            rootless::check(spec)?;
        }
        let held = rootless::capabilities_to_give();
        let mut process = ProcessPlan::new(process, held).map_err(PlanError::Process)?;
        process.fixed_groups = rootless::groups_are_fixed();
        process.preserve_fds = choices.preserve_fds;
        process.personality = linux.personality.as_ref().map(personality).transpose()?;
        process.memory_policy = linux
            .memory_policy
            .as_ref()
            .map(MemoryPolicyPlan::new)
            .transpose()
            .map_err(|error| PlanError::Process(ProcessError::Schedule(error)))?;
        process.landlock = LandlockPlan::of(&spec.annotations).map_err(PlanError::Landlock)?;

        let (create, join) = namespaces(&linux.namespaces)?;
        let has =
            |flag: libc::c_int| create & ns(flag) != 0 || join.iter().any(|join| join.flag == flag);
        check_namespaces(spec, &linux, create, &has)?;
        check_devices(&linux.net_devices, &has)?;
        if let Some(key) = linux.sysctl.keys().find(|key| !sysctl::is_allowed(key, &has)) {
            return Err(PlanError::Sysctl(key.clone()));
        }
        let propagation = match linux.rootfs_propagation.as_str() {
            "" => None,
            name => Some(
                options::propagation(name)
                    .ok_or_else(|| PlanError::Propagation(name.to_owned()))?,
            ),
        };
        let labelled = !linux.mount_label.is_empty() && sys::label::selinux_enabled();
        let label = if labelled { linux.mount_label.as_str() } else { "" };
        let around = Surroundings {
            bundle,
            rootfs: &rootfs,
            joined: join
                .iter()
                .find(|join| join.flag == libc::CLONE_NEWUSER)
                .map(|join| join.fd.as_fd()),
            propagation,
            user_namespace: has(libc::CLONE_NEWUSER),
            unprivileged: choices.unprivileged,
            mappings: (&linux.uid_mappings, &linux.gid_mappings),
            label,
        };
        let mounts = spec
            .mounts
            .iter()
            .map(|mount| PlannedMount::new(mount, around))
            .collect::<Result<Vec<_>, _>>()?;
        let setup_dev = !mounts.iter().any(|mount| {
            mount.destination.trim_end_matches('/') == "/dev" && mount.options.is_bind()
        });
        for device in &linux.devices {
            if !matches!(device.kind.as_str(), "c" | "b" | "u" | "p") {
                return Err(PlanError::DeviceType(device.kind.clone()));
            }
            if [device.uid, device.gid].contains(&Some(u32::MAX)) {
                return Err(PlanError::DeviceOwner(device.path.clone()));
            }
        }
        let seccomp = match &linux.seccomp {
            Some(profile) if !profile.default_action.is_empty() => Some(
                seccomp::compile(profile).map_err(|error| PlanError::Seccomp(Box::new(error)))?,
            ),
            _ => None,
        };
        Ok(Self {
            id: id.to_owned(),
            rootfs,
            rootfs_readonly: root.readonly,
            unprivileged: choices.unprivileged,
            no_pivot: choices.no_pivot,
            new_keyring: choices.new_keyring,
            propagation,
            create: create & !ns(libc::CLONE_NEWCGROUP),
            new_cgroup_namespace: create & ns(libc::CLONE_NEWCGROUP) != 0,
            join,
            uid_mappings: linux.uid_mappings,
            gid_mappings: linux.gid_mappings,
            time_offsets: linux.time_offsets.unwrap_or_default(),
            mounts,
            devices: with_default_devices(linux.devices),
            setup_dev,
            mount_label: label.to_owned(),
            masked_paths: without_duplicates(linux.masked_paths),
            readonly_paths: linux.readonly_paths,
            sysctl: linux.sysctl,
            net_devices: linux.net_devices,
            hostname: spec.hostname.clone(),
            domainname: spec.domainname.clone(),
            process,
            seccomp,
            hooks: spec.hooks.clone().unwrap_or_default(),
        })
    }

    pub(crate) fn creates(&self, flag: libc::c_int) -> bool {
        self.create & ns(flag) != 0
    }

    /// Whether nothing outlives the first process.
    pub(crate) fn private_pids(&self) -> bool {
        self.creates(libc::CLONE_NEWPID)
    }

    /// Namespaces whose first objects belong to whoever makes them: with a new user namespace init
    /// makes these itself, once it is root there.
    pub(crate) fn late(&self) -> Flags {
        if self.creates(libc::CLONE_NEWUSER) { self.create & ns(libc::CLONE_NEWIPC) } else { 0 }
    }

    /// A mount of the runtime's own, after all others.
    pub(crate) fn bind_own(
        &mut self,
        source: &Path,
        destination: &str,
        options: &[&str],
    ) -> Result<(), PlanError> {
        let user_namespace = self.has_user_namespace();
        let unprivileged = self.unprivileged;
        let mount = PlannedMount::own(source, destination, options, |options| {
            let host = Host::of_the_runtime();
            let open =
                || mounts::Tree::open(&host, source, options, self.propagation, user_namespace);
            (!unprivileged).then(open).transpose()
        });
        self.mounts.push(mount?);
        Ok(())
    }

    pub(crate) fn joins(&self, flag: libc::c_int) -> bool {
        self.join.iter().any(|join| join.flag == flag)
    }

    /// Of its own, or one given by path. Compat: runc makes no difference, and pivots there too.
    pub(crate) fn has_mount_namespace(&self) -> bool {
        self.creates(libc::CLONE_NEWNS) || self.joins(libc::CLONE_NEWNS)
    }

    pub(crate) fn has_user_namespace(&self) -> bool {
        self.creates(libc::CLONE_NEWUSER) || self.joins(libc::CLONE_NEWUSER)
    }

    /// What the container's first process must not lose.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let joined = self.join.iter().map(|join| join.fd.as_raw_fd());
        joined.chain(self.mounts.iter().flat_map(PlannedMount::descriptors))
    }

    /// Whether the runtime has something to do, or to have done, once all is mounted.
    pub(crate) fn pauses_when_mounted(&self) -> bool {
        !self.hooks.prestart.is_empty()
            || !self.hooks.create_runtime.is_empty()
            || self.process.scheduler.is_some()
            || self.process.io_priority.is_some()
            || !self.net_devices.is_empty()
    }

    /// Root of a user namespace may not raise limits; else init has the runtime's rights itself.
    pub(crate) fn limits_from_outside(&self) -> bool {
        self.has_user_namespace() && !self.process.rlimits.is_empty()
    }

    /// What the stage is born into: a user may make a time namespace only from a user namespace of its
    /// own.
    pub(crate) fn stage_creates(&self) -> Flags {
        let early = self.unprivileged && self.create & NEWTIME != 0;
        if early { self.create & ns(libc::CLONE_NEWUSER) } else { 0 }
    }

    /// A stage between runtime and init is needed where namespaces must be entered or prepared
    /// before the one init is born into.
    pub(crate) fn needs_stage(&self) -> bool {
        self.create & NEWTIME != 0
            || self.joins(libc::CLONE_NEWPID)
            || (!self.join.is_empty() && self.has_user_namespace())
    }
}

/// Once is enough, however it is written.
fn without_duplicates(paths: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let cleaned = |path: &str| Path::new(path).components().collect::<PathBuf>();
    paths.into_iter().filter(|path| seen.insert(cleaned(path))).collect()
}

/// Compat: runc's rules and sentences.
fn check_devices(
    devices: &BTreeMap<String, oci::NetDevice>,
    has: &impl Fn(libc::c_int) -> bool,
) -> Result<(), PlanError> {
    if devices.is_empty() {
        return Ok(());
    }
    if !has(libc::CLONE_NEWNET) {
        return Err(PlanError::DevicesWithoutNetwork);
    }
    let valid = |name: &str| {
        (1..libc::IFNAMSIZ).contains(&name.len())
            && !matches!(name, "." | "..")
            && !name.contains(['/', ':', ' '])
    };
    let renamed = devices.values().map(|device| &device.name).filter(|name| !name.is_empty());
    match devices.keys().chain(renamed).find(|name| !valid(name)) {
        Some(name) => Err(PlanError::DeviceName(name.clone())),
        None => Ok(()),
    }
}

fn personality(wanted: &oci::Personality) -> Result<u64, PlanError> {
    match wanted.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(PlanError::Personality(other.to_owned())),
    }
}

/// What needs a namespace of its own has one.
fn check_namespaces(
    spec: &Spec,
    linux: &oci::Linux,
    create: Flags,
    has: &impl Fn(libc::c_int) -> bool,
) -> Result<(), PlanError> {
    let maps = [&linux.uid_mappings, &linux.gid_mappings];
    if create & ns(libc::CLONE_NEWUSER) != 0 && maps.iter().any(|map| map.is_empty()) {
        return Err(PlanError::NoMappings);
    }
    if !has(libc::CLONE_NEWUSER) && maps.iter().any(|map| !map.is_empty()) {
        return Err(PlanError::MappingsWithoutUser);
    }
    if !spec.hostname.is_empty() && !has(libc::CLONE_NEWUTS) {
        return Err(PlanError::HostnameWithoutUts);
    }
    if !spec.domainname.is_empty() && !has(libc::CLONE_NEWUTS) {
        return Err(PlanError::DomainnameWithoutUts);
    }
    if let Some(offsets) = linux.time_offsets.as_ref().filter(|offsets| !offsets.is_empty()) {
        if create & NEWTIME == 0 {
            return Err(PlanError::OffsetsWithoutTime);
        }
        let known = |clock: &&String| !matches!(clock.as_str(), "monotonic" | "boottime");
        if let Some(clock) = offsets.keys().find(known) {
            return Err(PlanError::Clock(clock.clone()));
        }
    }
    let hides = !linux.masked_paths.is_empty() || !linux.readonly_paths.is_empty();
    if hides && !has(libc::CLONE_NEWNS) {
        return Err(PlanError::PathsWithoutMount);
    }
    Ok(())
}

fn namespaces(wanted: &[oci::Namespace]) -> Result<(Flags, Vec<Join>), PlanError> {
    let mut create = 0;
    let mut join = Vec::new();
    let mut seen = 0;
    for namespace in wanted {
        let Some(flag) = namespace_flag(&namespace.kind) else {
            return Err(PlanError::UnknownNamespace(namespace.kind.clone()));
        };
        if seen & flag != 0 {
            return Err(PlanError::DuplicateNamespace(namespace.kind.clone()));
        }
        seen |= flag;
        if namespace.path.is_empty() {
            create |= flag;
            continue;
        }
        let fd = open_namespace(&namespace.path)
            .map_err(|cause| PlanError::NamespacePath { path: namespace.path.clone(), cause })?;
        let flag =
            i32::try_from(flag).map_err(|_| PlanError::UnknownNamespace(namespace.kind.clone()))?;
        join.push(Join { flag, path: namespace.path.clone(), fd });
    }
    Ok((create, join))
}

/// Whatever lies there: a fifo would keep us waiting, and only a namespace can be joined.
fn open_namespace(path: &str) -> io::Result<OwnedFd> {
    const NSFS: i64 = 0x6e73_6673;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    if rustix::fs::fstatfs(&fd)?.f_type != NSFS {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(fd)
}

pub(crate) const NAMESPACES: [&str; 8] =
    ["user", "mount", "pid", "network", "ipc", "uts", "cgroup", "time"];

pub(crate) fn namespace_flag(kind: &str) -> Option<Flags> {
    Some(match kind {
        "pid" => ns(libc::CLONE_NEWPID),
        "network" => ns(libc::CLONE_NEWNET),
        "mount" => ns(libc::CLONE_NEWNS),
        "ipc" => ns(libc::CLONE_NEWIPC),
        "uts" => ns(libc::CLONE_NEWUTS),
        "user" => ns(libc::CLONE_NEWUSER),
        "cgroup" => ns(libc::CLONE_NEWCGROUP),
        "time" => NEWTIME,
        _ => return None,
    })
}

/// Where the container's devices are.
pub(crate) fn device_paths(devices: Vec<Device>) -> Vec<String> {
    with_default_devices(devices).into_iter().map(|device| device.path).collect()
}

/// The devices every container has; the specification's own win.
fn with_default_devices(mut devices: Vec<Device>) -> Vec<Device> {
    for (name, major, minor) in [
        ("null", 1, 3),
        ("random", 1, 8),
        ("full", 1, 7),
        ("tty", 5, 0),
        ("zero", 1, 5),
        ("urandom", 1, 9),
    ] {
        let path = format!("/dev/{name}");
        if !devices.iter().any(|device| device.path == path) {
            devices.push(Device {
                path,
                kind: "c".to_owned(),
                major,
                minor,
                file_mode: Some(0o666),
                ..Default::default()
            });
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_may_be_named_once() {
        let pid = oci::Namespace { kind: "pid".into(), path: String::new() };
        let error = namespaces(&[pid.clone(), pid]).unwrap_err();
        assert_eq!(error.to_string(), "malformed spec file: duplicated ns {\"pid\" \"\"}");
    }

    #[test]
    fn a_named_device_replaces_the_default_one() {
        let null =
            Device { path: "/dev/null".into(), kind: "c".into(), major: 9, ..Default::default() };
        let devices = with_default_devices(vec![null]);
        assert_eq!(devices.len(), 6);
        assert_eq!(devices[0].major, 9);
    }

    #[test]
    fn another_major_version_is_refused() {
        let spec = Spec { oci_version: "2.0.0".into(), ..Default::default() };
        let error = Plan::new(&spec, "x", Path::new("/"), Choices::default()).unwrap_err();
        assert_eq!(error.to_string(), "unsupported spec version: \"2.0.0\"");
    }
}
