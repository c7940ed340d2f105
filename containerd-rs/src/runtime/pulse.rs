//! Whether a shim answers anything at all.
//!
//! A call may take as long as its runtime, its hooks and its disk do; a shim's loop answers other questions
//! all the while. So a call that takes long is no reason to give up, but a shim that is silent to the standard
//! health question is, even if all it has to say is that it does not know it. From then on calls are refused
//! at once, until the answer comes: from a stopped shim when it is continued, from a starved one in time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{info, warn};
use ttrpc_wire::{CallError, Client};

/// How long a call may take before the shim is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long that may take.
const ANSWER: Duration = Duration::from_secs(2);

pub(super) struct Pulse {
    patience: Duration,
    answer: Duration,
    silent: watch::Sender<bool>,
    question: Mutex<Option<AbortHandle>>,
}

/// The shim does not answer.
#[derive(Debug)]
pub(super) struct Silent;

impl Pulse {
    pub(super) fn new() -> Self {
        Self::with(PATIENCE, ANSWER)
    }

    fn with(patience: Duration, answer: Duration) -> Self {
        Self { patience, answer, silent: watch::Sender::new(false), question: Mutex::default() }
    }

    /// Waits for the answer, as long as the shim lives.
    pub(super) async fn watch<T>(
        &self,
        client: &Client,
        id: &str,
        answer: impl Future<Output = T>,
    ) -> Result<T, Silent> {
        let mut silent = self.silent.subscribe();
        tokio::pin!(answer);
        while !*silent.borrow_and_update() {
            tokio::select! {
                answer = &mut answer => return Ok(answer),
                _ = silent.changed() => {}
                () = tokio::time::sleep(self.patience) => self.ask(client, id),
            }
        }
        Err(Silent)
    }

    /// Asks in the background, unless an answer is awaited already.
    fn ask(&self, client: &Client, id: &str) {
        let mut question = self.question.lock().unwrap_or_else(PoisonError::into_inner);
        if question.as_ref().is_some_and(|question| !question.is_finished()) {
            return;
        }
        let (client, silent, id) = (client.clone(), self.silent.clone(), id.to_owned());
        let limit = self.answer;
        let asking = tokio::spawn(async move {
            let answer = health(&client);
            tokio::pin!(answer);
            if tokio::time::timeout(limit, &mut answer).await.is_err() {
                warn!(container = id, "shim does not answer");
                silent.send_replace(true);
                answer.await.ok();
                info!(container = id, "shim answers again");
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

async fn health(client: &Client) -> Result<Vec<u8>, CallError> {
    client.call("grpc.health.v1.Health", "Check", Vec::new(), &[], None).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::sync::oneshot;
    use ttrpc_wire::{Code, Decoder, FrameKind, Response, Status, encode};

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    /// Says that it knows nothing, once it is let; counts.
    async fn shim(
        mut socket: UnixStream,
        speak: oneshot::Receiver<()>,
        answers: watch::Sender<u32>,
    ) {
        speak.await.ok();
        let (mut decoder, mut buffer) = (Decoder::new(), [0; 1024]);
        while let Ok(count @ 1..) = socket.read(&mut buffer).await {
            decoder.push(&buffer[..count]);
            while let Some(frame) = decoder.next() {
                let unknown = Err(Status::new(Code::Unimplemented, "unknown"));
                let answer = Response::from_result(unknown).encode_to_vec();
                let frame = encode(frame.unwrap().stream, FrameKind::Response, &answer).unwrap();
                socket.write_all(&frame).await.unwrap();
                answers.send_modify(|answers| *answers += 1);
            }
        }
    }

    fn connect() -> (Client, oneshot::Sender<()>, watch::Receiver<u32>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (speak, heard) = oneshot::channel();
        let (answers, answered) = watch::channel(0);
        tokio::spawn(shim(theirs, heard, answers));
        (Client::new(ours), speak, answered)
    }

    #[tokio::test]
    async fn a_slow_call_is_waited_for_while_the_shim_answers() {
        let (client, speak, mut answered) = connect();
        speak.send(()).unwrap();
        let pulse = Pulse::with(SHORT, LONG);
        let slow = async { *answered.wait_for(|answers| *answers >= 3).await.unwrap() };
        assert!(pulse.watch(&client, "c1", slow).await.unwrap() >= 3);
    }

    #[tokio::test]
    async fn a_silent_shim_is_given_up_until_it_speaks() {
        let (client, speak, _answered) = connect();
        let pulse = Pulse::with(SHORT, SHORT);
        pulse.watch(&client, "c1", std::future::pending::<()>()).await.unwrap_err();
        // It is known: this one is not even begun.
        pulse.watch(&client, "c1", std::future::ready(7)).await.unwrap_err();
        speak.send(()).unwrap();
        pulse.silent.subscribe().wait_for(|silent| !silent).await.unwrap();
        assert_eq!(pulse.watch(&client, "c1", std::future::ready(7)).await.unwrap(), 7);
    }
}
