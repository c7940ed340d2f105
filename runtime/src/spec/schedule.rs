//! How a process is scheduled: `process.scheduler`, `process.ioPriority`,
//! `process.execCPUAffinity` and `linux.memoryPolicy`, checked and put in the kernel's numbers.
//! See sched_setattr(2), ioprio_set(2), sched_setaffinity(2), set_mempolicy(2).

use crate::spec::oci::{IoPriority, MemoryPolicy, Scheduler};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ScheduleError {
    #[error("invalid scheduler policy: {0:?}")]
    Policy(String),
    #[error("invalid scheduler flag: {0:?}")]
    Flag(String),
    #[error("invalid scheduler.nice: {0} (valid range is -20 to 19)")]
    Nice(i32),
    #[error("scheduler.priority can only be specified for SCHED_FIFO or SCHED_RR policy")]
    Priority,
    #[error("scheduler runtime/deadline/period can only be specified for SCHED_DEADLINE policy")]
    Deadline,
    #[error("invalid ioPriority class: {0:?}")]
    IoClass(String),
    #[error("invalid ioPriority.priority: {0} (valid range is 0 to 7)")]
    IoPriority(i32),
    #[error("invalid list of {what}: {list:?}")]
    List { what: &'static str, list: String },
    #[error("invalid memory policy mode: {0:?}")]
    MemoryMode(String),
    #[error("invalid memory policy nodes {0:?}")]
    MemoryNodes(String),
    #[error("memory policy mode requires 0 nodes but got {0}")]
    TooManyMemoryNodes(u32),
    #[error("memory policy mode requires at least one node but got 0")]
    NoMemoryNode,
    #[error("invalid memory policy flag: {0:?}")]
    MemoryFlag(String),
}

/// As `struct sched_attr` wants it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SchedulerPlan {
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

impl SchedulerPlan {
    pub(crate) fn new(scheduler: &Scheduler) -> Result<Self, ScheduleError> {
        let policy = number(&POLICIES, &scheduler.policy)
            .ok_or_else(|| ScheduleError::Policy(scheduler.policy.clone()))?;
        let mut flags = 0;
        for name in &scheduler.flags {
            flags |= number(&FLAGS, name).ok_or_else(|| ScheduleError::Flag(name.clone()))?;
        }
        if !(-20..=19).contains(&scheduler.nice) {
            return Err(ScheduleError::Nice(scheduler.nice));
        }
        let real_time = matches!(scheduler.policy.as_str(), "SCHED_FIFO" | "SCHED_RR");
        let priority = u32::try_from(scheduler.priority).map_err(|_| ScheduleError::Priority)?;
        if priority != 0 && !real_time {
            return Err(ScheduleError::Priority);
        }
        let times = scheduler.runtime | scheduler.deadline | scheduler.period;
        if times != 0 && scheduler.policy != "SCHED_DEADLINE" {
            return Err(ScheduleError::Deadline);
        }
        Ok(Self {
            policy: u32::try_from(policy).unwrap_or_default(),
            flags,
            nice: scheduler.nice,
            priority,
            runtime: scheduler.runtime,
            deadline: scheduler.deadline,
            period: scheduler.period,
        })
    }
}

/// Class and priority in one number.
pub(crate) fn io_priority(wanted: &IoPriority) -> Result<i32, ScheduleError> {
    let class = match wanted.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        _ => return Err(ScheduleError::IoClass(wanted.class.clone())),
    };
    if !(0..=7).contains(&wanted.priority) {
        return Err(ScheduleError::IoPriority(wanted.priority));
    }
    Ok(class << 13 | wanted.priority)
}

/// Mode with its flags, and the nodes as a bit mask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MemoryPolicyPlan {
    pub(crate) mode: i32,
    pub(crate) nodes: Vec<u64>,
}

impl MemoryPolicyPlan {
    pub(crate) fn new(policy: &MemoryPolicy) -> Result<Self, ScheduleError> {
        let mut mode = number(&MEMORY_MODES, &policy.mode)
            .ok_or_else(|| ScheduleError::MemoryMode(policy.mode.clone()))?;
        for name in &policy.flags {
            mode |= number(&MEMORY_FLAGS, name)
                .ok_or_else(|| ScheduleError::MemoryFlag(name.clone()))?;
        }
        Ok(Self { mode: i32::try_from(mode).unwrap_or_default(), nodes: memory_nodes(policy)? })
    }
}

/// Compat: runc's validator has these sentences.
fn memory_nodes(policy: &MemoryPolicy) -> Result<Vec<u64>, ScheduleError> {
    let nodes = mask("memory nodes", &policy.nodes)
        .map_err(|_| ScheduleError::MemoryNodes(policy.nodes.clone()))?;
    let count = nodes.iter().map(|word| word.count_ones()).sum();
    match (policy.mode.as_str(), count) {
        ("MPOL_DEFAULT" | "MPOL_LOCAL", 1..) => Err(ScheduleError::TooManyMemoryNodes(count)),
        ("MPOL_DEFAULT" | "MPOL_LOCAL" | "MPOL_PREFERRED", _) | (_, 1..) => Ok(nodes),
        _ => Err(ScheduleError::NoMemoryNode),
    }
}

/// A list like `0-3,7` as a bit mask; empty for an empty list.
pub(crate) fn mask(what: &'static str, list: &str) -> Result<Vec<u64>, ScheduleError> {
    let invalid = || ScheduleError::List { what, list: list.to_owned() };
    let mut mask = Vec::new();
    for part in list.trim().split(',').filter(|_| !list.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let parse = |text: &str| text.trim().parse::<usize>().map_err(|_| invalid());
        let (first, last) = (parse(first)?, parse(last)?);
        if first > last || last >= HIGHEST {
            return Err(invalid());
        }
        for bit in first..=last {
            if mask.len() <= bit / 64 {
                mask.resize(bit / 64 + 1, 0);
            }
            mask[bit / 64] |= 1 << (bit % 64);
        }
    }
    Ok(mask)
}

/// More than any kernel counts of CPUs or nodes.
const HIGHEST: usize = 8192;

fn number(table: &[(&str, u64)], name: &str) -> Option<u64> {
    table.iter().find(|known| known.0 == name).map(|known| known.1)
}

/// The kernel's `SCHED_*`.
const POLICIES: [(&str, u64); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

const MEMORY_MODES: [(&str, u64); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

const MEMORY_FLAGS: [(&str, u64); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

pub(crate) fn memory_modes() -> impl Iterator<Item = &'static str> {
    MEMORY_MODES.iter().map(|mode| mode.0)
}

pub(crate) fn memory_flags() -> impl Iterator<Item = &'static str> {
    MEMORY_FLAGS.iter().map(|flag| flag.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        assert_eq!(mask("cpus", ""), Ok(vec![]));
        assert_eq!(mask("cpus", "0-2,5"), Ok(vec![0b10_0111]));
        assert_eq!(mask("cpus", "64"), Ok(vec![0, 1]));
        for bad in ["a", "1-", "3-1", "9999999", "1,,2", "-1"] {
            assert!(mask("cpus", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scheduler_is_checked_as_a_whole() {
        let scheduler = |policy: &str| Scheduler { policy: policy.into(), ..Default::default() };
        let batch = Scheduler { nice: 5, ..scheduler("SCHED_BATCH") };
        let plan = SchedulerPlan::new(&batch).unwrap();
        assert_eq!((plan.policy, plan.nice), (3, 5));
        let error = |scheduler: Scheduler| SchedulerPlan::new(&scheduler).unwrap_err();
        assert_eq!(error(scheduler("")), ScheduleError::Policy(String::new()));
        assert_eq!(
            error(Scheduler { nice: 20, ..scheduler("SCHED_OTHER") }),
            ScheduleError::Nice(20)
        );
        assert_eq!(
            error(Scheduler { priority: 1, ..scheduler("SCHED_OTHER") }),
            ScheduleError::Priority
        );
        assert_eq!(
            error(Scheduler { runtime: 1, ..scheduler("SCHED_FIFO") }),
            ScheduleError::Deadline
        );
        assert_eq!(
            error(Scheduler { flags: vec!["X".into()], ..scheduler("SCHED_FIFO") }),
            ScheduleError::Flag("X".into())
        );
    }

    #[test]
    fn an_io_priority_has_class_and_level() {
        let wanted = |class: &str, priority| IoPriority { class: class.into(), priority };
        assert_eq!(io_priority(&wanted("IOPRIO_CLASS_BE", 5)), Ok(2 << 13 | 5));
        assert!(io_priority(&wanted("IOPRIO_CLASS_BE", 8)).is_err());
        assert!(io_priority(&wanted("best", 1)).is_err());
    }

    #[test]
    fn a_memory_policy_has_mode_flags_and_nodes() {
        let policy = MemoryPolicy {
            mode: "MPOL_BIND".into(),
            nodes: "0,2".into(),
            flags: vec!["MPOL_F_STATIC_NODES".into()],
        };
        let plan = MemoryPolicyPlan::new(&policy).unwrap();
        assert_eq!((plan.mode, plan.nodes), (2 | 1 << 15, vec![0b101]));
        let unknown = MemoryPolicy { mode: "MPOL_X".into(), ..Default::default() };
        assert!(MemoryPolicyPlan::new(&unknown).is_err());
    }
}
