//! How the kernel schedules a process: sched_setattr(2), ioprio_set(2), sched_setaffinity(2),
//! set_mempolicy(2). A pid of 0 is the caller.

use std::io;

use super::check;
use crate::spec::schedule::{MemoryPolicyPlan, SchedulerPlan};

/// `struct sched_attr` up to the utilisation clamps (`SCHED_ATTR_SIZE_VER0`).
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

pub(crate) fn set_scheduler(pid: i32, plan: &SchedulerPlan) -> io::Result<()> {
    let attr = SchedAttr {
        size: u32::try_from(size_of::<SchedAttr>()).map_err(io::Error::other)?,
        policy: plan.policy,
        flags: plan.flags,
        nice: plan.nice,
        priority: plan.priority,
        runtime: plan.runtime,
        deadline: plan.deadline,
        period: plan.period,
    };
    // SAFETY: `attr` carries its own size and lives until the call returns.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attr, 0) }).map(drop)
}

pub(crate) fn set_io_priority(pid: i32, value: i32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid, value) }).map(drop)
}

pub(crate) fn set_affinity(pid: i32, mask: &[u64]) -> io::Result<()> {
    // SAFETY: pointer and length are of one slice that outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr())
    };
    check(result).map(drop)
}

/// Of the calling thread only.
pub(crate) fn set_memory_policy(plan: &MemoryPolicyPlan) -> io::Result<()> {
    // The kernel counts one bit less than it is told.
    let bits = if plan.nodes.is_empty() { 0 } else { plan.nodes.len() * 64 + 1 };
    let nodes = if plan.nodes.is_empty() { std::ptr::null() } else { plan.nodes.as_ptr() };
    // SAFETY: `nodes` is null or a mask of at least `bits - 1` bits that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, plan.mode, nodes, bits) }).map(drop)
}
