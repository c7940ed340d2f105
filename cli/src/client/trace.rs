//! What the client itself does during a traced run, and the header that names the trace to the engine.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};

use docker_api::trace::{CALLER_HEADER, Span};
use http::{HeaderMap, HeaderValue, Method};

/// The steps of this client in one trace; the first is the whole run.
#[derive(Debug)]
pub(crate) struct Trace {
    id: String,
    steps: RefCell<Vec<Span>>,
}

/// A step under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step(usize);

/// Lasts longer than its request.
const WAIT: &str = "wait";
pub(crate) const PROGRAM: &str = "docker-rs";

impl Trace {
    /// Begins a trace with the connection that is made already.
    pub(super) fn begin(connected: (u64, u64)) -> Self {
        let trace =
            Self { id: format!("{:016x}{:016x}", random(), random()), steps: RefCell::default() };
        trace.step("run", connected.0);
        let Step(connect) = trace.step("connect", connected.0);
        trace.steps.borrow_mut()[connect].end = connected.1;
        trace
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn open(&self, name: &str) -> Step {
        self.step(name, now())
    }

    pub(crate) fn close(&self, Step(step): Step) {
        self.steps.borrow_mut()[step].end = now();
    }

    /// The exit is known.
    pub(crate) fn waited(&self) {
        for step in self.steps.borrow_mut().iter_mut().filter(|step| step.name == WAIT) {
            step.end = now();
        }
    }

    /// All steps; what is under way ends now.
    pub(crate) fn steps(&self) -> Vec<Span> {
        let mut steps = self.steps.borrow_mut();
        for step in steps.iter_mut().filter(|step| step.end == 0) {
            step.end = now();
        }
        steps.clone()
    }

    /// Notes a request that belongs to a run, and names the step to the engine.
    pub(super) fn request(
        &self,
        method: &Method,
        path: &str,
        headers: &mut HeaderMap,
    ) -> Option<Step> {
        let step = self.open(step_of(method, path)?);
        let caller = format!("00-{}-{}-01", self.id, self.steps.borrow()[step.0].id);
        if let Ok(caller) = HeaderValue::from_str(&caller) {
            headers.insert(CALLER_HEADER, caller);
        }
        Some(step)
    }

    pub(super) fn answered(&self, step: Step) {
        if self.steps.borrow()[step.0].name != WAIT {
            self.close(step);
        }
    }

    fn step(&self, name: &str, start: u64) -> Step {
        let mut steps = self.steps.borrow_mut();
        let parent = steps.first().map(|run| run.id.clone()).unwrap_or_default();
        steps.push(Span {
            program: PROGRAM.to_owned(),
            name: name.to_owned(),
            id: format!("{:016x}", random()),
            parent,
            start,
            end: 0,
        });
        Step(steps.len() - 1)
    }
}

/// What a request is in a run; none of others.
fn step_of(method: &Method, path: &str) -> Option<&'static str> {
    let path = path.split('?').next().unwrap_or(path);
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match (method, parts.as_slice()) {
        (&Method::POST, ["images", "create"]) => Some("pull"),
        (&Method::POST, ["containers", "create"]) => Some("create"),
        (&Method::POST, ["containers", _, "attach"]) => Some("attach"),
        (&Method::POST, ["containers", _, "start"]) => Some("start"),
        (&Method::POST, ["containers", _, "wait"]) => Some(WAIT),
        _ => None,
    }
}

/// Nanoseconds of this host's monotonic clock.
pub(crate) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Never 0, which names nobody. The keys of a hash map are random; nothing secret is made of it.
fn random() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_of_a_run_carry_the_trace() {
        let trace = Trace::begin((5, 9));
        let mut headers = HeaderMap::new();
        for (method, path) in [
            (Method::GET, "/containers/c/json"),
            (Method::POST, "/containers/c/kill"),
            (Method::GET, "/rs/trace/x"),
        ] {
            assert!(trace.request(&method, path, &mut headers).is_none(), "{path}");
        }
        assert!(headers.is_empty());
        let path = "/containers/c/wait?condition=next-exit";
        let wait = trace.request(&Method::POST, path, &mut headers).unwrap();
        let header = headers.get(CALLER_HEADER).unwrap().to_str().unwrap();
        assert_eq!(header, format!("00-{}-{}-01", trace.id(), trace.steps.borrow()[wait.0].id));
        trace.answered(wait);
        assert_eq!(trace.steps.borrow()[wait.0].end, 0, "it goes on");
        trace.waited();
        let steps = trace.steps();
        let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["run", "connect", "wait"]);
        assert!(steps.iter().all(|step| step.end >= step.start));
        assert_eq!((steps[1].start, steps[1].end), (5, 9));
        assert!(steps[1..].iter().all(|step| step.parent == steps[0].id));
    }
}
