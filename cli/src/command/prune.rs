//! `container prune`, `image prune`, `network prune`, `volume prune`.

use std::io::{BufRead, Write};

use clap::Args;
use docker_api::container::ContainersPruned;
use docker_api::image::ImagesPruned;
use docker_api::network::NetworksPruned;
use docker_api::volume::VolumesPruned;

use super::{Context, flags, list};
use crate::client::query;
use crate::error::CliError;
use crate::format::units;

/// What all of them take.
#[derive(Debug, Args)]
struct Choice {
    /// Provide filter values (e.g. "label=<label>", "until=<timestamp>")
    #[arg(long, value_parser = flags::filter)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short = 'f', long)]
    force: bool,
}

impl Choice {
    /// Asks, on the terminal or wherever standard input comes from.
    fn is_confirmed(&self, warning: &str, context: &mut Context<'_>) -> Result<bool, CliError> {
        if self.force {
            return Ok(true);
        }
        write!(context.ui.out, "WARNING! {warning}\nAre you sure you want to continue? [y/N] ")?;
        context.ui.out.flush()?;
        let mut answer = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|source| CliError::io("read the answer", source))?;
        Ok(answer.trim().eq_ignore_ascii_case("y"))
    }

    async fn prune<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        context: &Context<'_>,
    ) -> Result<T, CliError> {
        let query = query(&[("filters", &list::filters(&self.filter))]);
        context.client.post(&format!("/{what}/prune{query}"), &serde_json::json!({})).await
    }
}

#[derive(Debug, Args)]
pub(crate) struct Containers {
    #[command(flatten)]
    choice: Choice,
}

impl Containers {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let warning = "This will remove all stopped containers.";
        if !self.choice.is_confirmed(warning, context)? {
            return Ok(0);
        }
        let pruned: ContainersPruned = self.choice.prune("containers", context).await?;
        report("Containers", pruned.containers_deleted.unwrap_or_default(), context)?;
        reclaimed(pruned.space_reclaimed, context)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Remove all unused images, not just dangling ones
    #[arg(short = 'a', long)]
    all: bool,
    #[command(flatten)]
    choice: Choice,
}

impl Images {
    pub(super) async fn run(mut self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let warning = if self.all {
            "This will remove all images without at least one container associated to them."
        } else {
            "This will remove all dangling images."
        };
        if !self.choice.is_confirmed(warning, context)? {
            return Ok(0);
        }
        self.choice.filter.push(format!("dangling={}", !self.all));
        let pruned: ImagesPruned = self.choice.prune("images", context).await?;
        let mut lines = Vec::new();
        for item in pruned.images_deleted.unwrap_or_default() {
            lines.extend(item.untagged.map(|name| format!("untagged: {name}")));
            lines.extend(item.deleted.map(|digest| format!("deleted: {digest}")));
        }
        report("Images", lines, context)?;
        reclaimed(pruned.space_reclaimed, context)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Networks {
    #[command(flatten)]
    choice: Choice,
}

impl Networks {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let warning = "This will remove all custom networks not used by at least one container.";
        if !self.choice.is_confirmed(warning, context)? {
            return Ok(0);
        }
        let pruned: NetworksPruned = self.choice.prune("networks", context).await?;
        report("Networks", pruned.networks_deleted.unwrap_or_default(), context)?;
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Volumes {
    /// Remove all unused volumes, not just anonymous ones
    #[arg(short = 'a', long)]
    all: bool,
    #[command(flatten)]
    choice: Choice,
}

impl Volumes {
    pub(super) async fn run(mut self, context: &mut Context<'_>) -> Result<u8, CliError> {
        // Compat: older engines know no difference, and always mean all.
        let knows_anonymous = context.client.speaks((1, 42));
        if self.all {
            context.client.require("--all", (1, 42))?;
            if self.choice.filter.iter().any(|filter| filter.starts_with("all=")) {
                return Err(CliError::Usage(
                    "conflicting options: cannot specify both --all and --filter all=1".into(),
                ));
            }
            self.choice.filter.push("all=true".to_owned());
        }
        let warning = if self.all || !knows_anonymous {
            "This will remove all local volumes not used by at least one container."
        } else {
            "This will remove anonymous local volumes not used by at least one container."
        };
        if !self.choice.is_confirmed(warning, context)? {
            return Ok(0);
        }
        let pruned: VolumesPruned = self.choice.prune("volumes", context).await?;
        report("Volumes", pruned.volumes_deleted.unwrap_or_default(), context)?;
        reclaimed(pruned.space_reclaimed, context)
    }
}

fn report(kind: &str, lines: Vec<String>, context: &mut Context<'_>) -> Result<(), CliError> {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(context.ui.out, "Deleted {kind}:\n{}\n", lines.join("\n"))?;
    Ok(())
}

fn reclaimed(bytes: u64, context: &mut Context<'_>) -> Result<u8, CliError> {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    context.ui.say(&format!("Total reclaimed space: {}", units::size_of(bytes, 4)))?;
    Ok(0)
}
