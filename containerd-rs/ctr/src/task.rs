//! Tasks: the running side of containers.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use proto::any::{TYPE_PROCESS, is, pack_json, unpack};
use proto::cgroups;
use proto::containerd::runc::v1::ProcessDetails;
use proto::containerd::services::snapshots::v1::MountsRequest;
use proto::containerd::services::tasks::v1 as tasks;
use proto::containerd::v1::types::{Process, Status};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::connection::{Client, answer, log_line};
use crate::container;
use crate::io::{Copying, RawTerminal, Streams, terminal_size};
use crate::run::streams;
use crate::table::{End, Table};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// list tasks
    #[command(visible_alias = "ls")]
    List {
        #[arg(short, long)]
        quiet: bool,
    },
    /// start a container that has been created
    Start {
        #[arg(long)]
        null_io: bool,
        #[arg(long)]
        log_uri: Option<String>,
        #[arg(long)]
        fifo_dir: Option<PathBuf>,
        #[arg(long)]
        pid_file: Option<PathBuf>,
        #[arg(short, long)]
        detach: bool,
        id: String,
    },
    /// signal a container (default: SIGTERM)
    Kill {
        #[arg(short, long, default_value = "SIGTERM")]
        signal: String,
        /// process ID or all of them
        #[arg(long)]
        exec_id: Option<String>,
        #[arg(short, long)]
        all: bool,
        id: String,
    },
    /// delete one or more tasks
    #[command(visible_aliases = ["del", "rm", "remove"])]
    Delete {
        /// force delete task process
        #[arg(short, long)]
        force: bool,
        #[arg(long)]
        exec_id: Option<String>,
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// execute additional processes in an existing container
    Exec(Exec),
    /// attach to the IO of a running container
    Attach { id: String },
    /// list processes for container
    Ps { id: String },
    /// wait for a task's end; its status is printed
    Wait {
        #[arg(long)]
        exec_id: Option<String>,
        id: String,
    },
    /// pause an existing container
    Pause { id: String },
    /// resume a paused container
    Resume { id: String },
    /// get a single data point of metrics for a task
    #[command(visible_alias = "metric")]
    Metrics { id: String },
}

#[derive(Args)]
pub(crate) struct Exec {
    /// exec specific id for the process
    #[arg(long)]
    exec_id: String,
    #[arg(short, long)]
    tty: bool,
    #[arg(short, long)]
    detach: bool,
    #[arg(long)]
    cwd: Option<String>,
    #[arg(long)]
    user: Option<String>,
    #[arg(long)]
    log_uri: Option<String>,
    #[arg(long)]
    fifo_dir: Option<PathBuf>,
    id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<String>,
}

pub(crate) async fn execute(command: Command, client: &Client, out: &mut dyn Write) -> Result<u8> {
    let mut service = client.tasks();
    match command {
        Command::List { quiet } => {
            let list = answer(service.list(tasks::ListTasksRequest::default()).await)?.tasks;
            let mut table = Table::new(&["TASK", "PID", "STATUS"], 4, 4, End::Head);
            for task in list {
                if quiet {
                    writeln!(out, "{}", task.id)?;
                } else {
                    let status = status_name(task.status());
                    table.row([task.id, task.pid.to_string(), status.to_owned()]);
                }
            }
            if !quiet {
                table.print(out)?;
            }
        }
        Command::Start { null_io, log_uri, fifo_dir, pid_file, detach, id } => {
            let spec = container::get(client, &id).await?.spec.unwrap_or_default().value;
            let spec: Value = serde_json::from_slice(&spec).context("container spec")?;
            let terminal = spec["process"]["terminal"] == true;
            let streams = streams(null_io, log_uri.as_deref(), fifo_dir.as_deref(), &id, terminal)?;
            let running = create(client, &id, streams).await?;
            if let Some(path) = pid_file {
                std::fs::write(path, running.pid.to_string())?;
            }
            if detach {
                running.detach(client).await?;
                return Ok(0);
            }
            return running.attend(client).await.map(exit_code);
        }
        Command::Kill { signal, exec_id, all, id } => {
            find(client, &id).await?;
            let request = tasks::KillRequest {
                container_id: id,
                exec_id: exec_id.unwrap_or_default(),
                signal: signal_number(&signal)?,
                all,
            };
            answer(service.kill(request).await)?;
        }
        Command::Delete { force, exec_id, ids } => {
            return delete(client, force, exec_id, ids).await;
        }
        Command::Exec(exec) => return execute_in(exec, client).await,
        Command::Attach { id } => {
            let running = Running::find(client, &id).await?;
            return running.attend(client).await.map(exit_code);
        }
        Command::Ps { id } => {
            find(client, &id).await?;
            let request = tasks::ListPidsRequest { container_id: id };
            let mut table = Table::new(&["PID", "INFO"], 1, 4, End::Open);
            for process in answer(service.list_pids(request).await)?.processes {
                let info = process.info.filter(is::<ProcessDetails>);
                let info = info.and_then(|info| unpack::<ProcessDetails>(&info).ok());
                let info = info
                    .map_or_else(|| "-".to_owned(), |info| format!("exec_id:{:?}", info.exec_id));
                table.row([process.pid.to_string(), info]);
            }
            table.print(out)?;
        }
        Command::Wait { exec_id, id } => {
            let request =
                tasks::WaitRequest { container_id: id, exec_id: exec_id.unwrap_or_default() };
            writeln!(out, "{}", answer(service.wait(request).await)?.exit_status)?;
        }
        Command::Pause { id } => {
            find(client, &id).await?;
            answer(service.pause(tasks::PauseTaskRequest { container_id: id }).await)?;
        }
        Command::Resume { id } => {
            find(client, &id).await?;
            answer(service.resume(tasks::ResumeTaskRequest { container_id: id }).await)?;
        }
        Command::Metrics { id } => metrics(client, id, out).await?,
    }
    Ok(0)
}

/// A container's task. Compat: ctr looks up both first, and fails with these sentences.
async fn find(client: &Client, id: &str) -> Result<Process> {
    container::get(client, id).await?;
    let request = tasks::GetRequest { container_id: id.to_owned(), exec_id: String::new() };
    let found = answer(client.tasks().get(request).await);
    Ok(found.context("no running task found")?.process.unwrap_or_default())
}

/// A created or running process and its streams.
pub(crate) struct Running {
    pub(crate) pid: u32,
    id: String,
    exec_id: String,
    streams: Streams,
    copying: Copying,
    started: bool,
}

/// Creates the task of a container; the snapshot's mounts go along.
pub(crate) async fn create(client: &Client, id: &str, streams: Streams) -> Result<Running> {
    let container = container::get(client, id).await?;
    let rootfs = if container.snapshot_key.is_empty() {
        Vec::new()
    } else {
        let (snapshotter, key) = (container.snapshotter, container.snapshot_key);
        answer(client.snapshots().mounts(MountsRequest { snapshotter, key }).await)?.mounts
    };
    // The shim waits for a reader before it answers.
    let copying = streams.copy();
    let request = tasks::CreateTaskRequest {
        container_id: id.to_owned(),
        rootfs,
        stdin: streams.stdin.clone(),
        stdout: streams.stdout.clone(),
        stderr: streams.stderr.clone(),
        terminal: streams.terminal,
        options: container.runtime.and_then(|runtime| runtime.options),
        ..tasks::CreateTaskRequest::default()
    };
    let pid = answer(client.tasks().create(request).await)?.pid;
    let (id, exec_id) = (id.to_owned(), String::new());
    Ok(Running { pid, id, exec_id, streams, copying, started: false })
}

impl Running {
    async fn find(client: &Client, id: &str) -> Result<Self> {
        let process = find(client, id).await?;
        let Process { pid, stdin, stdout, stderr, terminal, .. } = process;
        let streams = Streams::existing(stdin, stdout, stderr, terminal);
        let (id, copying) = (id.to_owned(), streams.copy());
        Ok(Self { pid, id, exec_id: String::new(), streams, copying, started: true })
    }

    async fn start(&self, client: &Client) -> Result<()> {
        let request =
            tasks::StartRequest { container_id: self.id.clone(), exec_id: self.exec_id.clone() };
        let Err(error) = answer(client.tasks().start(request).await) else { return Ok(()) };
        // What was created is of no use any more.
        if self.exec_id.is_empty() {
            let request = tasks::DeleteTaskRequest { container_id: self.id.clone() };
            client.tasks().delete(request).await.map(drop).unwrap_or_default();
        } else {
            let (container_id, exec_id) = (self.id.clone(), self.exec_id.clone());
            let request = tasks::DeleteProcessRequest { container_id, exec_id };
            client.tasks().delete_process(request).await.map(drop).unwrap_or_default();
        }
        Err(error)
    }

    pub(crate) async fn detach(self, client: &Client) -> Result<()> {
        self.start(client).await?;
        self.streams.keep();
        Ok(())
    }

    /// Starts it, lends it our streams and signals until its end, and deletes it; answers its status.
    pub(crate) async fn attend(mut self, client: &Client) -> Result<u32> {
        let raw = if self.streams.terminal { Some(RawTerminal::enter()?) } else { None };
        let wait =
            tasks::WaitRequest { container_id: self.id.clone(), exec_id: self.exec_id.clone() };
        let mut waiter = client.tasks();
        let ended = tokio::spawn(async move { waiter.wait(wait).await });
        if !self.started {
            self.start(client).await?;
        }
        self.resize(client).await;
        let mut window = signal(SignalKind::window_change())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::pin!(ended);
        let status = loop {
            tokio::select! {
                result = &mut ended => break answer(result?)?.exit_status,
                () = self.copying.input_ended() => self.close_input(client).await,
                _ = window.recv() => self.resize(client).await,
                _ = terminate.recv() => self.forward(client, libc::SIGTERM).await,
                _ = interrupt.recv() => self.forward(client, libc::SIGINT).await,
                _ = hangup.recv() => self.forward(client, libc::SIGHUP).await,
            }
        };
        let (container_id, exec_id) = (self.id, self.exec_id);
        let mut service = client.tasks();
        // Compat: with an init all its processes are gone, so its output has an end. What an exec
        // leaves behind may hold the output; deleting the exec ends it on the shim's side.
        if exec_id.is_empty() {
            self.copying.drain().await;
            drop(raw);
            answer(service.delete(tasks::DeleteTaskRequest { container_id }).await)?;
        } else {
            let request = tasks::DeleteProcessRequest { container_id, exec_id };
            answer(service.delete_process(request).await)?;
            self.copying.drain().await;
        }
        Ok(status)
    }

    // The next three are on behalf of a process that may be gone at any moment: its end is what
    // counts, so their failures are not.

    async fn resize(&self, client: &Client) {
        let Some((width, height)) = terminal_size().filter(|_| self.streams.terminal) else {
            return;
        };
        let (container_id, exec_id) = (self.id.clone(), self.exec_id.clone());
        let request = tasks::ResizePtyRequest { container_id, exec_id, width, height };
        client.tasks().resize_pty(request).await.map(drop).unwrap_or_default();
    }

    async fn close_input(&self, client: &Client) {
        let (container_id, exec_id) = (self.id.clone(), self.exec_id.clone());
        let request = tasks::CloseIoRequest { container_id, exec_id, stdin: true };
        client.tasks().close_io(request).await.map(drop).unwrap_or_default();
    }

    async fn forward(&self, client: &Client, signal: i32) {
        let (container_id, exec_id) = (self.id.clone(), self.exec_id.clone());
        let signal = signal.unsigned_abs();
        let request = tasks::KillRequest { container_id, exec_id, signal, all: false };
        client.tasks().kill(request).await.map(drop).unwrap_or_default();
    }
}

async fn execute_in(exec: Exec, client: &Client) -> Result<u8> {
    let container = container::get(client, &exec.id).await?;
    let spec: Value = serde_json::from_slice(&container.spec.unwrap_or_default().value)
        .context("container spec")?;
    find(client, &exec.id).await?;
    let mut process = spec["process"].clone();
    process["args"] = json!(exec.args);
    process["terminal"] = json!(exec.tty);
    if let Some(cwd) = exec.cwd {
        process["cwd"] = json!(cwd);
    }
    if let Some(user) = exec.user {
        let (uid, gid) = user.split_once(':').unwrap_or((&user, "0"));
        process["user"] = json!({"uid": uid.parse::<u32>()?, "gid": gid.parse::<u32>()?});
    }
    let null = exec.detach && exec.log_uri.is_none() && exec.fifo_dir.is_none();
    let log = exec.log_uri.as_deref();
    let streams = streams(null, log, exec.fifo_dir.as_deref(), &exec.exec_id, exec.tty)?;
    let request = tasks::ExecProcessRequest {
        container_id: exec.id.clone(),
        stdin: streams.stdin.clone(),
        stdout: streams.stdout.clone(),
        stderr: streams.stderr.clone(),
        terminal: streams.terminal,
        spec: Some(pack_json(TYPE_PROCESS, serde_json::to_vec(&process)?)),
        exec_id: exec.exec_id.clone(),
    };
    let copying = streams.copy();
    answer(client.tasks().exec(request).await)?;
    let (id, exec_id) = (exec.id.clone(), exec.exec_id.clone());
    let running = Running { pid: 0, id, exec_id, streams, copying, started: false };
    if exec.detach {
        return running.detach(client).await.map(|()| 0);
    }
    running.attend(client).await.map(exit_code)
}

/// Goes through all of them; the last failure or status is the command's.
async fn delete(
    client: &Client,
    force: bool,
    exec_id: Option<String>,
    ids: Vec<String>,
) -> Result<u8> {
    let mut service = client.tasks();
    let mut status = 0;
    let mut failed = None;
    for container_id in ids {
        let exec = exec_id.clone().unwrap_or_default();
        let process = match find(client, &container_id).await {
            Ok(process) => process,
            Err(error) => {
                let message = format!("failed to load task from {container_id}");
                log_line("error", &message, Some(&error));
                failed = Some(error);
                continue;
            }
        };
        if force {
            let wait =
                tasks::WaitRequest { container_id: container_id.clone(), exec_id: exec.clone() };
            let kill = tasks::KillRequest {
                container_id: container_id.clone(),
                exec_id: exec.clone(),
                signal: libc::SIGKILL.unsigned_abs(),
                all: exec.is_empty(),
            };
            // Already stopped is as good.
            if service.kill(kill).await.is_ok() {
                service.wait(wait).await.map(drop).unwrap_or_default();
            }
        }
        let id = container_id.clone();
        if !exec.is_empty() {
            let request = tasks::DeleteProcessRequest { container_id, exec_id: exec };
            match answer(service.delete_process(request).await) {
                Ok(deleted) => status = exit_code(deleted.exit_status),
                Err(error) => failed = Some(error),
            }
            continue;
        }
        let running = matches!(process.status(), Status::Running | Status::Paused);
        let result = if running && !force {
            // Compat: ctr does not ask the server for what it refuses.
            let state = process.status().as_str_name().to_lowercase();
            let text = "task must be stopped before deletion";
            Err(anyhow::anyhow!("{text}: {state}: failed precondition"))
        } else {
            answer(service.delete(tasks::DeleteTaskRequest { container_id }).await)
        };
        match result {
            // Compat: a warning; the verb itself succeeded.
            Ok(deleted) if deleted.exit_status != 0 => {
                let code = deleted.exit_status;
                log_line(
                    "warning",
                    &format!("task {id} exit with non-zero exit code {code}"),
                    None,
                );
            }
            Ok(_) => {}
            Err(error) => {
                log_line("error", &format!("unable to delete {id}"), Some(&error));
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(status), Err)
}

async fn metrics(client: &Client, id: String, out: &mut dyn Write) -> Result<()> {
    find(client, &id).await?;
    let request = tasks::MetricsRequest { filters: vec![format!("id=={id}")] };
    let metrics = answer(client.tasks().metrics(request).await)?.metrics;
    let Some(metric) = metrics.into_iter().next() else { bail!("no metrics received") };
    let data = metric.data.unwrap_or_default();
    let mut head = Table::new(&["ID", "TIMESTAMP"], 1, 4, End::Closed);
    head.row([metric.id, crate::table::timestamp(metric.timestamp)]);
    head.print(out)?;
    writeln!(out)?;
    let mut table = Table::new(&["METRIC", "VALUE"], 1, 4, End::Closed);
    let mut row = |name: &str, value: u64| table.row([name.to_owned(), value.to_string()]);
    if is::<cgroups::v1::Metrics>(&data) {
        let stats = unpack::<cgroups::v1::Metrics>(&data)?;
        if let Some(memory) = stats.memory {
            let usage = memory.usage.unwrap_or_default();
            row("memory.usage_in_bytes", usage.usage);
            row("memory.limit_in_bytes", usage.limit);
            row("memory.stat.cache", memory.total_cache);
        }
        if let Some(cpu) = stats.cpu.and_then(|cpu| cpu.usage) {
            row("cpuacct.usage", cpu.total);
        }
        if let Some(pids) = stats.pids {
            row("pids.current", pids.current);
            row("pids.limit", pids.limit);
        }
    } else if is::<cgroups::v2::Metrics>(&data) {
        let stats = unpack::<cgroups::v2::Metrics>(&data)?;
        if let Some(pids) = stats.pids {
            row("pids.current", pids.current);
            row("pids.limit", pids.limit);
        }
        if let Some(cpu) = stats.cpu {
            row("cpu.usage_usec", cpu.usage_usec);
            row("cpu.user_usec", cpu.user_usec);
            row("cpu.system_usec", cpu.system_usec);
        }
        if let Some(memory) = stats.memory {
            row("memory.usage", memory.usage);
            row("memory.usage_limit", memory.usage_limit);
        }
    } else {
        bail!("cannot show metrics of type {:?}", data.type_url);
    }
    table.print(out)
}

fn status_name(status: Status) -> &'static str {
    match status {
        Status::Created => "CREATED",
        Status::Running => "RUNNING",
        Status::Stopped => "STOPPED",
        Status::Paused => "PAUSED",
        Status::Pausing => "PAUSING",
        Status::Unknown => "UNKNOWN",
    }
}

fn exit_code(status: u32) -> u8 {
    u8::try_from(status).unwrap_or(u8::MAX)
}

/// `9`, `KILL`, `SIGKILL`.
fn signal_number(name: &str) -> Result<u32> {
    if let Ok(number) = name.parse::<u32>() {
        return Ok(number);
    }
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let signal: nix::sys::signal::Signal =
        full.parse().with_context(|| format!("unknown signal {name:?}: invalid argument"))?;
    Ok((signal as i32).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(signal_number("SIGTERM").unwrap(), 15);
        assert_eq!(signal_number("kill").unwrap(), 9);
        assert_eq!(signal_number("34").unwrap(), 34);
        assert!(signal_number("SIGNOPE").is_err());
    }

    proptest! {
        #[test]
        fn a_signal_is_a_number_or_a_name(text in "[a-zA-Z+0-9-]{0,10}", number: u32) {
            prop_assert_eq!(signal_number(&number.to_string()).unwrap(), number);
            if let Ok(number) = signal_number(&text) {
                prop_assert!((1..=64).contains(&number) || text.parse::<u32>().is_ok());
            }
        }
    }
}
