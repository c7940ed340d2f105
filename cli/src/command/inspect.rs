//! `inspect`: the daemon's JSON, or a template over it.

use bytes::Bytes;
use clap::Args;

use super::Context;
use crate::client::escape;
use crate::error::CliError;
use crate::format::template::{Format, Value, Words};

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Format output using a custom template
    #[arg(short = 'f', long)]
    format: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(short = 's', long)]
    size: bool,
    /// Only inspect objects of the given type
    #[arg(long = "type", default_value = "", hide_default_value = true)]
    kind: String,
    #[arg(required = true)]
    names: Vec<String>,
}

/// `container inspect`.
#[derive(Debug, Args)]
pub(crate) struct Containers {
    /// Format output using a custom template
    #[arg(short = 'f', long)]
    format: Option<String>,
    /// Display total file sizes
    #[arg(short = 's', long)]
    size: bool,
    #[arg(required = true)]
    names: Vec<String>,
}

impl Containers {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let Self { format, size, names } = self;
        Inspect { format, size, kind: "container".to_owned(), names }.run(context).await
    }
}

/// `network inspect`.
#[derive(Debug, Args)]
pub(crate) struct Networks {
    #[command(flatten)]
    others: Others,
    /// Verbose output for diagnostics
    // Compat: it shows more of a swarm's networks only.
    #[arg(short = 'v', long)]
    verbose: bool,
}

impl Networks {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        self.others.run("network", context).await
    }
}

/// `image inspect` and `volume inspect`.
#[derive(Debug, Args)]
pub(crate) struct Others {
    /// Format output using a custom template
    #[arg(short = 'f', long)]
    format: Option<String>,
    #[arg(required = true)]
    names: Vec<String>,
}

impl Others {
    pub(super) async fn run(self, kind: &str, context: &mut Context<'_>) -> Result<u8, CliError> {
        let Self { format, names } = self;
        Inspect { format, size: false, kind: kind.to_owned(), names }.run(context).await
    }
}

const KINDS: [&str; 4] = ["container", "image", "network", "volume"];

const WORDS: Words = Words {
    name: "",
    parsing: "template parsing error: ",
    executing: "template parsing error: ",
    code: 64,
    type_name: "",
};

impl Inspect {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        if !self.kind.is_empty() && !KINDS.contains(&self.kind.as_str()) {
            return Err(CliError::Usage(format!(
                "unknown type: {:?}: must be one of \"container\", \"image\", \"network\", \"volume\"",
                self.kind
            )));
        }
        let format = match self.format.as_deref() {
            None | Some("" | "json") => None,
            // Compat: a volume is a structure to its template, all else a map.
            Some(format) if self.kind == "volume" => {
                Some(Format::parse(format, Words { type_name: "volume.Volume", ..WORDS })?)
            }
            Some(format) => Some(Format::parse(format, WORDS)?),
        };
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for name in &self.names {
            match self.find(name, context).await {
                Ok(text) => found.push(Value::from_json(&text).map_err(CliError::Answer)?),
                Err(problem) if problem.is_not_found() && self.kind.is_empty() => {
                    missing.push(format!("Error: No such object: {name}"));
                }
                Err(problem) if problem.is_not_found() => missing.push(problem.to_string()),
                Err(problem) => return Err(problem),
            }
        }
        match format {
            Some(format) => {
                for value in &found {
                    let text = format.one(value);
                    // Compat: the line of what could not be printed is empty.
                    context.ui.say(text.as_deref().unwrap_or_default())?;
                    text?;
                }
                if found.is_empty() {
                    context.ui.say("")?;
                }
            }
            None if self.format.as_deref() == Some("json") => {
                context.ui.say(&Value::List(found).to_json(false))?;
            }
            None => context.ui.say(&pretty(&found)?)?,
        }
        for text in &missing {
            context.ui.complain(text);
        }
        Ok(u8::from(!missing.is_empty()))
    }

    /// The first kind that knows the name.
    async fn find(&self, name: &str, context: &mut Context<'_>) -> Result<Bytes, CliError> {
        let size = if self.size { "?size=1" } else { "" };
        let name = escape(name);
        let mut last = None;
        for kind in KINDS.iter().filter(|kind| self.kind.is_empty() || self.kind == **kind) {
            let path = match *kind {
                "container" => format!("/containers/{name}/json{size}"),
                // A slash in an image's name is part of the path.
                "image" => format!("/images/{}/json", name.replace("%2F", "/").replace("%3A", ":")),
                "network" => format!("/networks/{name}"),
                _ => format!("/volumes/{name}"),
            };
            match context.client.bytes(&path).await {
                // A name that no image can have is none.
                Err(CliError::Daemon { status: 400, message }) if self.kind.is_empty() => {
                    last = Some(CliError::Daemon { status: 404, message });
                }
                Err(problem) if problem.is_not_found() => last = Some(problem),
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| CliError::Usage(format!("no such object: {name}"))))
    }
}

/// Four blanks a level, as Go prints it.
fn pretty(values: &[Value]) -> Result<String, CliError> {
    use serde::Serialize;
    let mut out = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, indent);
    values.serialize(&mut serializer).map_err(CliError::Answer)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}
