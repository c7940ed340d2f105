//! Output as Go's `text/tabwriter` lays it out, and the words for sizes, ages and labels.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, SystemTime};

use anyhow::Result;

/// Rows of cells; every cell that ends with a tab in ctr's format is padded to its column.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    minimum: usize,
    padding: usize,
    end: End,
}

/// Which lines end with a tab, so that their last cell is padded too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Open,
    Closed,
    /// Only the head's.
    Head,
    /// None; and the padding itself is tabs.
    Tabs,
}

impl Table {
    pub(crate) fn new(head: &[&str], minimum: usize, padding: usize, end: End) -> Self {
        let head = head.iter().map(|cell| (*cell).to_owned()).collect();
        Self { rows: vec![head], minimum, padding, end }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn closed(&self, row: usize) -> bool {
        self.end == End::Closed || self.end == End::Head && row == 0
    }

    pub(crate) fn print(&self, out: &mut dyn Write) -> Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            // An open last cell does not widen its column.
            let rows = self.rows.iter().enumerate();
            let cells = rows.filter(|(at, row)| self.closed(*at) || column + 1 < row.len());
            let cells = cells.filter_map(|(_, row)| row.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            let width = (widest + self.padding).max(self.minimum);
            if self.end == End::Tabs { width.next_multiple_of(TAB) } else { width }
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (at, row) in self.rows.iter().enumerate() {
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if index + 1 == row.len() && !self.closed(at) {
                    write!(out, "{cell}")?;
                } else if self.end == End::Tabs {
                    let tabs = width.saturating_sub(cell.chars().count()).div_ceil(TAB);
                    write!(out, "{cell}{}", "\t".repeat(tabs))?;
                } else {
                    // Not by the formatter, whose widths end at 65535.
                    let blanks = width.saturating_sub(cell.chars().count());
                    write!(out, "{cell}{}", " ".repeat(blanks))?;
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// `196B`, `1.997MB`: four digits, powers of a thousand.
pub(crate) fn short_size(bytes: i64) -> String {
    let mut value = precise(bytes);
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    let decimals = match value {
        value if value < 10.0 => 3,
        value if value < 100.0 => 2,
        value if value < 1000.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
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

const TAB: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(end: End) -> String {
        let mut table = Table::new(&["TASK", "PID", "STATUS"], 4, 4, end);
        table.row(["a-long-name".to_owned(), "7".to_owned(), "RUNNING".to_owned()]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_padded_and_a_closed_last_one_too() {
        assert_eq!(
            printed(End::Closed),
            "TASK           PID    STATUS     \na-long-name    7      RUNNING    \n"
        );
        assert_eq!(
            printed(End::Open),
            "TASK           PID    STATUS\na-long-name    7      RUNNING\n"
        );
        assert_eq!(
            printed(End::Head),
            "TASK           PID    STATUS    \na-long-name    7      RUNNING\n"
        );
        assert_eq!(printed(End::Tabs), "TASK\t\tPID\tSTATUS\na-long-name\t7\tRUNNING\n");
    }

    #[test]
    fn sizes_have_one_digit() {
        assert_eq!([0, 527, 1638, 2_202_010].map(size), ["0.0 B", "527.0 B", "1.6 KiB", "2.1 MiB"]);
    }

    #[test]
    fn short_sizes_have_four_digits() {
        let sizes = [196, 1_997_000, 12_345, 999_900].map(short_size);
        assert_eq!(sizes, ["196B", "1.997MB", "12.35kB", "999.9kB"]);
    }

    #[test]
    fn labels_are_sorted() {
        let given = ["b=2".to_owned(), "a=1=x".to_owned(), "c".to_owned()];
        assert_eq!(labels(&parse_labels(&given)), "a=1=x,b=2,c=");
        assert_eq!(labels(&HashMap::new()), "-");
    }

    proptest! {
        #[test]
        fn any_cell_is_shown_whole(
            rows in proptest::collection::vec(proptest::collection::vec("\\PC{0,6}", 0..4), 0..5),
            long in proptest::option::of(60_000_usize..80_000), form in 0_usize..4,
        ) {
            let end = [End::Closed, End::Head, End::Open, End::Tabs][form];
            let mut table = Table::new(&["A", "B"], 4, 2, end);
            let mut rows = rows;
            rows.extend(long.map(|length| vec!["x".repeat(length), "y".to_owned()]));
            for row in &rows {
                table.row(row.clone());
            }
            let mut out = Vec::new();
            table.print(&mut out).unwrap();
            let out = String::from_utf8(out).unwrap();
            let lines: Vec<&str> = out.split_terminator('\n').collect();
            prop_assert_eq!(lines.len(), rows.len() + 1);
            for (line, row) in lines[1..].iter().zip(&rows) {
                prop_assert!(row.iter().all(|cell| line.contains(cell.as_str())));
            }
        }

        #[test]
        fn any_number_has_a_text(bytes: i64, seconds: i64, nanos: i32) {
            prop_assert!(size(bytes).len() < 24 && short_size(bytes).len() < 24);
            drop(timestamp(Some(prost_types::Timestamp { seconds, nanos })));
        }

        #[test]
        fn labels_survive_their_arguments(
            given in proptest::collection::hash_map("[a-z.]{0,4}", "\\PC{0,6}", 0..5),
        ) {
            let arguments: Vec<String> = given.iter().map(|(key, value)| format!("{key}={value}")).collect();
            prop_assert_eq!(parse_labels(&arguments), given);
        }
    }
}
