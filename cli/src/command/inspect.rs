//! `inspect`: the daemon's JSON, or a template over it.

use clap::Args;
use serde_json::Value;

use super::Context;
use crate::client::escape;
use crate::error::CliError;
use crate::format::template::Format;

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

const KINDS: [&str; 4] = ["container", "image", "network", "volume"];

impl Inspect {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        if !self.kind.is_empty() && !KINDS.contains(&self.kind.as_str()) {
            return Err(CliError::Usage(format!(
                "{:?} is not a valid value for --type",
                self.kind
            )));
        }
        let format = self.format.as_deref().map(Format::parse).transpose()?;
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for name in &self.names {
            match self.find(name, context).await? {
                Some(value) => found.push(value),
                None => missing.push(name),
            }
        }
        match format {
            Some(format) => {
                for value in &found {
                    context.ui.say(&format.one(value)?)?;
                }
            }
            None => context.ui.say(&pretty(&found)?)?,
        }
        for name in &missing {
            let kind = if self.kind.is_empty() { "object" } else { &self.kind };
            context.ui.complain(&format!("Error: No such {kind}: {name}"));
        }
        Ok(u8::from(!missing.is_empty()))
    }

    async fn find(&self, name: &str, context: &mut Context<'_>) -> Result<Option<Value>, CliError> {
        for kind in KINDS.iter().filter(|kind| self.kind.is_empty() || self.kind == **kind) {
            let name = escape(name);
            let path = match *kind {
                "container" if self.size => format!("/containers/{name}/json?size=1"),
                "container" => format!("/containers/{name}/json"),
                // A slash in an image's name is part of the path.
                "image" => format!("/images/{}/json", name.replace("%2F", "/").replace("%3A", ":")),
                "network" => format!("/networks/{name}"),
                _ => format!("/volumes/{name}"),
            };
            match raw(context, &path).await {
                Ok(value) => return Ok(Some(value)),
                Err(problem) if problem.is_not_found() => {}
                Err(problem) => return Err(problem),
            }
        }
        Ok(None)
    }
}

/// The document as it is, nulls included.
async fn raw(context: &Context<'_>, path: &str) -> Result<Value, CliError> {
    use http_body_util::BodyExt;
    let answer = context.client.send(http::Method::GET, path, crate::client::empty()).await?;
    let text = answer.into_body().collect().await.map_err(CliError::Http)?.to_bytes();
    serde_json::from_slice(&text).map_err(CliError::Answer)
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
