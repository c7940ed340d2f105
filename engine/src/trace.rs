//! Traced runs: a request that names a trace is recorded, and what its run leads to below us and
//! after it, in a file under the exec root that each program appends to.
//!
//! Only the last few are kept, and nothing of them over a restart of the engine.

use std::collections::VecDeque;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use docker_api::trace::{CALLER_HEADER, Span, Timeline};
use http::HeaderMap;
use tokio::sync::watch;
use trace_log::task::{Here, Traced, within};
use trace_log::{Caller, Log, Place, SpanId, TraceId};

/// The traces that can be asked for.
#[derive(Debug)]
pub(crate) struct Traces {
    directory: PathBuf,
    kept: Mutex<VecDeque<Arc<Trace>>>,
}

#[derive(Debug)]
pub(crate) struct Trace {
    id: TraceId,
    log: Log,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The request that what comes after all requests is told under.
    after: Option<SpanId>,
    /// More is to come: a process runs, or its end is not dealt with yet.
    running: bool,
}

/// A request that is part of a trace.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) trace: Arc<Trace>,
    caller: Caller,
}

const KEPT: usize = 32;
const PROGRAM: &str = "dockerd-rs";

impl Traces {
    /// Forgets what an earlier engine recorded.
    pub(crate) fn new(exec_root: &Path) -> Self {
        let directory = exec_root.join("traces");
        drop(std::fs::remove_dir_all(&directory));
        Self { directory, kept: Mutex::default() }
    }

    /// The trace that a request names, if it names one.
    pub(crate) fn asked(&self, headers: &HeaderMap) -> Option<Asked> {
        let caller = Caller::parse(headers.get(CALLER_HEADER)?.to_str().ok()?)?;
        let mut kept = self.kept();
        if let Some(trace) = kept.iter().find(|trace| trace.id == caller.trace) {
            return Some(Asked { trace: Arc::clone(trace), caller });
        }
        while kept.len() >= KEPT {
            if let Some(oldest) = kept.pop_front() {
                drop(std::fs::remove_file(oldest.log.path()));
            }
        }
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        let log = match made.and_then(|()| Log::create(&self.directory, caller.trace)) {
            Ok(log) => log,
            Err(error) => {
                tracing::warn!("no trace in {}: {error}", self.directory.display());
                return None;
            }
        };
        let trace = Arc::new(Trace { id: caller.trace, log, state: watch::Sender::default() });
        kept.push_back(Arc::clone(&trace));
        Some(Asked { trace, caller })
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Trace>> {
        let id = TraceId::parse(id)?;
        self.kept().iter().find(|trace| trace.id == id).map(Arc::clone)
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Arc<Trace>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    /// What the run leads to later is told under this request, unless another has asked for that.
    pub(crate) fn stays(&self, first: bool) {
        self.trace.state.send_modify(|state| {
            if state.after.is_none() || first {
                state.after = Some(self.caller.span);
            }
        });
    }
}

/// Does `work` as a span of the request's, if that is part of a trace.
pub(crate) fn request<F: Future>(asked: Option<&Asked>, name: &'static str, work: F) -> Traced<F> {
    let Some(Asked { trace, caller }) = asked else { return within(None, work) };
    trace.at(caller.span).open(name, work)
}

/// Does `work` as a span beside all requests.
pub(crate) fn after<F: Future>(
    trace: Option<&Arc<Trace>>,
    name: &'static str,
    work: F,
) -> Traced<F> {
    let place = trace.and_then(|trace| Some((trace, trace.state.borrow().after?)));
    let Some((trace, span)) = place else { return within(None, work) };
    trace.at(span).open(name, work)
}

impl Trace {
    fn at(&self, span: SpanId) -> Here {
        let caller = Caller { trace: self.id, span };
        Here::new(PROGRAM, Place { caller, log: self.log.clone() })
    }

    /// A process runs as part of it.
    pub(crate) fn begin(&self) {
        self.state.send_modify(|state| state.running = true);
    }

    /// Its end was dealt with.
    pub(crate) fn end(&self) {
        self.state.send_modify(|state| state.running = false);
    }

    /// Waits until nothing more is to come.
    pub(crate) async fn complete(&self) {
        drop(self.state.subscribe().wait_for(|state| !state.running).await);
    }

    /// What was recorded so far, by everybody.
    pub(crate) fn timeline(&self) -> std::io::Result<Timeline> {
        let spans = self.log.read()?.into_iter().map(|span| Span {
            program: span.program,
            name: span.name,
            id: span.id.to_string(),
            parent: span.parent.to_string(),
            start: span.start,
            end: span.end,
        });
        Ok(Timeline { spans: spans.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(trace: u128) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let text = format!("00-{trace:032x}-00f067aa0ba902b7-01");
        headers.insert(CALLER_HEADER, text.parse().unwrap());
        headers
    }

    #[test]
    fn the_last_few_traces_are_kept_and_others_leave_nothing() {
        let top = tempfile::tempdir().unwrap();
        let traces = Traces::new(top.path());
        assert!(traces.asked(&HeaderMap::new()).is_none());
        assert!(!top.path().join("traces").exists(), "made with the first trace");
        for trace in 1..=40 {
            assert!(traces.asked(&headers(trace)).is_some());
            assert!(traces.asked(&headers(trace)).is_some(), "the second request of a run");
        }
        let files = std::fs::read_dir(top.path().join("traces")).unwrap().count();
        assert_eq!(files, KEPT);
        let name = |trace: u128| format!("{trace:032x}");
        assert!(traces.get(&name(8)).is_none() && traces.get(&name(9)).is_some());
        assert!(traces.get("../9").is_none());
        Traces::new(top.path());
        assert!(!top.path().join("traces").exists(), "an engine that starts keeps none");
    }
}
