//! Whether containerd answers anything at all.
//!
//! A call may take long because a shim, a disk or a registry does; a containerd that does not even say its
//! version is stopped or starved. Then calls are given up, and new ones refused at once, until it says it.
//! What waits for the end of a process goes on waiting.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use proto::containerd::services::version::v1::version_client::VersionClient;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tonic::transport::Channel;
use tower::Service;

/// How long a call may take before containerd is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long that may take.
const ANSWER: Duration = Duration::from_secs(2);

type Request = http::Request<tonic::body::Body>;
type Response = http::Response<tonic::body::Body>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The channel, watched.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    channel: Channel,
    pulse: Arc<Pulse>,
}

#[derive(Debug)]
struct Pulse {
    silent: watch::Sender<bool>,
    question: Mutex<Option<AbortHandle>>,
}

impl Watched {
    pub(super) fn new(channel: Channel) -> Self {
        let pulse = Pulse { silent: watch::Sender::new(false), question: Mutex::default() };
        Self { channel, pulse: Arc::new(pulse) }
    }
}

impl Service<Request> for Watched {
    type Response = Response;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.channel.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The one that is ready is the one to be called.
        let fresh = self.channel.clone();
        let mut channel = std::mem::replace(&mut self.channel, fresh);
        let pulse = Arc::clone(&self.pulse);
        let waits = request.uri().path() == "/containerd.services.tasks.v1.Tasks/Wait";
        Box::pin(async move {
            if waits {
                return channel.call(request).await.map(watched).map_err(broken);
            }
            let mut silent = pulse.silent.subscribe();
            let asked = channel.clone();
            let answer = async { channel.call(request).await };
            tokio::pin!(answer);
            while !*silent.borrow_and_update() {
                tokio::select! {
                    answer = &mut answer => return answer.map(watched).map_err(broken),
                    _ = silent.changed() => {}
                    () = tokio::time::sleep(PATIENCE) => pulse.ask(&asked),
                }
            }
            Err(tonic::Status::unavailable("containerd does not answer").into())
        })
    }
}

/// The connection broke before an answer came, or could not be made: nobody knows what became of the call.
fn broken(error: impl Into<Failure>) -> Failure {
    let mut status = tonic::Status::from_error(error.into());
    if status.code() != tonic::Code::Unavailable {
        status =
            tonic::Status::unavailable(format!("connection to containerd: {}", status.message()));
    }
    status.into()
}

/// The same, where it breaks in the middle of one.
fn watched(answer: Response) -> Response {
    answer.map(|body| {
        tonic::body::Body::new(body.map_err(|status| tonic::Status::from_error(broken(status))))
    })
}

impl Pulse {
    /// Asks in the background, unless an answer is awaited already.
    fn ask(&self, channel: &Channel) {
        let mut question = self.question.lock().unwrap_or_else(PoisonError::into_inner);
        if question.as_ref().is_some_and(|question| !question.is_finished()) {
            return;
        }
        let (mut client, silent) = (VersionClient::new(channel.clone()), self.silent.clone());
        let asking = tokio::spawn(async move {
            let answer = client.version(());
            tokio::pin!(answer);
            if tokio::time::timeout(ANSWER, &mut answer).await.is_err() {
                tracing::warn!("containerd does not answer");
                silent.send_replace(true);
                // An end of the connection is an answer: another one will be made.
                drop(answer.await);
                tracing::info!("containerd answers again");
                silent.send_replace(false);
            }
        });
        *question = Some(asking.abort_handle());
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        let question = self.question.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(question) = question {
            question.abort();
        }
    }
}

#[cfg(test)]
mod tests;
