//! The process to be born, checked and put in numbers: the same for a container's own and `exec`.

use serde::{Deserialize, Serialize};

use crate::spec::landlock::LandlockPlan;
use crate::spec::oci::{self, ConsoleSize};
use crate::spec::schedule::{self, MemoryPolicyPlan, ScheduleError, SchedulerPlan};
use crate::sys;
use crate::sys::identity::CapabilitySets;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("args must not be empty")]
    NoArguments,
    #[error("Cwd property must not be empty")]
    NoCwd,
    #[error("Cwd must be an absolute path")]
    RelativeCwd,
    // Compat: runc's sentences.
    #[error("wrong rlimit value: {0}")]
    UnknownRlimit(String),
    #[error("selinux label is specified in config, but selinux is disabled or not supported")]
    NoSelinux,
    #[error(transparent)]
    Schedule(ScheduleError),
    #[error("rlimit {0} is given twice")]
    DuplicateRlimit(String),
    #[error("invalid user or group id 4294967295")]
    InvalidId,
    #[error("invalid environment variable: {0:?}")]
    Environment(String),
    #[error("{0} contains a NUL byte")]
    NulByte(&'static str),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct ProcessPlan {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// They stay what they are: no one may change them here.
    pub(crate) fixed_groups: bool,
    pub(crate) umask: u32,
    /// `None`: nothing is changed beyond what the change of user does.
    pub(crate) capabilities: Option<CapabilitySets>,
    pub(crate) no_new_privileges: bool,
    /// (resource, soft, hard)
    pub(crate) rlimits: Vec<(u32, u64, u64)>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) terminal: bool,
    pub(crate) console_size: Option<ConsoleSize>,
    pub(crate) apparmor_profile: String,
    /// "" where SELinux is off.
    pub(crate) selinux_label: String,
    pub(crate) personality: Option<u64>,
    pub(crate) memory_policy: Option<MemoryPolicyPlan>,
    pub(crate) landlock: Option<LandlockPlan>,
    pub(crate) scheduler: Option<SchedulerPlan>,
    pub(crate) io_priority: Option<i32>,
    /// CPUs before and after the cgroup is entered; for `exec` only.
    pub(crate) affinity: Option<(Vec<u64>, Vec<u64>)>,
    /// Descriptors from 3 on that the process keeps.
    pub(crate) preserve_fds: u32,
}

/// What a further process has like the first, unless its own configuration says otherwise; kept
/// with the container's record.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Inherited {
    apparmor_profile: String,
    selinux_label: String,
    rlimits: Vec<oci::Rlimit>,
    oom_score_adj: Option<i32>,
    io_priority: Option<oci::IoPriority>,
    scheduler: Option<oci::Scheduler>,
    pub(crate) personality: Option<u64>,
    pub(crate) memory_policy: Option<oci::MemoryPolicy>,
}

impl Inherited {
    pub(crate) fn of(spec: &oci::Spec, plan: &ProcessPlan) -> Self {
        let process = spec.process.clone().unwrap_or_default();
        Self {
            apparmor_profile: process.apparmor_profile,
            selinux_label: process.selinux_label,
            rlimits: process.rlimits,
            oom_score_adj: process.oom_score_adj,
            io_priority: process.io_priority,
            scheduler: process.scheduler,
            personality: plan.personality,
            memory_policy: spec.linux.as_ref().and_then(|linux| linux.memory_policy.clone()),
        }
    }

    /// Compat: which fields are taken over is runc's choice.
    pub(crate) fn fill(&self, process: &mut oci::Process) {
        if process.apparmor_profile.is_empty() {
            process.apparmor_profile.clone_from(&self.apparmor_profile);
        }
        if process.selinux_label.is_empty() {
            process.selinux_label.clone_from(&self.selinux_label);
        }
        if process.rlimits.is_empty() {
            process.rlimits.clone_from(&self.rlimits);
        }
        process.oom_score_adj = process.oom_score_adj.or(self.oom_score_adj);
        process.io_priority = process.io_priority.take().or_else(|| self.io_priority.clone());
        process.scheduler = process.scheduler.take().or_else(|| self.scheduler.clone());
    }
}

impl ProcessPlan {
    /// `held` = the capabilities this runtime can hand on.
    pub(crate) fn new(process: &oci::Process, held: u64) -> Result<Self, ProcessError> {
        // Compat: runc's validator, in its order.
        if process.cwd.is_empty() {
            return Err(ProcessError::NoCwd);
        }
        if !process.cwd.starts_with('/') {
            return Err(ProcessError::RelativeCwd);
        }
        if process.args.is_empty() {
            return Err(ProcessError::NoArguments);
        }
        let ids = [process.user.uid, process.user.gid];
        // To the kernel this number means "unchanged".
        if ids.iter().chain(&process.user.additional_gids).any(|id| *id == u32::MAX) {
            return Err(ProcessError::InvalidId);
        }
        let named = |pair: &str| pair.split_once('=').is_some_and(|(name, _)| !name.is_empty());
        if let Some(pair) = process.env.iter().find(|pair| !named(pair)) {
            return Err(ProcessError::Environment(pair.clone()));
        }
        for (what, texts) in [("args", &process.args), ("env", &process.env)] {
            if texts.iter().any(|text| text.contains('\0')) {
                return Err(ProcessError::NulByte(what));
            }
        }
        let mut rlimits: Vec<(u32, u64, u64)> = Vec::new();
        for limit in &process.rlimits {
            let Some(number) = rlimit_number(&limit.kind) else {
                return Err(ProcessError::UnknownRlimit(limit.kind.clone()));
            };
            if rlimits.iter().any(|known| known.0 == number) {
                return Err(ProcessError::DuplicateRlimit(limit.kind.clone()));
            }
            rlimits.push((number, limit.soft, limit.hard));
        }
        if !process.selinux_label.is_empty() && !sys::label::selinux_enabled() {
            return Err(ProcessError::NoSelinux);
        }
        let scheduler = process.scheduler.as_ref().map(SchedulerPlan::new).transpose();
        let io_priority = process.io_priority.as_ref().map(schedule::io_priority).transpose();
        let affinity = process.exec_cpu_affinity.as_ref().map(|wanted| {
            let mask = |list: &str| schedule::mask("execCPUAffinity", list);
            Ok((mask(&wanted.initial)?, mask(&wanted.last)?))
        });
        Ok(Self {
            args: process.args.clone(),
            env: deduplicated(&process.env),
            cwd: process.cwd.clone(),
            uid: process.user.uid,
            gid: process.user.gid,
            groups: process.user.additional_gids.clone(),
            fixed_groups: false,
            umask: process.user.umask.unwrap_or(0o022) & 0o777,
            capabilities: process.capabilities.as_ref().map(|sets| capability_sets(sets, held)),
            no_new_privileges: process.no_new_privileges,
            rlimits,
            oom_score_adj: process.oom_score_adj,
            terminal: process.terminal,
            console_size: process.console_size,
            apparmor_profile: process.apparmor_profile.clone(),
            selinux_label: process.selinux_label.clone(),
            personality: None,
            memory_policy: None,
            landlock: None,
            scheduler: scheduler.map_err(ProcessError::Schedule)?,
            io_priority: io_priority.map_err(ProcessError::Schedule)?,
            affinity: affinity.transpose().map_err(ProcessError::Schedule)?,
            preserve_fds: 0,
        })
    }

    /// The value of an environment variable.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .find_map(|pair| pair.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')))
    }
}

/// The last value of a name wins, in the place of the first.
fn deduplicated(env: &[String]) -> Vec<String> {
    let mut result: Vec<String> = Vec::with_capacity(env.len());
    for pair in env {
        let Some((name, _)) = pair.split_once('=') else { continue };
        let same = |known: &&mut String| {
            known.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
        };
        match result.iter_mut().find(same) {
            Some(known) => known.clone_from(pair),
            None => result.push(pair.clone()),
        }
    }
    result
}

fn capability_sets(sets: &oci::Capabilities, held: u64) -> CapabilitySets {
    let mask = |names: &[String]| {
        names.iter().filter_map(|name| capability(name)).fold(0, |set, bit| set | 1 << bit) & held
    };
    CapabilitySets {
        bounding: mask(&sets.bounding),
        effective: mask(&sets.effective),
        permitted: mask(&sets.permitted),
        inheritable: mask(&sets.inheritable),
        ambient: mask(&sets.ambient),
    }
}

/// The names in `sets` that will not be given: unknown, or not held by this runtime.
pub(crate) fn unavailable(sets: &oci::Capabilities, held: u64) -> Vec<String> {
    let mut missing = Vec::new();
    for name in sets.bounding.iter().chain(&sets.permitted) {
        let available = capability(name).is_some_and(|bit| held & (1 << bit) != 0);
        if !available && !missing.contains(name) {
            missing.push(name.clone());
        }
    }
    missing
}

/// The number of `CAP_NAME`.
pub(crate) fn capability(name: &str) -> Option<u32> {
    let position = CAPABILITIES.iter().position(|known| *known == name)?;
    u32::try_from(position).ok()
}

fn rlimit_number(name: &str) -> Option<u32> {
    let position = RLIMITS.iter().position(|known| *known == name)?;
    u32::try_from(position).ok()
}

/// By number, see capabilities(7).
pub(crate) const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// By number on x86-64 and arm64, see getrlimit(2).
const RLIMITS: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn process(args: &[&str], cwd: &str) -> oci::Process {
        oci::Process {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            cwd: cwd.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn a_process_needs_arguments_and_an_absolute_cwd() {
        let text = |process: &oci::Process| ProcessPlan::new(process, 0).unwrap_err().to_string();
        assert_eq!(text(&process(&[], "/")), "args must not be empty");
        assert_eq!(text(&process(&["a"], "")), "Cwd property must not be empty");
        assert_eq!(text(&process(&["a"], "x")), "Cwd must be an absolute path");
        let nobody = oci::User { uid: u32::MAX, ..Default::default() };
        let process = oci::Process { user: nobody, ..process(&["a"], "/") };
        assert_eq!(text(&process), "invalid user or group id 4294967295");
        let env = vec!["A".to_owned()];
        let process = oci::Process { env, user: oci::User::default(), ..process };
        assert_eq!(text(&process), "invalid environment variable: \"A\"");
    }

    #[test]
    fn the_last_value_of_a_variable_wins_in_the_first_place() {
        let env = ["A=1", "B=2", "A=3", "broken"].map(str::to_owned);
        assert_eq!(deduplicated(&env), ["A=3", "B=2"]);
    }

    #[test]
    fn capabilities_are_limited_to_those_held() {
        let sets = oci::Capabilities {
            bounding: vec!["CAP_CHOWN".into(), "CAP_BPF".into(), "CAP_FUTURE".into()],
            ..Default::default()
        };
        assert_eq!(capability_sets(&sets, 1).bounding, 1);
        assert_eq!(unavailable(&sets, 1), ["CAP_BPF", "CAP_FUTURE"]);
        assert_eq!(capability("CAP_CHECKPOINT_RESTORE"), Some(40));
    }

    #[test]
    fn limits_are_known_by_number() {
        assert_eq!(rlimit_number("RLIMIT_NOFILE"), Some(7));
        assert_eq!(rlimit_number("nofile"), None);
    }
}
