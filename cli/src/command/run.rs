//! `run`: create, attach, start, and stay until the end.

use std::io::IsTerminal;

use clap::Args;
use docker_api::trace::Timeline;

use super::Context;
use super::attach::{Attachment, Streams};
use super::create::Create;
use crate::client::query;
use crate::error::CliError;
use crate::format::timeline;

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
    /// Print what each program did, and when, to stderr
    #[arg(long)]
    trace: bool,
    #[command(flatten)]
    pub(super) create: Create,
}

impl Run {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        if !self.trace {
            return Ok(self.stay(context).await?.unwrap_or(0));
        }
        context.client.begin_trace();
        let outcome = self.stay(context).await;
        if !outcome.as_ref().is_err_and(|problem| problem.silent_code().is_some()) {
            tell_trace(context, matches!(outcome, Ok(Some(_)))).await;
        }
        Ok(outcome?.unwrap_or(0))
    }

    /// The exit code of a container that was seen to its end.
    async fn stay(self, context: &mut Context<'_>) -> Result<Option<u8>, CliError> {
        let tell = |problem: CliError| problem.with_help("run");
        self.create.require(&context.client)?;
        let request = self.create.request(self.detach, &context.client).map_err(tell)?;
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
        let keys = context.detach_keys(&self.detach_keys)?;
        let id = self.create.create(&request, context).await.map_err(tell)?;
        if self.detach {
            context.client.act(&format!("/containers/{id}/start")).await.map_err(tell)?;
            context.ui.say(&id)?;
            return Ok(None);
        }
        let config = &request.config;
        let attachment = Attachment {
            id: &id,
            tty: config.tty,
            streams: Streams {
                stdin: config.attach_stdin,
                stdout: config.attach_stdout,
                stderr: config.attach_stderr,
            },
            keys,
            // Compat: with a terminal, too; `attach` and `start` pass on without one only.
            proxy: self.sig_proxy,
            until: if self.create.flags.remove { "removed" } else { "next-exit" },
            start: true,
        };
        let attached = attachment.begin(context).await.map_err(tell)?;
        attached.stay(context).await
    }
}

/// Asks the engine what it recorded, of a run that has ended once all of it is, and prints that with
/// what we did ourselves.
async fn tell_trace(context: &mut Context<'_>, ended: bool) {
    let Some(trace) = context.client.trace() else { return };
    let own = trace.steps();
    let wait = query(&[("wait", if ended { "1" } else { "" })]);
    let asked = context.client.get(&format!("/rs/trace/{}{wait}", trace.id())).await;
    let Timeline { spans } = asked.unwrap_or_default();
    if spans.is_empty() {
        context.ui.complain("The engine recorded nothing: these are the client's own times.");
    }
    for line in timeline::tree(&own, &spans) {
        context.ui.complain(&line);
    }
}
