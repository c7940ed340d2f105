//! `attach`, and the one way in which it, `run` and `start` stay with a container.

use std::io::IsTerminal;

use clap::Args;
use docker_api::container::ContainerInspect;

use super::Context;
use super::session::{Signals, Target, Wait, Wanted};
use crate::client::{Ended, Session, escape, query};
use crate::error::CliError;
use crate::terminal::{DetachKeys, RawMode};

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
        let state = inspect(&self.container, context).await?;
        let refused = |text: &str| Err(CliError::Usage(text.to_owned()));
        if !state.state.running {
            return refused("You cannot attach to a stopped container, start it first");
        }
        if state.state.paused {
            return refused("You cannot attach to a paused container, unpause it first");
        }
        let streams = Streams::of(&state, !self.no_stdin);
        if state.config.tty && streams.stdin && !std::io::stdin().is_terminal() {
            return refused("the input device is not a TTY");
        }
        let attachment = Attachment {
            id: &state.id,
            tty: state.config.tty,
            streams,
            keys: context.detach_keys(&self.detach_keys)?,
            proxy: self.sig_proxy && !state.config.tty,
            until: "not-running",
            start: false,
        };
        attachment.begin(context).await?.stay(context).await?.ok_or_else(detached)
    }
}

pub(super) async fn inspect(
    name: &str,
    context: &Context<'_>,
) -> Result<ContainerInspect, CliError> {
    context.client.get(&format!("/containers/{}/json", escape(name))).await
}

/// Compat: leaving `attach` and `exec` by the detach keys is told, and is no success; `run` and
/// `start` are quiet about it.
pub(super) fn detached() -> CliError {
    CliError::Usage("read escape sequence".to_owned())
}

/// Which of a container's streams.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

impl Streams {
    /// Both outputs of a container, and its input if it is open and asked for.
    pub(super) fn of(state: &ContainerInspect, stdin: bool) -> Self {
        Self { stdin: stdin && state.config.open_stdin, stdout: true, stderr: true }
    }
}

/// A container to stay with.
pub(super) struct Attachment<'a> {
    pub(super) id: &'a str,
    pub(super) tty: bool,
    pub(super) streams: Streams,
    /// As the daemon gets them, and as we look for them.
    pub(super) keys: (String, DetachKeys),
    /// Whether signals are passed on.
    pub(super) proxy: bool,
    /// What the daemon is to wait for.
    pub(super) until: &'static str,
    /// Whether it has yet to be started.
    pub(super) start: bool,
}

/// A container one is attached to.
pub(super) struct Attached {
    wait: Wait,
    stream: Session,
    raw: Option<RawMode>,
    signals: Signals,
    stdin: bool,
    keys: Option<DetachKeys>,
}

impl Attachment<'_> {
    /// Asks for the exit, attaches, and starts it if that is wanted.
    pub(super) async fn begin(self, context: &Context<'_>) -> Result<Attached, CliError> {
        let Self { id, tty, streams, keys: (named, keys), proxy, until, start } = self;
        let (client, stdin) = (&context.client, streams.stdin);
        let interactive = tty && stdin;
        let wanted = Wanted { tty, raw: interactive, proxy };
        let mut signals = Signals::of(Target::Container(id.to_owned()), wanted)?;
        let begun = async {
            let wait = Wait::begin(client, id, until).await?;
            let path = format!("/containers/{id}/attach{}", parameters(streams, &named));
            let stream = client.hijack(&path, None::<&()>, tty).await?;
            let raw = if interactive { RawMode::enter()? } else { None };
            if start {
                client.act(&format!("/containers/{id}/start")).await?;
            }
            Ok((wait, stream, raw))
        };
        let (wait, stream, raw) = signals.kept(begun).await?;
        Ok(Attached { wait, stream, raw, signals, stdin, keys: interactive.then_some(keys) })
    }
}

impl Attached {
    /// Stays to the end and gives the exit code, or none when the user left by the detach keys.
    pub(super) async fn stay(self, context: &mut Context<'_>) -> Result<Option<u8>, CliError> {
        let Self { wait, stream, raw, signals, stdin, keys } = self;
        let Context { client, ui, .. } = context;
        let trace = client.trace();
        let staying = async {
            let output = trace.map(|trace| trace.open("output"));
            let ended = stream.copy(stdin, keys, ui).await;
            drop(raw);
            if let Some((trace, output)) = trace.zip(output) {
                trace.close(output);
            }
            match ended? {
                Ended::Detached => Ok(None),
                // A container may close its outputs long before it ends.
                Ended::Closed => {
                    let code = wait.exit_code().await;
                    if let Some(trace) = trace {
                        trace.waited();
                    }
                    code.map(Some)
                }
            }
        };
        signals.passed_on(client, staying).await
    }
}

fn parameters(streams: Streams, detach_keys: &str) -> String {
    let flag = |on: bool| if on { "1" } else { "" };
    query(&[
        ("stream", "1"),
        ("stdin", flag(streams.stdin)),
        ("stdout", flag(streams.stdout)),
        ("stderr", flag(streams.stderr)),
        ("detachKeys", detach_keys),
    ])
}
