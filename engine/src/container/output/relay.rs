//! The thread that reads one process's fifos, writes its log and serves live clients: what a shim does for
//! `json-file://`, in the same words on the same socket (`container_log::attach`).
//!
//! A client that does not read holds the process back, as with the shim: at 1 MiB nothing more is read.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use container_log::attach::{HEADER_LEN, Header};
use container_log::uri::LogUri;
use container_log::{Stream, Timestamp, WriteError, Writer, compress_rotated};
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::sync::oneshot;

use super::Fifos;
use crate::container::error::ContainerError;

/// The engine's side of one relay.
#[derive(Debug)]
pub(super) struct Relay {
    orders: mpsc::Sender<Order>,
    wake: UnixStream,
}

#[derive(Debug)]
enum Order {
    /// The process has ended; answer when the log is complete.
    Finish(oneshot::Sender<()>),
    /// Write what was read and go.
    Leave(oneshot::Sender<()>),
}

impl Relay {
    /// Opens the fifos for reading, the log and the socket, and goes to work. Blocking, but waits for nobody.
    pub(super) fn start(uri: &LogUri, fifos: &Fifos) -> Result<Self, ContainerError> {
        let mut outputs = Vec::new();
        for (stream, path) in fifos.all() {
            let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
            let fifo = open.map_err(ContainerError::io(format!("open {}", path.display())))?;
            outputs.push(Source { stream, fifo: Some(fifo) });
        }
        let log = |source: WriteError| ContainerError::Io {
            step: "open log".to_owned(),
            source: io::Error::other(source),
        };
        let writer = (!uri.discard)
            .then(|| Writer::open(&uri.path, uri.rotation, &uri.attrs).map_err(log))
            .transpose()?;
        let listener = uri.attach.clone().map(listen).transpose()?;
        let failed = |step: &str| ContainerError::io(step.to_owned());
        let (wake, woken) = UnixStream::pair().map_err(failed("socketpair"))?;
        woken.set_nonblocking(true).map_err(failed("socketpair"))?;
        wake.set_nonblocking(true).map_err(failed("socketpair"))?;
        let (orders, inbox) = mpsc::channel();
        let work = Work {
            outputs,
            writer,
            seen: 0,
            listener,
            clients: Vec::new(),
            inbox,
            woken,
            finishing: None,
            warned: false,
        };
        std::thread::Builder::new()
            .name("output".to_owned())
            .stack_size(256 << 10)
            .spawn(move || work.run())
            .map_err(failed("start output thread"))?;
        Ok(Self { orders, wake })
    }

    pub(super) async fn finish(self) {
        self.order(Order::Finish).await;
    }

    pub(super) async fn leave(self) {
        self.order(Order::Leave).await;
    }

    async fn order(mut self, order: impl FnOnce(oneshot::Sender<()>) -> Order) {
        let (reply, done) = oneshot::channel();
        // A thread that is gone has nothing left to write.
        if self.orders.send(order(reply)).is_ok() {
            self.wake.write_all(b"o").ok();
            done.await.ok();
        }
    }
}

struct Work {
    outputs: Vec<Source>,
    writer: Option<Writer>,
    /// Bytes read, the offset where no log is written.
    seen: u64,
    listener: Option<Listener>,
    clients: Vec<Client>,
    inbox: mpsc::Receiver<Order>,
    woken: UnixStream,
    /// Asked to finish: until then an end of the outputs is awaited.
    finishing: Option<(Instant, oneshot::Sender<()>)>,
    warned: bool,
}

struct Source {
    stream: Stream,
    fifo: Option<File>,
}

struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Drop for Listener {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

struct Client {
    socket: UnixStream,
    unsent: Vec<u8>,
    gone: bool,
}

impl Work {
    fn run(mut self) {
        let mut buffer = vec![0; READ_SIZE];
        loop {
            self.wait();
            let mut left = [0; 64];
            while self.woken.read(&mut left).is_ok_and(|count| count > 0) {}
            match self.inbox.try_recv() {
                Ok(Order::Finish(done)) => self.finishing = Some((Instant::now() + HOLD, done)),
                Ok(Order::Leave(done)) => {
                    self.end_log();
                    // Its path is for the next engine to bind.
                    self.listener = None;
                    done.send(()).ok();
                    return;
                }
                Err(mpsc::TryRecvError::Empty) => {}
                // The engine forgot us: nobody is interested any more.
                Err(mpsc::TryRecvError::Disconnected) if self.finishing.is_none() => return,
                Err(mpsc::TryRecvError::Disconnected) => {}
            }
            self.accept();
            for index in 0..self.outputs.len() {
                self.read(index, &mut buffer);
            }
            for client in &mut self.clients {
                client.look();
            }
            self.clients.retain(|client| !client.gone);
            let ended = self.outputs.iter().all(|output| output.fifo.is_none());
            if let Some((deadline, done)) = self.finishing.take() {
                if !ended && Instant::now() < deadline {
                    self.finishing = Some((deadline, done));
                    continue;
                }
                self.end_log();
                done.send(()).ok();
                self.listener = None;
                return self.say_goodbye();
            }
        }
    }

    fn wait(&self) {
        let mut fds = vec![PollFd::new(&self.woken, PollFlags::IN)];
        if let Some(listener) = &self.listener {
            fds.push(PollFd::new(&listener.socket, PollFlags::IN));
        }
        if !self.is_blocked() {
            let open = self.outputs.iter().filter_map(|output| output.fifo.as_ref());
            fds.extend(open.map(|fifo| PollFd::new(fifo, PollFlags::IN)));
        }
        for client in &self.clients {
            let mut flags = PollFlags::IN | PollFlags::RDHUP;
            flags.set(PollFlags::OUT, !client.unsent.is_empty());
            fds.push(PollFd::new(&client.socket, flags));
        }
        // A fifo whose writer was gone before we came never says that it has ended.
        let limit = self.finishing.as_ref().map(|_| LOOK_EVERY);
        rustix::event::poll(&mut fds, limit.as_ref()).ok();
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((socket, _)) = listener.socket.accept() {
            if socket.set_nonblocking(true).is_ok() {
                self.clients.push(Client { socket, unsent: Vec::new(), gone: false });
            }
        }
    }

    fn is_blocked(&self) -> bool {
        self.finishing.is_none() && self.clients.iter().any(|c| c.unsent.len() >= MAX_UNSENT)
    }

    fn read(&mut self, index: usize, buffer: &mut [u8]) {
        for _ in 0..BUDGET {
            if self.is_blocked() {
                return;
            }
            let Some(Source { stream, fifo: Some(fifo) }) = self.outputs.get_mut(index) else {
                return;
            };
            let stream = *stream;
            match fifo.read(buffer) {
                // Before the first writer too there is nobody; that is not the end.
                Ok(0) if self.finishing.is_none() && !has_hung_up(fifo) => return,
                Ok(0) => {
                    self.outputs[index].fifo = None;
                    self.finish_stream(stream);
                    return;
                }
                Ok(count) => self.take(stream, &buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let offset = self.writer.as_ref().map_or(self.seen, Writer::offset);
        self.seen += bytes.len() as u64;
        if let Some(writer) = &mut self.writer {
            let written = writer.write(stream, bytes, Timestamp::now());
            let compressed = writer.take_compression().map(|path| {
                let compressed = compress_rotated(&path);
                writer.compressed();
                compressed
            });
            self.warn(written.and(compressed.unwrap_or(Ok(()))));
        }
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let header = Header { stream, length, offset }.to_bytes();
        for client in &mut self.clients {
            client.push(&header, bytes);
        }
    }

    fn finish_stream(&mut self, stream: Stream) {
        if let Some(writer) = &mut self.writer {
            let finished = writer.finish(stream, Timestamp::now());
            self.warn(finished);
        }
    }

    fn end_log(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.finish_stream(stream);
        }
    }

    /// Once: a full disk would otherwise fill our own log too.
    fn warn(&mut self, result: Result<(), WriteError>) {
        if let Err(error) = result
            && !std::mem::replace(&mut self.warned, true)
        {
            tracing::warn!("container output: {error}");
        }
    }

    /// Clients get the rest, if they take it.
    fn say_goodbye(mut self) {
        let deadline = Instant::now() + LINGER;
        loop {
            for client in &mut self.clients {
                client.look();
            }
            self.clients.retain(|client| !client.gone && !client.unsent.is_empty());
            if self.clients.is_empty() || Instant::now() >= deadline {
                return;
            }
            let flags = PollFlags::OUT | PollFlags::RDHUP;
            let mut fds: Vec<PollFd<'_>> = self
                .clients
                .iter()
                .map(|c| PollFd::from_borrowed_fd(c.socket.as_fd(), flags))
                .collect();
            rustix::event::poll(&mut fds, Some(&LOOK_EVERY)).ok();
        }
    }
}

impl Client {
    fn push(&mut self, header: &[u8; HEADER_LEN], payload: &[u8]) {
        let mut sent = 0;
        if self.unsent.is_empty() {
            let parts = [io::IoSlice::new(header), io::IoSlice::new(payload)];
            sent = self.socket.write_vectored(&parts).unwrap_or(0);
        }
        self.unsent.extend_from_slice(header.get(sent..).unwrap_or_default());
        let sent = sent.saturating_sub(HEADER_LEN);
        self.unsent.extend_from_slice(payload.get(sent..).unwrap_or_default());
    }

    /// Sends what is possible; a client that left is gone.
    fn look(&mut self) {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
        // Clients have nothing to say; reading shows whether they left.
        match self.socket.read(&mut [0; 256]) {
            Ok(count) => self.gone = count == 0,
            Err(error) => {
                let waits = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
                self.gone = !waits.contains(&error.kind());
            }
        }
    }
}

/// True once a writer has come and gone; a fifo nobody opened yet is merely quiet.
fn has_hung_up(fifo: &File) -> bool {
    let mut fds = [PollFd::new(fifo, PollFlags::IN)];
    let polled = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

fn listen(path: PathBuf) -> Result<Listener, ContainerError> {
    let failed = || ContainerError::io(format!("listen on {}", path.display()));
    // Left over from an engine that was killed.
    drop(std::fs::remove_file(&path));
    let socket = UnixListener::bind(&path).map_err(failed())?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed())?;
    socket.set_nonblocking(true).map_err(failed())?;
    Ok(Listener { socket, path })
}

const READ_SIZE: usize = 64 << 10;
/// Reads of one stream before the others get their turn.
const BUDGET: usize = 16;
/// Unsent bytes of one client at which the process has to wait.
const MAX_UNSENT: usize = 1 << 20;
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// How long, after the end of the process, whoever else holds its output is waited for.
const HOLD: Duration = Duration::from_secs(2);
/// How long clients may take for the rest.
const LINGER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        top: tempfile::TempDir,
        uri: LogUri,
        fifos: Fifos,
    }

    fn case() -> Case {
        let top = tempfile::tempdir().unwrap();
        let mut uri = LogUri::new(top.path().join("x-json.log"));
        uri.attach = Some(top.path().join("a.s"));
        let fifos = Fifos::new(top.path(), "", false);
        for (_, path) in fifos.all() {
            crate::container::make_fifo(path).unwrap();
        }
        Case { top, uri, fifos }
    }

    impl Case {
        fn writer(&self, name: &str) -> File {
            let open = OpenOptions::new().write(true).open(self.top.path().join(name));
            open.unwrap()
        }

        fn log(&self) -> String {
            let text = std::fs::read_to_string(&self.uri.path).unwrap();
            let lines = text.lines().map(|line| container_log::decode(line.as_bytes()).unwrap());
            lines.map(|entry| String::from_utf8(entry.log).unwrap()).collect()
        }
    }

    fn finish(relay: Relay) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(relay.finish());
    }

    #[test]
    fn output_goes_to_the_log_and_to_clients() {
        let case = case();
        let relay = Relay::start(&case.uri, &case.fifos).unwrap();
        let mut client = UnixStream::connect(case.uri.attach.as_ref().unwrap()).unwrap();
        let (mut out, err) = (case.writer("stdout"), case.writer("stderr"));
        out.write_all(b"one\ntwo").unwrap();
        drop((out, err));
        finish(relay);
        assert_eq!(case.log(), "one\ntwo");
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).unwrap();
        assert_eq!(&seen[HEADER_LEN..], b"one\ntwo");
        assert!(!case.uri.attach.as_ref().unwrap().exists());
    }

    #[test]
    fn an_engine_that_leaves_loses_nothing_and_the_next_goes_on() {
        let case = case();
        let relay = Relay::start(&case.uri, &case.fifos).unwrap();
        // As a shim does, this holds the reading end too.
        let path = case.top.path().join("stdout");
        let mut out = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut client = UnixStream::connect(case.uri.attach.as_ref().unwrap()).unwrap();
        out.write_all(b"first, fi").unwrap();
        client.read_exact(&mut [0; HEADER_LEN + 9]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(relay.leave());
        out.write_all(b"rst\nsecond\n").unwrap();
        let relay = Relay::start(&case.uri, &case.fifos).unwrap();
        let mut client = UnixStream::connect(case.uri.attach.as_ref().unwrap()).unwrap();
        out.write_all(b"third\n").unwrap();
        client.read_exact(&mut [0; HEADER_LEN]).unwrap();
        drop(out);
        finish(relay);
        assert_eq!(case.log(), "first, first\nsecond\nthird\n");
    }

    #[test]
    fn a_process_that_ended_while_nobody_was_there_is_finished_at_once() {
        let case = case();
        let relay = Relay::start(&case.uri, &case.fifos).unwrap();
        let begun = Instant::now();
        finish(relay);
        assert!(begun.elapsed() < HOLD);
        assert_eq!(case.log(), "");
    }
}
