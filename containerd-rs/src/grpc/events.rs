//! `containerd.services.events.v1.Events`.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field, string};
use proto::containerd::services::events::v1::events_server::Events;
use proto::containerd::services::events::v1::{ForwardRequest, PublishRequest, SubscribeRequest};
use proto::containerd::types::Envelope as WireEnvelope;
use tonic::{Request, Response, Status};

use super::wire::{Answer, context, from_timestamp, required, timestamp, to_status};
use crate::app::App;
use crate::events::{self, Envelope};
use crate::filter::{Fields, Filters};

pub(crate) struct EventsService(pub(crate) App);

#[tonic::async_trait]
impl Events for EventsService {
    type SubscribeStream =
        Pin<Box<dyn Stream<Item = Result<WireEnvelope, Status>> + Send + 'static>>;

    async fn publish(&self, request: Request<PublishRequest>) -> Answer<()> {
        let context = context(&request)?;
        let request = request.into_inner();
        events::check_topic(&request.topic).map_err(to_status)?;
        let event = required(request.event, "event")?;
        self.0.events.publish(&context.namespace, &request.topic, event);
        Ok(Response::new(()))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Answer<()> {
        let wire = required(request.into_inner().envelope, "envelope")?;
        let envelope = from_wire(wire)?;
        self.0.events.forward(envelope).map(Response::new).map_err(to_status)
    }

    /// The subscription stands when the headers go out, so a client that has them misses nothing.
    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Answer<Self::SubscribeStream> {
        let filters = Filters::parse(&request.get_ref().filters).map_err(to_status)?;
        let mut subscription = self.0.events.subscribe();
        let end = self.0.shutdown.clone();
        let stream = async_stream::try_stream! {
            loop {
                let next = tokio::select! {
                    next = subscription.recv() => next,
                    () = end.cancelled() => return,
                };
                let Some(envelope) = next else {
                    Err(Status::resource_exhausted(
                        "subscriber fell too far behind: subscribe and list again",
                    ))?;
                    return;
                };
                if filters.matches(&Filtered(&envelope)) {
                    yield to_wire(&envelope);
                }
            }
        };
        Ok(Response::new(Box::pin(stream)))
    }
}

pub(crate) fn from_wire(wire: WireEnvelope) -> Result<Envelope, Status> {
    Ok(Envelope {
        timestamp: from_timestamp(required(wire.timestamp, "timestamp")?)?,
        namespace: wire.namespace,
        topic: wire.topic,
        event: required(wire.event, "event")?,
    })
}

fn to_wire(envelope: &Arc<Envelope>) -> WireEnvelope {
    WireEnvelope {
        timestamp: Some(timestamp(envelope.timestamp)),
        namespace: envelope.namespace.clone(),
        topic: envelope.topic.clone(),
        event: Some(envelope.event.clone()),
    }
}

struct Filtered<'a>(&'a Envelope);

impl Fields for Filtered<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.split_first()? {
            (first, []) if first == "namespace" => Some(self.0.namespace.as_str().into()),
            (first, []) if first == "topic" => Some(self.0.topic.as_str().into()),
            (first, [field]) if first == "event" => event_field(&self.0.event, field),
            _ => None,
        }
    }
}

/// A text field of an event that we know, read straight from its bytes.
fn event_field(event: &prost_types::Any, field: &str) -> Option<Cow<'static, str>> {
    let name = proto::any::type_name(event);
    let (_, fields) = KNOWN.iter().find(|(known, _)| name.ends_with(known))?;
    let (_, number) = fields.iter().find(|(known, _)| *known == field)?;
    let mut bytes = event.value.as_slice();
    let mut found = String::new();
    while !bytes.is_empty() {
        let (tag, wire) = decode_key(&mut bytes).ok()?;
        if tag == *number && wire == WireType::LengthDelimited {
            string::merge(wire, &mut found, &mut bytes, DecodeContext::default()).ok()?;
        } else {
            skip_field(wire, tag, &mut bytes, DecodeContext::default()).ok()?;
        }
    }
    Some(found.into())
}

type Numbers = &'static [(&'static str, u32)];
const CONTAINER: Numbers = &[("container_id", 1)];
const EXEC: Numbers = &[("container_id", 1), ("exec_id", 2)];
const NAME: Numbers = &[("name", 1)];
const SNAPSHOT: Numbers = &[("key", 1), ("snapshotter", 5)];
/// Text fields of containerd's events that filters may ask for.
const KNOWN: &[(&str, Numbers)] = &[
    (".TaskCreate", &[("container_id", 1), ("bundle", 2), ("checkpoint", 5)]),
    (".TaskStart", CONTAINER),
    (".TaskDelete", &[("container_id", 1), ("id", 5)]),
    (".TaskExit", &[("container_id", 1), ("id", 2)]),
    (".TaskOOM", CONTAINER),
    (".TaskExecAdded", EXEC),
    (".TaskExecStarted", EXEC),
    (".TaskPaused", CONTAINER),
    (".TaskResumed", CONTAINER),
    (".TaskCheckpointed", &[("container_id", 1), ("checkpoint", 2)]),
    (".ContainerCreate", &[("id", 1), ("image", 2)]),
    (".ContainerUpdate", &[("id", 1), ("image", 2), ("snapshot_key", 4)]),
    (".ContainerDelete", &[("id", 1)]),
    (".ContentCreate", &[("digest", 1)]),
    (".ContentDelete", &[("digest", 1)]),
    (".ImageCreate", NAME),
    (".ImageUpdate", NAME),
    (".ImageDelete", NAME),
    (".NamespaceCreate", NAME),
    (".NamespaceUpdate", NAME),
    (".NamespaceDelete", NAME),
    (".SnapshotPrepare", &[("key", 1), ("parent", 2), ("snapshotter", 5)]),
    (".SnapshotCommit", &[("key", 1), ("name", 2), ("snapshotter", 5)]),
    (".SnapshotRemove", SNAPSHOT),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::containerd::events::TaskExit;

    #[test]
    fn filters_reach_into_known_events() {
        let exit = TaskExit { container_id: "c".into(), id: "e".into(), ..TaskExit::default() };
        let event = proto::any::pack(&exit);
        assert_eq!(event_field(&event, "container_id").as_deref(), Some("c"));
        assert_eq!(event_field(&event, "id").as_deref(), Some("e"));
        assert_eq!(event_field(&event, "pid"), None);
        let broken = prost_types::Any { value: vec![0xff; 4], ..event };
        assert_eq!(event_field(&broken, "id"), None);
    }

    const WORDS: &[&[u8]] = &[
        b"",
        b"\x0a",
        b"\x12\x03abc",
        b"\xff\xff\xff\xff\x0f",
        b"\x0b\x0c",
        b"\x0a\x01\xff",
        b"\x08\x01",
    ];

    proptest! {
        #[test]
        fn a_field_is_what_the_whole_event_has(
            container_id in "\\PC{0,9}", id in "\\PC{0,9}", pid: u32,
            later in "[a-z]{0,2}",
            edits in proptest::collection::vec((any::<usize>(), 0_usize..3, 0..WORDS.len()), 0..4),
        ) {
            let event = TaskExit { container_id, id, pid, exit_status: 7, exited_at: None };
            let mut event = proto::any::pack(&event);
            // A field that comes again counts anew.
            event.value.extend(proto::any::pack(&TaskExit { id: later, ..TaskExit::default() }).value);
            for (at, cut, word) in edits {
                let at = at % (event.value.len() + 1);
                event.value.splice(at..(at + cut).min(event.value.len()), WORDS[word].iter().copied());
            }
            let fields = ["container_id", "id"].map(|name| event_field(&event, name));
            if let Ok(whole) = proto::any::unpack::<TaskExit>(&event) {
                prop_assert_eq!(fields, [Some(whole.container_id.into()), Some(whole.id.into())]);
            } else {
                let length = |field: &Option<Cow<'_, str>>| field.as_ref().map_or(0, |field| field.len());
                prop_assert!(fields.iter().map(length).sum::<usize>() <= event.value.len());
            }
        }
    }
}
