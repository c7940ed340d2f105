//! Snapshots.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use proto::containerd::services::snapshots::v1 as snapshots;
use proto::containerd::types::Mount;

use crate::connection::{Client, answer, failure};
use crate::table::{End, Table, size, timestamp};

#[derive(Args)]
pub(crate) struct Snapshots {
    /// snapshotter name [$CONTAINERD_SNAPSHOTTER]
    #[arg(long)]
    snapshotter: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// list snapshots
    #[command(visible_alias = "ls")]
    List { filters: Vec<String> },
    /// get info about a snapshot
    Info { key: String },
    /// prepare a snapshot from a committed snapshot
    Prepare {
        /// mount target path, will print mount, if provided
        #[arg(short, long)]
        target: Option<String>,
        /// also print the mounts as commands
        #[arg(long)]
        mounts: bool,
        key: String,
        parent: Option<String>,
    },
    /// create a read-only snapshot from a committed snapshot
    View {
        #[arg(short, long)]
        target: Option<String>,
        #[arg(long)]
        mounts: bool,
        key: String,
        parent: Option<String>,
    },
    /// mount gets mount commands for the snapshots
    #[command(visible_aliases = ["m", "mount"])]
    Mounts { target: String, key: String },
    /// commit an active snapshot into the provided name
    Commit { name: String, key: String },
    /// remove snapshots
    #[command(visible_aliases = ["rm", "delete", "del"])]
    Remove {
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// display tree view of snapshot branches
    Tree,
    /// usage snapshots
    Usage { keys: Vec<String> },
}

/// In the order of containerd's own type.
#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    kind: &'static str,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    parent: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    created: String,
    updated: String,
}

/// Keeps from garbage collection what a person made and nothing else refers to. Compat: ctr
/// labels what it prepares and commits, and not its views.
fn kept() -> HashMap<String, String> {
    let seconds = jiff::Timestamp::now().as_second();
    let now = timestamp(Some(prost_types::Timestamp { seconds, nanos: 0 }));
    HashMap::from([("containerd.io/gc.root".to_owned(), now)])
}

/// Without a name the server's default; ctr's is overlayfs.
pub(crate) fn snapshotter(given: Option<String>) -> String {
    given
        .or_else(|| std::env::var("CONTAINERD_SNAPSHOTTER").ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "overlayfs".to_owned())
}

pub(crate) async fn list(
    client: &Client,
    snapshotter: &str,
    filters: Vec<String>,
) -> Result<Vec<snapshots::Info>> {
    let snapshotter = snapshotter.to_owned();
    let request = snapshots::ListSnapshotsRequest { snapshotter, filters };
    let mut stream = answer(client.snapshots().list(request).await)?;
    let mut all = Vec::new();
    while let Some(page) = stream.message().await.map_err(failure)? {
        all.extend(page.info);
    }
    Ok(all)
}

pub(crate) async fn execute(
    arguments: Snapshots,
    client: &Client,
    out: &mut dyn Write,
) -> Result<()> {
    let snapshotter = snapshotter(arguments.snapshotter);
    let mut service = client.snapshots();
    match arguments.command {
        Command::List { filters } => {
            let mut table = Table::new(&["KEY", "PARENT", "KIND"], 1, 1, End::Closed);
            for info in list(client, &snapshotter, filters).await? {
                let kind = kind(info.kind).to_owned();
                table.row([info.name, info.parent, kind]);
            }
            table.print(out)?;
        }
        Command::Info { key } => {
            let request = snapshots::StatSnapshotRequest { snapshotter, key };
            let info = answer(service.stat(request).await)?.info.unwrap_or_default();
            let document = Document {
                kind: kind(info.kind),
                name: info.name,
                parent: info.parent,
                labels: info.labels.into_iter().collect(),
                created: timestamp(info.created_at),
                updated: timestamp(info.updated_at),
            };
            writeln!(out, "{}", crate::container::indented(&document)?)?;
        }
        Command::Prepare { target, mounts, key, parent } => {
            let (parent, labels) = (parent.unwrap_or_default(), kept());
            let request = snapshots::PrepareSnapshotRequest { snapshotter, key, parent, labels };
            let prepared = answer(service.prepare(request).await)?.mounts;
            print_mounts(&prepared, target, mounts, out)?;
        }
        Command::View { target, mounts, key, parent } => {
            let (parent, labels) = (parent.unwrap_or_default(), Default::default());
            let request = snapshots::ViewSnapshotRequest { snapshotter, key, parent, labels };
            let prepared = answer(service.view(request).await)?.mounts;
            print_mounts(&prepared, target, mounts, out)?;
        }
        Command::Mounts { target, key } => {
            let request = snapshots::MountsRequest { snapshotter, key };
            let mounts = answer(service.mounts(request).await)?.mounts;
            print_mounts(&mounts, Some(target), false, out)?;
        }
        Command::Commit { name, key } => {
            let labels = kept();
            let request = snapshots::CommitSnapshotRequest {
                snapshotter,
                name,
                key,
                labels,
                ..Default::default()
            };
            answer(service.commit(request).await)?;
        }
        Command::Remove { keys } => {
            for key in keys {
                let snapshotter = snapshotter.clone();
                let said = format!("failed to remove {key:?}");
                let request = snapshots::RemoveSnapshotRequest { snapshotter, key };
                answer(service.remove(request).await).context(said)?;
            }
        }
        Command::Tree => {
            let all = list(client, &snapshotter, Vec::new()).await?;
            let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for info in &all {
                children.entry(&info.parent).or_default().push(&info.name);
            }
            branch("", 0, &children, out)?;
        }
        Command::Usage { keys } => {
            let all = list(client, &snapshotter, Vec::new()).await?;
            let mut table = Table::new(&["KEY", "SIZE", "INODES"], 1, 1, End::Closed);
            for info in all.into_iter().filter(|i| keys.is_empty() || keys.contains(&i.name)) {
                let (snapshotter, key) = (snapshotter.clone(), info.name.clone());
                let request = snapshots::UsageRequest { snapshotter, key };
                let usage = answer(service.usage(request).await)?;
                table.row([info.name, size(usage.size), usage.inodes.to_string()]);
            }
            table.print(out)?;
        }
    }
    Ok(())
}

fn branch(
    parent: &str,
    depth: usize,
    children: &BTreeMap<&str, Vec<&str>>,
    out: &mut dyn Write,
) -> Result<()> {
    for name in children.get(parent).into_iter().flatten() {
        if depth == 0 {
            writeln!(out, " {name}")?;
        } else {
            writeln!(out, "{}\\_ {name}", "  ".repeat(depth))?;
        }
        branch(name, depth + 1, children, out)?;
    }
    Ok(())
}

fn kind(kind: i32) -> &'static str {
    match snapshots::Kind::try_from(kind) {
        Ok(snapshots::Kind::View) => "View",
        Ok(snapshots::Kind::Active) => "Active",
        Ok(snapshots::Kind::Committed) => "Committed",
        _ => "Unknown",
    }
}

/// With a target the commands of mount(8); else, on request, the mounts as JSON.
fn print_mounts(
    mounts: &[Mount],
    target: Option<String>,
    json: bool,
    out: &mut dyn Write,
) -> Result<()> {
    if let Some(target) = target {
        for mount in mounts {
            write!(out, "mount -t {} {} {target}", mount.r#type, mount.source)?;
            if !mount.options.is_empty() {
                write!(out, " -o {}", mount.options.join(","))?;
            }
            writeln!(out)?;
        }
    } else if json {
        let list: Vec<_> = mounts
            .iter()
            .map(|m| serde_json::json!({"Type": m.r#type, "Source": m.source, "Target": m.target, "Options": m.options}))
            .collect();
        writeln!(out, "{:#}", serde_json::Value::from(list))?;
    }
    Ok(())
}
