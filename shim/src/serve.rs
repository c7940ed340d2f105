//! The server's loop. It owns everything, so there are no locks, and it never waits for anything but epoll.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use prost::Message as _;
use ttrpc_wire::{Code, Decoder, FrameError, FrameKind, Request, Response, Status, encode};

use crate::container::{Container, Exit, ProcessId};
use crate::io::link::{Key, Link};
use crate::jobs::Job;
use crate::log::{self, Level};
use crate::oom::OomWatch;
use crate::publish::Publisher;
use crate::trace::Open;

/// What `start` tells the server.
pub(crate) struct Config {
    pub(crate) namespace: String,
    pub(crate) bundle: PathBuf,
    pub(crate) socket: PathBuf,
    /// containerd's ttrpc socket.
    pub(crate) events: PathBuf,
    pub(crate) under_stock_name: bool,
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    connection: u64,
    stream: u32,
}

pub(crate) struct Server {
    pub(crate) config: Config,
    epoll: Epoll,
    /// Until Shutdown.
    listener: Option<UnixListener>,
    signals: SignalFd,
    connections: HashMap<u64, Connection>,
    next_token: u64,
    pub(crate) containers: BTreeMap<String, Container>,
    /// Children of ours that are not a container's, by pid.
    pub(crate) jobs: HashMap<i32, Job>,
    /// Reaped while a runtime call was under way that may yet name them.
    pub(crate) early: HashMap<i32, Exit>,
    pub(crate) publisher: Publisher,
    pub(crate) link: Link,
    pub(crate) streams: HashMap<Key, ProcessId>,
    pub(crate) next_key: Key,
    /// Exits to be told then, whatever still holds them back.
    pub(crate) holds: Vec<(Instant, ProcessId)>,
    ooms: HashMap<u64, (String, OomWatch)>,
    /// Whose request is dealt with, if it says so.
    pub(crate) caller: Option<String>,
    /// Requests that are part of a trace and not answered yet.
    pub(crate) traced: Vec<(ReplyTo, Box<Open>)>,
    /// What starting a container took is given back then.
    rest: Option<Instant>,
    /// Shutdown was asked: leave when all is told, or then.
    stopping: Option<Instant>,
}

struct Connection {
    socket: UnixStream,
    decoder: Decoder,
    unsent: Vec<u8>,
}

/// Serves until Shutdown.
pub(crate) fn run(listener: UnixListener, config: Config) -> anyhow::Result<()> {
    let mut server = Server::new(listener, config)?;
    while !server.is_finished() {
        server.turn()?;
    }
    Ok(())
}

/// Sockets are 0600 already; this also holds where a descriptor was passed on.
pub(crate) fn is_same_user(socket: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(socket)
        .is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

impl Server {
    fn new(listener: UnixListener, config: Config) -> anyhow::Result<Self> {
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own)).context("become subreaper")?;
        // Blocked rather than ignored, so that children do not inherit it. Only Shutdown ends a shim.
        let signals =
            [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE];
        let mask = SigSet::from_iter(signals);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None).context("block signals")?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("signalfd")?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll_create")?;
        listener.set_nonblocking(true).context("listener")?;
        let link = Link::new().context("eventfd")?;
        let readable = |token| EpollEvent::new(EpollFlags::EPOLLIN, token);
        epoll.add(&listener, readable(LISTENER)).context("epoll_ctl")?;
        epoll.add(&signals, readable(SIGNALS)).context("epoll_ctl")?;
        epoll.add(link.notices(), readable(NOTICES)).context("epoll_ctl")?;
        Ok(Self {
            publisher: Publisher::new(config.events.clone(), config.namespace.clone()),
            config,
            epoll,
            listener: Some(listener),
            signals,
            connections: HashMap::new(),
            next_token: FIRST_DYNAMIC,
            containers: BTreeMap::new(),
            jobs: HashMap::new(),
            early: HashMap::new(),
            link,
            streams: HashMap::new(),
            next_key: 1,
            holds: Vec::new(),
            ooms: HashMap::new(),
            caller: None,
            traced: Vec::new(),
            rest: None,
            stopping: None,
        })
    }

    fn is_finished(&self) -> bool {
        let Some(deadline) = self.stopping else { return false };
        let told =
            self.publisher.is_idle() && self.connections.values().all(|c| c.unsent.is_empty());
        told || Instant::now() >= deadline
    }

    /// Nobody finds this server from now on: a container that is started while events are still being
    /// told gets a server of its own.
    pub(crate) fn stop(&mut self) {
        self.stopping.get_or_insert(Instant::now() + STOP_WITHIN);
        if let Some(listener) = self.listener.take() {
            std::fs::remove_file(&self.config.socket).ok();
            self.epoll.delete(listener).ok();
        }
    }

    /// A container runs: if it still does in a while, this process will wait for long.
    pub(crate) fn rest_soon(&mut self) {
        self.rest = Some(Instant::now() + REST_AFTER);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        let mut events = [EpollEvent::empty(); 16];
        let count = match self.epoll.wait(&mut events, self.timeout()) {
            Ok(count) => count,
            Err(nix::Error::EINTR) => 0,
            Err(error) => return Err(error).context("epoll_wait"),
        };
        for event in &events[..count] {
            match event.data() {
                LISTENER => self.accept(),
                SIGNALS => self.reap(),
                NOTICES => self.take_notices(),
                EVENTS => {}
                token if self.ooms.contains_key(&token) => self.take_oom(token),
                token => self.read(token),
            }
        }
        self.expire();
        self.publisher.run();
        self.watch_publisher();
        Ok(())
    }

    fn timeout(&self) -> EpollTimeout {
        let jobs = self.jobs.values().map(|job| job.deadline);
        let holds = self.holds.iter().map(|(at, _)| *at);
        let own = self.rest.into_iter().chain(self.stopping);
        let next = jobs.chain(holds).chain(self.publisher.deadline()).chain(own).min();
        let Some(next) = next else { return EpollTimeout::NONE };
        let wait = next.saturating_duration_since(Instant::now());
        // Rounded up, or the loop would spin through the last millisecond.
        let millis = u16::try_from(wait.as_millis().saturating_add(1)).unwrap_or(u16::MAX);
        EpollTimeout::from(millis)
    }

    fn watch_publisher(&mut self) {
        let Some((socket, sending)) = self.publisher.socket() else { return };
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, sending);
        let mut event = EpollEvent::new(flags, EVENTS);
        if self.epoll.modify(socket, &mut event).is_err() {
            self.epoll.add(socket, event).ok();
        }
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    // Connections.

    fn accept(&mut self) {
        while let Some(Ok((socket, _))) = self.listener.as_ref().map(UnixListener::accept) {
            if !is_same_user(&socket) || socket.set_nonblocking(true).is_err() {
                continue;
            }
            let token = self.token();
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
            if self.epoll.add(&socket, event).is_ok() {
                let connection = Connection { socket, decoder: Decoder::new(), unsent: Vec::new() };
                self.connections.insert(token, connection);
            }
        }
    }

    fn read(&mut self, token: u64) {
        let mut buffer = [0; 4096];
        loop {
            let Some(connection) = self.connections.get_mut(&token) else { return };
            match connection.socket.read(&mut buffer) {
                Ok(0) => return self.close(token),
                Ok(count) => connection.decoder.push(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(token),
            }
            self.take_frames(token);
        }
        self.flush(token);
    }

    fn take_frames(&mut self, token: u64) {
        while let Some(item) = self.connections.get_mut(&token).and_then(|c| c.decoder.next()) {
            match item {
                Ok(frame) if frame.kind == FrameKind::Request => {
                    let to = ReplyTo { connection: token, stream: frame.stream };
                    match Request::decode(frame.payload.as_slice()) {
                        Ok(request) => self.dispatch(to, &request),
                        Err(error) => {
                            let status = Status::new(Code::InvalidArgument, error.to_string());
                            self.answer(to, Err(status));
                        }
                    }
                }
                Ok(_) => {}
                Err(error @ FrameError::TooLarge { stream, .. }) => {
                    let to = ReplyTo { connection: token, stream };
                    self.answer(to, Err(Status::new(Code::ResourceExhausted, error.to_string())));
                }
            }
        }
    }

    /// Queues an answer and sends what the socket takes. A client that left gets none.
    pub(crate) fn answer(&mut self, to: ReplyTo, result: Result<Vec<u8>, Status>) {
        self.trace_answer(to);
        let Some(connection) = self.connections.get_mut(&to.connection) else { return };
        let response = Response::from_result(result).encode_to_vec();
        match encode(to.stream, FrameKind::Response, &response) {
            Ok(frame) => connection.unsent.extend_from_slice(&frame),
            Err(error) => {
                let status = Status::new(Code::ResourceExhausted, error.to_string());
                let response = Response::from_result(Err(status)).encode_to_vec();
                let frame = encode(to.stream, FrameKind::Response, &response).unwrap_or_default();
                connection.unsent.extend_from_slice(&frame);
            }
        }
        self.flush(to.connection);
    }

    fn flush(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        while !connection.unsent.is_empty() {
            match connection.socket.write(&connection.unsent) {
                Ok(count) => drop(connection.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(token),
            }
        }
        if connection.unsent.is_empty() {
            connection.unsent = Vec::new();
        }
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, !connection.unsent.is_empty());
        self.epoll.modify(&connection.socket, &mut EpollEvent::new(flags, token)).ok();
    }

    fn close(&mut self, token: u64) {
        self.connections.remove(&token);
        self.traced.retain(|(to, _)| to.connection != token);
        for container in self.containers.values_mut() {
            let processes =
                std::iter::once(&mut container.init).chain(container.execs.values_mut());
            for process in processes {
                process.waiters.retain(|waiter| waiter.connection != token);
            }
        }
    }

    // Children.

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(status) => {
                    if let Some(pid) = status.pid() {
                        self.reaped(pid.as_raw(), status);
                    }
                }
            }
        }
        if !self.jobs.values().any(Job::may_name_processes) {
            self.early.clear();
        }
    }

    fn reaped(&mut self, pid: i32, status: WaitStatus) {
        if let Some(job) = self.jobs.remove(&pid) {
            return self.finish_job(job, status);
        }
        let code = match status {
            WaitStatus::Exited(_, code) => u32::try_from(code).unwrap_or(255),
            WaitStatus::Signaled(_, signal, _) => 128 + u32::try_from(signal as i32).unwrap_or(0),
            _ => return,
        };
        let exit = Exit { status: code, at: SystemTime::now() };
        let found = self.containers.values().find_map(|container| {
            let execs = container.execs.iter().map(|(id, process)| (id.as_str(), process));
            let mut all = std::iter::once(("", &container.init)).chain(execs);
            all.find(|(_, process)| {
                process.is_running() && i64::from(process.pid) == i64::from(pid)
            })
            .map(|(exec, _)| ProcessId::new(&container.id, exec))
        });
        match found {
            Some(process) => self.exited(&process, exit),
            // Perhaps a process whose runtime call is not reaped yet; else a grandchild, and nobody's.
            None => drop(self.early.insert(pid, exit)),
        }
    }

    /// Ends what took too long.
    fn expire(&mut self) {
        let now = Instant::now();
        for (pid, job) in &mut self.jobs {
            if now >= job.deadline {
                job.expire(*pid);
            }
        }
        let (due, later) =
            std::mem::take(&mut self.holds).into_iter().partition(|(at, _)| *at <= now);
        self.holds = later;
        let due: Vec<(Instant, ProcessId)> = due;
        for (_, process) in due {
            self.settle(&process, true);
        }
        if self.rest.take_if(|at| *at <= now).is_some() {
            idle_memory::forget_code();
        }
    }

    // Out of memory.

    pub(crate) fn watch_oom(&mut self, container: &str) {
        let cgroup = self.containers.get(container).and_then(|c| c.cgroup.as_ref());
        let Some(watch) = cgroup.and_then(OomWatch::new) else { return };
        let token = self.token();
        if self.epoll.add(&watch, EpollEvent::new(EpollFlags::EPOLLIN, token)).is_ok() {
            self.ooms.insert(token, (container.to_owned(), watch));
        }
    }

    fn take_oom(&mut self, token: u64) {
        let Some((container, watch)) = self.ooms.get_mut(&token) else { return };
        match watch.take() {
            Some(true) => {
                let event = proto::containerd::events::TaskOom { container_id: container.clone() };
                self.publisher.publish("/tasks/oom", &event);
            }
            Some(false) => {}
            None => drop(self.ooms.remove(&token)),
        }
    }

    pub(crate) fn forget_oom(&mut self, container: &str) {
        // The kernel's word may have come with the last exit.
        let tokens: Vec<u64> = self
            .ooms
            .iter()
            .filter(|(_, (id, _))| id == container)
            .map(|(token, _)| *token)
            .collect();
        for token in tokens {
            self.ooms.remove(&token);
        }
    }

    pub(crate) fn complain(&self, container: &str, message: &str) {
        let bundle = self.containers.get(container).map_or(&self.config.bundle, |c| &c.bundle);
        log::write(bundle, Level::Warning, container, message);
    }
}

const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const NOTICES: u64 = 2;
const EVENTS: u64 = 3;
const FIRST_DYNAMIC: u64 = 15;
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// Longer than what is started only to end at once takes.
const REST_AFTER: Duration = Duration::from_secs(1);
