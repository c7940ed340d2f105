//! `pause` and `resume`: the freezer.

use anyhow::bail;

use super::{Globals, parse_one};
use crate::container::{Container, Status};

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let (_, id) = parse_one("pause", arguments, &[])?;
    let container = Container::load(&globals.root, &id)?;
    let _lock = container.lock()?;
    match container.status() {
        Status::Running | Status::Created => container.cgroup().freeze(true)?,
        status => bail!("container not running or created: {}", status.name()),
    }
    Ok(0)
}

pub(crate) fn resume(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let (_, id) = parse_one("resume", arguments, &[])?;
    let container = Container::load(&globals.root, &id)?;
    let _lock = container.lock()?;
    if container.status() != Status::Paused {
        bail!("container not paused");
    }
    container.cgroup().freeze(false)?;
    Ok(0)
}
