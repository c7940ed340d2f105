//! Landlock rules: prepared while all is in reach, in force at the last moment before the filter, which
//! may forbid the calls.

use std::os::fd::AsFd as _;

use super::handshake::{Context as _, Failure, Step};
use crate::spec::landlock::of_directories;
use crate::spec::process::ProcessPlan;
use crate::sys::host::Inside;
use crate::sys::landlock::Ruleset;
use crate::sys::path::{RootFd, is_dir};

/// The rules hold what their paths lead to now, below the container's root.
pub(super) fn prepare(inside: &Inside, process: &ProcessPlan) -> Result<Option<Ruleset>, Failure> {
    let Some(plan) = process.landlock.as_ref().filter(|plan| plan.restricts()) else {
        return Ok(None);
    };
    let root = inside.root().map(RootFd::new).step(Step::Landlock, "open /")?;
    let ruleset = Ruleset::new(plan.handled).step(Step::Landlock, "create ruleset")?;
    for (path, allowed) in &plan.paths {
        let object = root.resolve(path).step(Step::Landlock, path)?;
        let only = of_directories(*allowed);
        if !only.is_empty() && !is_dir(object.as_fd()).step(Step::Landlock, path)? {
            let error = std::io::Error::from_raw_os_error(libc::ENOTDIR);
            return Err(Failure::new(Step::Landlock, &error, format!("{only} of {path}")));
        }
        ruleset.allow_beneath(object.as_fd(), *allowed).step(Step::Landlock, path)?;
    }
    for (port, allowed) in &plan.ports {
        ruleset.allow_port(*port, *allowed).step(Step::Landlock, &format!("port {port}"))?;
    }
    Ok(Some(ruleset))
}

pub(super) fn enforce(ruleset: Option<&Ruleset>) -> Result<(), Failure> {
    ruleset.map_or(Ok(()), |ruleset| ruleset.restrict().step(Step::Landlock, "restrict"))
}
