//! The task service, versions 2 and 3: the same messages under two names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use prost::Message;
use proto::containerd::events as ev;
use proto::containerd::runc::v1::{Options, ProcessDetails};
use proto::containerd::task::v2 as api;
use proto::containerd::v1::types::ProcessInfo;
use rustix::termios::Winsize;
use ttrpc_wire::{Code, Request, Status};

use crate::bundle::{RuntimeOptions, SpecExcerpt, replace, resolve_runtime};
use crate::cgroup::Cgroup;
use crate::container::{Container, Deleting, Exit, Process, ProcessId};
use crate::error::{TaskError, call_error};
use crate::io::attach::Listener;
use crate::io::link::Command;
use crate::io::stdio::{self, Owner, StdioSpec};
use crate::jobs::{Creation, Streams};
use crate::machine::{State, Verb};
use crate::runtime::Runtime;
use crate::serve::{ReplyTo, Server};
use crate::{stats, sys};

/// An answer now, or `None`: later.
type Outcome = Result<Option<Vec<u8>>, TaskError>;

fn done(message: &impl Message) -> Outcome {
    Ok(Some(message.encode_to_vec()))
}

const EMPTY: Outcome = Ok(Some(Vec::new()));

impl Server {
    pub(crate) fn dispatch(&mut self, to: ReplyTo, request: &Request) {
        if !matches!(
            request.service.as_str(),
            "containerd.task.v2.Task" | "containerd.task.v3.Task"
        ) {
            let text = format!("service {}: not implemented", request.service);
            return self.answer(to, Err(Status::new(Code::Unimplemented, text)));
        }
        self.caller = request.metadata_value(trace_log::CALLER_KEY).map(str::to_owned);
        let body = request.payload.as_slice();
        let outcome = match request.method.as_str() {
            "State" => decode(body).and_then(|r| self.state(&r)),
            "Create" => decode(body).and_then(|r| self.create(to, r)),
            "Start" => decode(body).and_then(|r| self.start(to, &r)),
            "Delete" => decode(body).and_then(|r| self.delete(to, &r)),
            "Pids" => decode(body).and_then(|r| self.pids(&r)),
            "Pause" => decode(body).and_then(|r: api::PauseRequest| {
                let target = self.admit(&r.id, "", Verb::Pause)?;
                self.begin_pause(target, to).map(|()| None)
            }),
            "Resume" => decode(body).and_then(|r: api::ResumeRequest| {
                let target = self.admit(&r.id, "", Verb::Resume)?;
                self.begin_resume(target, to).map(|()| None)
            }),
            "Kill" => decode(body).and_then(|r| self.kill(to, &r)),
            "Exec" => decode(body).and_then(|r| self.exec(r)),
            "ResizePty" => decode(body).and_then(|r| self.resize(&r)),
            "CloseIO" => decode(body).and_then(|r| self.close_io(&r)),
            "Update" => decode(body).and_then(|r| self.update(to, r)),
            "Wait" => decode(body).and_then(|r| self.wait(to, &r)),
            "Stats" => decode(body).and_then(|r| self.stats(&r)),
            "Connect" => decode(body).and_then(|r| self.connect(&r)),
            "Shutdown" => decode(body).and_then(|r| self.shutdown(&r)),
            "Checkpoint" => Err(TaskError::Unimplemented("checkpoint".to_owned())),
            other => Err(TaskError::Unimplemented(format!("method {other}"))),
        };
        match outcome {
            Ok(Some(answer)) => self.answer(to, Ok(answer)),
            Ok(None) => {}
            Err(error) => self.answer(to, Err(error.to_status())),
        }
    }

    pub(crate) fn reply(&mut self, to: Option<ReplyTo>, result: Result<Vec<u8>, TaskError>) {
        if let Some(to) = to {
            self.answer(to, result.map_err(|error| error.to_status()));
        }
    }

    pub(crate) fn container(&self, id: &str) -> Result<&Container, TaskError> {
        self.containers.get(id).ok_or_else(|| TaskError::NoContainer(id.to_owned()))
    }

    pub(crate) fn container_mut(&mut self, id: &str) -> Result<&mut Container, TaskError> {
        self.containers.get_mut(id).ok_or_else(|| TaskError::NoContainer(id.to_owned()))
    }

    fn process(&self, id: &ProcessId) -> Result<&Process, TaskError> {
        self.container(&id.container)?.process(&id.exec)
    }

    pub(crate) fn process_mut(&mut self, id: &ProcessId) -> Result<&mut Process, TaskError> {
        self.container_mut(&id.container)?.process_mut(&id.exec)
    }

    fn admit(&self, container: &str, exec: &str, verb: Verb) -> Result<ProcessId, TaskError> {
        let id = ProcessId::new(container, exec);
        self.process(&id)?.state.admit(verb)?;
        Ok(id)
    }

    // Requests.

    fn state(&self, request: &api::StateRequest) -> Outcome {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let exit = process.exit();
        let StdioSpec { stdin, stdout, stderr, terminal } = process.stdio.clone();
        done(&api::StateResponse {
            id: ProcessId::new(&request.id, &request.exec_id).event_id().to_owned(),
            bundle: container.bundle.to_string_lossy().into_owned(),
            pid: process.pid,
            status: process.state.to_wire(),
            stdin,
            stdout,
            stderr,
            terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| exit.at.into()),
            exec_id: request.exec_id.clone(),
        })
    }

    fn create(&mut self, to: ReplyTo, request: api::CreateTaskRequest) -> Outcome {
        if self.is_stopping() {
            return Err(TaskError::Stopping);
        }
        if self.containers.contains_key(&request.id) {
            return Err(TaskError::ContainerExists(request.id));
        }
        if request.id.is_empty() || request.id.contains('/') {
            return Err(TaskError::Invalid(format!("container id {:?}", request.id)));
        }
        if !request.checkpoint.is_empty() {
            return Err(TaskError::Unimplemented("restore from a checkpoint".to_owned()));
        }
        let begun = trace_log::now();
        let bundle = PathBuf::from(&request.bundle);
        if !bundle.is_absolute() {
            return Err(TaskError::Invalid(format!("bundle {:?} is not absolute", request.bundle)));
        }
        let options = request.options.as_ref().filter(|any| proto::any::is::<Options>(any));
        let options = match options {
            Some(any) => RuntimeOptions::from_wire(
                proto::any::unpack(any).map_err(|error| TaskError::Invalid(error.to_string()))?,
            ),
            None => RuntimeOptions::default(),
        };
        let spec = SpecExcerpt::load(&bundle)?;
        let path = resolve_runtime(&options.binary_name, self.config.under_stock_name)?;
        replace(&bundle.join("runtime"), path.as_os_str().as_encoded_bytes())?;
        options.store(&bundle)?;
        let stdio = StdioSpec {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let container = Container {
            id: request.id.clone(),
            runtime: Runtime {
                path,
                root: options.root_of(&self.config.namespace),
                systemd_cgroup: options.systemd_cgroup,
            },
            options,
            has_own_pid_namespace: spec.has_own_pid_namespace(),
            mounted: false,
            init: Process::new(State::Creating, stdio.clone(), Vec::new()),
            execs: BTreeMap::new(),
            cgroup: None,
            trace: spec.trace().map(Box::new),
            unwanted: Vec::new(),
            bundle,
        };
        self.containers.insert(request.id.clone(), container);
        self.trace_request(to, "Create", &request.id, Some(begun));
        let event = ev::TaskCreate {
            container_id: request.id.clone(),
            bundle: request.bundle,
            rootfs: request.rootfs,
            io: Some(ev::TaskIo {
                stdin: stdio.stdin,
                stdout: stdio.stdout,
                stderr: stdio.stderr,
                terminal: stdio.terminal,
            }),
            checkpoint: String::new(),
            pid: 0,
        };
        let begun = self
            .open_streams(&ProcessId::init(&request.id), None)
            .and_then(|streams| self.begin_create(to, Box::new(Creation { event, streams })));
        if begun.is_err() {
            self.forget_container(&request.id);
        }
        begun.map(|()| None)
    }

    pub(crate) fn open_streams(
        &self,
        target: &ProcessId,
        live: Option<Listener>,
    ) -> Result<Streams, TaskError> {
        let container = self.container(&target.container)?;
        let owner = Owner {
            namespace: &self.config.namespace,
            container: &target.container,
            uid: container.options.io_uid,
            gid: container.options.io_gid,
        };
        let (child, io) = stdio::open(&container.process(&target.exec)?.stdio, &owner, live)?;
        Ok(Streams { child, io, console: None })
    }

    fn start(&mut self, to: ReplyTo, request: &api::StartRequest) -> Outcome {
        let target = self.admit(&request.id, &request.exec_id, Verb::Start)?;
        if target.exec.is_empty() {
            self.trace_request(to, "Start", &request.id, None);
        } else {
            self.admit(&request.id, "", Verb::Exec)?;
        }
        self.begin_start(target, to).map(|()| None)
    }

    pub(crate) fn started(
        &mut self,
        target: &ProcessId,
        reply: Option<ReplyTo>,
        failure: Option<TaskError>,
    ) {
        let Ok(container) = self.container_mut(&target.container) else { return };
        let pid = container.init.pid;
        if let Some(error) = failure {
            container.init.state = State::Created;
            self.reply(reply, Err(error));
        } else {
            container.init.state = State::Running;
            let event = ev::TaskStart { container_id: target.container.clone(), pid };
            self.publisher.publish("/tasks/start", &event);
            self.reply(reply, Ok(api::StartResponse { pid }.encode_to_vec()));
            self.rest_soon();
        }
        self.settle(target, false);
    }

    pub(crate) fn exec_started(
        &mut self,
        target: &ProcessId,
        reply: Option<ReplyTo>,
        pid: Result<u32, TaskError>,
    ) {
        let Ok(process) = self.process_mut(target) else { return };
        match pid {
            Ok(pid) => {
                process.pid = pid;
                process.state = State::Running;
                let event = ev::TaskExecStarted {
                    container_id: target.container.clone(),
                    exec_id: target.exec.clone(),
                    pid,
                };
                self.publisher.publish("/tasks/exec-started", &event);
                self.take_early(target, pid);
                self.reply(reply, Ok(api::StartResponse { pid }.encode_to_vec()));
                self.settle(target, false);
            }
            Err(error) => {
                // Compat: a failed exec is stopped, with 255 as its status.
                process.state = State::Stopped;
                process.told = true;
                process.reaped = Some(Exit { status: 255, at: std::time::SystemTime::now() });
                let waiters = std::mem::take(&mut process.waiters);
                let answer = wait_response(process.reaped);
                for waiter in waiters {
                    self.reply(Some(waiter), Ok(answer.clone()));
                }
                self.reply(reply, Err(error));
            }
        }
    }

    fn exec(&mut self, request: api::ExecProcessRequest) -> Outcome {
        self.admit(&request.id, "", Verb::Exec)?;
        if request.exec_id.is_empty() || request.exec_id.contains('/') {
            return Err(TaskError::Invalid(format!("exec id {:?}", request.exec_id)));
        }
        let container = self.container_mut(&request.id)?;
        if container.execs.contains_key(&request.exec_id) {
            return Err(TaskError::ExecExists(request.exec_id));
        }
        let invalid = |error: serde_json::Error| TaskError::Invalid(format!("process: {error}"));
        let spec = request.spec.unwrap_or_default().value;
        let mut spec: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&spec).map_err(invalid)?;
        spec.insert("terminal".to_owned(), request.terminal.into());
        let spec = serde_json::to_vec(&spec).map_err(invalid)?;
        let stdio = StdioSpec {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let live = stdio::listen_early(&stdio)?;
        let mut process = Process::new(State::Created, stdio, spec);
        process.live = live;
        container.execs.insert(request.exec_id.clone(), process);
        let event = ev::TaskExecAdded { container_id: request.id, exec_id: request.exec_id };
        self.publisher.publish("/tasks/exec-added", &event);
        EMPTY
    }

    fn kill(&mut self, to: ReplyTo, request: &api::KillRequest) -> Outcome {
        let target = self.admit(&request.id, &request.exec_id, Verb::Kill)?;
        let signal = i32::try_from(request.signal)
            .map_err(|_| TaskError::Invalid(format!("signal {}", request.signal)))?;
        let process = self.process(&target)?;
        if process.reaped.is_some() {
            return Err(TaskError::Finished);
        }
        // A frozen v1 cgroup has to be thawed for a kill, which the runtime knows how to do.
        let paused = process.state == State::Paused;
        if target.exec.is_empty() && (request.all || paused) {
            return self.begin_kill(target, Some(to), signal, request.all).map(|()| None);
        }
        let pid = i32::try_from(process.pid).unwrap_or(0);
        if pid <= 0 {
            return Err(TaskError::State { verb: "kill", state: "created" });
        }
        // It is our child and not reaped, so the pid is its own.
        match sys::kill(pid, signal) {
            Ok(()) => EMPTY,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(TaskError::Finished),
            Err(error) => Err(TaskError::Call { call: "kill", source: error }),
        }
    }

    pub(crate) fn delete(&mut self, to: ReplyTo, request: &api::DeleteRequest) -> Outcome {
        if request.exec_id.is_empty()
            && let container = self.container_mut(&request.id)?
            && container.init.state == State::Creating
        {
            // Whoever asked for the creation may be gone; the runtime is at work in the root all the same.
            container.unwanted.push(to);
            return Ok(None);
        }
        let target = self.admit(&request.id, &request.exec_id, Verb::Delete)?;
        let is_init = target.exec.is_empty();
        if is_init {
            self.trace_request(to, "Delete", &request.id, None);
        }
        let process = self.process_mut(&target)?;
        process.state = State::Deleting;
        let io = process.io;
        process.deleting =
            Some(Deleting { reply: to, io_closed: io.is_none(), runtime_done: !is_init });
        if let Some(key) = io {
            self.link.send(Command::Remove(key)).map_err(call_error("start io thread"))?;
        }
        if is_init && let Err(error) = self.begin_delete(target.clone()) {
            self.delete_failed(&target, error);
            return Ok(None);
        }
        self.delete_part_done(&target, |_| ());
        Ok(None)
    }

    pub(crate) fn delete_failed(&mut self, target: &ProcessId, error: TaskError) {
        let Ok(process) = self.process_mut(target) else { return };
        process.state = if process.reaped.is_some() { State::Stopped } else { State::Created };
        let reply = process.deleting.take().map(|deleting| deleting.reply);
        self.reply(reply, Err(error));
    }

    /// Answers the delete once all its parts are done.
    pub(crate) fn delete_part_done(
        &mut self,
        target: &ProcessId,
        part: impl FnOnce(&mut Deleting),
    ) {
        let Ok(process) = self.process_mut(target) else { return };
        let running = process.is_running();
        let Some(deleting) = &mut process.deleting else { return };
        part(deleting);
        if running || !deleting.io_closed || !deleting.runtime_done {
            return;
        }
        let reply = deleting.reply;
        let (pid, exit) = (process.pid, process.reaped);
        let (exit_status, exited_at) = (exit.map_or(0, |e| e.status), exit.map(|e| e.at.into()));
        if target.exec.is_empty() {
            self.publisher.publish(
                "/tasks/delete",
                &ev::TaskDelete {
                    container_id: target.container.clone(),
                    pid,
                    exit_status,
                    exited_at,
                    id: target.container.clone(),
                },
            );
            self.forget_container(&target.container);
        } else if let Ok(container) = self.container_mut(&target.container) {
            container.execs.remove(&target.exec);
        }
        let answer = api::DeleteResponse { pid, exit_status, exited_at };
        self.reply(Some(reply), Ok(answer.encode_to_vec()));
    }

    pub(crate) fn forget_container(&mut self, id: &str) {
        let Some(container) = self.containers.remove(id) else { return };
        self.forget_oom(id);
        for deleter in container.unwanted {
            self.reply(Some(deleter), Err(TaskError::NoContainer(id.to_owned())));
        }
        let processes = std::iter::once(container.init).chain(container.execs.into_values());
        for process in processes {
            if let Some(key) = process.io
                && process.deleting.is_none()
            {
                self.streams.remove(&key);
                self.link.send(Command::Remove(key)).ok();
            }
            for waiter in process.waiters {
                self.reply(Some(waiter), Err(TaskError::NoContainer(id.to_owned())));
            }
        }
    }

    fn pids(&self, request: &api::PidsRequest) -> Outcome {
        let container = self.container(&request.id)?;
        let mut pids = container.cgroup.as_ref().map(Cgroup::pids).unwrap_or_default();
        if pids.is_empty() && container.init.is_running() {
            pids = Cgroup::of(container.init.pid).map(|c| c.pids()).unwrap_or_default();
            if pids.is_empty() {
                pids.push(container.init.pid);
            }
        }
        let processes = pids
            .into_iter()
            .map(|pid| {
                let exec = container.execs.iter().find(|(_, p)| p.is_running() && p.pid == pid);
                let info =
                    exec.map(|(id, _)| proto::any::pack(&ProcessDetails { exec_id: id.clone() }));
                ProcessInfo { pid, info }
            })
            .collect();
        done(&api::PidsResponse { processes })
    }

    pub(crate) fn paused(
        &mut self,
        target: &ProcessId,
        reply: Option<ReplyTo>,
        failure: Option<TaskError>,
        state: State,
    ) {
        if let Some(error) = failure {
            return self.reply(reply, Err(error));
        }
        if let Ok(process) = self.process_mut(target)
            && process.state.is_alive()
        {
            process.state = state;
        }
        let container_id = target.container.clone();
        if state == State::Paused {
            self.publisher.publish("/tasks/paused", &ev::TaskPaused { container_id });
        } else {
            self.publisher.publish("/tasks/resumed", &ev::TaskResumed { container_id });
        }
        self.reply(reply, Ok(Vec::new()));
    }

    fn resize(&mut self, request: &api::ResizePtyRequest) -> Outcome {
        let target = self.admit(&request.id, &request.exec_id, Verb::Resize)?;
        let size = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        // Compat: resizing what has no terminal is no error.
        if let Some(master) = &self.process(&target)?.master {
            let window = Winsize {
                ws_row: size(request.height),
                ws_col: size(request.width),
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            rustix::termios::tcsetwinsize(master, window).map_err(call_error("resize"))?;
        }
        EMPTY
    }

    fn close_io(&mut self, request: &api::CloseIoRequest) -> Outcome {
        let process = self.container_mut(&request.id)?.process_mut(&request.exec_id)?;
        if let Some(stdin) = &mut process.stdin {
            stdin.closed |= request.stdin;
            return EMPTY;
        }
        let io = process.io;
        if let Some(key) = io.filter(|_| request.stdin) {
            self.link.send(Command::CloseStdin(key)).map_err(call_error("start io thread"))?;
        }
        EMPTY
    }

    fn update(&mut self, to: ReplyTo, request: api::UpdateTaskRequest) -> Outcome {
        let target = self.admit(&request.id, "", Verb::Update)?;
        let resources = request.resources.unwrap_or_default().value;
        self.begin_update(target, to, &resources).map(|()| None)
    }

    fn wait(&mut self, to: ReplyTo, request: &api::WaitRequest) -> Outcome {
        let process = self.container_mut(&request.id)?.process_mut(&request.exec_id)?;
        if process.exit().is_some() {
            return Ok(Some(wait_response(process.exit())));
        }
        process.waiters.push(to);
        if request.exec_id.is_empty() {
            self.trace_request(to, "Wait", &request.id, None);
        }
        Ok(None)
    }

    fn stats(&self, request: &api::StatsRequest) -> Outcome {
        let container = self.container(&request.id)?;
        let found = container.cgroup.clone().or_else(|| Cgroup::of(container.init.pid));
        let cgroup = found.ok_or(TaskError::NotCreated)?;
        done(&api::StatsResponse { stats: Some(stats::read(&cgroup)) })
    }

    fn connect(&self, request: &api::ConnectRequest) -> Outcome {
        let task_pid = self.container(&request.id).map_or(0, |container| container.init.pid);
        done(&api::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    fn shutdown(&mut self, _request: &api::ShutdownRequest) -> Outcome {
        // Compat: a pod's shim stays while it has containers, and says nothing about it.
        if self.containers.is_empty() {
            self.stop();
        }
        EMPTY
    }
}

fn decode<M: Message + Default>(body: &[u8]) -> Result<M, TaskError> {
    Ok(M::decode(body)?)
}

pub(crate) fn wait_response(exit: Option<Exit>) -> Vec<u8> {
    api::WaitResponse {
        exit_status: exit.map_or(0, |exit| exit.status),
        exited_at: exit.map(|exit| exit.at.into()),
    }
    .encode_to_vec()
}
