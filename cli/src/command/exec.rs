//! `exec` and `attach`: a stream into a running container.

use std::io::IsTerminal;

use clap::Args;
use docker_api::container::ContainerInspect;
use docker_api::exec::{ExecCreateRequest, ExecInspect, ExecStartRequest};
use serde::Deserialize;

use super::session::{self, Signals, Target, Wait};
use super::{Context, flags};
use crate::client::{Ended, escape, query};
use crate::error::CliError;
use crate::terminal::RawMode;

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Detached mode: run command in the background
    #[arg(short = 'd', long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long = "detach-keys", default_value = "", hide_default_value = true)]
    detach_keys: String,
    /// Set environment variables
    #[arg(short = 'e', long = "env", value_parser = flags::variable)]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long = "env-file")]
    env_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short = 'i', long)]
    interactive: bool,
    /// Give extended privileges to the command
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short = 't', long)]
    tty: bool,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short = 'u', long, default_value = "", hide_default_value = true)]
    user: String,
    /// Working directory inside the container
    #[arg(short = 'w', long, default_value = "", hide_default_value = true)]
    workdir: String,
    container: String,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Deserialize)]
struct Created {
    #[serde(rename = "Id")]
    id: String,
}

impl Exec {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        // A container that is not there is told before anything else.
        let path = format!("/containers/{}/json", escape(&self.container));
        context.client.get::<ContainerInspect>(&path).await?;
        if self.tty && self.interactive && !self.detach && !std::io::stdin().is_terminal() {
            return Err(CliError::Usage("the input device is not a TTY".into()));
        }
        let console_size = if self.tty {
            crate::terminal::size().map(|(rows, columns)| [rows.into(), columns.into()])
        } else {
            None
        };
        let (named, keys) = context.detach_keys(&self.detach_keys)?;
        let request = ExecCreateRequest {
            user: self.user.clone(),
            privileged: self.privileged,
            tty: self.tty,
            console_size,
            attach_stdin: self.interactive && !self.detach,
            attach_stdout: !self.detach,
            attach_stderr: !self.detach,
            detach: self.detach,
            detach_keys: named,
            env: Some(flags::environment(&self.env, &self.env_file)?),
            working_dir: self.workdir.clone(),
            cmd: Some(self.command.clone()),
        };
        let path = format!("/containers/{}/exec", escape(&self.container));
        let Created { id } = context.client.post(&path, &request).await?;
        let start = ExecStartRequest { detach: self.detach, tty: self.tty, console_size };
        let path = format!("/exec/{id}/start");
        if self.detach {
            context.client.post_only(&path, &start).await?;
            return Ok(0);
        }
        let stream = context.client.hijack(&path, Some(&start), self.tty).await?;
        let raw = if self.tty { RawMode::enter()? } else { None };
        let signals = Signals::of(Target::Exec(&id), self.tty, false)?;
        let keys = (self.tty && self.interactive).then_some(keys);
        let ended = session::watch(
            stream.copy(self.interactive, keys, context.ui),
            &context.client,
            signals,
        )
        .await;
        drop(raw);
        if ended? == Ended::Detached {
            return Err(detached());
        }
        let state: ExecInspect = context.client.get(&format!("/exec/{id}/json")).await?;
        Ok(state.exit_code.map_or(0, |code| u8::try_from(code).unwrap_or(u8::MAX)))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Override the key sequence for detaching a container
    #[arg(long = "detach-keys", default_value = "", hide_default_value = true)]
    detach_keys: String,
    /// Do not attach STDIN
    #[arg(long = "no-stdin")]
    no_stdin: bool,
    /// Proxy all received signals to the process
    #[arg(long = "sig-proxy", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
    container: String,
}

impl Attach {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        attach(&self.container, !self.no_stdin, &self.detach_keys, self.sig_proxy, context).await
    }
}

/// Attaches to a running container and stays until it ends.
async fn attach(
    name: &str,
    stdin: bool,
    detach_keys: &str,
    sig_proxy: bool,
    context: &mut Context<'_>,
) -> Result<u8, CliError> {
    let state: ContainerInspect =
        context.client.get(&format!("/containers/{}/json", escape(name))).await?;
    if !state.state.running {
        return Err(CliError::Usage(
            "You cannot attach to a stopped container, start it first".into(),
        ));
    }
    if state.state.paused {
        return Err(CliError::Usage(
            "You cannot attach to a paused container, unpause it first".into(),
        ));
    }
    let (tty, input) = (state.config.tty, stdin && state.config.open_stdin);
    let (named, keys) = context.detach_keys(detach_keys)?;
    if tty && input && !std::io::stdin().is_terminal() {
        return Err(CliError::Usage("the input device is not a TTY".into()));
    }
    let wait = Wait::begin(&context.client, &state.id, "not-running").await?;
    let path = attach_path(&state.id, input, &named);
    let stream = context.client.hijack(&path, None::<&()>, tty).await?;
    let raw = if tty && input { RawMode::enter()? } else { None };
    let signals = Signals::of(Target::Container(&state.id), tty, sig_proxy && !tty)?;
    let keys = (tty && input).then_some(keys);
    let ended =
        session::watch(stream.copy(input, keys, context.ui), &context.client, signals).await;
    drop(raw);
    if ended? == Ended::Detached {
        return Err(detached());
    }
    wait.exit_code().await
}

/// Where both outputs of a container, and its input if asked for, are had as one stream.
fn attach_path(id: &str, input: bool, detach_keys: &str) -> String {
    let stdin = if input { "1" } else { "" };
    let parameters = query(&[
        ("stream", "1"),
        ("stdin", stdin),
        ("stdout", "1"),
        ("stderr", "1"),
        ("detachKeys", detach_keys),
    ]);
    format!("/containers/{id}/attach{parameters}")
}

/// Compat: leaving `attach` and `exec` by the detach keys is told, and is no success; `run` and
/// `start` are quiet about it.
fn detached() -> CliError {
    CliError::Usage("read escape sequence".to_owned())
}

/// Attaches before the start, as `docker start -a` does.
pub(super) async fn start_attached(
    name: &str,
    stdin: bool,
    detach_keys: &str,
    sig_proxy: bool,
    context: &mut Context<'_>,
) -> Result<u8, CliError> {
    let state: ContainerInspect =
        context.client.get(&format!("/containers/{}/json", escape(name))).await?;
    let (tty, input) = (state.config.tty, stdin && state.config.open_stdin);
    let (named, keys) = context.detach_keys(detach_keys)?;
    let path = attach_path(&state.id, input, &named);
    let stream = context.client.hijack(&path, None::<&()>, tty).await?;
    let condition = if state.host_config.auto_remove { "removed" } else { "next-exit" };
    let wait = Wait::begin(&context.client, &state.id, condition).await?;
    let raw = if tty && input { RawMode::enter()? } else { None };
    context.client.act(&format!("/containers/{}/start", state.id)).await?;
    let signals = Signals::of(Target::Container(&state.id), tty, sig_proxy && !tty)?;
    let keys = (tty && input).then_some(keys);
    let ended =
        session::watch(stream.copy(input, keys, context.ui), &context.client, signals).await;
    drop(raw);
    if ended? == Ended::Detached {
        return Ok(0);
    }
    wait.exit_code().await
}
