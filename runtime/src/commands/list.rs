//! `list`: all containers below the root.

use anyhow::bail;

use super::{Globals, no_words, parse, print};
use crate::args::{Flag, Order};
use crate::container::{Container, Shown};
use crate::sys::errno_text;

pub(super) const FLAGS: &[Flag] = &[("format", "f", true), ("quiet", "q", false)];

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let parsed = parse(arguments, FLAGS, Order::Mixed)?;
    no_words("list", &parsed)?;
    let format = parsed.get("format").unwrap_or("table");
    if !matches!(format, "table" | "json") {
        bail!("invalid format option");
    }
    // Compat: only the usual place need not be there.
    if globals.root_given && !globals.root.exists() {
        bail!("open {}: {}", globals.root.display(), errno_text(libc::ENOENT));
    }
    let shown: Vec<Shown> = Container::list(&globals.root)?.iter().map(Container::listed).collect();
    if parsed.is_set("quiet") {
        let ids: String = shown.iter().map(|shown| format!("{}\n", shown.id)).collect();
        print(&ids)?;
        return Ok(0);
    }
    match format {
        // Compat: no container at all is `null`, as Go prints an empty slice.
        "json" if shown.is_empty() => print("null")?,
        "json" => print(&serde_json::to_string(&shown)?)?,
        _ => print(&table(&shown))?,
    }
    Ok(0)
}

/// Columns as Go's tabwriter lays them out: at least 12 wide, 3 between.
fn table(shown: &[Shown]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(shown.iter().map(|shown| {
        [
            shown.id.clone(),
            shown.pid.to_string(),
            shown.status.to_owned(),
            shown.bundle.display().to_string(),
            shown.created.clone(),
            shown.owner.clone(),
        ]
    }));
    let mut widths = [12; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len() + 3);
        }
    }
    let line = |row: &[String; 6]| {
        let mut text = String::new();
        for (cell, width) in row[..5].iter().zip(widths) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text + &row[5] + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_is_its_head() {
        assert_eq!(
            table(&[]),
            "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
        );
    }
}
