//! A clone's way into the container's cgroups, for `create` and `exec`.

use anyhow::{Context as _, anyhow, bail};

use super::Globals;
use crate::cgroup::Doors;
use crate::init::handshake::{FromInit, InitEnd, RuntimeEnd};
use crate::sys::clone::{Flags, Side, clone, clone_into, exit_now};
use crate::sys::{errno_of, errno_text};

/// Whether the new process stands in its cgroups.
#[derive(Debug, Clone, Copy)]
pub(super) enum Inside {
    Known(bool),
    /// It is what the process tells first, but for where it was born.
    Asked {
        placed: bool,
    },
}

impl Inside {
    pub(super) fn told(self, channel: &RuntimeEnd) -> anyhow::Result<bool> {
        match self {
            Self::Known(inside) => Ok(inside),
            Self::Asked { placed } => match channel.receive().context("handshake")? {
                Some(FromInit::Admitted(inside)) => Ok(inside && placed),
                Some(message) => bail!("unexpected {message:?} before the cgroups"),
                // It is dead; joining says so, or what comes after.
                None => Ok(false),
            },
        }
    }
}

/// A child that is in the unified hierarchy already, where that can be.
pub(super) fn clone_inside(flags: Flags, doors: Option<&Doors>) -> anyhow::Result<(Side, Inside)> {
    let place = doors.map(Doors::birthplace);
    let cloned = match place {
        Some(Some(place)) => clone_into(flags, place),
        place => clone(flags, false).map(|side| (side, place.is_some())),
    };
    let (side, placed) = cloned.map_err(|error| {
        anyhow!("unable to start container process: clone: {}", errno_text(errno_of(&error)))
    })?;
    match place {
        None => Ok((side, Inside::Known(false))),
        Some(_) => Ok((side, Inside::Asked { placed })),
    }
}

/// On the child's side, before all else.
pub(super) fn enter_cgroups(doors: Option<Doors>, channel: &InitEnd) {
    if let Some(doors) = doors
        && channel.send(&FromInit::Admitted(doors.enter())).is_err()
    {
        exit_now(1);
    }
}

/// The process that the stage `pid` made, which ends with that.
pub(super) fn born_of_stage(
    globals: &Globals,
    channel: &RuntimeEnd,
    stage: i32,
) -> anyhow::Result<i32> {
    let mut told = channel.receive().context("handshake")?;
    while let Some(FromInit::Note(text)) = told {
        globals.log.debug(&text);
        told = channel.receive().context("handshake")?;
    }
    crate::sys::clone::wait(stage, true).context("wait for the stage")?;
    match told {
        Some(FromInit::Born(pid)) => Ok(pid),
        Some(FromInit::Failed(failure)) => {
            bail!("unable to start container process: {}", failure.sentence())
        }
        _ => bail!("unable to start container process: the stage ended without a word"),
    }
}
