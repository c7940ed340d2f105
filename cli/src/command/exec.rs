//! `exec`: a process of one's own in a running container.

use std::io::IsTerminal;

use clap::Args;
use docker_api::exec::{ExecCreateRequest, ExecInspect, ExecStartRequest};
use serde::Deserialize;

use super::session::{Signals, Target, Wanted};
use super::{Context, attach, flags};
use crate::client::{Ended, escape};
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
        attach::inspect(&self.container, context).await?;
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
        let interactive = self.tty && self.interactive;
        let wanted = Wanted { tty: self.tty, raw: interactive, proxy: false };
        let signals = Signals::of(Target::Exec(id.clone()), wanted)?;
        let stream = context.client.hijack(&path, Some(&start), self.tty).await?;
        let Context { client, ui, .. } = &mut *context;
        let staying = async {
            let raw = if interactive { RawMode::enter()? } else { None };
            let ended = stream.copy(self.interactive, interactive.then_some(keys), ui).await;
            drop(raw);
            ended
        };
        if signals.passed_on(client, staying).await? == Ended::Detached {
            return Err(attach::detached());
        }
        let state: ExecInspect = context.client.get(&format!("/exec/{id}/json")).await?;
        Ok(state.exit_code.map_or(0, |code| u8::try_from(code).unwrap_or(u8::MAX)))
    }
}
