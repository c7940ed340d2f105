//! `delete`: removes what is left of a stopped container, or kills it first.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::{Globals, each, ids, parse_one};
use crate::args::Flag;
use crate::container::{Container, ContainerError, Status};
use crate::hooks;
use crate::sys::clone::{pidfd_open, pidfd_send_signal};
use crate::trace::Laps;

pub(super) const FLAGS: &[Flag] = &[("force", "f", false), ("regex", "r", false)];

/// How long a killed process may take to die.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let (parsed, id) = parse_one("delete", arguments, FLAGS)?;
    let force = parsed.is_set("force");
    each(ids(globals, &parsed, &id)?, |id| delete(globals, &id, force))?;
    Ok(0)
}

fn delete(globals: &Globals, id: &str, force: bool) -> anyhow::Result<()> {
    crate::container::check_id(id)?;
    let dir = globals.root.join(id);
    // Compat: with --force a container that is not there is no error.
    let _lock = match crate::container::lock(&dir) {
        Err(ContainerError::NotFound) if force => return Ok(()),
        result => result?,
    };
    let container = match Container::load(&globals.root, id) {
        // A create that was killed before it wrote its record left a directory, nothing else.
        Err(ContainerError::NotFound) if force => {
            std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
            return Ok(());
        }
        result => result?,
    };
    let mut laps =
        Laps::new("delete", globals.started, &container.record.annotations, &globals.timings);
    match container.status() {
        Status::Stopped => {}
        Status::Created | Status::Creating => kill_first(&container)?,
        _ if force => kill_first(&container)?,
        // Compat: runc's sentence.
        status => bail!("cannot delete container {id} that is not stopped: {}", status.name()),
    }
    laps.lap("end");
    destroy(globals, &container)?;
    laps.lap("remove");
    Ok(())
}

/// Kills the first process and waits until it is dead.
pub(crate) fn kill_first(container: &Container) -> anyhow::Result<()> {
    let Ok(pidfd) = pidfd_open(container.record.pid) else { return Ok(()) };
    if !container.is_alive() {
        return Ok(());
    }
    // A frozen process takes no signal on cgroup v1.
    if container.status() == Status::Paused {
        drop(pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL));
        container.cgroup().freeze(false)?;
    }
    match pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error.into()),
        _ => {}
    }
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    let timeout =
        Timespec { tv_sec: i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    if rustix::event::poll(&mut fds, Some(&timeout))? == 0 {
        bail!("container init still running");
    }
    Ok(())
}

/// Everything goes, whatever fails on the way; the failures are told together.
pub(crate) fn destroy(globals: &Globals, container: &Container) -> anyhow::Result<()> {
    let mut failures = Vec::new();
    if !container.record.cgroup_paths.is_empty() {
        let cgroup = container.cgroup();
        // Without a pid namespace of its own others may have outlived the first process.
        if cgroup.pids(true).is_ok_and(|pids| !pids.is_empty())
            && let Err(error) = cgroup.kill_all(libc::SIGKILL)
        {
            failures.push(error.to_string());
        }
        if let Err(error) = cgroup.destroy() {
            failures.push(error.to_string());
        }
    }
    if let Some(group) = &container.record.resctrl
        && let Err(error) = group.remove()
    {
        failures.push(format!("unable to remove container's IntelRDT group: {error}"));
    }
    if !failures.is_empty() {
        // The record stays, so that the delete can be tried again.
        return Err(anyhow!("{}", failures.join("; ")));
    }
    container.remove()?;
    let state = container.record.hook_state("stopped", 0);
    if let Err(error) = hooks::run_all(&container.record.hooks.poststop, "poststop", &state) {
        // The container is gone; a failing hook cannot bring it back.
        globals.log.warn(&error.to_string());
    }
    Ok(())
}
