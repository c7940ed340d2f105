//! The thread that moves output and input of all processes, on an epoll of its own.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use container_log::{WriteError, compress_rotated};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::attach::{Alive, Attach};
use super::flow::{Flow, Wait};
use super::link::{Command, Key, Notice, Queue};
use super::output::{Log, Output};
use super::stdio::{OpenStdin, ProcessIo, SinkIo};

/// Starts the thread; it lives as long as the shim.
pub(crate) fn spawn(commands: Arc<Queue<Command>>, notices: Arc<Queue<Notice>>) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(commands.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
    let pump = Pump { epoll, commands, notices, processes: HashMap::new() };
    std::thread::Builder::new()
        .name("io".to_owned())
        .stack_size(128 * 1024)
        .spawn(|| pump.run())?;
    Ok(())
}

struct Pump {
    epoll: Epoll,
    commands: Arc<Queue<Command>>,
    notices: Arc<Queue<Notice>>,
    processes: HashMap<Key, Process>,
}

#[derive(Default)]
struct Process {
    stdin: Option<Stdin>,
    outputs: Vec<(Output, Wait)>,
    log: Option<Log>,
    drained: bool,
    /// The process ended, and its client has not read all yet: how much, and till when it may stay that much
    /// before `Drained` is said.
    unfetched: Option<(u64, Instant)>,
    /// Set by Remove: give up then.
    closing: Option<Instant>,
    /// An output ended before its client came: look for the client until then.
    unread_until: Option<Instant>,
    warned: bool,
}

struct Stdin {
    flow: Flow,
    wait: Wait,
    keep: Option<File>,
}

impl Pump {
    fn run(mut self) {
        let mut events = [EpollEvent::empty(); 16];
        loop {
            let looks = |p: &Process| p.closing.is_some() || p.unread_until.is_some();
            let timeout = if self.processes.values().any(|p| p.unfetched.is_some()) {
                EpollTimeout::from(FETCH_LOOK_EVERY)
            } else if self.processes.values().any(looks) {
                EpollTimeout::from(LOOK_EVERY)
            } else {
                EpollTimeout::NONE
            };
            // Interrupted or not, the queues and deadlines below are looked at.
            let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
            for event in &events[..count] {
                if event.data() == WAKE {
                    for command in self.commands.take() {
                        self.command(command);
                    }
                } else {
                    self.ready(event.data() >> KIND_BITS, event.data() & KIND_MASK);
                }
            }
            self.close_read();
            self.tell_fetched();
            self.close_finished();
        }
    }

    /// The kernel does not say when a reader comes, so this asks, for a while; then the delete closes.
    fn close_read(&mut self) {
        let now = Instant::now();
        for process in self.processes.values_mut() {
            let Some(until) = process.unread_until else { continue };
            for (output, _) in &mut process.outputs {
                if output.is_unread() {
                    output.close();
                }
            }
            if now >= until || !process.outputs.iter().any(|(output, _)| output.is_unread()) {
                process.unread_until = None;
            }
        }
    }

    /// Compat: ctr reads no more once it heard of the exit, so that waits while it reads.
    fn tell_fetched(&mut self) {
        let now = Instant::now();
        for (key, process) in &mut self.processes {
            let Some((before, until)) = process.unfetched else { continue };
            let rest = process.outputs.iter_mut().map(|(output, _)| output.unfetched()).sum();
            if rest == 0 || rest == before && now >= until {
                process.unfetched = None;
                self.notices.push(Notice::Drained(*key));
            } else if rest != before {
                process.unfetched = Some((rest, now + STANDSTILL));
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Add(key, io) => self.add(key, *io),
            Command::Stdin(key, stdin) => self.add_stdin(key, *stdin),
            Command::CloseStdin(key) => {
                if let Some(stdin) = self.processes.get_mut(&key).and_then(|p| p.stdin.as_mut()) {
                    stdin.keep = None;
                    self.run_stdin(key);
                }
            }
            Command::Exited(key) => self.drain(key),
            Command::Remove(key) => match self.processes.get_mut(&key) {
                Some(process) => process.closing = Some(Instant::now() + LINGER),
                None => self.notices.push(Notice::Closed(key)),
            },
            Command::Compressed(key) => {
                let process = self.processes.get_mut(&key);
                let log = process.and_then(|process| process.log.as_mut());
                if let Some(writer) = log.and_then(|log| log.writer.as_mut()) {
                    writer.compressed();
                }
                self.resume(key);
            }
        }
    }

    fn add(&mut self, key: Key, io: ProcessIo) {
        let mut process = Process::default();
        if let Some(log) = io.log {
            let attach = log.attach.map(Attach::new);
            process.log = Some(Log::new(log.writer, attach));
        }
        for output in io.outputs {
            let Some(source) = output.source else { continue };
            let output = match output.sink {
                SinkIo::Log => Output::Logged { source, stream: output.stream },
                SinkIo::Fifo { writer, reader } => Output::Copied {
                    flow: Flow::new(source, writer, !output.terminal),
                    reader: Some(reader),
                },
                SinkIo::File(file) => {
                    Output::Copied { flow: Flow::new(source, file, false), reader: None }
                }
            };
            process.outputs.push((output, Wait::Paused));
        }
        if let Some(attach) = process.log.as_ref().and_then(|log| log.attach.as_ref()) {
            self.watch(key, LISTENER, attach.as_fd(), EpollFlags::EPOLLIN);
        }
        let outputs = process.outputs.len();
        self.processes.insert(key, process);
        // Whoever connected while the process was being started is there before its first byte.
        self.accept(key);
        for index in 0..outputs {
            self.run_output(key, index, BUDGET, false);
        }
    }

    fn add_stdin(&mut self, key: Key, stdin: OpenStdin) {
        let flow = Flow::new(OwnedFd::from(stdin.source), stdin.target, !stdin.terminal);
        // Not read before a client wrote: a fifo that never had a writer looks ended.
        self.watch(key, STDIN, flow.source(), EpollFlags::EPOLLIN);
        if let Some(process) = self.processes.get_mut(&key) {
            process.stdin = Some(Stdin { flow, wait: Wait::Source, keep: stdin.keep });
        }
    }

    fn ready(&mut self, key: Key, kind: u64) {
        match kind {
            STDIN => self.run_stdin(key),
            LISTENER => self.accept(key),
            OUTPUT..FIRST_CLIENT => {
                let index = usize::try_from(kind - OUTPUT).unwrap_or(0);
                self.run_output(key, index, BUDGET, false);
            }
            _ => {
                self.look(key, usize::try_from(kind - FIRST_CLIENT).unwrap_or(0));
                self.resume(key);
            }
        }
    }

    fn run_stdin(&mut self, key: Key) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let Some(stdin) = &mut process.stdin else { return };
        let wait = stdin.flow.run(BUDGET).unwrap_or(Wait::Source);
        if wait == stdin.wait {
            return;
        }
        match stdin.wait {
            Wait::Source => drop(self.epoll.delete(stdin.flow.source())),
            Wait::Target => drop(self.epoll.delete(stdin.flow.target())),
            Wait::Paused | Wait::Done => {}
        }
        stdin.wait = wait;
        let (fd, flags) = match wait {
            Wait::Source => (stdin.flow.source(), EpollFlags::EPOLLIN),
            Wait::Target => (stdin.flow.target(), EpollFlags::EPOLLOUT),
            Wait::Paused | Wait::Done => {
                // The process sees the end of its input.
                process.stdin = None;
                return;
            }
        };
        self.epoll.add(fd, EpollEvent::new(flags, key << KIND_BITS | STDIN)).ok();
    }

    fn run_output(&mut self, key: Key, index: usize, budget: usize, drain: bool) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let Some((output, wait)) = process.outputs.get_mut(index) else { return };
        if *wait == Wait::Done {
            return;
        }
        let (next, error) = output.run(process.log.as_mut(), budget, drain);
        // With the budget used up there is more, and the source is ready still.
        let next = next.unwrap_or(Wait::Source);
        if next != *wait {
            if let Some(fd) = output.awaited(*wait) {
                self.epoll.delete(fd).ok();
            }
            *wait = next;
            if let Some(fd) = output.awaited(next) {
                let flags =
                    if next == Wait::Target { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
                let token = key << KIND_BITS | (OUTPUT + index as u64);
                self.epoll.add(fd, EpollEvent::new(flags, token)).ok();
            }
        }
        if next == Wait::Done {
            output.close();
            if output.is_unread() {
                process.unread_until = Some(Instant::now() + UNREAD);
            }
        }
        self.warn(key, error);
        self.after_output(key);
    }

    /// Clients with unsent bytes are watched for room, and a rotated log is compressed.
    fn after_output(&mut self, key: Key) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let Some(log) = &mut process.log else { return };
        if let Some(path) = log.writer.as_mut().and_then(|writer| writer.take_compression()) {
            let commands = Arc::clone(&self.commands);
            let notices = Arc::clone(&self.notices);
            let job = move || {
                if let Err(error) = compress_rotated(&path) {
                    notices.push(Notice::Warning(key, error.to_string()));
                }
                commands.push(Command::Compressed(key));
            };
            let builder = std::thread::Builder::new().name("compress".to_owned());
            if builder.stack_size(128 * 1024).spawn(job).is_err() {
                self.commands.push(Command::Compressed(key));
            }
        }
        let clients = log.attach.as_ref().map_or(0, |attach| attach.clients.len());
        for place in 0..clients {
            self.look(key, place);
        }
        // One that was behind may have caught up while it was looked at: then no event tells of it.
        self.resume(key);
    }

    /// Goes on reading where a client or a rotation was behind.
    fn resume(&mut self, key: Key) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        if process.log.as_ref().is_none_or(Log::is_blocked) {
            return;
        }
        for (index, (output, wait)) in process.outputs.iter_mut().enumerate() {
            if *wait == Wait::Paused
                && let Some(fd) = output.awaited(Wait::Source)
            {
                *wait = Wait::Source;
                let token = key << KIND_BITS | (OUTPUT + index as u64);
                self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token)).ok();
            }
        }
    }

    fn accept(&mut self, key: Key) {
        loop {
            let Some(process) = self.processes.get_mut(&key) else { return };
            let closing = process.drained;
            let Some(attach) = process.log.as_mut().and_then(|log| log.attach.as_mut()) else {
                return;
            };
            match attach.accept(closing) {
                Ok(Some(place)) => {
                    if let Some(fd) = attach.client(place) {
                        let token = key << KIND_BITS | (FIRST_CLIENT + place as u64);
                        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
                        self.epoll.add(fd, EpollEvent::new(flags, token)).ok();
                    }
                    self.look(key, place);
                }
                Ok(None) => return,
                // A stranger, or one too many: closed already.
                Err(_) => {}
            }
        }
    }

    fn look(&mut self, key: Key, place: usize) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let Some(attach) = process.log.as_mut().and_then(|log| log.attach.as_mut()) else { return };
        // Closing the socket takes it out of the epoll set.
        let mut flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        match attach.look(place) {
            Alive::Gone => return,
            Alive::Sending => flags |= EpollFlags::EPOLLOUT,
            Alive::Idle => {}
        }
        if let Some(fd) = attach.client(place) {
            let token = key << KIND_BITS | (FIRST_CLIENT + place as u64);
            self.epoll.modify(fd, &mut EpollEvent::new(flags, token)).ok();
        }
    }

    /// Everything the process wrote before its end fits into its pipes, so one pipe's length is enough:
    /// a grandchild that goes on writing cannot hold this up.
    fn drain(&mut self, key: Key) {
        let outputs = self.processes.get(&key).map_or(0, |process| process.outputs.len());
        for index in 0..outputs {
            self.run_output(key, index, DRAIN, true);
        }
        let mut error = None;
        if let Some(process) = self.processes.get_mut(&key) {
            process.drained = true;
            process.unfetched = Some((0, Instant::now() + STANDSTILL));
            for (output, _) in &mut process.outputs {
                error = output.finish(process.log.as_mut()).or(error);
            }
            let attach = process.log.as_mut().and_then(|log| log.attach.as_mut());
            let clients = attach.map_or(0, |attach| {
                attach.finish();
                attach.clients.len()
            });
            for place in 0..clients {
                self.look(key, place);
            }
        }
        self.warn(key, error);
        if !self.processes.contains_key(&key) {
            self.notices.push(Notice::Drained(key));
        }
    }

    fn close_finished(&mut self) {
        let now = Instant::now();
        let epoll = &self.epoll;
        let mut closed = Vec::new();
        self.processes.retain(|key, process| {
            let Some(deadline) = process.closing else { return true };
            let undelivered = process
                .outputs
                .iter()
                .any(|(output, wait)| *wait == Wait::Target || output.has_unread_bytes());
            let attach = process.log.as_ref().and_then(|log| log.attach.as_ref());
            if (undelivered || !attach.is_none_or(Attach::is_sent)) && now < deadline {
                return true;
            }
            // A terminal has other holders, so closing does not take it out of the set.
            if let Some(stdin) = process.stdin.as_ref().filter(|s| s.wait == Wait::Target) {
                epoll.delete(stdin.flow.target()).ok();
            }
            for (output, wait) in &process.outputs {
                if let Some(fd) = output.awaited(*wait) {
                    epoll.delete(fd).ok();
                }
            }
            closed.push(*key);
            false
        });
        // Told when the socket's path is gone, too.
        for key in closed {
            self.notices.push(Notice::Closed(key));
        }
    }

    /// Once a process: a full disk would otherwise fill containerd's log too.
    fn warn(&mut self, key: Key, error: Option<WriteError>) {
        let Some(error) = error else { return };
        let Some(process) = self.processes.get_mut(&key) else { return };
        if !std::mem::replace(&mut process.warned, true) {
            self.notices.push(Notice::Warning(key, error.to_string()));
        }
    }

    fn watch(&self, key: Key, kind: u64, fd: std::os::fd::BorrowedFd<'_>, flags: EpollFlags) {
        self.epoll.add(fd, EpollEvent::new(flags, key << KIND_BITS | kind)).ok();
    }
}

const WAKE: u64 = u64::MAX;
const KIND_BITS: u64 = 8;
const KIND_MASK: u64 = 0xff;
const STDIN: u64 = 0;
const LISTENER: u64 = 1;
const OUTPUT: u64 = 2;
const FIRST_CLIENT: u64 = 8;
/// Bytes moved for one stream before the others get their turn.
const BUDGET: usize = 1 << 20;
const DRAIN: usize = 2 << 20;
const LOOK_EVERY: u8 = 20;
const FETCH_LOOK_EVERY: u8 = 1;
/// How long a client may take for its next read of what an ended process wrote.
const STANDSTILL: Duration = Duration::from_secs(1);
/// How long the pump itself waits for a reader that was late.
const UNREAD: Duration = Duration::from_secs(5);
/// How long a delete waits for readers of what is left.
const LINGER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use container_log::Stream;

    use super::super::attach::Listener;
    use super::*;

    #[test]
    fn an_output_is_read_on_when_its_client_has_caught_up_at_once() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("live");
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let mut pump = Pump {
            epoll,
            commands: Arc::new(Queue::new().unwrap()),
            notices: Arc::new(Queue::new().unwrap()),
            processes: HashMap::new(),
        };
        let mut attach = Attach::new(Listener::bind(&path).unwrap());
        let _client = UnixStream::connect(&path).unwrap();
        attach.accept(false).unwrap();
        let (source, mut container) = std::io::pipe().unwrap();
        let output = Output::Logged { source: source.into(), stream: Stream::Stdout };
        // As `take` leaves it when the client is behind, before the client is looked at.
        let mut process = Process { log: Some(Log::new(None, Some(attach))), ..Process::default() };
        process.outputs.push((output, Wait::Paused));
        pump.processes.insert(7, process);
        pump.after_output(7);
        container.write_all(b"more").unwrap();
        let mut events = [EpollEvent::empty(); 4];
        assert_eq!(pump.epoll.wait(&mut events, EpollTimeout::ZERO), Ok(1));
        assert_eq!(events[0].data(), 7 << KIND_BITS | OUTPUT);
    }
}
