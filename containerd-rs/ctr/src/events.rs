//! The event stream, one line an event.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;

use anyhow::Result;
use clap::Args;
use prost_types::Any;
use proto::any::{is, unpack};
use proto::containerd::events as event;
use proto::containerd::services::events::v1::SubscribeRequest;
use proto::containerd::services::images::v1 as images;

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
        let body = envelope.event.map_or(Shown::Fields(Vec::new()), |event| body(&event));
        writeln!(out, "{time} {} {} {body}", envelope.namespace, envelope.topic)?;
        out.flush()?;
    }
    Ok(())
}

/// JSON with the fields in this order.
macro_rules! object {
    ({$($name:literal : $value:expr),* $(,)?}) => {
        Shown::Fields(vec![$(($name, Show::show($value))),*])
    };
}

/// An event as ctr shows it: JSON in the message's order, without its empty fields.
fn body(event: &Any) -> Shown {
    macro_rules! decode {
        ($($message:path => |$it:ident| $json:expr),* $(,)?) => {
            $(if is::<$message>(event) {
                return unpack::<$message>(event).map_or(Shown::Fields(Vec::new()), |$it| $json);
            })*
        };
    }
    decode! {
        event::TaskCreate => |e| object!({
            "container_id": e.container_id, "bundle": e.bundle,
            "rootfs": e.rootfs.into_iter().map(|m| object!({
                "type": m.r#type, "source": m.source, "options": m.options,
            })).collect::<Vec<_>>(),
            "io": e.io.map(|io| object!({
                "stdin": io.stdin, "stdout": io.stdout, "stderr": io.stderr,
                "terminal": io.terminal,
            })),
            "pid": e.pid,
        }),
        event::TaskStart => |e| object!({"container_id": e.container_id, "pid": e.pid}),
        event::TaskExit => |e| object!({
            "container_id": e.container_id, "id": e.id, "pid": e.pid,
            "exit_status": e.exit_status, "exited_at": e.exited_at,
        }),
        event::TaskDelete => |e| object!({
            "container_id": e.container_id.clone(), "pid": e.pid, "exit_status": e.exit_status,
            "exited_at": e.exited_at, "id": if e.id == e.container_id { String::new() } else { e.id },
        }),
        event::TaskExecAdded => |e| object!({"container_id": e.container_id, "exec_id": e.exec_id}),
        event::TaskExecStarted => |e| object!({
            "container_id": e.container_id, "exec_id": e.exec_id, "pid": e.pid,
        }),
        event::TaskOom => |e| object!({"container_id": e.container_id}),
        event::TaskPaused => |e| object!({"container_id": e.container_id}),
        event::TaskResumed => |e| object!({"container_id": e.container_id}),
        event::TaskCheckpointed => |e| object!({
            "container_id": e.container_id, "checkpoint": e.checkpoint,
        }),
        event::ContainerCreate => |e| object!({
            "id": e.id, "image": e.image,
            "runtime": e.runtime.map(|runtime| object!({
                "name": runtime.name,
                "options": runtime.options.map(|any| object!({"type_url": any.type_url})),
            })),
        }),
        event::ContainerUpdate => |e| object!({
            "id": e.id, "image": e.image, "labels": e.labels, "snapshot_key": e.snapshot_key,
        }),
        event::ContainerDelete => |e| object!({"id": e.id}),
        event::ContentCreate => |e| object!({"digest": e.digest, "size": e.size}),
        event::ContentDelete => |e| object!({"digest": e.digest}),
        event::NamespaceCreate => |e| object!({"name": e.name, "labels": e.labels}),
        event::NamespaceUpdate => |e| object!({"name": e.name, "labels": e.labels}),
        event::NamespaceDelete => |e| object!({"name": e.name}),
        event::SnapshotPrepare => |e| object!({
            "key": e.key, "parent": e.parent, "snapshotter": e.snapshotter,
        }),
        event::SnapshotCommit => |e| object!({
            "key": e.key, "name": e.name, "snapshotter": e.snapshotter,
        }),
        event::SnapshotRemove => |e| object!({"key": e.key, "snapshotter": e.snapshotter}),
        images::ImageCreate => |e| object!({"name": e.name, "labels": e.labels}),
        images::ImageUpdate => |e| object!({"name": e.name, "labels": e.labels}),
        images::ImageDelete => |e| object!({"name": e.name}),
    }
    object!({"type_url": event.type_url.clone()})
}

/// A field's value.
enum Shown {
    /// Ready JSON; nothing where the field is empty.
    Text(String),
    Fields(Vec<(&'static str, Self)>),
    List(Vec<Self>),
}

impl Shown {
    fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Fields(fields) => fields.is_empty(),
            Self::List(items) => items.is_empty(),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Fields(fields) => {
                let filled = fields.iter().filter(|(_, value)| !value.is_empty());
                let parts: Vec<String> =
                    filled.map(|(name, value)| format!("\"{name}\":{value}")).collect();
                write!(f, "{{{}}}", parts.join(","))
            }
            Self::List(items) => {
                let parts: Vec<String> = items.iter().map(Self::to_string).collect();
                write!(f, "[{}]", parts.join(","))
            }
        }
    }
}

/// What a field's type shows.
trait Show {
    fn show(self) -> Shown;
}

impl Show for Shown {
    fn show(self) -> Shown {
        self
    }
}

impl Show for String {
    fn show(self) -> Shown {
        let text = serde_json::Value::from(self).to_string();
        Shown::Text(if text == "\"\"" { Self::new() } else { text })
    }
}

impl Show for u32 {
    fn show(self) -> Shown {
        i64::from(self).show()
    }
}

impl Show for i64 {
    fn show(self) -> Shown {
        Shown::Text(if self == 0 { String::new() } else { self.to_string() })
    }
}

impl Show for bool {
    fn show(self) -> Shown {
        Shown::Text(if self { "true".to_owned() } else { String::new() })
    }
}

impl Show for prost_types::Timestamp {
    fn show(self) -> Shown {
        object!({"seconds": self.seconds, "nanos": i64::from(self.nanos)})
    }
}

impl Show for HashMap<String, String> {
    fn show(self) -> Shown {
        let sorted: std::collections::BTreeMap<_, _> = self.into_iter().collect();
        let text = serde_json::to_string(&sorted).unwrap_or_default();
        Shown::Text(if sorted.is_empty() { String::new() } else { text })
    }
}

impl<T: Show> Show for Option<T> {
    fn show(self) -> Shown {
        self.map_or(Shown::Text(String::new()), Show::show)
    }
}

impl<T: Show> Show for Vec<T> {
    fn show(self) -> Shown {
        Shown::List(self.into_iter().map(Show::show).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_empty_ones_are_left_out() {
        let exit = event::TaskExit {
            container_id: "c".into(),
            id: "c".into(),
            pid: 7,
            exit_status: 0,
            exited_at: Some(prost_types::Timestamp { seconds: 5, nanos: 0 }),
        };
        assert_eq!(
            body(&proto::any::pack(&exit)).to_string(),
            r#"{"container_id":"c","id":"c","pid":7,"exited_at":{"seconds":5}}"#
        );
        let create = event::TaskCreate {
            container_id: "c".into(),
            rootfs: vec![proto::containerd::types::Mount {
                r#type: "bind".into(),
                options: vec!["ro".into()],
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(
            body(&proto::any::pack(&create)).to_string(),
            r#"{"container_id":"c","rootfs":[{"type":"bind","options":["ro"]}]}"#
        );
        let unknown = body(&Any { type_url: "x.Y".into(), value: vec![] });
        assert_eq!(unknown.to_string(), r#"{"type_url":"x.Y"}"#);
    }
}

#[cfg(test)]
mod foreign {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_event_is_shown_in_proportion(
            name in "(containerd.events.)?(TaskCreate|TaskExit|TaskOOM|ContainerCreate|ImageUpdate|SnapshotPrepare|NamespaceCreate|[A-Z][a-z]{0,5})",
            value in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let length = value.len();
            let shown = body(&Any { type_url: name, value }).to_string();
            prop_assert!(shown.len() <= 400 + 16 * length);
        }
    }
}
