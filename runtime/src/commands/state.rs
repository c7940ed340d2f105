//! `state`: the container as JSON.

use super::{Globals, parse_one, print};
use crate::container::Container;

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let (_, id) = parse_one("state", arguments, &[])?;
    let container = Container::load(&globals.root, &id)?;
    // Compat: runc prints no newline here.
    print(&serde_json::to_string_pretty(&container.shown())?)?;
    Ok(0)
}
