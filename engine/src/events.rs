//! What happened, as clients hear it: a ring of the last 256 and a bounded broadcast.
//!
//! A subscriber that does not keep up loses its place, not our memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use docker_api::StringMap;
use docker_api::event::{Actor, Event};
use tokio::sync::broadcast;

/// The engine's events; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    past: Mutex<Past>,
    live: broadcast::Sender<Arc<Event>>,
}

const PAST: usize = 256;

/// The last events, as JSON one behind the other: hundreds of small blocks that live long, each from another
/// moment of a burst, would hold a page each.
#[derive(Debug, Default)]
struct Past {
    lengths: VecDeque<usize>,
    bytes: VecDeque<u8>,
}

impl Past {
    fn push(&mut self, event: &Event) {
        let Ok(json) = serde_json::to_vec(event) else { return };
        if self.lengths.len() == PAST
            && let Some(oldest) = self.lengths.pop_front()
        {
            self.bytes.drain(..oldest);
        }
        self.lengths.push_back(json.len());
        self.bytes.extend(json);
    }

    fn read(&mut self) -> Vec<Arc<Event>> {
        let mut rest = &*self.bytes.make_contiguous();
        let mut events = Vec::with_capacity(self.lengths.len());
        for length in &self.lengths {
            let (json, after) = rest.split_at(*length);
            events.extend(serde_json::from_slice(json).map(Arc::new));
            rest = after;
        }
        events
    }
}

impl Events {
    pub(crate) fn new() -> Self {
        let (live, _) = broadcast::channel(PAST);
        Self { shared: Arc::new(Shared { past: Mutex::default(), live }) }
    }

    /// Tells everyone. `kind` is `container`, `image`, `network`, `volume` or `daemon`.
    pub(crate) fn publish(&self, kind: &str, action: &str, id: &str, attributes: StringMap) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let old_style = matches!(kind, "container" | "image");
        let event = Arc::new(Event {
            // Compat: the flat fields that clients below API 1.52 read.
            status: old_style.then(|| action.to_owned()),
            id: old_style.then(|| id.to_owned()),
            from: attributes.get("image").filter(|_| kind == "container").cloned(),
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            scope: Some("local".to_owned()),
            time: i64::try_from(now.as_secs()).unwrap_or_default(),
            time_nano: i64::try_from(now.as_nanos()).unwrap_or_default(),
        });
        let mut past = self.shared.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.push(&event);
        // Sent under the lock, so that `subscribe` sees each event once.
        drop(self.shared.live.send(event));
    }

    /// The remembered past and everything from now on, without gap or double.
    pub(crate) fn subscribe(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let mut past = self.shared.past.lock().unwrap_or_else(PoisonError::into_inner);
        (past.read(), self.shared.live.subscribe())
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.shared.live.receiver_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn past_and_future_join() {
        let events = Events::new();
        events.publish("container", "create", "a", StringMap::new());
        let (past, mut live) = events.subscribe();
        events.publish("network", "connect", "b", StringMap::new());
        assert_eq!(past.len(), 1);
        assert_eq!(past[0].status.as_deref(), Some("create"));
        let next = live.recv().await.unwrap();
        assert_eq!((next.action.as_str(), next.status.as_deref()), ("connect", None));
    }

    #[test]
    fn the_last_256_are_remembered_as_they_were_told() {
        let events = Events::new();
        let tell = |number: u32| {
            let attributes = StringMap::from([("name".to_owned(), format!("c\"{number}"))]);
            events.publish("container", "die", &number.to_string(), attributes);
        };
        (0..100).for_each(tell);
        let mut live = events.subscribe().1;
        (100..300).for_each(tell);
        let (past, _) = events.subscribe();
        assert_eq!(past.len(), PAST);
        assert_eq!(past[0].actor.id, "44");
        assert_eq!(past[255].actor.attributes["name"], "c\"299");
        let told: Vec<_> = std::iter::from_fn(|| live.try_recv().ok()).collect();
        assert_eq!(told, past[56..]);
    }
}
