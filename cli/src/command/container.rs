//! Verbs on existing containers: start, stop, restart, kill, wait, pause, rename, rm, top, port.

use clap::Args;
use docker_api::container::{ContainerInspect, TopResponse, WaitResponse};

use super::attach::{Attachment, Streams};
use super::{Context, attach, each, flags, try_each};
use crate::client::{escape, query};
use crate::error::CliError;
use crate::format::table;

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short = 'a', long)]
    attach: bool,
    /// Attach container's STDIN
    #[arg(short = 'i', long)]
    interactive: bool,
    /// Override the key sequence for detaching a container
    #[arg(long = "detach-keys", default_value = "", hide_default_value = true)]
    detach_keys: String,
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Start {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        if self.attach || self.interactive {
            let [name] = self.containers.as_slice() else {
                return Err(CliError::Usage(
                    "you cannot start and attach multiple containers at once".into(),
                ));
            };
            return self.attached(name, context).await;
        }
        let failed = try_each(&self.containers, context, async |client, name| {
            client.act(&format!("/containers/{}/start", escape(name))).await.map(drop)
        })
        .await?;
        if failed.is_empty() {
            return Ok(0);
        }
        Err(CliError::Usage(format!("Error: failed to start containers: {}", failed.join(", "))))
    }

    async fn attached(&self, name: &str, context: &mut Context<'_>) -> Result<u8, CliError> {
        let state = attach::inspect(name, context).await?;
        let attachment = Attachment {
            id: &state.id,
            tty: state.config.tty,
            streams: Streams::of(&state, self.interactive),
            keys: context.detach_keys(&self.detach_keys)?,
            proxy: !state.config.tty,
            until: if state.host_config.auto_remove { "removed" } else { "next-exit" },
            start: true,
        };
        Ok(attachment.begin(context).await?.stay(context).await?.unwrap_or(0))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Signal to send to the container
    #[arg(short = 's', long, default_value = "", hide_default_value = true)]
    signal: String,
    /// Seconds to wait before killing the container
    #[arg(short = 't', long = "timeout", visible_alias = "time", value_parser = flags::integer, allow_hyphen_values = true)]
    timeout: Option<i64>,
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Stop {
    pub(super) async fn run(self, context: &mut Context<'_>, verb: &str) -> Result<u8, CliError> {
        let timeout = self.timeout.map(|timeout| timeout.to_string()).unwrap_or_default();
        let query = query(&[("signal", &self.signal), ("t", &timeout)]);
        each(&self.containers, context, async |client, name| {
            client.act(&format!("/containers/{}/{verb}{query}", escape(name))).await.map(drop)
        })
        .await
    }
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Signal to send to the container
    #[arg(short = 's', long, default_value = "", hide_default_value = true)]
    signal: String,
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Kill {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let query = query(&[("signal", &self.signal)]);
        each(&self.containers, context, async |client, name| {
            client.act(&format!("/containers/{}/kill{query}", escape(name))).await.map(drop)
        })
        .await
    }
}

#[derive(Debug, Args)]
pub(crate) struct Names {
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Names {
    pub(super) async fn act(self, context: &mut Context<'_>, verb: &str) -> Result<u8, CliError> {
        each(&self.containers, context, async |client, name| {
            client.act(&format!("/containers/{}/{verb}", escape(name))).await.map(drop)
        })
        .await
    }

    pub(super) async fn wait(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let mut failed = 0;
        for name in &self.containers {
            let path = format!("/containers/{}/wait", escape(name));
            match context.client.post::<WaitResponse>(&path, &serde_json::json!({})).await {
                Ok(answer) => context.ui.say(&answer.status_code.to_string())?,
                Err(problem) => {
                    context.ui.complain(&problem.to_string());
                    failed = 1;
                }
            }
        }
        Ok(failed)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Rename {
    container: String,
    new_name: String,
}

impl Rename {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        if self.container.is_empty() || self.new_name.is_empty() {
            return Err(CliError::Usage("Error: Neither old nor new names may be empty".into()));
        }
        let query = query(&[("name", &self.new_name)]);
        let path = format!("/containers/{}/rename{query}", escape(&self.container));
        if let Err(problem) = context.client.act(&path).await {
            context.ui.complain(&problem.to_string());
            return Err(CliError::Usage(format!(
                "Error: failed to rename container named {}",
                self.container
            )));
        }
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short = 'f', long)]
    force: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short = 'v', long)]
    volumes: bool,
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Remove {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let flag = |on: bool| if on { "1" } else { "" };
        let query = query(&[("force", flag(self.force)), ("v", flag(self.volumes))]);
        let mut failed = false;
        for name in &self.containers {
            let plain = name.trim_matches('/');
            match context.client.delete(&format!("/containers/{}{query}", escape(plain))).await {
                Ok(_) => context.ui.say(name)?,
                Err(problem) => {
                    context.ui.complain(&problem.to_string());
                    // With -f it is enough that it is gone.
                    failed |= !(self.force && problem.is_not_found());
                }
            }
        }
        Ok(u8::from(failed))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    container: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Top {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let query = query(&[("ps_args", &self.options.join(" "))]);
        let answer: TopResponse = context
            .client
            .get(&format!("/containers/{}/top{query}", escape(&self.container)))
            .await?;
        let mut text = answer.titles.join("\t");
        for process in &answer.processes {
            text.push('\n');
            text.push_str(&process.join("\t"));
        }
        write!(context.ui.out, "{}", table::align(&text))?;
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Port {
    container: String,
    private_port: Option<String>,
}

impl Port {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let state: ContainerInspect =
            context.client.get(&format!("/containers/{}/json", escape(&self.container))).await?;
        let wanted = match &self.private_port {
            None => None,
            Some(port) => {
                let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                if number.parse::<u16>().is_err() {
                    return Err(CliError::Usage(format!(
                        "Error: invalid port ({number}): {}",
                        flags::unsigned_error(number)
                    )));
                }
                Some(format!("{number}/{protocol}"))
            }
        };
        let mut found = false;
        for (port, bindings) in &state.network_settings.ports {
            if wanted.as_ref().is_some_and(|wanted| wanted != port) {
                continue;
            }
            for binding in bindings.iter().flatten() {
                found = true;
                let ip = if binding.host_ip.contains(':') {
                    format!("[{}]", binding.host_ip)
                } else {
                    binding.host_ip.clone()
                };
                let line = if wanted.is_some() {
                    format!("{ip}:{}", binding.host_port)
                } else {
                    format!("{port} -> {ip}:{}", binding.host_port)
                };
                context.ui.say(&line)?;
            }
        }
        match wanted {
            Some(wanted) if !found => Err(CliError::Usage(format!(
                "Error: No public port '{}' published for {}",
                self.private_port.as_deref().unwrap_or(&wanted),
                self.container
            ))),
            _ => Ok(0),
        }
    }
}
