//! Sends events to containerd, in order, one at a time, each until it is acknowledged.
//!
//! While containerd is away the queue waits. It is bounded: the oldest event that is neither exit nor delete
//! goes first, since clients can find everything else by State.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use prost::{Message, Name};
use proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use proto::containerd::types::Envelope;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use ttrpc_wire::{Decoder, FrameKind, KeyValue, NAMESPACE_KEY, Request, Response, encode};

pub(crate) struct Publisher {
    address: PathBuf,
    namespace: String,
    queue: VecDeque<Event>,
    link: Option<Link>,
    /// Nothing is tried before.
    retry_at: Option<Instant>,
    failures: u32,
    stream: u32,
}

struct Event {
    request: Vec<u8>,
    keep: bool,
    refusals: u32,
}

struct Link {
    socket: UnixStream,
    decoder: Decoder,
    unsent: Vec<u8>,
    /// The first of the queue was sent on this stream and waits for its answer.
    awaiting: Option<(u32, Instant)>,
}

impl Publisher {
    pub(crate) fn new(address: PathBuf, namespace: String) -> Self {
        Self {
            address,
            namespace,
            queue: VecDeque::new(),
            link: None,
            retry_at: None,
            failures: 0,
            stream: 1,
        }
    }

    pub(crate) fn publish<M: Message + Name>(&mut self, topic: &str, message: &M) {
        let envelope = Envelope {
            timestamp: Some(SystemTime::now().into()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(proto::any::pack(message)),
        };
        let request = Request {
            service: "containerd.services.events.ttrpc.v1.Events".to_owned(),
            method: "Forward".to_owned(),
            payload: ForwardRequest { envelope: Some(envelope) }.encode_to_vec(),
            timeout_nano: 0,
            metadata: vec![KeyValue {
                key: NAMESPACE_KEY.to_owned(),
                value: self.namespace.clone(),
            }],
        };
        if self.queue.len() >= MAX_QUEUE {
            // The first may be on its way.
            let victim =
                self.queue.iter().skip(1).position(|event| !event.keep).map_or(1, |at| at + 1);
            self.queue.remove(victim);
        }
        let keep = matches!(topic, "/tasks/exit" | "/tasks/delete");
        self.queue.push_back(Event { request: request.encode_to_vec(), keep, refusals: 0 });
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn socket(&self) -> Option<(BorrowedFd<'_>, bool)> {
        let link = self.link.as_ref()?;
        Some((link.socket.as_fd(), !link.unsent.is_empty()))
    }

    /// When to call [`Self::run`] again though the socket says nothing.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.queue.is_empty() {
            return None;
        }
        match &self.link {
            Some(link) => link.awaiting.map(|(_, since)| since + ANSWER_WITHIN),
            None => Some(self.retry_at.unwrap_or_else(Instant::now)),
        }
    }

    /// Does what can be done now.
    pub(crate) fn run(&mut self) {
        let now = Instant::now();
        if self.link.is_none() {
            if self.queue.is_empty() || self.retry_at.is_some_and(|at| now < at) {
                return;
            }
            match connect(&self.address) {
                Ok(socket) => {
                    let decoder = Decoder::new();
                    self.link = Some(Link { socket, decoder, unsent: Vec::new(), awaiting: None });
                }
                Err(_) => return self.lost(now),
            }
        }
        while self.step(now) {}
    }

    /// One round of sending and receiving; true if another may achieve something.
    fn step(&mut self, now: Instant) -> bool {
        let Some(link) = &mut self.link else { return false };
        if link.awaiting.is_none()
            && let Some(event) = self.queue.front()
        {
            // An event is far below the limit of a frame; were it not, it could never be sent.
            let Ok(frame) = encode(self.stream, FrameKind::Request, &event.request) else {
                self.queue.pop_front();
                return true;
            };
            link.unsent = frame;
            link.awaiting = Some((self.stream, now));
            self.stream = self.stream.wrapping_add(2);
        }
        if link.flush().is_err() {
            self.lost(now);
            return false;
        }
        match link.answer() {
            Ok(Some(accepted)) => {
                self.failures = 0;
                let refusals = self.queue.front_mut().map_or(0, |event| {
                    event.refusals += 1;
                    event.refusals
                });
                if accepted || refusals >= MAX_REFUSALS {
                    self.queue.pop_front();
                    return true;
                }
                // It is there, but did not take the event: try again a little later.
                self.lost(now);
                false
            }
            Ok(None) => {
                let late = link.awaiting.is_some_and(|(_, since)| now >= since + ANSWER_WITHIN);
                if late {
                    self.lost(now);
                }
                false
            }
            Err(_) => {
                self.lost(now);
                false
            }
        }
    }

    fn lost(&mut self, now: Instant) {
        self.link = None;
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + (RETRY * self.failures.min(20)));
    }
}

impl Link {
    fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the awaited answer is here, and whether it is a success.
    fn answer(&mut self) -> io::Result<Option<bool>> {
        let mut buffer = [0; 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.decoder.push(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        while let Some(frame) = self.decoder.next() {
            let frame = frame.map_err(io::Error::other)?;
            if self.awaiting.is_some_and(|(stream, _)| stream == frame.stream) {
                self.awaiting = None;
                let response = Response::decode(frame.payload.as_slice())?;
                return Ok(Some(response.into_result().is_ok()));
            }
        }
        Ok(None)
    }
}

fn connect(path: &std::path::Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

const MAX_QUEUE: usize = 2048;
const MAX_REFUSALS: u32 = 5;
const RETRY: Duration = Duration::from_millis(50);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use proto::containerd::events::{TaskExit, TaskStart};
    use std::os::unix::net::UnixListener;

    fn receive(socket: &mut UnixStream) -> (u32, String) {
        let mut decoder = Decoder::new();
        loop {
            if let Some(frame) = decoder.next() {
                let frame = frame.unwrap();
                let request = Request::decode(frame.payload.as_slice()).unwrap();
                assert_eq!(request.metadata_value(NAMESPACE_KEY), Some("ns"));
                let forward = ForwardRequest::decode(request.payload.as_slice()).unwrap();
                return (frame.stream, forward.envelope.unwrap().topic);
            }
            let mut buffer = [0; 512];
            let count = socket.read(&mut buffer).unwrap();
            assert_ne!(count, 0);
            decoder.push(&buffer[..count]);
        }
    }

    fn acknowledge(socket: &mut UnixStream, stream: u32) {
        let answer = Response::default().encode_to_vec();
        socket.write_all(&encode(stream, FrameKind::Response, &answer).unwrap()).unwrap();
    }

    #[test]
    fn an_event_is_sent_again_until_it_is_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e");
        let mut publisher = Publisher::new(path.clone(), "ns".into());
        publisher.publish("/tasks/start", &TaskStart::default());
        publisher.publish("/tasks/exit", &TaskExit::default());
        publisher.run();
        assert!(publisher.socket().is_none(), "nobody listens");
        let listener = UnixListener::bind(&path).unwrap();
        publisher.retry_at = None;
        publisher.run();
        let (mut first, _) = listener.accept().unwrap();
        assert_eq!(receive(&mut first).1, "/tasks/start");
        drop(first);
        publisher.run();
        publisher.retry_at = None;
        publisher.run();
        let (mut second, _) = listener.accept().unwrap();
        let (stream, topic) = receive(&mut second);
        assert_eq!(topic, "/tasks/start");
        acknowledge(&mut second, stream);
        publisher.run();
        let (stream, topic) = receive(&mut second);
        assert_eq!(topic, "/tasks/exit");
        assert!(!publisher.is_idle());
        acknowledge(&mut second, stream);
        publisher.run();
        assert!(publisher.is_idle());
    }

    #[test]
    fn a_full_queue_gives_up_what_state_can_tell() {
        let mut publisher = Publisher::new("/nowhere".into(), "ns".into());
        publisher.publish("/tasks/exit", &TaskExit::default());
        for _ in 0..MAX_QUEUE {
            publisher.publish("/tasks/start", &TaskStart::default());
        }
        publisher.publish("/tasks/exit", &TaskExit::default());
        assert_eq!(publisher.queue.len(), MAX_QUEUE);
        assert_eq!(publisher.queue.iter().filter(|event| event.keep).count(), 2);
    }
}
