//! The steps of a command as spans, for a container that is part of a trace.
//!
//! Kept in memory and written at the end, so that nothing of it is open while a process is made.

use std::collections::BTreeMap;

use trace_log::{ANNOTATION, CALLER_VARIABLE, Page, Place, SpanId, now};

/// A command and its steps so far; nothing without a trace.
#[derive(Debug)]
pub(crate) struct Laps(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    page: Page,
    command: &'static str,
    id: SpanId,
    begun: u64,
    lap: u64,
}

impl Laps {
    /// Of a command that began at `begun` and now knows whose container it is about.
    pub(crate) fn new(
        command: &'static str,
        begun: u64,
        annotations: &BTreeMap<String, String>,
    ) -> Self {
        let place = annotations.get(ANNOTATION).and_then(|text| Place::parse(text));
        Self(place.map(|place| {
            let caller = std::env::var(CALLER_VARIABLE).ok();
            let page = Page::new("runc-rs", place.called_by(caller.as_deref()));
            Box::new(Open { page, command, id: SpanId::fresh(), begun, lap: begun })
        }))
    }

    /// A step has ended and the next begins.
    pub(crate) fn lap(&mut self, step: &str) {
        if let Some(open) = &mut self.0 {
            open.page.leaf(step, open.id, open.lap);
            open.lap = now();
        }
    }
}

impl Drop for Laps {
    fn drop(&mut self) {
        if let Some(open) = &mut self.0 {
            let caller = open.page.place().caller.span;
            open.page.add(open.command, open.id, caller, open.begun, now());
            open.page.write();
        }
    }
}
