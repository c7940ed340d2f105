//! The event bus. Events are hints without replay: a subscriber sees what is published after it
//! subscribed. A subscriber that falls 65,536 events behind loses its place: its stream ends, and
//! it subscribes and lists again.

mod announce;

use std::sync::{Arc, Mutex, PoisonError};

use prost_types::Any;
use tokio::sync::mpsc;

use crate::context::Namespace;
use crate::error::{Error, Result};
use crate::store::record::Timestamp;

/// One published event.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) timestamp: Timestamp,
    pub(crate) namespace: String,
    pub(crate) topic: String,
    pub(crate) event: Any,
}

/// The bus; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Events {
    subscribers: Arc<Mutex<Vec<mpsc::Sender<Arc<Envelope>>>>>,
}

/// Receives what is published from now on; `None` when it fell too far behind.
pub(crate) type Subscription = mpsc::Receiver<Arc<Envelope>>;

impl Events {
    /// Publishes an event of this moment. The topic and the payload are the caller's to get right.
    pub(crate) fn publish(&self, namespace: &Namespace, topic: &str, event: Any) {
        self.send(Envelope {
            timestamp: Timestamp::now(),
            namespace: namespace.as_str().to_owned(),
            topic: topic.to_owned(),
            event,
        });
    }

    /// Passes on an event that somebody else stamped (a shim, a plugin), after checking it.
    pub(crate) fn forward(&self, envelope: Envelope) -> Result<()> {
        proto::namespace::check(&envelope.namespace)?;
        check_topic(&envelope.topic)?;
        self.send(envelope);
        Ok(())
    }

    pub(crate) fn subscribe(&self) -> Subscription {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    fn send(&self, envelope: Envelope) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        if subscribers.is_empty() {
            return;
        }
        let envelope = Arc::new(envelope);
        subscribers.retain(|subscriber| match subscriber.try_send(envelope.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!("event subscriber is {BACKLOG} events behind; closing its stream");
                false
            }
        });
    }
}

/// A topic is an absolute path of identifiers: `/tasks/exit`.
pub(crate) fn check_topic(topic: &str) -> Result<()> {
    let Some(path) = topic.strip_prefix('/') else {
        return Err(Error::invalid(format!("topic \"{topic}\" must start with '/'")));
    };
    path.split('/').try_for_each(|part| {
        proto::namespace::check(part)
            .map_err(|_| Error::invalid(format!("topic \"{topic}\": invalid component \"{part}\"")))
    })
}

/// Events a subscriber may be behind.
const BACKLOG: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn bus() -> (Events, Namespace) {
        (Events::default(), Namespace::parse("test").unwrap())
    }

    #[test]
    fn a_subscriber_sees_only_what_comes_after_it() {
        let (events, namespace) = bus();
        events.publish(&namespace, "/before", Any::default());
        let mut subscription = events.subscribe();
        events.publish(&namespace, "/after", Any::default());
        assert_eq!(subscription.try_recv().unwrap().topic, "/after");
        assert!(subscription.try_recv().is_err());
    }

    #[test]
    fn a_subscriber_that_falls_behind_loses_its_place() {
        let (events, namespace) = bus();
        let mut subscription = events.subscribe();
        for _ in 0..=BACKLOG {
            events.publish(&namespace, "/x", Any::default());
        }
        let mut seen = 0;
        while subscription.try_recv().is_ok() {
            seen += 1;
        }
        assert_eq!(seen, BACKLOG);
        assert!(subscription.is_closed());
    }

    #[test]
    fn forwarded_events_need_a_namespace_and_an_absolute_topic() {
        let (events, _) = bus();
        let envelope = |namespace: &str, topic: &str| Envelope {
            timestamp: Timestamp::now(),
            namespace: namespace.into(),
            topic: topic.into(),
            event: Any::default(),
        };
        assert!(events.forward(envelope("", "/tasks/exit")).is_err());
        assert!(events.forward(envelope("moby", "tasks")).is_err());
        assert!(events.forward(envelope("moby", "/tasks/")).is_err());
        assert!(events.forward(envelope("moby", "/tasks/exit")).is_ok());
    }
}
