//! Entering namespaces by path, and what must be done inside new ones.

use std::os::fd::AsFd;

use super::handshake::{Context as _, Failure, Step};
use crate::spec::plan::Plan;
use crate::sys;

/// Joins what the specification names by path, the user namespace first. The pid namespace takes
/// effect for the next child, so only a stage joins it.
pub(super) fn join(plan: &Plan, in_stage: bool) -> Result<(), Failure> {
    for join in &plan.join {
        if join.flag == libc::CLONE_NEWPID && !in_stage {
            continue;
        }
        sys::clone::setns(join.fd.as_fd(), join.flag)
            .step(Step::Namespace, &format!("join {}", join.path))?;
        if join.flag == libc::CLONE_NEWUSER {
            become_root()?;
        }
    }
    Ok(())
}

/// A time namespace takes its offsets before the first process is in it.
pub(super) fn time(plan: &Plan) -> Result<(), Failure> {
    if plan.create & sys::clone::NEWTIME == 0 {
        return Ok(());
    }
    let flag = i32::try_from(sys::clone::NEWTIME).unwrap_or(0);
    sys::clone::unshare(flag).step(Step::Namespace, "unshare time")?;
    let lines: String = plan
        .time_offsets
        .iter()
        .map(|(clock, offset)| format!("{clock} {} {}\n", offset.secs, offset.nanosecs))
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    // The host's procfs: the mount namespace is still the runtime's.
    std::fs::write("/proc/self/timens_offsets", lines).step(Step::Namespace, "time offsets")
}

/// Root of the user namespace, for the steps that want an owner that exists there.
pub(super) fn become_root() -> Result<(), Failure> {
    sys::identity::set_gid(0).step(Step::Namespace, "setgid in user namespace")?;
    sys::identity::set_uid(0).step(Step::Namespace, "setuid in user namespace")
}
