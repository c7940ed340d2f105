//! Output as Go's `text/tabwriter` lays it out, and the words for sizes, ages and labels.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, SystemTime};

use anyhow::Result;

/// Rows of cells; every cell but an open last one is padded to its column.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    minimum: usize,
    padding: usize,
    /// The last cell ends with a tab in ctr's format, so it is padded too.
    closed: bool,
}

impl Table {
    pub(crate) fn new(head: &[&str], minimum: usize, padding: usize, closed: bool) -> Self {
        let head = head.iter().map(|cell| (*cell).to_owned()).collect();
        Self { rows: vec![head], minimum, padding, closed }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn print(&self, out: &mut dyn Write) -> Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            (widest + self.padding).max(self.minimum)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if index + 1 == row.len() && !self.closed {
                    write!(out, "{cell}")?;
                } else {
                    write!(out, "{cell:width$}")?;
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// `1.6 KiB`, `527.0 B`.
pub(crate) fn size(bytes: i64) -> String {
    let mut value = precise(bytes);
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// Sizes are shown with one digit: what an f64 loses is not seen.
fn precise(bytes: i64) -> f64 {
    let bytes = bytes.max(0).unsigned_abs();
    let high = u32::try_from(bytes >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(bytes & 0xffff_ffff).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

/// `k=v` in order, or `-`.
pub(crate) fn labels(labels: &HashMap<String, String>) -> String {
    if labels.is_empty() { "-".to_owned() } else { plain_labels(labels) }
}

/// `k=v` in order.
pub(crate) fn plain_labels(labels: &HashMap<String, String>) -> String {
    let mut pairs: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort();
    pairs.join(",")
}

/// How long ago, in words.
pub(crate) fn age(then: Option<prost_types::Timestamp>) -> String {
    let then = then.and_then(|then| SystemTime::try_from(then).ok());
    let elapsed = then.and_then(|then| then.elapsed().ok()).unwrap_or(Duration::ZERO);
    let seconds = elapsed.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// RFC 3339 with nanoseconds, UTC.
pub(crate) fn timestamp(then: Option<prost_types::Timestamp>) -> String {
    let then = then.unwrap_or_default();
    jiff::Timestamp::new(then.seconds, then.nanos).map(|then| then.to_string()).unwrap_or_default()
}

/// `k=v` arguments; a bare `k` has an empty value.
pub(crate) fn parse_labels(arguments: &[String]) -> HashMap<String, String> {
    arguments
        .iter()
        .map(|argument| {
            let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(closed: bool) -> String {
        let mut table = Table::new(&["TASK", "PID", "STATUS"], 4, 4, closed);
        table.row(["a-long-name".to_owned(), "7".to_owned(), "RUNNING".to_owned()]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_padded_and_a_closed_last_one_too() {
        assert_eq!(
            printed(true),
            "TASK           PID    STATUS     \na-long-name    7      RUNNING    \n"
        );
        assert_eq!(printed(false), "TASK           PID    STATUS\na-long-name    7      RUNNING\n");
    }

    #[test]
    fn sizes_have_one_digit() {
        assert_eq!([0, 527, 1638, 2_202_010].map(size), ["0.0 B", "527.0 B", "1.6 KiB", "2.1 MiB"]);
    }

    #[test]
    fn labels_are_sorted() {
        let given = ["b=2".to_owned(), "a=1=x".to_owned(), "c".to_owned()];
        assert_eq!(labels(&parse_labels(&given)), "a=1=x,b=2,c=");
        assert_eq!(labels(&HashMap::new()), "-");
    }
}
