//! The steps of a command: as spans, for a container that is part of a trace, and as a table, for
//! who asks with `--timings`.
//!
//! Kept in memory and written at the end, so that nothing of it is open while a process is made.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use trace_log::{ANNOTATION, CALLER_VARIABLE, Page, Place, SpanId, now};

/// A command and its steps so far; nothing where nobody wants to know.
#[derive(Debug)]
pub(crate) struct Laps<'a>(Option<Box<Open<'a>>>);

#[derive(Debug)]
struct Open<'a> {
    page: Option<Page>,
    table: &'a Timings,
    command: &'static str,
    id: SpanId,
    begun: u64,
    lap: u64,
}

impl<'a> Laps<'a> {
    /// Of a command that began at `begun` and now knows whose container it is about.
    pub(crate) fn new(
        command: &'static str,
        begun: u64,
        annotations: &BTreeMap<String, String>,
        table: &'a Timings,
    ) -> Self {
        let place = annotations.get(ANNOTATION).and_then(|text| Place::parse(text));
        let page = place.map(|place| {
            let caller = std::env::var(CALLER_VARIABLE).ok();
            Page::new("runc-rs", place.called_by(caller.as_deref()))
        });
        Self::open(command, begun, page, table)
    }

    /// Of a part of another command, which traces do not know.
    pub(crate) fn part(command: &'static str, table: &'a Timings) -> Self {
        Self::open(command, now(), None, table)
    }

    fn open(command: &'static str, begun: u64, page: Option<Page>, table: &'a Timings) -> Self {
        let wanted = page.is_some() || table.0.is_some();
        Self(wanted.then(|| {
            Box::new(Open { page, table, command, id: SpanId::fresh(), begun, lap: begun })
        }))
    }

    /// A step has ended and the next begins.
    pub(crate) fn lap(&mut self, step: &'static str) {
        if let Some(open) = &mut self.0 {
            if let Some(page) = &mut open.page {
                page.leaf(step, open.id, open.lap);
            }
            open.table.add(open.command, step, open.lap);
            open.lap = now();
        }
    }
}

impl Drop for Laps<'_> {
    fn drop(&mut self) {
        if let Some(open) = &mut self.0 {
            open.table.add(open.command, "total", open.begun);
            if let Some(page) = &mut open.page {
                let caller = page.place().caller.span;
                page.add(open.command, open.id, caller, open.begun, now());
                page.write();
            }
        }
    }
}

/// What `--timings` shows, in the order in which it ended.
#[derive(Debug, Default)]
pub(crate) struct Timings(Option<RefCell<Vec<Row>>>);

#[derive(Debug)]
struct Row {
    command: &'static str,
    step: &'static str,
    nanoseconds: u64,
}

impl Timings {
    pub(crate) fn new(wanted: bool) -> Self {
        Self(wanted.then(RefCell::default))
    }

    fn add(&self, command: &'static str, step: &'static str, begun: u64) {
        if let Some(rows) = &self.0 {
            let nanoseconds = now().saturating_sub(begun);
            rows.borrow_mut().push(Row { command, step, nanoseconds });
        }
    }
}

/// Columns: command, step, milliseconds. A header first; nothing where nothing was measured.
impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rows) = &self.0 else { return Ok(()) };
        let rows = rows.borrow();
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(f, "{:<8} {:<10} {:>11}", "COMMAND", "STEP", "MS")?;
        rows.iter().try_for_each(|Row { command, step, nanoseconds }| {
            let (whole, rest) = (nanoseconds / 1_000_000, nanoseconds / 1000 % 1000);
            writeln!(f, "{command:<8} {step:<10} {whole:>7}.{rest:03}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_a_step_and_a_total() {
        let table = Timings::new(true);
        {
            let mut laps = Laps::new("create", now(), &BTreeMap::new(), &table);
            laps.lap("parse");
        }
        table.0.as_ref().unwrap().borrow_mut()[0].nanoseconds = 12_345_678;
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "COMMAND  STEP                MS");
        assert_eq!(lines[1], "create   parse           12.345");
        assert!(lines[2].starts_with("create   total "), "{text}");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn nothing_is_kept_that_nobody_wants() {
        let table = Timings::new(false);
        Laps::part("run", &table).lap("x");
        assert_eq!(table.to_string(), "");
        assert_eq!(Timings::new(true).to_string(), "");
    }
}
