//! `update`.

use clap::Args;
use docker_api::container::{RestartPolicy, UpdateRequest, UpdateResponse};

use super::limits::Limits;
use super::{Context, flags};
use crate::client::escape;
use crate::error::CliError;

#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    limits: Limits,
    /// Restart policy to apply when a container exits
    #[arg(long)]
    restart: Option<String>,
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Update {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        if self.limits.is_empty() && self.restart.is_none() {
            return Err(CliError::Usage(
                "you must provide one or more flags when using this command".into(),
            ));
        }
        let restart_policy = match &self.restart {
            Some(policy) if !policy.is_empty() => flags::restart_policy(policy)?,
            _ => RestartPolicy::default(),
        };
        let request = UpdateRequest { resources: self.limits.resources(), restart_policy };
        let mut failed = 0;
        let mut warnings = Vec::new();
        for name in &self.containers {
            let path = format!("/containers/{}/update", escape(name));
            match context.client.post::<UpdateResponse>(&path, &request).await {
                Ok(answer) => {
                    context.ui.say(name)?;
                    warnings.extend(answer.warnings.unwrap_or_default());
                }
                Err(problem) => {
                    context.ui.complain(&problem.to_string());
                    failed = 1;
                }
            }
        }
        for warning in &warnings {
            context.ui.say(warning)?;
        }
        Ok(failed)
    }
}
