//! Work in child processes: calls of the runtime, mounts. The loop starts them and is told of their end by
//! SIGCHLD; each has a deadline.

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::wait::WaitStatus;
use prost::Message as _;
use proto::containerd::events as ev;
use proto::containerd::task::v2 as api;

use crate::bundle::read_pid;
use crate::container::{Container, ProcessId};
use crate::error::{TaskError, call_error, path_error};
use crate::io::console::ConsoleSocket;
use crate::io::link;
use crate::io::stdio::{ChildStdio, ProcessIo};
use crate::machine::State;
use crate::runtime::Call;
use crate::serve::{ReplyTo, Server};
use crate::trace::Open;
use crate::{rootfs, sys};

pub(crate) struct Job {
    kind: Kind,
    target: ProcessId,
    reply: Option<ReplyTo>,
    call: Option<Call>,
    trace: Option<Box<Open>>,
    pub(crate) deadline: Instant,
    expired: bool,
}

enum Kind {
    Mount(Box<Creation>),
    Create(Box<Creation>),
    Start,
    Exec {
        streams: Box<Streams>,
        document: PathBuf,
        log: PathBuf,
        pid_file: PathBuf,
    },
    Kill {
        thaw: bool,
    },
    Pause,
    Resume,
    Update,
    Delete,
    Unmount,
    /// Undoes the mounts of a create that failed.
    UnmountFailed(TaskError),
}

/// What Create needs until the runtime has answered.
pub(crate) struct Creation {
    pub(crate) event: ev::TaskCreate,
    pub(crate) streams: Streams,
}

/// A process's streams on their way to the pump.
#[derive(Default)]
pub(crate) struct Streams {
    pub(crate) child: ChildStdio,
    pub(crate) io: ProcessIo,
    pub(crate) console: Option<ConsoleSocket>,
}

impl Job {
    /// Whether a process reaped meanwhile may turn out to be the one this call made.
    pub(crate) fn may_name_processes(&self) -> bool {
        matches!(self.kind, Kind::Create(_) | Kind::Exec { .. })
    }

    pub(crate) fn expire(&mut self, pid: i32) {
        self.expired = true;
        self.deadline = Instant::now() + RUNTIME_WITHIN;
        sys::kill(pid, libc::SIGKILL).ok();
    }

    fn what(&self) -> &'static str {
        match self.kind {
            Kind::Mount(_) => "mount rootfs",
            Kind::Create(_) => "OCI runtime create failed",
            Kind::Start => "OCI runtime start failed",
            Kind::Exec { .. } => "OCI runtime exec failed",
            Kind::Kill { .. } => "unknown error after kill",
            Kind::Pause => "OCI runtime pause failed",
            Kind::Resume => "OCI runtime resume failed",
            Kind::Update => "OCI runtime update failed",
            Kind::Delete => "failed to delete task",
            Kind::Unmount | Kind::UnmountFailed(_) => "unmount rootfs",
        }
    }
}

impl Server {
    fn enlist(
        &mut self,
        pid: i32,
        kind: Kind,
        target: ProcessId,
        reply: Option<ReplyTo>,
        call: Option<Call>,
        trace: Option<Box<Open>>,
    ) {
        let deadline = Instant::now() + RUNTIME_WITHIN;
        let job = Job { kind, target, reply, call, trace, deadline, expired: false };
        self.jobs.insert(pid, job);
    }

    fn call(
        &mut self,
        mut command: Command,
        kind: Kind,
        target: ProcessId,
        reply: Option<ReplyTo>,
    ) -> Result<(), TaskError> {
        let container = self.container(&target.container)?;
        let log = container.log();
        let trace = match kind {
            Kind::Start => self.trace_below(reply, "runtime start", &target),
            Kind::Delete => {
                let deleting = container.init.deleting.as_ref();
                self.trace_below(deleting.map(|found| found.reply), "runtime delete", &target)
            }
            _ => None,
        };
        if let Some(open) = &trace {
            open.call(&mut command);
        }
        let call = Call::spawn(&container.runtime, command, &log, true)?;
        self.enlist(call.pid, kind, target, reply, Some(call), trace);
        Ok(())
    }

    /// A call whose arguments are the verb, flags and the container's id.
    fn call_verb(
        &mut self,
        args: &[&str],
        kind: Kind,
        target: ProcessId,
        reply: Option<ReplyTo>,
    ) -> Result<(), TaskError> {
        let container = self.container(&target.container)?;
        let mut command = container.runtime.command(Some(&container.log()));
        command.args(args);
        self.call(command, kind, target, reply)
    }

    // Create.

    pub(crate) fn begin_create(
        &mut self,
        reply: ReplyTo,
        creation: Box<Creation>,
    ) -> Result<(), TaskError> {
        let target = ProcessId::init(&creation.event.container_id);
        if creation.event.rootfs.is_empty() {
            return self.call_create(target, reply, creation);
        }
        let container = self.container_mut(&target.container)?;
        let child = rootfs::mount(&creation.event.rootfs, &container.rootfs())?;
        container.mounted = true;
        self.enlist(child.as_raw(), Kind::Mount(creation), target, Some(reply), None, None);
        Ok(())
    }

    fn call_create(
        &mut self,
        target: ProcessId,
        reply: ReplyTo,
        mut creation: Box<Creation>,
    ) -> Result<(), TaskError> {
        let console =
            self.next_console(creation.event.io.as_ref().is_some_and(|io| io.terminal))?;
        let container = self.container(&target.container)?;
        let log = container.log();
        let mut command = container.runtime.command(Some(&log));
        command.arg("create").arg("--bundle").arg(&container.bundle);
        command.arg("--pid-file").arg(container.bundle.join("init.pid"));
        if let Some(console) = &console {
            command.arg("--console-socket").arg(console.path());
        }
        if container.options.no_pivot_root {
            command.arg("--no-pivot");
        }
        if container.options.no_new_keyring {
            command.arg("--no-new-keyring");
        }
        command.arg(&container.id).current_dir(&container.bundle);
        let has_terminal = console.is_some();
        creation.streams.console = console;
        std::mem::take(&mut creation.streams.child).apply(&mut command);
        let trace = self.trace_below(Some(reply), "runtime create", &target);
        if let Some(open) = &trace {
            open.call(&mut command);
        }
        let call = Call::spawn(&container.runtime, command, &log, has_terminal)?;
        self.enlist(call.pid, Kind::Create(creation), target, Some(reply), Some(call), trace);
        Ok(())
    }

    fn next_console(&mut self, terminal: bool) -> Result<Option<ConsoleSocket>, TaskError> {
        if !terminal {
            return Ok(None);
        }
        self.next_key += 1;
        let mut path = self.config.socket.clone().into_os_string();
        path.push(format!(".p{}", self.next_key));
        let path = PathBuf::from(path);
        ConsoleSocket::bind(path.clone()).map(Some).map_err(path_error("bind", path))
    }

    fn add_streams(&mut self, target: &ProcessId, mut io: ProcessIo) -> Result<(), TaskError> {
        if io.is_empty() {
            self.container_mut(&target.container)?.process_mut(&target.exec)?.drained = true;
            return Ok(());
        }
        self.next_key += 1;
        let key = self.next_key;
        self.streams.insert(key, target.clone());
        let process = self.container_mut(&target.container)?.process_mut(&target.exec)?;
        process.io = Some(key);
        process.stdin = io.stdin.take();
        self.link
            .send(link::Command::Add(key, Box::new(io)))
            .map_err(call_error("start io thread"))?;
        if target.exec.is_empty() { Ok(()) } else { self.open_stdin(target) }
    }

    fn open_stdin(&mut self, target: &ProcessId) -> Result<(), TaskError> {
        let process = self.container_mut(&target.container)?.process_mut(&target.exec)?;
        let (Some(key), Some(stdin)) = (process.io, process.stdin.take()) else { return Ok(()) };
        let Some(stdin) = stdin.open()? else { return Ok(()) };
        let command = link::Command::Stdin(key, Box::new(stdin));
        self.link.send(command).map_err(call_error("start io thread"))
    }

    /// The runtime succeeded, so that its own complaints cannot get into the output any more; and it sent
    /// the terminal's master.
    fn connect_streams(
        &mut self,
        target: &ProcessId,
        streams: &mut Streams,
    ) -> Result<(), TaskError> {
        let mut io = std::mem::take(&mut streams.io);
        if let Some(console) = streams.console.take() {
            let master =
                console.receive().map_err(path_error("receive terminal on", console.path()))?;
            io.set_master(&master)?;
            self.container_mut(&target.container)?.process_mut(&target.exec)?.master = Some(master);
        }
        self.add_streams(target, io)
    }

    fn created(
        &mut self,
        target: &ProcessId,
        mut creation: Creation,
    ) -> Result<Vec<u8>, TaskError> {
        self.connect_streams(target, &mut creation.streams)?;
        let container = self.container_mut(&target.container)?;
        let pid = read_pid(&container.bundle.join("init.pid"))?;
        container.init.pid = pid;
        container.init.state = State::Created;
        // From now on: what starts may be killed for its memory before its start is answered.
        container.cgroup = crate::cgroup::Cgroup::of(pid);
        creation.event.pid = pid;
        self.watch_oom(&target.container);
        self.publisher.publish("/tasks/create", &creation.event);
        self.take_early(target, pid);
        Ok(api::CreateTaskResponse { pid }.encode_to_vec())
    }

    /// Does what was asked for while it was being created.
    fn delete_unwanted(&mut self, id: &str) {
        let Ok(container) = self.container_mut(id) else { return };
        for to in std::mem::take(&mut container.unwanted) {
            let request = api::DeleteRequest { id: id.to_owned(), exec_id: String::new() };
            if let Err(error) = self.delete(to, &request) {
                self.reply(Some(to), Err(error));
            }
        }
    }

    fn create_failed(&mut self, target: &ProcessId, reply: Option<ReplyTo>, error: TaskError) {
        let Ok(container) = self.container_mut(&target.container) else { return };
        if std::mem::replace(&mut container.mounted, false)
            && let Ok(child) = rootfs::unmount(&container.rootfs())
        {
            let kind = Kind::UnmountFailed(error);
            return self.enlist(child.as_raw(), kind, target.clone(), reply, None, None);
        }
        self.forget_container(&target.container);
        self.reply(reply, Err(error));
    }

    // The other verbs.

    pub(crate) fn begin_start(
        &mut self,
        target: ProcessId,
        reply: ReplyTo,
    ) -> Result<(), TaskError> {
        if target.exec.is_empty() {
            self.open_stdin(&target)?;
            let id = target.container.clone();
            self.call_verb(&["start", &id], Kind::Start, target.clone(), Some(reply))?;
        } else {
            self.call_exec(&target, reply)?;
        }
        self.container_mut(&target.container)?.process_mut(&target.exec)?.state = State::Starting;
        Ok(())
    }

    fn call_exec(&mut self, target: &ProcessId, reply: ReplyTo) -> Result<(), TaskError> {
        let container = self.container(&target.container)?;
        let process = container.process(&target.exec)?;
        let terminal = process.stdio.terminal;
        let file = |suffix: &str| container.bundle.join(format!("exec-{}{suffix}", target.exec));
        let (document, log, pid_file) = (file(".json"), file(".log.json"), file(".pid"));
        fs::write(&document, &process.spec).map_err(path_error("write", &document))?;
        let live = self.container_mut(&target.container)?.process_mut(&target.exec)?.live.take();
        let mut streams = Box::new(self.open_streams(target, live)?);
        streams.console = self.next_console(terminal)?;
        let container = self.container(&target.container)?;
        let mut command = container.runtime.command(Some(&log));
        command.arg("exec").arg("--process").arg(&document);
        if let Some(console) = &streams.console {
            command.arg("--console-socket").arg(console.path());
        }
        command.arg("--detach").arg("--pid-file").arg(&pid_file).arg(&container.id);
        command.current_dir(&container.bundle);
        std::mem::take(&mut streams.child).apply(&mut command);
        let call = Call::spawn(&container.runtime, command, &log, terminal)?;
        let kind = Kind::Exec { streams, document, log, pid_file };
        self.enlist(call.pid, kind, target.clone(), Some(reply), Some(call), None);
        Ok(())
    }

    pub(crate) fn begin_kill(
        &mut self,
        target: ProcessId,
        reply: Option<ReplyTo>,
        signal: i32,
        all: bool,
    ) -> Result<(), TaskError> {
        let kind = Kind::Kill { thaw: signal == libc::SIGKILL };
        let (id, signal) = (target.container.clone(), signal.to_string());
        if all {
            self.call_verb(&["kill", "--all", &id, &signal], kind, target, reply)
        } else {
            self.call_verb(&["kill", &id, &signal], kind, target, reply)
        }
    }

    pub(crate) fn begin_pause(
        &mut self,
        target: ProcessId,
        reply: ReplyTo,
    ) -> Result<(), TaskError> {
        let id = target.container.clone();
        self.call_verb(&["pause", &id], Kind::Pause, target, Some(reply))
    }

    pub(crate) fn begin_resume(
        &mut self,
        target: ProcessId,
        reply: ReplyTo,
    ) -> Result<(), TaskError> {
        let id = target.container.clone();
        self.call_verb(&["resume", &id], Kind::Resume, target, Some(reply))
    }

    pub(crate) fn begin_update(
        &mut self,
        target: ProcessId,
        reply: ReplyTo,
        resources: &[u8],
    ) -> Result<(), TaskError> {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let input =
            rustix::fs::memfd_create("resources", flags).map_err(call_error("memfd_create"))?;
        let mut input = File::from(input);
        input
            .write_all(resources)
            .and_then(|()| input.rewind())
            .map_err(call_error("write resources"))?;
        let container = self.container(&target.container)?;
        let mut command = container.runtime.command(Some(&container.log()));
        command.args(["update", "--resources", "-", &container.id]).stdin(OwnedFd::from(input));
        self.call(command, Kind::Update, target, Some(reply))
    }

    pub(crate) fn begin_delete(&mut self, target: ProcessId) -> Result<(), TaskError> {
        let id = target.container.clone();
        self.call_verb(&["delete", &id], Kind::Delete, target, None)
    }

    /// The child of a job ended.
    pub(crate) fn finish_job(&mut self, mut job: Job, status: WaitStatus) {
        drop(job.trace.take());
        let what = job.what();
        let failure = match job.call.take() {
            _ if job.expired => {
                Some(TaskError::Deadline { what, seconds: RUNTIME_WITHIN.as_secs() })
            }
            Some(call) => call.failure(status, what).map(TaskError::Runtime),
            None => mount_failure(what, status),
        };
        let (target, reply) = (job.target, job.reply);
        match job.kind {
            Kind::Mount(creation) => {
                let result = match (failure, reply) {
                    (None, Some(reply)) => self.call_create(target.clone(), reply, creation),
                    (Some(error), _) => Err(error),
                    (None, None) => Ok(()),
                };
                if let Err(error) = result {
                    self.create_failed(&target, reply, error);
                }
            }
            Kind::Create(creation) => {
                let result = failure.map_or_else(|| self.created(&target, *creation), Err);
                match result {
                    Ok(answer) => {
                        self.reply(reply, Ok(answer));
                        self.settle(&target, false);
                        self.delete_unwanted(&target.container);
                    }
                    Err(error) => self.create_failed(&target, reply, error),
                }
            }
            Kind::Start => self.started(&target, reply, failure),
            Kind::Exec { mut streams, document, log, pid_file } => {
                let pid = match failure {
                    None => self
                        .connect_streams(&target, &mut streams)
                        .and_then(|()| read_pid(&pid_file)),
                    Some(error) => Err(error),
                };
                for path in [document, log, pid_file] {
                    fs::remove_file(path).ok();
                }
                self.exec_started(&target, reply, pid);
            }
            Kind::Kill { thaw } => {
                let killed = failure.is_none();
                self.reply(reply, failure.map_or(Ok(Vec::new()), |error| Err(kill_error(error))));
                // Nothing dies in a frozen v1 cgroup, and not every runtime thaws it for a kill.
                let paused = self.container(&target.container).is_ok_and(|container| {
                    container.init.state == State::Paused && container.init.reaped.is_none()
                });
                if thaw && killed && paused {
                    let id = target.container.clone();
                    self.call_verb(&["resume", &id], Kind::Resume, target, None).ok();
                }
            }
            Kind::Pause => self.paused(&target, reply, failure, State::Paused),
            Kind::Resume => self.paused(&target, reply, failure, State::Running),
            Kind::Update => self.reply(reply, failure.map_or(Ok(Vec::new()), Err)),
            Kind::Delete => self.runtime_deleted(target, failure),
            Kind::Unmount => {
                if let Some(error) = failure {
                    self.complain(&target.container, &error.to_string());
                }
                self.delete_part_done(&target, |deleting| deleting.runtime_done = true);
            }
            Kind::UnmountFailed(error) => {
                self.forget_container(&target.container);
                self.reply(reply, Err(error));
            }
        }
    }

    fn runtime_deleted(&mut self, target: ProcessId, failure: Option<TaskError>) {
        let gone = |error: &TaskError| error.to_string().contains("does not exist");
        if let Some(error) = failure.filter(|error| !gone(error)) {
            return self.delete_failed(&target, error);
        }
        let unmount =
            self.container(&target.container).ok().filter(|c| c.mounted).map(Container::rootfs);
        match unmount.map(|rootfs| rootfs::unmount(&rootfs)) {
            Some(Ok(child)) => self.enlist(child.as_raw(), Kind::Unmount, target, None, None, None),
            Some(Err(error)) => {
                self.complain(&target.container, &error.to_string());
                self.delete_part_done(&target, |deleting| deleting.runtime_done = true);
            }
            None => self.delete_part_done(&target, |deleting| deleting.runtime_done = true),
        }
    }

    /// A process that ended before its runtime call did.
    pub(crate) fn take_early(&mut self, target: &ProcessId, pid: u32) {
        let exit = i32::try_from(pid).ok().and_then(|pid| self.early.remove(&pid));
        if let Some(exit) = exit {
            self.exited(target, exit);
        }
    }
}

fn mount_failure(what: &'static str, status: WaitStatus) -> Option<TaskError> {
    match status {
        WaitStatus::Exited(_, 0) => None,
        WaitStatus::Exited(_, errno) => {
            let source = std::io::Error::from_raw_os_error(errno);
            Some(TaskError::Call { call: what, source })
        }
        _ => Some(TaskError::Runtime(format!("{what}: child was killed"))),
    }
}

/// Compat: stock tells these apart by the runtime's words.
fn kill_error(error: TaskError) -> TaskError {
    let text = error.to_string();
    let says = |words: &str| text.contains(words);
    if says("process already finished") || says("container not running") || says("no such process")
    {
        TaskError::Finished
    } else if says("container does not exist") || says("does not exist") {
        TaskError::NoSuchContainer
    } else {
        error
    }
}

/// Hooks may be slow; a runtime that takes longer than this never answers.
const RUNTIME_WITHIN: Duration = Duration::from_secs(300);
