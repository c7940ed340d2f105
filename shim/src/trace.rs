//! Spans of a container that is part of a trace. Without one there is none of these, and nothing is
//! looked at but whether there is.

use std::process::Command;

use trace_log::{CALLER_VARIABLE, Page, Place, SpanId, now};

use crate::container::ProcessId;
use crate::serve::{ReplyTo, Server};

/// A span under way; told of when it is dropped.
pub(crate) struct Open {
    /// Where its caller stands.
    place: Place,
    name: &'static str,
    id: SpanId,
    start: u64,
}

impl Open {
    pub(crate) fn new(place: Place, name: &'static str, start: u64) -> Box<Self> {
        Box::new(Self { place, name, id: SpanId::fresh(), start })
    }

    /// The place of what this leads to.
    fn below(&self) -> Place {
        Place { caller: self.place.caller_as(self.id), log: self.place.log.clone() }
    }

    /// Tells a program that is about to be executed who calls.
    pub(crate) fn call(&self, command: &mut Command) {
        command.env(CALLER_VARIABLE, self.place.caller_as(self.id).to_string());
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut page = Page::new("containerd-shim-runc-rs-v2", self.place.clone());
        page.add(self.name, self.id, self.place.caller.span, self.start, now());
        page.write();
    }
}

impl Server {
    /// A request for a container's first process has come; its answer is the end of the span.
    pub(crate) fn trace_request(
        &mut self,
        to: ReplyTo,
        name: &'static str,
        container: &str,
        start: Option<u64>,
    ) {
        let found = self.containers.get(container).and_then(|found| found.trace.as_deref());
        let Some(place) = found.cloned() else { return };
        let place = place.called_by(self.caller.as_deref());
        self.traced.push((to, Open::new(place, name, start.unwrap_or_else(now))));
    }

    pub(crate) fn trace_answer(&mut self, to: ReplyTo) {
        self.traced.retain(|(of, _)| *of != to);
    }

    /// A span of what a request leads to, or beside all requests.
    pub(crate) fn trace_below(
        &self,
        to: Option<ReplyTo>,
        name: &'static str,
        target: &ProcessId,
    ) -> Option<Box<Open>> {
        let place = self.containers.get(&target.container)?.trace.as_deref()?;
        if !target.exec.is_empty() {
            return None;
        }
        let request = self.traced.iter().find(|(of, _)| Some(*of) == to);
        let place = request.map_or_else(|| place.clone(), |(_, open)| open.below());
        Some(Open::new(place, name, now()))
    }
}
