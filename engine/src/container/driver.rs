//! The owner of one container: takes commands in order, asks the table, does it, tells the world.

mod removal;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proto::containerd::services::tasks::v1 as tasks_api;
use tokio::sync::{mpsc, oneshot};
use trace_log::task::{Here, span, within};

use super::health::{self, Probing};
use super::lifecycle::{self, Decision, Phase, Wish, decide};
use super::start::{Layer, Run};
use super::{Container, ContainerError, create, start};
use crate::app::App;
use crate::store::Durability;
use crate::trace::{self, Trace};

type Reply = oneshot::Sender<Result<(), ContainerError>>;

/// What an owner can be asked.
#[derive(Debug)]
pub(super) enum Command {
    Start {
        by_policy: bool,
        /// Of this run, and where in it the start stands.
        trace: Option<(Arc<Trace>, Option<Here>)>,
        reply: Option<Reply>,
    },
    /// Signal with the intent that it ends: policies hold still.
    Stop {
        signal: i32,
        reply: Reply,
    },
    Kill {
        signal: i32,
        reply: Reply,
    },
    Pause {
        reply: Reply,
    },
    Unpause {
        reply: Reply,
    },
    Remove {
        force: bool,
        volumes: bool,
        reply: Reply,
    },
    /// A release or a removal that failed half-way is due again.
    ReleaseAgain,
    RemoveAgain,
    /// The engine was restarted and the process lives.
    Adopted,
    /// The engine was restarted and no process of the container lives.
    Recover(Then),
    /// The process has ended.
    Exited {
        code: i64,
        at: String,
        oom: bool,
    },
}

/// What follows once everything is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Rest,
    /// By the restart policy.
    Start,
    Remove {
        volumes: bool,
    },
}

struct Owner {
    app: Arc<App>,
    container: Arc<Container>,
    /// When the next start by policy is due.
    restart_at: Option<tokio::time::Instant>,
    backoff: u64,
    /// Removal that waits for the exit.
    removal: Option<(bool, Vec<Reply>)>,
    /// What failed half-way, because something below was away, is tried again.
    release_again: Option<Again>,
    remove_again: Option<Again>,
    /// A stop was asked for: its event follows the exit.
    stopping: bool,
    probing: Option<Probing>,
    oom: bool,
    /// Of the run.
    trace: Option<Arc<Trace>>,
}

/// When, and after which pause in milliseconds.
#[derive(Clone, Copy)]
struct Again {
    at: tokio::time::Instant,
    pause: u64,
}

impl Again {
    fn after(previous: Option<Self>) -> Self {
        let pause = lifecycle::backoff(previous.map_or(0, |again| again.pause), 0);
        Self { at: tokio::time::Instant::now() + Duration::from_millis(pause), pause }
    }
}

pub(super) fn spawn(app: Arc<App>, container: Arc<Container>, mut inbox: mpsc::Receiver<Command>) {
    tokio::spawn(async move {
        let mut owner = Owner {
            app,
            container,
            restart_at: None,
            backoff: 0,
            removal: None,
            release_again: None,
            remove_again: None,
            stopping: false,
            probing: None,
            oom: false,
            trace: None,
        };
        loop {
            let unsaved = owner.container.unsaved.load(Ordering::Relaxed);
            let command = tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => command,
                    None => return,
                },
                () = due(owner.restart_at) => {
                    Command::Start { by_policy: true, trace: None, reply: None }
                },
                () = due(owner.release_again.map(|again| again.at)) => Command::ReleaseAgain,
                () = due(owner.remove_again.map(|again| again.at)) => Command::RemoveAgain,
                () = tokio::time::sleep(SAVE_AGAIN), if unsaved => {
                    if owner.container.save().is_ok() {
                        tracing::info!(container = owner.container.id, "its record is written");
                    }
                    continue;
                }
            };
            // Boxed: a container that only runs is not to hold the room of all it may ever do.
            if Box::pin(owner.handle(command)).await {
                return;
            }
        }
    });
}

/// Waits for the moment, if there is one.
async fn due(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// How long a disk that did not take a record is left alone.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

impl Owner {
    /// True when the container is gone.
    async fn handle(&mut self, command: Command) -> bool {
        match command {
            Command::Start { by_policy, trace, reply } => {
                let (trace, here) = trace.unzip();
                if !self.container.phase().has_process() {
                    self.trace = trace;
                }
                let result = within(here.flatten(), self.start(by_policy)).await;
                if let Err(error) = &result
                    && by_policy
                {
                    tracing::error!(container = self.container.id, "restart: {error}");
                }
                let failed = result.is_err() && !matches!(result, Err(ContainerError::Already));
                // Compat: `--rm` has removed it before the failure is told.
                let gone = failed
                    && self.container.record().host_config.auto_remove
                    && self.remove(true, false).await.is_ok();
                if let Some(reply) = reply {
                    drop(reply.send(result));
                }
                return gone;
            }
            Command::Stop { signal, reply } => {
                let result = self.signal(signal, Wish::Stop).await;
                drop(reply.send(result));
            }
            Command::Kill { signal, reply } => {
                let result = self.signal(signal, Wish::Kill).await;
                drop(reply.send(result));
            }
            Command::Pause { reply } => {
                let result = self.pause().await;
                drop(reply.send(result));
            }
            Command::Unpause { reply } => {
                let result = self.unpause().await;
                drop(reply.send(result));
            }
            Command::Remove { force, volumes, reply } => {
                return self.ask_remove(force, volumes, reply).await;
            }
            Command::ReleaseAgain => {
                let again = self.release_again.take();
                if self.container.record().state.unclean && !self.container.phase().has_process() {
                    self.release(Run::Broken, Layer::Keep, again).await;
                }
            }
            Command::RemoveAgain => {
                let volumes = self.container.record().state.remove_volumes;
                return self.remove(volumes, false).await.is_ok();
            }
            Command::Adopted => {
                if self.container.phase() == Phase::Running {
                    self.probing = Probing::start(&self.app, &self.container);
                }
            }
            Command::Recover(then) => return self.recover(then).await,
            Command::Exited { code, at, oom } => {
                let trace = self.trace.take();
                let gone = trace::after(trace.as_ref(), "exit", self.exited(code, at, oom)).await;
                if let Some(trace) = trace {
                    trace.end();
                }
                return gone;
            }
        }
        false
    }

    fn decide(&self, wish: Wish) -> Result<Decision, ContainerError> {
        match decide(self.container.phase(), wish) {
            Decision::Refuse(refusal) => {
                let name = self.container.record().name.clone();
                Err(ContainerError::refused(refusal, &self.container.id, &name))
            }
            decision => Ok(decision),
        }
    }

    async fn start(&mut self, by_policy: bool) -> Result<(), ContainerError> {
        self.restart_at = None;
        if by_policy {
            if self.container.phase() != Phase::Restarting {
                return Ok(());
            }
        } else {
            if self.decide(Wish::Start)? == Decision::Already {
                return Err(ContainerError::Already);
            }
            self.backoff = 0;
        }
        if self.container.record().state.unclean {
            self.release(Run::Broken, Layer::Keep, None).await;
            if self.container.record().state.unclean {
                if by_policy {
                    self.restart_at = self.release_again.map(|again| again.at);
                }
                return Err(self.task_stays());
            }
        }
        self.release_again = None;
        let before = self.container.phase();
        // Before the first mount: an engine that finds this after a kill releases what was made.
        self.container.change(Durability::Written, |record| {
            record.state.unclean = true;
            record.state.starting = create::now();
            record.attached = None;
        })?;
        let error = match self.bring_up(by_policy).await {
            Ok(()) => {
                self.oom = false;
                self.container.announce(|snapshot| snapshot.clean = false);
                self.container.event(&self.app, "start", &[]);
                if let Some(trace) = &self.trace {
                    trace.begin();
                }
                watch_exit(&self.app, &self.container, self.trace.as_ref());
                self.probing = Probing::start(&self.app, &self.container);
                return Ok(());
            }
            Err(error) => error,
        };
        self.release(Run::Broken, Layer::Keep, None).await;
        let code = match &error {
            ContainerError::Start { exit_code, .. } => *exit_code,
            _ => 128,
        };
        self.container.note(Durability::Written, |record| {
            let state = &mut record.state;
            state.phase = if before == Phase::Created { before } else { Phase::Exited };
            state.exit_code = code;
            state.error = error.to_string();
            state.pid = 0;
        });
        self.container.announce(|snapshot| {
            snapshot.exits += 1;
            snapshot.clean = true;
        });
        Err(error)
    }

    fn task_stays(&self) -> ContainerError {
        let id = &self.container.id;
        ContainerError::System(format!("container {id}: its task cannot be deleted now"))
    }

    /// Starts the process and writes that down; one that cannot be written down does not run on.
    async fn bring_up(&self, by_policy: bool) -> Result<(), ContainerError> {
        let pid = start::start(&self.app, &self.container).await?;
        // After a power cut nothing runs; that it did matters to who is to be started again.
        let policy = self.container.record().host_config.restart_policy.name.clone();
        let durability = match policy.as_str() {
            "" | "no" => Durability::Written,
            _ => Durability::Synced,
        };
        self.container.change(durability, |record| {
            let state = &mut record.state;
            state.phase = Phase::Running;
            state.pid = pid;
            state.exit_code = 0;
            state.error.clear();
            state.oom_killed = false;
            state.started_at = create::now();
            state.stopped_by_user = false;
            state.starting.clear();
            state.health = health::begin(&record.config, state.health.take());
            record.populated = true;
            record.restart_count = if by_policy { record.restart_count + 1 } else { 0 };
        })
    }

    /// Releases what a run held; answers whether the layer is gone. What cannot be released now is later.
    async fn release(&mut self, run: Run, layer: Layer, again: Option<Again>) -> bool {
        let released = start::release(&self.app, &self.container, run, layer).await;
        self.release_again = (!released.clean).then(|| Again::after(again));
        self.container.note(Durability::Written, |record| {
            record.state.unclean = !released.clean;
            record.state.starting.clear();
        });
        released.layer_gone
    }

    async fn signal(&mut self, signal: i32, wish: Wish) -> Result<(), ContainerError> {
        match self.decide(wish) {
            Ok(Decision::Already) => return Err(ContainerError::Already),
            Ok(Decision::CancelRestart) => {
                self.restart_at = None;
                self.container.note(Durability::Synced, |record| {
                    record.state.phase = Phase::Exited;
                    record.state.stopped_by_user = true;
                });
                self.container.announce(|snapshot| snapshot.clean = true);
                if wish == Wish::Stop {
                    self.container.event(&self.app, "stop", &[]);
                }
                return Ok(());
            }
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        let named = {
            let record = self.container.record();
            record.config.stop_signal.as_deref().and_then(crate::sys::signal::parse)
        };
        let stop_signal = named.unwrap_or(15);
        if wish == Wish::Stop || signal == 9 || signal == stop_signal {
            self.container.note(Durability::Written, |record| record.state.stopped_by_user = true);
        }
        let request = tasks_api::KillRequest {
            container_id: self.container.id.clone(),
            signal: u32::try_from(signal).unwrap_or_default(),
            ..tasks_api::KillRequest::default()
        };
        match self.app.containerd.tasks().kill(request).await {
            Ok(_) => {}
            // It has just ended; the exit is on its way.
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => return Err(ContainerError::containerd("cannot kill container")(status)),
        }
        self.container.event(&self.app, "kill", &[("signal", signal.to_string())]);
        self.stopping |= wish == Wish::Stop;
        // Compat: every signal wakes a paused container, unless it has a stop signal and this is another.
        if self.container.phase() == Phase::Paused
            && (signal == 9 || wish == Wish::Stop || named.is_none_or(|named| named == signal))
        {
            // What is killed is not told to be unpaused: mostly it has ended by now.
            let thawed = if signal == 9 { self.thaw().await } else { self.unpause().await };
            if let Err(error) = thawed {
                tracing::debug!(container = self.container.id, "after the kill: {error}");
            }
        }
        Ok(())
    }

    async fn pause(&mut self) -> Result<(), ContainerError> {
        self.decide(Wish::Pause)?;
        let request = tasks_api::PauseTaskRequest { container_id: self.container.id.clone() };
        self.app
            .containerd
            .tasks()
            .pause(request)
            .await
            .map_err(ContainerError::containerd("cannot pause container"))?;
        self.probing = None;
        self.container.note(Durability::Written, |record| {
            record.state.phase = Phase::Paused;
            record.state.health = health::end(record.state.health.take());
        });
        self.container.announce(|_| {});
        self.container.event(&self.app, "pause", &[]);
        Ok(())
    }

    async fn unpause(&mut self) -> Result<(), ContainerError> {
        self.decide(Wish::Unpause)?;
        self.thaw().await?;
        self.container.note(Durability::Written, |record| record.state.phase = Phase::Running);
        self.container.announce(|_| {});
        self.container.event(&self.app, "unpause", &[]);
        self.probing = Probing::start(&self.app, &self.container);
        Ok(())
    }

    async fn thaw(&self) -> Result<(), ContainerError> {
        let request = tasks_api::ResumeTaskRequest { container_id: self.container.id.clone() };
        let resumed = self.app.containerd.tasks().resume(request).await;
        resumed.map(drop).map_err(ContainerError::containerd("cannot unpause container"))
    }

    /// True when the container is gone.
    async fn recover(&mut self, then: Then) -> bool {
        if self.container.record().state.unclean {
            self.release(Run::Broken, Layer::Keep, None).await;
            self.container.announce(|snapshot| snapshot.clean = true);
        }
        let done = match then {
            Then::Rest => {
                if self.container.phase() == Phase::Restarting {
                    self.restart_at = Some(tokio::time::Instant::now());
                }
                return false;
            }
            Then::Start => self.start(false).await.map(|()| false),
            Then::Remove { volumes } => self.remove(volumes, false).await.map(|()| true),
        };
        done.unwrap_or_else(|error| {
            tracing::warn!(container = self.container.id, "after the restart: {error}");
            false
        })
    }

    /// True when the container is gone.
    async fn exited(&mut self, code: i64, at: String, oom: bool) -> bool {
        if !self.container.phase().has_process() {
            return false;
        }
        let (policy, retries, count, by_user, auto_remove, ran) = {
            let record = self.container.record();
            let policy = &record.host_config.restart_policy;
            (
                policy.name.clone(),
                policy.maximum_retry_count,
                record.restart_count,
                record.state.stopped_by_user,
                record.host_config.auto_remove,
                seconds_between(&record.state.started_at, &at),
            )
        };
        let again = self.removal.is_none()
            && lifecycle::restarts(&policy, retries, code, count, by_user)
            && !self.app.shutdown.is_cancelled();
        let oom = oom || self.oom;
        self.probing = None;
        // Compat: whoever is told of the end finds the whole log.
        span("drain output", self.app.outputs.finish(&self.container.id)).await;
        self.container.note(Durability::Synced, |record| {
            let state = &mut record.state;
            state.phase = if again { Phase::Restarting } else { Phase::Exited };
            state.pid = 0;
            state.exit_code = code;
            state.finished_at.clone_from(&at);
            state.oom_killed = oom;
            state.health = health::end(state.health.take());
        });
        self.container.announce(|snapshot| {
            snapshot.exits += 1;
            snapshot.held = true;
        });
        self.container.event(
            &self.app,
            "die",
            &[("exitCode", code.to_string()), ("execDuration", ran.to_string())],
        );
        // The record says so already: an engine that is killed here goes on with it.
        let layer = if auto_remove && !again { Layer::Remove } else { Layer::Keep };
        let layer_gone = span("release", self.release(Run::Ended, layer, None)).await;
        if std::mem::take(&mut self.stopping) {
            self.container.event(&self.app, "stop", &[]);
        }
        self.container.announce(|snapshot| snapshot.clean = true);
        if let Some((volumes, replies)) = self.removal.take() {
            let result = self.remove(volumes, layer_gone).await;
            let gone = result.is_ok();
            removal::tell(replies, result);
            return gone;
        }
        if again {
            self.backoff = lifecycle::backoff(self.backoff, ran);
            self.restart_at =
                Some(tokio::time::Instant::now() + Duration::from_millis(self.backoff));
            return false;
        }
        if auto_remove {
            match span("remove", self.remove(true, layer_gone)).await {
                Ok(()) => return true,
                Err(error) => tracing::error!(container = self.container.id, "--rm: {error}"),
            }
        }
        false
    }
}

/// Waits for the process below and tells the owner, across restarts of containerd.
pub(super) fn watch_exit(app: &Arc<App>, container: &Arc<Container>, trace: Option<&Arc<Trace>>) {
    let (app, container) = (Arc::clone(app), Arc::clone(container));
    let watch = async move {
        let request =
            tasks_api::WaitRequest { container_id: container.id.clone(), exec_id: String::new() };
        loop {
            let command = match app.containerd.tasks().wait(request.clone()).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    let at = answer.exited_at.map_or_else(create::now, |at| {
                        docker_api::time::rfc3339_nano(at.seconds, at.nanos)
                    });
                    Command::Exited { code: i64::from(answer.exit_status), at, oom: false }
                }
                Err(status) if status.code() == tonic::Code::NotFound => {
                    // Compat: dockerd's code for an end nobody saw.
                    Command::Exited { code: 255, at: create::now(), oom: false }
                }
                Err(status) => {
                    tracing::debug!(container = container.id, "wait: {}", status.message());
                    tokio::select! {
                        () = app.shutdown.cancelled() => return,
                        () = tokio::time::sleep(Duration::from_millis(100)) => continue,
                    }
                }
            };
            drop(container.commands.send(command).await);
            return;
        }
    };
    tokio::spawn(trace::after(trace, "run", watch));
}

fn seconds_between(from: &str, to: &str) -> i64 {
    match (docker_api::time::parse_rfc3339(from), docker_api::time::parse_rfc3339(to)) {
        (Some((from, _)), Some((to, _))) => (to - from).max(0),
        _ => 0,
    }
}
