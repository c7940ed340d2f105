//! What a transfer tells while it runs, in containerd's events. Events without a name speak of the
//! whole transfer; the others of one object, named by kind and digest, below its parents.
//!
//! waiting → downloading… → complete → extracting → extracted, or `already exists`; `saved` names
//! an image that was stored.

use std::time::{Duration, Instant};

use oci_image::manifest::{Descriptor, media};
use tokio::sync::mpsc;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Progress {
    pub(crate) event: String,
    pub(crate) name: String,
    pub(crate) parents: Vec<String>,
    pub(crate) progress: u64,
    pub(crate) total: u64,
    pub(crate) descriptor: Option<Descriptor>,
}

/// Where progress goes; nowhere when nobody asked. A listener that does not listen loses what can
/// be lost and holds the rest up for a moment only.
#[derive(Clone, Default)]
pub(crate) struct Reporter(Option<mpsc::Sender<Progress>>);

impl Reporter {
    pub(crate) fn new(sender: mpsc::Sender<Progress>) -> Self {
        Self(Some(sender))
    }

    /// About the transfer itself.
    pub(crate) async fn note(&self, event: String) {
        self.send(Progress { event, ..Progress::default() }).await;
    }

    pub(crate) async fn named(&self, event: &str, name: &str, descriptor: Option<Descriptor>) {
        let (event, name) = (event.to_owned(), name.to_owned());
        self.send(Progress { event, name, descriptor, ..Progress::default() }).await;
    }

    /// About one object that is done (`progress` is all of it) or not begun.
    pub(crate) async fn object(&self, event: &str, object: &Object, progress: u64) {
        self.send(object.progress(event, progress)).await;
    }

    /// About one object under way; may be lost.
    pub(crate) fn moving(&self, event: &str, object: &Object, progress: u64) {
        if let Some(sender) = &self.0
            && sender.try_send(object.progress(event, progress)).is_err()
        {
            tracing::trace!(event, "progress lost");
        }
    }

    async fn send(&self, progress: Progress) {
        let Some(sender) = &self.0 else { return };
        let sent = tokio::time::timeout(PATIENCE, sender.send(progress)).await;
        if sent.is_err() {
            tracing::debug!("nobody reads the progress");
        }
    }
}

/// Something that is fetched, and what led to it.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) descriptor: Descriptor,
    pub(crate) parents: Vec<String>,
}

impl Object {
    /// Compat: containerd's ref keys, which are also the names of ingests.
    pub(crate) fn name(&self) -> String {
        let media_type = self.descriptor.media_type.as_str();
        let kind = if media::is_index(media_type) {
            "index"
        } else if media::is_manifest(media_type) {
            "manifest"
        } else if media::is_layer(media_type) {
            "layer"
        } else if media::is_config(media_type) {
            "config"
        } else {
            "unknown"
        };
        format!("{kind}-{}", self.descriptor.digest)
    }

    fn progress(&self, event: &str, progress: u64) -> Progress {
        Progress {
            event: event.to_owned(),
            name: self.name(),
            parents: self.parents.clone(),
            progress,
            total: self.descriptor.size,
            descriptor: Some(self.descriptor.clone()),
        }
    }
}

/// Lets something through now and then.
pub(crate) struct Pace {
    next: Instant,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { next: Instant::now() }
    }

    pub(crate) fn due(&mut self) -> bool {
        let now = Instant::now();
        if now < self.next {
            return false;
        }
        self.next = now + Duration::from_millis(100);
        true
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
