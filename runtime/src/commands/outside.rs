//! What only the runtime can do to a process it has made: its rights reach further than those in the
//! container.

use std::io;

use anyhow::{anyhow, bail};

use super::Globals;
use crate::rootless;
use crate::spec::oci::LinuxResources;
use crate::spec::plan::Plan;
use crate::spec::process::ProcessPlan;
use crate::sys::{self, errno_of, errno_text};

/// Of a container's first process, before all else.
pub(super) fn prepare(plan: &Plan, pid: i32) -> anyhow::Result<()> {
    if plan.creates(libc::CLONE_NEWUSER) && plan.stage_creates() == 0 {
        rootless::write_maps(pid, &plan.uid_mappings, &plan.gid_mappings)?;
    }
    apply_oom_score(&plan.process, pid)
}

pub(super) fn apply_limits(process: &ProcessPlan, pid: i32, what: &str) -> anyhow::Result<()> {
    for (resource, soft, hard) in &process.rlimits {
        sys::identity::set_rlimit(pid, *resource, *soft, *hard).map_err(|error| {
            anyhow!(
                "unable to start container process: {what}: error setting rlimit type {resource}: {}",
                errno_text(errno_of(&error))
            )
        })?;
    }
    Ok(())
}

pub(super) fn apply_oom_score(process: &ProcessPlan, pid: i32) -> anyhow::Result<()> {
    // A process of an ordinary user is born with it.
    if let Some(score) = process.oom_score_adj
        && !rootless::unprivileged()
    {
        std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()).map_err(
            |error| {
                anyhow!(
                    "unable to start container process: write oom_score_adj: {}",
                    errno_text(errno_of(&error))
                )
            },
        )?;
    }
    Ok(())
}

/// The runtime's own CPUs are nobody's wish: all that the cgroup allows. Compat: a failure is told
/// and passed over.
pub(super) fn reset_affinity(globals: &Globals, pid: i32) {
    // 8192 CPUs are the most that kernels are built for.
    if let Err(error) = sys::schedule::set_affinity(pid, &[u64::MAX; 128]) {
        globals.log.warn(&format!("reset CPU affinity: {}", errno_text(errno_of(&error))));
    }
}

/// From outside too: a user namespace may not raise its own priority.
pub(super) fn apply_schedule(
    process: &ProcessPlan,
    resources: &LinuxResources,
    pid: i32,
) -> anyhow::Result<()> {
    let pinned = resources.cpu.as_ref().is_some_and(|cpu| !cpu.cpus.is_empty());
    let failed = |what: &str, error: io::Error| {
        anyhow!(
            "unable to start container process: error setting {what}: {}",
            errno_text(errno_of(&error))
        )
    };
    if let Some(scheduler) = &process.scheduler {
        match sys::schedule::set_scheduler(pid, scheduler) {
            // Compat: runc's sentence; a deadline wants all CPUs.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && pinned => {
                bail!("process scheduler can't be used together with AllowedCPUs")
            }
            result => result.map_err(|error| failed("scheduler", error))?,
        }
    }
    if let Some(priority) = process.io_priority {
        sys::schedule::set_io_priority(pid, priority)
            .map_err(|error| failed("io priority", error))?;
    }
    Ok(())
}
