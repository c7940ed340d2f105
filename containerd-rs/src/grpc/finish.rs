//! Calls that go on to their end though the client may leave: what was begun on disk or with a shim is
//! finished and recorded, never dropped between two steps. Each call is a span, if it is part of a trace.

use std::task::{Context, Poll};

use tonic::Status;
use tonic::codegen::{BoxFuture, Service};
use tower::Layer;
use trace_log::task::within;

use super::traced;

/// Wraps the services.
#[derive(Clone, Copy, Debug)]
pub(super) struct FinishLayer;

impl<S> Layer<S> for FinishLayer {
    type Service = Finish<S>;

    fn layer(&self, inner: S) -> Finish<S> {
        Finish(inner)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Finish<S>(S);

impl<S, B, R> Service<http::Request<B>> for Finish<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = http::Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let finished = FINISHED.contains(&request.uri().path());
        let here = traced::asked(request.headers());
        let here = here.map(|here| (here, traced::name(request.uri().path())));
        let work = self.0.call(request);
        let work = match here {
            None => within(None, work),
            Some((here, name)) => here.open(name, work),
        };
        if !finished {
            return Box::pin(work);
        }
        let work = tokio::spawn(work);
        Box::pin(async move {
            work.await.unwrap_or_else(|_| Ok(Status::internal("the call was lost").into_http()))
        })
    }
}

/// Short calls of several steps. A wait, a transfer or a stream ends with its client.
const FINISHED: [&str; 11] = [
    "/containerd.services.snapshots.v1.Snapshots/Prepare",
    "/containerd.services.snapshots.v1.Snapshots/View",
    "/containerd.services.snapshots.v1.Snapshots/Commit",
    "/containerd.services.snapshots.v1.Snapshots/Remove",
    "/containerd.services.diff.v1.Diff/Apply",
    "/containerd.services.tasks.v1.Tasks/Start",
    "/containerd.services.tasks.v1.Tasks/Exec",
    "/containerd.services.tasks.v1.Tasks/DeleteProcess",
    "/containerd.services.tasks.v1.Tasks/Pause",
    "/containerd.services.tasks.v1.Tasks/Resume",
    "/containerd.services.tasks.v1.Tasks/Update",
];
