//! `pause` and `resume`: the freezer.

use anyhow::bail;

use super::{Globals, parse_one};
use crate::container::{Container, Status};

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let (_, id) = parse_one("pause", arguments, &[])?;
    let (container, _lock) = Container::load_locked(&globals.root, &id)?;
    match container.status() {
        Status::Running | Status::Created => container.cgroup().freeze(true)?,
        // Compat: a paused one too.
        _ => bail!("container not running"),
    }
    Ok(0)
}

pub(crate) fn resume(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let (_, id) = parse_one("resume", arguments, &[])?;
    let (container, _lock) = Container::load_locked(&globals.root, &id)?;
    if container.status() != Status::Paused {
        bail!("container not paused");
    }
    container.cgroup().freeze(false)?;
    Ok(0)
}
