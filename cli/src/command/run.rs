//! `run`: create, attach, start, and stay until the end.

use std::io::IsTerminal;

use clap::Args;

use super::Context;
use super::create::Create;
use super::session::{self, Wait};
use crate::client::{Ended, query};
use crate::error::CliError;

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Run container in background and print container ID
    #[arg(short = 'd', long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long = "detach-keys", default_value = "", hide_default_value = true)]
    detach_keys: String,
    /// Proxy received signals to the process
    #[arg(long = "sig-proxy", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
    #[command(flatten)]
    pub(super) create: Create,
}

impl Run {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let tell = |problem: CliError| problem.with_help("run");
        let request = self.create.request(self.detach).map_err(tell)?;
        if self.detach {
            if !self.create.flags.attach.is_empty() {
                return Err(CliError::Usage(
                    "conflicting options: cannot specify both --attach and --detach".into(),
                ));
            }
        } else if self.create.flags.tty
            && request.config.attach_stdin
            && !std::io::stdin().is_terminal()
        {
            return Err(CliError::Usage("the input device is not a TTY".into()));
        }
        let (named, keys) = context.detach_keys(&self.detach_keys)?;
        let id = self.create.create(&request, context).await.map_err(tell)?;
        if self.detach {
            context.client.act(&format!("/containers/{id}/start")).await.map_err(tell)?;
            context.ui.say(&id)?;
            return Ok(0);
        }
        let (tty, config) = (self.create.flags.tty, &request.config);
        let flag = |on: bool| if on { "1" } else { "" };
        let attach = format!(
            "/containers/{id}/attach{}",
            query(&[
                ("stream", "1"),
                ("stdin", flag(config.attach_stdin)),
                ("stdout", flag(config.attach_stdout)),
                ("stderr", flag(config.attach_stderr)),
                ("detachKeys", &named),
            ])
        );
        let stream = context.client.hijack(&attach, None::<&()>, tty).await?;
        let condition = if self.create.flags.remove { "removed" } else { "next-exit" };
        let wait = Wait::begin(&context.client, &id, condition).await?;
        let raw = if tty { crate::terminal::RawMode::enter()? } else { None };
        let input = config.attach_stdin;
        if let Err(problem) = context.client.act(&format!("/containers/{id}/start")).await {
            drop(raw);
            return Err(tell(problem));
        }
        let signals = session::Signals::of(session::Target::Container(&id), tty, self.sig_proxy)?;
        let ended = session::watch(
            stream.copy(input, (tty && input).then_some(keys), context.ui),
            &context.client,
            signals,
        )
        .await;
        drop(raw);
        if ended? == Ended::Detached {
            return Ok(0);
        }
        wait.exit_code().await
    }
}
