//! `volume create`, `volume ls` and `volume rm`.

use clap::Args;
use docker_api::volume::{Volume, VolumeCreateRequest, VolumeList};

use super::list::{self, RowsFormat};
use super::{Context, each, flags};
use crate::client::{escape, query};
use crate::error::CliError;
use crate::format::natural;
use crate::format::template::{Value, Words, row};
use crate::format::units;

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Specify volume driver name
    #[arg(short = 'd', long, default_value = "local")]
    driver: String,
    /// Set metadata for a volume
    #[arg(long, value_parser = flags::label)]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(short = 'o', long)]
    opt: Vec<String>,
    /// The old way to give the name
    #[arg(long, hide = true)]
    name: Option<String>,
    volume: Option<String>,
}

impl Create {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        if self.name.is_some() && self.volume.is_some() {
            return Err(CliError::Usage(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg".into(),
            ));
        }
        let request = VolumeCreateRequest {
            name: self.volume.or(self.name).unwrap_or_default(),
            driver: self.driver,
            driver_opts: (!self.opt.is_empty()).then(|| flags::pairs(&self.opt)),
            labels: (!self.label.is_empty()).then(|| flags::pairs(&self.label)),
        };
        let made: Volume = context.client.post("/volumes/create", &request).await?;
        context.ui.say(&made.name)?;
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Provide filter values (e.g. "dangling=true")
    #[arg(short = 'f', long, value_parser = flags::filter)]
    filter: Vec<String>,
    /// Format output using a custom template
    #[arg(long)]
    format: Option<String>,
    /// Only display volume names
    #[arg(short = 'q', long)]
    quiet: bool,
}

const FORMAT: RowsFormat = RowsFormat {
    table: "table {{.Driver}}\\t{{.Name}}",
    raw: "name: {{.Name}}\ndriver: {{.Driver}}\n",
    quiet: "{{.Name}}",
    quiet_raw: "name: {{.Name}}",
    words: Words {
        name: "",
        parsing: "template parsing error: ",
        executing: "template parsing error: ",
        code: 1,
        type_name: "*formatter.volumeContext",
    },
    headings: &[
        ("Name", "VOLUME NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Availability", "AVAILABILITY"),
        ("Group", "GROUP"),
        ("Status", "STATUS"),
    ],
};

impl Ls {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let query = query(&[("filters", &list::filters(&self.filter))]);
        let answer: VolumeList = context.client.get(&format!("/volumes{query}")).await?;
        let mut volumes = answer.volumes;
        volumes.sort_by(|one, other| natural::order(&one.name, &other.name));
        let rows: Vec<Value> = volumes.iter().map(shown).collect();
        let configured = context.config.volumes_format.clone();
        FORMAT.print(self.format.as_deref(), &configured, self.quiet, &rows, context)
    }
}

fn shown(volume: &Volume) -> Value {
    let usage = volume.usage_data.as_ref();
    let known = |text: Option<String>| Value::Text(text.unwrap_or_else(|| "N/A".to_owned()));
    let labels = volume.labels.clone().unwrap_or_default();
    let members = [
        ("Name", Value::text(&volume.name)),
        ("Driver", Value::text(&volume.driver)),
        ("Scope", Value::text(&volume.scope)),
        ("Mountpoint", Value::text(&volume.mountpoint)),
        ("Labels", Value::Text(list::labels(&labels))),
        ("Links", known(usage.map(|usage| usage.ref_count.to_string()))),
        ("Size", known(usage.map(|usage| units::size_of(usage.size, 4)))),
        // Of a swarm's.
        ("Availability", known(None)),
        ("Group", known(None)),
        ("Status", known(None)),
    ];
    row(members, list::label_values(&labels))
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Force the removal of one or more volumes
    #[arg(short = 'f', long)]
    force: bool,
    #[arg(required = true)]
    volumes: Vec<String>,
}

impl Remove {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let query = query(&[("force", if self.force { "1" } else { "" })]);
        each(&self.volumes, context, async |client, name| {
            client.delete(&format!("/volumes/{}{query}", escape(name))).await.map(drop)
        })
        .await
    }
}
