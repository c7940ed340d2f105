//! Execs: more processes in a running container. Kept in memory; they end with the engine's
//! knowledge of them, not with the engine's life (the shim holds the process).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use docker_api::exec::{ExecCreateRequest, ExecInspect, ProcessConfig};
use proto::containerd::services::tasks::v1 as tasks_api;
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::app::App;
use crate::container::attach::{Input, Output};
use crate::container::error::ContainerError;
use crate::container::lifecycle::Phase;
use crate::container::output::Fifos;
use crate::container::rootfs::blocking;
use crate::container::{Container, spec};
use crate::sys;

/// All execs.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    table: Mutex<HashMap<String, Arc<Exec>>>,
}

/// One exec.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) container_id: String,
    pub(crate) request: ExecCreateRequest,
    pub(crate) state: watch::Sender<ExecState>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ExecState {
    pub(crate) claimed: bool,
    pub(crate) running: bool,
    pub(crate) pid: u32,
    pub(crate) exit_code: Option<i64>,
}

impl Execs {
    fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `POST /containers/{id}/exec`.
    pub(crate) fn create(
        &self,
        app: &App,
        container: &Container,
        request: ExecCreateRequest,
    ) -> Result<String, ContainerError> {
        let phase = container.phase();
        check_running(container, phase)?;
        if request.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(ContainerError::Invalid("No exec command specified".to_owned()));
        }
        crate::container::attach::detach_keys(&request.detach_keys)?;
        let id = sys::dirs::random_id()
            .map_err(|error| ContainerError::Invalid(format!("random bytes: {error}")))?;
        let command = told(request.cmd.as_deref().unwrap_or_default());
        let exec = Arc::new(Exec {
            id: id.clone(),
            container_id: container.id.clone(),
            request,
            state: watch::Sender::default(),
        });
        self.table().insert(id.clone(), exec);
        container.event(app, &format!("exec_create: {command}"), &[("execID", id.clone())]);
        Ok(id)
    }

    /// By id or unique prefix.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Exec>, ContainerError> {
        self.table().get(id).cloned().ok_or_else(|| ContainerError::NoExec(id.to_owned()))
    }

    /// Ids of a container's unfinished execs.
    pub(crate) fn of_container(&self, container_id: &str) -> Vec<String> {
        self.table()
            .values()
            .filter(|exec| {
                exec.container_id == container_id && exec.state.borrow().exit_code.is_none()
            })
            .map(|exec| exec.id.clone())
            .collect()
    }

    pub(crate) fn forget_container(&self, container_id: &str) {
        self.table().retain(|_, exec| exec.container_id != container_id);
    }
}

fn check_running(container: &Container, phase: Phase) -> Result<(), ContainerError> {
    match phase {
        Phase::Running => Ok(()),
        Phase::Paused => Err(ContainerError::Conflict(format!(
            "Container {} is paused, unpause the container before exec",
            container.record().name
        ))),
        Phase::Restarting => Err(ContainerError::Conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        ))),
        _ => Err(ContainerError::Conflict(format!("container {} is not running", container.id))),
    }
}

impl Exec {
    /// The exec's live output and stdin.
    pub(crate) fn paths(&self, app: &App, container: &Container) -> (PathBuf, PathBuf) {
        let attach = app.config.exec_root.join("a").join(format!("{}.s", &self.id[..20]));
        (attach, container.paths.run.join(format!("{}-stdin", &self.id[..20])))
    }

    fn fifos(&self, container: &Container) -> Fifos {
        Fifos::new(&container.paths.run, &format!("{}-", &self.id[..20]), self.request.tty)
    }

    /// Claims the start: an exec runs once.
    pub(crate) fn claim(&self, container: &Container) -> Result<(), ContainerError> {
        check_running(container, container.phase())?;
        let mut first = false;
        self.state.send_if_modified(|state| {
            first = !state.claimed;
            state.claimed = true;
            false
        });
        if first {
            return Ok(());
        }
        let running = self.state.borrow().running;
        Err(ContainerError::Conflict(if running {
            format!("exec {} is already running", self.id)
        } else {
            format!("exec command {} has already run", self.id)
        }))
    }

    /// Starts the process; answers its live output.
    pub(crate) async fn start(
        self: &Arc<Self>,
        app: &Arc<App>,
        container: &Arc<Container>,
    ) -> Result<Output, ContainerError> {
        let started = self.steps(app, container).await;
        if let Err(error) = &started {
            let code = match error {
                ContainerError::Start { exit_code, .. } => *exit_code,
                _ => 126,
            };
            self.state.send_modify(|state| state.exit_code = Some(code));
            self.release(app, container).await;
        }
        started
    }

    async fn steps(
        self: &Arc<Self>,
        app: &Arc<App>,
        container: &Arc<Container>,
    ) -> Result<Output, ContainerError> {
        let record = container.record().clone();
        let (attach, fifo) = self.paths(app, container);
        let request = self.request.clone();
        let (config, rootfs) = (Arc::clone(&app.config), container.paths.rootfs.clone());
        let apparmor = app.apparmor;
        let (own_fifo, run) = (fifo.clone(), container.paths.run.clone());
        let process = blocking(move || {
            let inside = sys::inside::Inside::open(&rootfs)
                .map_err(ContainerError::io(format!("open {}", rootfs.display())))?;
            let user = if request.user.is_empty() { &record.config.user } else { &request.user };
            let groups = record.host_config.group_add.clone().unwrap_or_default();
            let user = spec::user::resolve(&inside, user, &groups)?;
            if request.attach_stdin {
                std::fs::create_dir_all(&run)
                    .map_err(ContainerError::io(format!("create {}", run.display())))?;
                crate::container::make_fifo(&own_fifo)?;
            }
            let profile = apparmor.confine(&record.host_config)?;
            let process = spec::exec_process(&record, &config, &request, user, profile)?;
            Ok(serde_json::to_vec(&process).unwrap_or_default())
        })
        .await?;
        let mut uri = container_log::uri::LogUri::new(container.paths.run.join("exec.log"));
        uri.attach = Some(attach.clone());
        uri.discard = true;
        let output = app.outputs.prepare(&self.id, uri, self.fifos(container)).await?;
        let mut tasks = app.containerd.tasks();
        tasks
            .exec(tasks_api::ExecProcessRequest {
                container_id: self.container_id.clone(),
                exec_id: self.id.clone(),
                stdin: if self.request.attach_stdin {
                    fifo.to_string_lossy().into_owned()
                } else {
                    String::new()
                },
                stderr: output.stderr,
                stdout: output.stdout,
                terminal: self.request.tty,
                spec: Some(proto::any::pack_json(proto::any::TYPE_PROCESS, process)),
            })
            .await
            .map_err(exec_error)?;
        // Whoever keeps the output listens since Exec: connected now, nothing of it can be missed.
        let started = async {
            let stream = UnixStream::connect(&attach)
                .await
                .map_err(ContainerError::io(format!("attach {}", attach.display())))?;
            let request = tasks_api::StartRequest {
                container_id: self.container_id.clone(),
                exec_id: self.id.clone(),
            };
            let answer = tasks.start(request).await.map_err(exec_error)?;
            Ok((stream, answer.into_inner().pid))
        };
        let (stream, pid) = match started.await {
            Ok(started) => started,
            Err(error) => {
                self.delete(app).await;
                return Err(error);
            }
        };
        self.state.send_modify(|state| {
            state.running = true;
            state.pid = pid;
        });
        let command = told(self.request.cmd.as_deref().unwrap_or_default());
        container.event(app, &format!("exec_start: {command}"), &[("execID", self.id.clone())]);
        self.watch(app, container);
        Ok(Output::Now(stream))
    }

    /// What the client types goes here.
    pub(crate) fn input(
        &self,
        app: &App,
        container: &Container,
        detach_keys: Vec<u8>,
    ) -> Option<Input> {
        self.request.attach_stdin.then(|| Input {
            fifo: self.paths(app, container).1,
            container_id: self.container_id.clone(),
            exec_id: self.id.clone(),
            close: true,
            detach_keys: if self.request.tty { detach_keys } else { Vec::new() },
        })
    }

    fn watch(self: &Arc<Self>, app: &Arc<App>, container: &Arc<Container>) {
        let (exec, app, container) = (Arc::clone(self), Arc::clone(app), Arc::clone(container));
        tokio::spawn(async move {
            let request = tasks_api::WaitRequest {
                container_id: exec.container_id.clone(),
                exec_id: exec.id.clone(),
            };
            let code = loop {
                match app.containerd.tasks().wait(request.clone()).await {
                    Ok(answer) => break i64::from(answer.into_inner().exit_status),
                    Err(status) if status.code() == tonic::Code::NotFound => break 255,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
                }
            };
            exec.state.send_modify(|state| {
                state.running = false;
                state.exit_code = Some(code);
            });
            container.event(
                &app,
                "exec_die",
                &[("exitCode", code.to_string()), ("execID", exec.id.clone())],
            );
            exec.delete(&app).await;
            exec.release(&app, &container).await;
            // The client asks for the code after the stream has closed.
            tokio::time::sleep(std::time::Duration::from_secs(300)).await;
            app.execs.table().remove(&exec.id);
        });
    }

    async fn delete(&self, app: &App) {
        app.outputs.finish(&self.id).await;
        let request = tasks_api::DeleteProcessRequest {
            container_id: self.container_id.clone(),
            exec_id: self.id.clone(),
        };
        if let Err(status) = app.containerd.tasks().delete_process(request).await
            && status.code() != tonic::Code::NotFound
        {
            tracing::debug!(exec = self.id, "delete exec: {}", status.message());
        }
    }

    async fn release(&self, app: &App, container: &Container) {
        let (attach, fifo) = self.paths(app, container);
        drop(tokio::fs::remove_file(attach).await);
        drop(tokio::fs::remove_file(fifo).await);
        app.outputs.finish(&self.id).await;
        self.fifos(container).remove();
    }

    /// `GET /exec/{id}/json`.
    pub(crate) fn inspect(&self) -> ExecInspect {
        let state = self.state.borrow().clone();
        let request = &self.request;
        let mut words = request.cmd.clone().unwrap_or_default();
        let entrypoint = if words.is_empty() { String::new() } else { words.remove(0) };
        ExecInspect {
            id: self.id.clone(),
            running: state.running,
            exit_code: state.exit_code,
            process_config: ProcessConfig {
                tty: request.tty,
                entrypoint,
                arguments: words,
                privileged: Some(request.privileged),
                user: request.user.clone(),
            },
            open_stdin: request.attach_stdin,
            open_stderr: request.attach_stderr,
            open_stdout: request.attach_stdout,
            can_remove: false,
            container_id: self.container_id.clone(),
            detach_keys: request.detach_keys.clone(),
            pid: i64::from(state.pid),
        }
    }
}

/// Compat: as events say it, a lone word with a space behind.
fn told(command: &[String]) -> String {
    let (program, rest) = command.split_first().map_or(("", &[][..]), |(p, rest)| (p, rest));
    format!("{program} {}", rest.join(" "))
}

/// Compat: the text goes to the client's terminal, the code into inspect.
fn exec_error(status: tonic::Status) -> ContainerError {
    // Nobody has looked at the command.
    if matches!(status.code(), tonic::Code::Unavailable | tonic::Code::DeadlineExceeded) {
        return ContainerError::containerd("exec")(status);
    }
    let text = status.message();
    let has = |part: &str| text.contains(part);
    let exit_code = if has("executable file not found") || has("no such file or directory") {
        127
    } else {
        126
    };
    ContainerError::Start { message: text.to_owned(), exit_code, invalid: true }
}
