//! `events --stats`: what a container uses, once, as JSON.

use anyhow::bail;
use serde_json::json;

use super::{Globals, parse_one, print};
use crate::args::Flag;
use crate::container::{Container, Status};

pub(super) const FLAGS: &[Flag] = &[("interval", "", true), ("stats", "", false)];

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let (parsed, id) = parse_one("events", arguments, FLAGS)?;
    let container = Container::load(&globals.root, &id)?;
    if container.status() == Status::Stopped {
        // Compat: runc's sentence.
        bail!("container with id {id} is not running");
    }
    if !parsed.is_set("stats") {
        bail!("not supported: events without --stats");
    }
    let event = json!({"type": "stats", "id": id, "data": container.cgroup().stats()});
    print(&format!("{event}\n"))?;
    Ok(0)
}
