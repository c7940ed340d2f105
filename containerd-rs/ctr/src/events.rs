//! The event stream, one line an event.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use prost_types::Any;
use proto::any::{is, unpack};
use proto::containerd::events as event;
use proto::containerd::services::events::v1::SubscribeRequest;
use proto::containerd::services::images::v1 as images;
use serde_json::{Map, Value, json};

use crate::connection::{Client, answer, failure};
use crate::table::timestamp;

#[derive(Args)]
pub(crate) struct Events {
    filters: Vec<String>,
}

pub(crate) async fn execute(arguments: Events, client: &Client, out: &mut dyn Write) -> Result<()> {
    let request = SubscribeRequest { filters: arguments.filters };
    let mut stream = answer(client.events().subscribe(request).await)?;
    while let Some(envelope) = stream.message().await.map_err(failure)? {
        let time = timestamp(envelope.timestamp).replace('T', " ").replace('Z', " +0000 UTC");
        let body = envelope.event.map_or(Value::Null, |event| body(&event));
        writeln!(out, "{time} {} {} {body}", envelope.namespace, envelope.topic)?;
        out.flush()?;
    }
    Ok(())
}

/// An event as ctr shows it: JSON without its empty fields.
fn body(event: &Any) -> Value {
    macro_rules! decode {
        ($($message:path => |$it:ident| $json:expr),* $(,)?) => {
            $(if is::<$message>(event) {
                return unpack::<$message>(event).map_or(Value::Null, |$it| filled($json));
            })*
        };
    }
    decode! {
        event::TaskCreate => |e| json!({
            "container_id": e.container_id, "bundle": e.bundle,
            "rootfs": e.rootfs.iter().map(|m| json!({
                "type": m.r#type, "source": m.source, "options": m.options,
            })).collect::<Vec<_>>(),
            "io": e.io.map(|io| filled(json!({
                "stdin": io.stdin, "stdout": io.stdout, "stderr": io.stderr,
                "terminal": io.terminal,
            }))),
            "pid": e.pid,
        }),
        event::TaskStart => |e| json!({"container_id": e.container_id, "pid": e.pid}),
        event::TaskExit => |e| json!({
            "container_id": e.container_id, "id": e.id, "pid": e.pid,
            "exit_status": e.exit_status, "exited_at": timestamp(e.exited_at),
        }),
        event::TaskDelete => |e| json!({
            "container_id": e.container_id, "pid": e.pid, "exit_status": e.exit_status,
            "exited_at": timestamp(e.exited_at), "id": e.id,
        }),
        event::TaskExecAdded => |e| json!({"container_id": e.container_id, "exec_id": e.exec_id}),
        event::TaskExecStarted => |e| json!({
            "container_id": e.container_id, "exec_id": e.exec_id, "pid": e.pid,
        }),
        event::TaskOom => |e| json!({"container_id": e.container_id}),
        event::TaskPaused => |e| json!({"container_id": e.container_id}),
        event::TaskResumed => |e| json!({"container_id": e.container_id}),
        event::TaskCheckpointed => |e| json!({
            "container_id": e.container_id, "checkpoint": e.checkpoint,
        }),
        event::ContainerCreate => |e| json!({
            "id": e.id, "image": e.image,
            "runtime": e.runtime.map(|runtime| json!({"name": runtime.name})),
        }),
        event::ContainerUpdate => |e| json!({
            "id": e.id, "image": e.image, "labels": e.labels, "snapshot_key": e.snapshot_key,
        }),
        event::ContainerDelete => |e| json!({"id": e.id}),
        event::ContentCreate => |e| json!({"digest": e.digest, "size": e.size}),
        event::ContentDelete => |e| json!({"digest": e.digest}),
        event::NamespaceCreate => |e| json!({"name": e.name, "labels": e.labels}),
        event::NamespaceUpdate => |e| json!({"name": e.name, "labels": e.labels}),
        event::NamespaceDelete => |e| json!({"name": e.name}),
        event::SnapshotPrepare => |e| json!({
            "key": e.key, "parent": e.parent, "snapshotter": e.snapshotter,
        }),
        event::SnapshotCommit => |e| json!({
            "key": e.key, "name": e.name, "snapshotter": e.snapshotter,
        }),
        event::SnapshotRemove => |e| json!({"key": e.key, "snapshotter": e.snapshotter}),
        images::ImageCreate => |e| json!({"name": e.name, "labels": e.labels}),
        images::ImageUpdate => |e| json!({"name": e.name, "labels": e.labels}),
        images::ImageDelete => |e| json!({"name": e.name}),
    }
    json!({"type_url": event.type_url})
}

fn filled(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    };
    Value::Object(fields.into_iter().filter(|(_, value)| !empty(value)).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_fields_are_left_out() {
        let exit = event::TaskExit {
            container_id: "c".into(),
            id: "c".into(),
            pid: 7,
            exit_status: 0,
            exited_at: None,
        };
        let shown = body(&proto::any::pack(&exit));
        assert_eq!(shown["pid"], 7);
        assert!(shown.get("exit_status").is_none());
        assert_eq!(
            body(&Any { type_url: "x.Y".into(), value: vec![] }),
            json!({"type_url": "x.Y"})
        );
    }
}
