//! Containers.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use proto::containerd::services::containers::v1 as containers;
use proto::containerd::services::snapshots::v1::RemoveSnapshotRequest;
use proto::containerd::services::tasks::v1 as tasks;
use proto::containerd::v1::types::Status;
use serde_json::{Value, json};

use crate::connection::{Client, answer, log_line, refused};
use crate::run::Run;
use crate::table::{End, Table, parse_labels, plain_labels, timestamp};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// create container
    Create(Box<Run>),
    /// delete one or more existing containers
    #[command(visible_aliases = ["del", "rm", "remove"])]
    Delete {
        /// do not clean up snapshot with container
        #[arg(long)]
        keep_snapshot: bool,
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// get info about a container
    Info {
        /// only display the spec
        #[arg(long)]
        spec: bool,
        id: String,
    },
    /// list containers
    #[command(visible_alias = "ls")]
    List {
        /// print only the container id
        #[arg(short, long)]
        quiet: bool,
        filters: Vec<String>,
    },
    /// set and clear labels for a container
    Label { id: String, labels: Vec<String> },
}

pub(crate) async fn execute(command: Command, client: &Client, out: &mut dyn Write) -> Result<()> {
    let mut service = client.containers();
    match command {
        Command::Create(run) => {
            crate::run::create(&run, client).await?;
        }
        Command::Delete { keep_snapshot, ids } => {
            let mut failed = None;
            for id in ids {
                if let Err(error) = remove(client, &id, keep_snapshot).await {
                    let message = format!("failed to delete container {id:?}");
                    log_line("error", &message, Some(&error));
                    failed = Some(error);
                }
            }
            return failed.map_or(Ok(()), Err);
        }
        Command::Info { spec, id } => {
            let container = get(client, &id).await?;
            let shown = if spec {
                indented(&spec_of(&container))?
            } else {
                indented(&document(&container))?
            };
            writeln!(out, "{shown}")?;
        }
        Command::List { quiet, filters } => {
            let request = containers::ListContainersRequest { filters };
            let list = answer(service.list(request).await)?.containers;
            let mut table = Table::new(&["CONTAINER", "IMAGE", "RUNTIME"], 4, 4, End::Closed);
            for container in list {
                if quiet {
                    writeln!(out, "{}", container.id)?;
                    continue;
                }
                let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
                let runtime = container.runtime.unwrap_or_default().name;
                table.row([container.id, dash(container.image), runtime]);
            }
            if !quiet {
                table.print(out)?;
            }
        }
        Command::Label { id, labels } => {
            get(client, &id).await?;
            let labels = parse_labels(&labels);
            let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
            let container = containers::Container { id, labels, ..Default::default() };
            let request = containers::UpdateContainerRequest {
                container: Some(container),
                update_mask: Some(prost_types::FieldMask { paths }),
            };
            let container = answer(service.update(request).await)?.container.unwrap_or_default();
            writeln!(out, "{}", plain_labels(&container.labels))?;
        }
    }
    Ok(())
}

pub(crate) async fn get(client: &Client, id: &str) -> Result<containers::Container> {
    let request = containers::GetContainerRequest { id: id.to_owned() };
    let container = answer(client.containers().get(request).await)?.container;
    container.with_context(|| format!("container {id:?}: not found"))
}

/// `rm`: a task that has ended goes too, one that runs keeps its container.
async fn remove(client: &Client, id: &str, keep_snapshot: bool) -> Result<()> {
    get(client, id).await?;
    let request = tasks::GetRequest { container_id: id.to_owned(), exec_id: String::new() };
    match answer(client.tasks().get(request).await) {
        Err(error) if refused(&error, tonic::Code::NotFound) => {}
        found => {
            let status = found?.process.unwrap_or_default().status();
            if !matches!(status, Status::Created | Status::Stopped) {
                let status = status.as_str_name().to_lowercase();
                bail!(
                    "cannot delete a non stopped container: {{{status} 0 0001-01-01 00:00:00 +0000 UTC}}"
                );
            }
            let request = tasks::DeleteTaskRequest { container_id: id.to_owned() };
            answer(client.tasks().delete(request).await)?;
        }
    }
    delete(client, id, keep_snapshot).await
}

/// Removes the container and, unless kept, its snapshot.
pub(crate) async fn delete(client: &Client, id: &str, keep_snapshot: bool) -> Result<()> {
    let container = get(client, id).await?;
    if !keep_snapshot && !container.snapshot_key.is_empty() {
        let (snapshotter, key) = (container.snapshotter, container.snapshot_key);
        let request = RemoveSnapshotRequest { snapshotter, key };
        match answer(client.snapshots().remove(request).await) {
            Err(error) if refused(&error, tonic::Code::NotFound) => {}
            result => {
                result?;
            }
        }
    }
    let request = containers::DeleteContainerRequest { id: id.to_owned() };
    answer(client.containers().delete(request).await).map(drop)
}

fn spec_of(container: &containers::Container) -> Value {
    let spec = container.spec.as_ref().map(|spec| spec.value.as_slice()).unwrap_or_default();
    serde_json::from_slice(spec).unwrap_or(Value::Null)
}

/// In the order of containerd's own type.
#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    #[serde(rename = "ID")]
    id: String,
    labels: Option<BTreeMap<String, String>>,
    image: String,
    runtime: RuntimeDocument,
    snapshot_key: String,
    snapshotter: String,
    created_at: String,
    updated_at: String,
    extensions: Option<BTreeMap<String, Value>>,
    spec: Value,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct RuntimeDocument {
    name: String,
    options: Option<Value>,
}

fn document(container: &containers::Container) -> Document {
    let runtime = container.runtime.clone().unwrap_or_default();
    let labels: BTreeMap<_, _> = container.labels.clone().into_iter().collect();
    Document {
        id: container.id.clone(),
        labels: Some(labels).filter(|labels| !labels.is_empty()),
        image: container.image.clone(),
        runtime: RuntimeDocument {
            name: runtime.name,
            options: runtime.options.map(|any| json!({"type_url": any.type_url})),
        },
        snapshot_key: container.snapshot_key.clone(),
        snapshotter: container.snapshotter.clone(),
        created_at: timestamp(container.created_at),
        updated_at: timestamp(container.updated_at),
        extensions: None,
        spec: spec_of(container),
    }
}

/// Compat: ctr indents by four.
pub(crate) fn indented(value: &impl serde::Serialize) -> Result<String> {
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, format);
    serde::Serialize::serialize(value, &mut serializer)?;
    Ok(String::from_utf8(text)?)
}
