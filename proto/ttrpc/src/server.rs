//! The tokio server: one connection, calls answered as they finish.

use std::future::Future;
use std::io;
use std::sync::Arc;

use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::receive::receive;
use crate::{Code, Decoder, FrameError, FrameKind, Request, Response, Status, encode};

/// Calls of one connection that may run at the same time; further ones wait in the socket.
const IN_FLIGHT: usize = 256;

/// What a server does with a call. Unknown services and methods are the implementor's to refuse, with
/// [`Code::Unimplemented`].
pub trait Service: Send + Sync + 'static {
    /// Answers with the encoded response message.
    fn call(&self, request: Request) -> impl Future<Output = Result<Vec<u8>, Status>> + Send;
}

/// Serves `stream` until the peer closes it. Dropping the future ends the calls under way.
pub async fn serve_connection<S: Service>(stream: UnixStream, service: Arc<S>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let (answers, mut queue) = mpsc::channel::<Vec<u8>>(IN_FLIGHT);
    let mut calls = JoinSet::new();
    let mut decoder = Decoder::new();
    loop {
        tokio::select! {
            count = receive(&read, &mut decoder), if calls.len() < IN_FLIGHT => {
                if count? == 0 {
                    return Ok(());
                }
                while let Some(item) = decoder.next() {
                    match item {
                        Ok(frame) if frame.kind == FrameKind::Request => {
                            let (service, answers) = (Arc::clone(&service), answers.clone());
                            calls.spawn(async move {
                                let result = match Request::decode(frame.payload.as_slice()) {
                                    Ok(request) => service.call(request).await,
                                    Err(error) => {
                                        Err(Status::new(Code::InvalidArgument, error.to_string()))
                                    }
                                };
                                // The connection may be closing; then nobody waits for this.
                                answers.send(answer(frame.stream, result)).await.ok();
                            });
                        }
                        Ok(_) => {}
                        Err(error @ FrameError::TooLarge { stream, .. }) => {
                            let status = Status::new(Code::ResourceExhausted, error.to_string());
                            write.write_all(&answer(stream, Err(status))).await?;
                        }
                    }
                }
            }
            Some(bytes) = queue.recv() => write.write_all(&bytes).await?,
            Some(_) = calls.join_next(), if !calls.is_empty() => {}
        }
    }
}

fn answer(stream: u32, result: Result<Vec<u8>, Status>) -> Vec<u8> {
    let response = Response::from_result(result).encode_to_vec();
    encode(stream, FrameKind::Response, &response).unwrap_or_else(|error| {
        let status = Status::new(Code::ResourceExhausted, error.to_string());
        let response = Response::from_result(Err(status)).encode_to_vec();
        encode(stream, FrameKind::Response, &response).expect("a status is far below the limit")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::{CallError, Client, NAMESPACE_KEY};
    use proptest::prelude::*;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;

    struct Echo;

    impl Service for Echo {
        async fn call(&self, request: Request) -> Result<Vec<u8>, Status> {
            match request.method.as_str() {
                "Echo" => Ok(request.payload),
                "Namespace" => Ok(request.metadata_value(NAMESPACE_KEY).unwrap_or("").into()),
                "Never" => std::future::pending().await,
                other => Err(Status::new(Code::Unimplemented, format!("unknown method {other}"))),
            }
        }
    }

    fn pair() -> (Client, tokio::task::JoinHandle<io::Result<()>>) {
        let (a, b) = UnixStream::pair().unwrap();
        (Client::new(a), tokio::spawn(serve_connection(b, Arc::new(Echo))))
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn a_waiting_call_does_not_block_others() {
        run(async {
            let (client, _server) = pair();
            let other = client.clone();
            let never =
                tokio::spawn(async move { other.call("s", "Never", vec![], &[], None).await });
            for n in 0..50_u8 {
                let answer = client.call("s", "Echo", vec![n; 70_000], &[], None).await.unwrap();
                assert_eq!(answer, vec![n; 70_000]);
            }
            let metadata = [(NAMESPACE_KEY, "moby")];
            let answer = client.call("s", "Namespace", vec![], &metadata, None).await.unwrap();
            assert_eq!(answer, b"moby");
            assert!(!never.is_finished());
        });
    }

    #[test]
    fn errors_arrive_as_status_and_a_slow_call_times_out() {
        run(async {
            let (client, _server) = pair();
            let error = client.call("s", "Nope", vec![], &[], None).await.unwrap_err();
            assert!(matches!(&error, CallError::Status(s) if s.code() == Code::Unimplemented));
            assert_eq!(error.to_string(), "unknown method Nope");
            let limit = Some(Duration::from_millis(20));
            let error = client.call("s", "Never", vec![], &[], limit).await.unwrap_err();
            assert!(matches!(error, CallError::Timeout { .. }));
        });
    }

    #[test]
    fn a_lost_connection_fails_calls_and_is_announced() {
        run(async {
            let (client, server) = pair();
            let other = client.clone();
            let never =
                tokio::spawn(async move { other.call("s", "Never", vec![], &[], None).await });
            client.call("s", "Echo", vec![], &[], None).await.unwrap();
            server.abort();
            client.closed().await;
            assert!(matches!(never.await.unwrap(), Err(CallError::Closed)));
            assert!(client.is_closed());
            let late = client.call("s", "Echo", vec![], &[], None).await;
            assert!(matches!(late, Err(CallError::Closed)));
        });
    }

    /// Bytes of every kind of frame: calls that are one, calls that are none, and what is no call.
    fn frames() -> impl Strategy<Value = Vec<(u32, u8, Vec<u8>)>> {
        let noise = proptest::collection::vec(any::<u8>(), 0..40);
        let call = "(Echo|Namespace|[a-z]{0,5})".prop_map(|method| {
            Request { method, payload: vec![1; 9], ..Request::default() }.encode_to_vec()
        });
        let payload = prop_oneof![noise, call];
        proptest::collection::vec((any::<u32>(), 0_u8..6, payload), 0..12)
    }

    proptest! {
        #[test]
        fn whatever_comes_every_request_is_answered(frames in frames(), cut in 1_usize..90) {
            let mut wire = Vec::new();
            for (stream, kind, payload) in &frames {
                let mut frame = encode(*stream, FrameKind::Request, payload).unwrap();
                frame[8] = *kind;
                wire.extend(frame);
            }
            let mut asked: Vec<u32> =
                frames.iter().filter(|(_, kind, _)| *kind == 1).map(|(stream, ..)| *stream).collect();
            let mut answered = Vec::new();
            run(async {
                let (mut client, server) = UnixStream::pair().unwrap();
                let server = tokio::spawn(serve_connection(server, Arc::new(Echo)));
                for piece in wire.chunks(cut) {
                    client.write_all(piece).await.unwrap();
                }
                let (mut decoder, mut buffer) = (Decoder::new(), [0; 512]);
                while answered.len() < asked.len() {
                    let count = client.read(&mut buffer).await.unwrap();
                    assert!(count > 0, "the server hung up");
                    decoder.push(&buffer[..count]);
                    while let Some(frame) = decoder.next() {
                        let frame = frame.unwrap();
                        assert_eq!(frame.kind, FrameKind::Response);
                        Response::decode(frame.payload.as_slice()).unwrap();
                        answered.push(frame.stream);
                    }
                }
                drop(client);
                server.await.unwrap().unwrap();
            });
            asked.sort_unstable();
            answered.sort_unstable();
            prop_assert_eq!(answered, asked);
        }

        #[test]
        fn a_client_outlives_any_answer(
            frames in frames(),
            tail in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut wire = Vec::new();
            for (stream, kind, payload) in &frames {
                let mut frame = encode(*stream % 4, FrameKind::Response, payload).unwrap();
                frame[8] = *kind;
                wire.extend(frame);
            }
            wire.extend(tail);
            run(async {
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                let client = Client::new(ours);
                let other = client.clone();
                let call = tokio::spawn(async move { other.call("s", "m", vec![], &[], None).await });
                let mut head = [0; 16];
                theirs.read_exact(&mut head).await.unwrap();
                theirs.write_all(&wire).await.unwrap();
                drop(theirs);
                // Whether one of these was an answer: the call ends.
                drop(call.await.unwrap());
                client.closed().await;
            });
        }
    }
}
