//! The events of the metadata nouns, in containerd's topics and messages.

use proto::containerd::events as wire;
use proto::containerd::services::images::v1 as image;

use super::Events;
use crate::context::Namespace;
use crate::store::record::{Container, Image, Labels};

impl Events {
    pub(crate) fn image_create(&self, namespace: &Namespace, image: &Image) {
        let event = image::ImageCreate { name: image.name.clone(), labels: map(&image.labels) };
        self.announce(namespace, "/images/create", &event);
    }

    pub(crate) fn image_update(&self, namespace: &Namespace, image: &Image) {
        let event = image::ImageUpdate { name: image.name.clone(), labels: map(&image.labels) };
        self.announce(namespace, "/images/update", &event);
    }

    pub(crate) fn image_delete(&self, namespace: &Namespace, name: &str) {
        self.announce(namespace, "/images/delete", &image::ImageDelete { name: name.to_owned() });
    }

    pub(crate) fn container_create(&self, namespace: &Namespace, container: &Container) {
        let event = wire::ContainerCreate {
            id: container.id.clone(),
            image: container.image.clone(),
            runtime: Some(wire::container_create::Runtime {
                name: container.runtime.name.clone(),
                options: container.runtime.options.clone().map(Into::into),
            }),
        };
        self.announce(namespace, "/containers/create", &event);
    }

    pub(crate) fn container_update(&self, namespace: &Namespace, container: &Container) {
        let event = wire::ContainerUpdate {
            id: container.id.clone(),
            image: container.image.clone(),
            labels: map(&container.labels),
            snapshot_key: container.snapshot_key.clone(),
        };
        self.announce(namespace, "/containers/update", &event);
    }

    pub(crate) fn container_delete(&self, namespace: &Namespace, id: &str) {
        let event = wire::ContainerDelete { id: id.to_owned() };
        self.announce(namespace, "/containers/delete", &event);
    }

    pub(crate) fn content_create(&self, namespace: &Namespace, digest: &str, size: u64) {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let event = wire::ContentCreate { digest: digest.to_owned(), size };
        self.announce(namespace, "/content/create", &event);
    }

    pub(crate) fn content_delete(&self, namespace: &Namespace, digest: &str) {
        let event = wire::ContentDelete { digest: digest.to_owned() };
        self.announce(namespace, "/content/delete", &event);
    }

    pub(crate) fn namespace_create(&self, caller: &Namespace, name: &Namespace, labels: &Labels) {
        let event = wire::NamespaceCreate { name: name.to_string(), labels: map(labels) };
        self.announce(caller, "/namespaces/create", &event);
    }

    pub(crate) fn namespace_update(&self, caller: &Namespace, name: &Namespace, labels: &Labels) {
        let event = wire::NamespaceUpdate { name: name.to_string(), labels: map(labels) };
        self.announce(caller, "/namespaces/update", &event);
    }

    pub(crate) fn namespace_delete(&self, name: &Namespace) {
        let event = wire::NamespaceDelete { name: name.to_string() };
        self.announce(name, "/namespaces/delete", &event);
    }

    pub(crate) fn snapshot_prepare(
        &self,
        namespace: &Namespace,
        snapshotter: &str,
        key: &str,
        parent: &str,
    ) {
        let event = wire::SnapshotPrepare {
            key: key.to_owned(),
            parent: parent.to_owned(),
            snapshotter: snapshotter.to_owned(),
        };
        self.announce(namespace, "/snapshot/prepare", &event);
    }

    pub(crate) fn snapshot_commit(
        &self,
        namespace: &Namespace,
        snapshotter: &str,
        key: &str,
        name: &str,
    ) {
        let event = wire::SnapshotCommit {
            key: key.to_owned(),
            name: name.to_owned(),
            snapshotter: snapshotter.to_owned(),
        };
        self.announce(namespace, "/snapshot/commit", &event);
    }

    pub(crate) fn snapshot_remove(&self, namespace: &Namespace, snapshotter: &str, key: &str) {
        let event =
            wire::SnapshotRemove { key: key.to_owned(), snapshotter: snapshotter.to_owned() };
        self.announce(namespace, "/snapshot/remove", &event);
    }

    fn announce<M: prost::Message + prost::Name>(
        &self,
        namespace: &Namespace,
        topic: &str,
        event: &M,
    ) {
        self.publish(namespace, topic, proto::any::pack(event));
    }
}

fn map(labels: &Labels) -> std::collections::HashMap<String, String> {
    labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}
