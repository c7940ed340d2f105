//! containerd's progress events as dockerd's lines.

use std::collections::{HashMap, HashSet};

use docker_api::progress::{Detail, Message};
use oci_image::manifest::media;
use oci_image::reference::Reference;
use proto::containerd::types::transfer::Progress;
use tokio::sync::mpsc;

use super::Lines;

/// Shows the layers of a pull until the events end; what is to be said when it succeeded.
pub(crate) async fn pull(
    reference: &Reference,
    mut events: mpsc::Receiver<Progress>,
    lines: &Lines,
) -> Vec<Message> {
    let mut layers = Layers::default();
    let mut header = Some(pulling(reference));
    while let Some(event) = events.recv().await {
        for message in layers.lines(&event) {
            if let Some(header) = header.take() {
                drop(lines.send(header).await);
            }
            // The client may have left.
            drop(lines.send(message).await);
        }
    }
    header.into_iter().chain(layers.completed()).collect()
}

/// Whether it tells of a layer that need not be fetched.
pub(crate) fn is_at_hand(message: &Message) -> bool {
    message.status.as_deref() == Some(AT_HAND)
}

const AT_HAND: &str = "Already exists";

/// Compat: the first line names the repository, its id is the tag.
fn pulling(reference: &Reference) -> Message {
    let version = match (reference.tag(), reference.digest()) {
        (_, Some(digest)) => digest.to_string(),
        (Some(tag), None) => tag.to_owned(),
        (None, None) => String::new(),
    };
    Message::status(Some(&version), format!("Pulling from {}", reference.path()))
}

/// Names of the images that were stored, in order.
pub(crate) async fn saved(mut events: mpsc::Receiver<Progress>) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(event) = events.recv().await {
        if event.event == "saved" && !names.contains(&event.name) {
            names.push(event.name);
        }
    }
    names
}

/// What was said of each layer, so that nothing is said twice.
#[derive(Debug, Default)]
struct Layers {
    announced: HashSet<String>,
    order: Vec<String>,
    finished: HashMap<String, bool>,
    /// Layers at hand, until there is another one: perhaps all of them are.
    held: Vec<String>,
}

impl Layers {
    fn lines(&mut self, event: &Progress) -> Vec<Message> {
        let Some(descriptor) = &event.desc else {
            return Vec::new();
        };
        if !media::is_layer(&descriptor.media_type) {
            return Vec::new();
        }
        let hex = descriptor.digest.split(':').next_back().unwrap_or_default();
        let id = hex.get(..12).unwrap_or(hex).to_owned();
        if event.event == "already exists" {
            if self.announced.insert(id.clone()) {
                self.finish(&id, true);
                self.held.push(id);
                return Vec::new();
            }
            let known = !self.finish(&id, true);
            return if known { Vec::new() } else { vec![at_hand(&id)] };
        }
        let mut lines: Vec<Message> = self.held.drain(..).map(|id| at_hand(&id)).collect();
        if self.announced.insert(id.clone()) {
            self.order.push(id.clone());
            lines.push(Message::layer(&id, "Pulling fs layer", 0, 0));
        }
        let total = if event.total > 0 { event.total } else { descriptor.size };
        match event.event.as_str() {
            "waiting" => lines.push(Message::layer(&id, "Waiting", 0, 0)),
            "downloading" => {
                lines.push(Message::layer(&id, "Downloading", event.progress, total));
            }
            "complete" if self.finish(&id, false) => {
                let mut line = Message::layer(&id, "Download complete", 0, 0);
                line.progress_detail =
                    Some(Detail { hide_counts: Some(true), ..Detail::default() });
                lines.push(line);
            }
            "unpacking" | "extracting" => {
                lines.push(Message::layer(&id, "Extracting", event.progress, total));
            }
            _ => {}
        }
        lines
    }

    /// containerd does not say when a layer is unpacked; at the end all of them are.
    fn completed(self) -> impl Iterator<Item = Message> {
        let Self { order, finished, held, .. } = self;
        let fetched = order.into_iter().filter(move |id| finished.get(id) != Some(&true));
        let complete = fetched.map(|id| Message::layer(&id, "Pull complete", 0, 0));
        held.into_iter().map(|id| at_hand(&id)).chain(complete)
    }

    fn finish(&mut self, id: &str, existed: bool) -> bool {
        self.finished.insert(id.to_owned(), existed).is_none()
    }
}

fn at_hand(id: &str) -> Message {
    Message::layer(id, AT_HAND, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status lines that come at once, and those that come at the end.
    fn told(events: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let mut layers = Layers::default();
        let text =
            |message: Message| format!("{} {}", message.id.unwrap(), message.status.unwrap());
        let mut at_once = Vec::new();
        for (digest, kind) in events {
            let mut event = event(kind, 0);
            if let Some(descriptor) = &mut event.desc {
                descriptor.digest = format!("sha256:{digest}");
            }
            at_once.extend(layers.lines(&event).into_iter().map(text));
        }
        (at_once, layers.completed().map(text).collect())
    }

    #[test]
    fn layers_at_hand_are_told_when_there_are_others() {
        let words = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            told(&[("a", "already exists"), ("a", "already exists"), ("b", "waiting")]),
            (
                words(&["a Already exists", "b Pulling fs layer", "b Waiting"]),
                words(&["b Pull complete"])
            )
        );
        assert_eq!(
            told(&[("a", "waiting"), ("a", "already exists"), ("b", "already exists")]),
            (
                words(&["a Pulling fs layer", "a Waiting", "a Already exists"]),
                words(&["b Already exists"])
            )
        );
    }

    fn event(kind: &str, progress: i64) -> Progress {
        Progress {
            event: kind.to_owned(),
            progress,
            total: 10,
            desc: Some(proto::containerd::types::Descriptor {
                media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
                digest: format!("sha256:{}", "ab".repeat(32)),
                size: 10,
                ..Default::default()
            }),
            ..Progress::default()
        }
    }

    #[tokio::test]
    async fn a_layer_is_told_from_announcement_to_completion() {
        let (sender, events) = mpsc::channel(8);
        for event in [event("waiting", 0), event("downloading", 5), event("complete", 10)] {
            sender.send(event).await.unwrap();
        }
        sender.send(event("complete", 10)).await.unwrap();
        drop(sender);
        let (lines, mut shown) = mpsc::channel(16);
        let last = pull(&Reference::parse("busybox:1").unwrap(), events, &lines).await;
        assert_eq!(last.len(), 1);
        assert_eq!(last[0].status.as_deref(), Some("Pull complete"));
        drop(lines);
        let mut texts = Vec::new();
        while let Some(line) = shown.recv().await {
            texts.push(line.to_line().trim().to_owned());
        }
        assert_eq!(texts[0], r#"{"status":"Pulling from library/busybox","id":"1"}"#);
        assert_eq!(
            texts[1],
            r#"{"status":"Pulling fs layer","progressDetail":{},"id":"abababababab"}"#
        );
        assert!(texts[3].contains(r#""current":5,"total":10"#), "{texts:?}");
        assert!(texts[4].contains("Download complete"), "{texts:?}");
        assert_eq!(texts.len(), 5);
    }
}
