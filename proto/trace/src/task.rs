//! Spans around futures. Where one stands is a value of the task, so that nothing in between has to
//! hand it on; without a trace each wrapper costs a look at an `Option` a poll.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use crate::{Page, Place, SpanId, now};

tokio::task_local! {
    static CURRENT: Here;
}

/// A span under way, and the page that it will be on.
#[derive(Clone, Debug)]
pub struct Here {
    page: Arc<Mutex<Page>>,
    span: SpanId,
}

/// Where this task stands.
#[must_use]
pub fn current() -> Option<Here> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Does `work` as a span of the current one.
pub fn span<F: Future>(name: &'static str, work: F) -> Traced<F> {
    match current() {
        None => Traced { work, here: None, open: None },
        Some(here) => here.open(name, work),
    }
}

/// Does `work`, elsewhere, where this task stands.
pub fn carry<F: Future>(work: F) -> Traced<F> {
    within(current(), work)
}

/// Does `work` where `here` stands.
pub fn within<F: Future>(here: Option<Here>, work: F) -> Traced<F> {
    Traced { work, here, open: None }
}

impl Here {
    /// Where a program comes in: spans are those of its caller.
    #[must_use]
    pub fn new(program: &'static str, place: Place) -> Self {
        let span = place.caller.span;
        Self { page: Arc::new(Mutex::new(Page::new(program, place))), span }
    }

    /// As whom this span calls others.
    #[must_use]
    pub fn place(&self) -> Place {
        self.with(|page| {
            let place = page.place();
            Place { caller: place.caller_as(self.span), log: place.log.clone() }
        })
    }

    /// Does `work` as a span of this one.
    pub fn open<F: Future>(self, name: impl Into<Name>, work: F) -> Traced<F> {
        let (parent, id) = (self.span, SpanId::fresh());
        let here = Self { page: self.page, span: id };
        let open = Open { here: here.clone(), name: name.into(), parent, start: now() };
        Traced { work, here: Some(here), open: Some(open) }
    }

    fn with<T>(&self, what: impl FnOnce(&mut Page) -> T) -> T {
        what(&mut self.page.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a span is called.
pub type Name = std::borrow::Cow<'static, str>;

/// Tells of its span when it is dropped: at the end of the work, or when that is given up.
#[derive(Debug)]
struct Open {
    here: Here,
    name: Name,
    parent: SpanId,
    start: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        let Self { here, name, parent, start } = self;
        here.with(|page| {
            page.add(name, here.span, *parent, *start, now());
            // Whoever is answered by the outermost finds everything below it.
            if *parent == page.place().caller.span {
                page.write();
            }
        });
    }
}

pin_project_lite::pin_project! {
    /// Work, and where in a trace it is done.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Traced<F> {
        #[pin]
        work: F,
        here: Option<Here>,
        open: Option<Open>,
    }
}

impl<F: Future> Future for Traced<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Some(here) = this.here else { return this.work.poll(context) };
        // A scope ends with its future and so is none for a future that is only looked at here.
        let polled = CURRENT.sync_scope(here.clone(), || this.work.poll(context));
        if polled.is_ready() {
            *this.open = None;
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Caller, Log};

    fn run(work: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(work);
    }

    fn place(directory: &std::path::Path) -> Place {
        let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let caller = Caller::parse(caller).unwrap();
        Place { caller, log: Log::create(directory, caller.trace).unwrap() }
    }

    #[test]
    fn spans_nest_as_the_work_does_also_side_by_side_and_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        let (log, caller) = (place.log.clone(), place.caller);
        run(async {
            let here = Here::new("p", place);
            let work = async {
                tokio::join!(
                    span("left", async {
                        tokio::task::yield_now().await;
                        span("below left", async {}).await;
                    }),
                    span("right", tokio::task::yield_now()),
                );
                tokio::spawn(carry(async { span("elsewhere", async {}).await })).await.unwrap();
                assert!(log.read().unwrap().is_empty(), "written at once at the end");
            };
            here.open("root", work).await;
            assert!(current().is_none());
        });
        let spans = log.read().unwrap();
        let find = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
        assert_eq!(find("root").parent, caller.span);
        for (name, parent) in
            [("left", "root"), ("right", "root"), ("below left", "left"), ("elsewhere", "root")]
        {
            let (child, above) = (find(name), find(parent));
            assert_eq!(child.parent, above.id, "{name}");
            assert!(above.start <= child.start && child.end <= above.end, "{name}");
        }
        assert_eq!(spans.len(), 5);
    }

    #[test]
    fn work_that_is_given_up_is_told_of_and_without_a_trace_there_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        let log = place.log.clone();
        run(async {
            span("nobody's", async { assert!(current().is_none()) }).await;
            let mut waits =
                Box::pin(Here::new("p", place).open("given up", std::future::pending()));
            let polled = std::future::poll_fn(|context| Poll::Ready(waits.as_mut().poll(context)));
            let () = match polled.await {
                Poll::Pending => (),
                Poll::Ready(()) => unreachable!("it never ends"),
            };
            drop(waits);
        });
        let names: Vec<String> = log.read().unwrap().into_iter().map(|span| span.name).collect();
        assert_eq!(names, ["given up"]);
    }
}
