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
    past: Mutex<VecDeque<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
}

const PAST: usize = 256;

impl Events {
    pub(crate) fn new() -> Self {
        let (live, _) = broadcast::channel(PAST);
        Self { shared: Arc::new(Shared { past: Mutex::new(VecDeque::new()), live }) }
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
        if past.len() == PAST {
            past.pop_front();
        }
        past.push_back(Arc::clone(&event));
        // Sent under the lock, so that `subscribe` sees each event once.
        drop(self.shared.live.send(event));
    }

    /// The remembered past and everything from now on, without gap or double.
    pub(crate) fn subscribe(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let past = self.shared.past.lock().unwrap_or_else(PoisonError::into_inner);
        (past.iter().cloned().collect(), self.shared.live.subscribe())
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
}
