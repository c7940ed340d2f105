//! Entering namespaces by path, and what must be done inside new ones.

use std::os::fd::AsFd;

use super::handshake::{Context as _, Failure, Step};
use crate::spec::plan::{Join, Plan};
use crate::sys;
use crate::sys::host::Host;

/// Joins what the specification names by path. The pid namespace takes
/// effect for the next child, so only a stage joins it.
pub(super) fn join(plan: &Plan, in_stage: bool) -> Result<(), Failure> {
    let (user, others): (Vec<&Join>, Vec<&Join>) = plan
        .join
        .iter()
        .filter(|join| in_stage || join.flag != libc::CLONE_NEWPID)
        .partition(|join| join.flag == libc::CLONE_NEWUSER);
    let enter = |join: &Join| sys::clone::setns(join.fd.as_fd(), join.flag);
    let fail = |join: &Join| format!("join {}", join.path);
    // They need not belong to the user namespace, nor need we have a right to them without it.
    let mut left = Vec::new();
    for join in others {
        match enter(join) {
            Err(error) if !user.is_empty() && error.raw_os_error() == Some(libc::EPERM) => {
                left.push(join);
            }
            result => result.step(Step::Namespace, &fail(join))?,
        }
    }
    for join in user {
        enter(join).step(Step::Namespace, &fail(join))?;
        become_root()?;
    }
    left.into_iter().try_for_each(|join| enter(join).step(Step::Namespace, &fail(join)))
}

/// A time namespace takes its offsets before the first process is in it.
pub(super) fn time(plan: &Plan, host: &Host) -> Result<(), Failure> {
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
    // The root is the host's still, or that of a namespace joined by path: it must be a procfs.
    host.write_own("timens_offsets", &lines).step(Step::Namespace, "time offsets")
}

/// Root of the user namespace, for the steps that want an owner that exists there.
pub(super) fn become_root() -> Result<(), Failure> {
    sys::identity::set_gid(0).step(Step::Namespace, "setgid in user namespace")?;
    sys::identity::set_uid(0).step(Step::Namespace, "setuid in user namespace")
}
