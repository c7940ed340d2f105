//! Containers: what a task can be made from. Key: `container␀namespace␀id`.

use std::borrow::Cow;

use crate::context::{Context, Namespace};
use crate::error::{Error, Result};
use crate::events::Events;
use crate::filter::{Fields, Filters, label};
use crate::store::labels::{apply_path, check_labels, drop_empty};
use crate::store::record::{Container, Timestamp};
use crate::store::{Reader, Store, check_name, key, namespaces, prefix};

#[derive(Clone)]
pub(crate) struct Containers {
    store: Store,
    events: Events,
}

impl Containers {
    pub(crate) fn new(store: Store, events: Events) -> Self {
        Self { store, events }
    }

    pub(crate) fn get(&self, namespace: &Namespace, id: &str) -> Result<Container> {
        let found = self.store.snapshot()?.record(&at(namespace, id))?;
        found.ok_or_else(|| gone(namespace, id))
    }

    pub(crate) fn list(&self, namespace: &Namespace, filters: &Filters) -> Result<Vec<Container>> {
        let mut all: Vec<Container> =
            self.store.snapshot()?.records(&prefix(CONTAINER, &[namespace.as_str()]))?;
        all.retain(|container| filters.matches(container));
        Ok(all)
    }

    pub(crate) async fn create(
        &self,
        context: &Context,
        mut container: Container,
    ) -> Result<Container> {
        check(&container).map_err(|error| match error {
            Error::Invalid { reason } => {
                Error::invalid(format!("create container failed validation: {reason}"))
            }
            other => other,
        })?;
        drop_empty(&mut container.labels);
        container.created_at = Timestamp::now();
        container.updated_at = container.created_at;
        let scope = context.clone();
        let container = self
            .store
            .write(move |transaction| {
                let at = at(&scope.namespace, &container.id);
                if transaction.exists(&at)? {
                    return Err(Error::already_exists("container", container.id));
                }
                namespaces::ensure(transaction, &scope.namespace)?;
                transaction.put(&at, &container)?;
                Ok(container)
            })
            .await?;
        self.events.container_create(&context.namespace, &container);
        Ok(container)
    }

    /// The snapshotter and the runtime's name cannot change.
    pub(crate) async fn update(
        &self,
        context: &Context,
        new: Container,
        mask: Vec<String>,
    ) -> Result<Container> {
        check_name("container id", &new.id)?;
        let scope = context.clone();
        let container = self
            .store
            .write(move |transaction| {
                let at = at(&scope.namespace, &new.id);
                let found: Option<Container> = transaction.record(&at)?;
                let mut container = found.ok_or_else(|| Error::not_found("container", &new.id))?;
                let immutable =
                    |field: &str| Error::invalid(format!("container.{field} field is immutable"));
                if mask.is_empty() {
                    // Compat: without a mask an unchanged value must be sent along.
                    if new.snapshotter != container.snapshotter {
                        return Err(immutable("Snapshotter"));
                    }
                    if new.runtime.name != container.runtime.name {
                        return Err(immutable("Runtime.Name"));
                    }
                }
                let all = ALL.map(str::to_owned).to_vec();
                let paths = if mask.is_empty() { &all } else { &mask };
                for path in paths {
                    apply(&mut container, &new, path)?;
                }
                check(&container)?;
                drop_empty(&mut container.labels);
                container.updated_at = Timestamp::now();
                transaction.put(&at, &container)?;
                Ok(container)
            })
            .await?;
        self.events.container_update(&context.namespace, &container);
        Ok(container)
    }

    pub(crate) async fn delete(&self, context: &Context, id: &str) -> Result<()> {
        let (namespace, container) = (context.namespace.clone(), id.to_owned());
        self.store
            .write_when(context.when, move |transaction| {
                let at = at(&namespace, &container);
                if !transaction.exists(&at)? {
                    return Err(gone(&namespace, &container));
                }
                transaction.remove(&at);
                Ok(())
            })
            .await?;
        self.events.container_delete(&context.namespace, id);
        Ok(())
    }
}

fn apply(container: &mut Container, new: &Container, path: &str) -> Result<()> {
    if apply_path(path, &mut container.labels, &new.labels) {
        return Ok(());
    }
    if let Some(name) = path.strip_prefix("extensions.") {
        match new.extensions.get(name) {
            Some(value) => container.extensions.insert(name.to_owned(), value.clone()),
            None => container.extensions.remove(name),
        };
        return Ok(());
    }
    match path {
        "spec" => container.spec.clone_from(&new.spec),
        "extensions" => container.extensions.clone_from(&new.extensions),
        "image" => container.image.clone_from(&new.image),
        "snapshotkey" => container.snapshot_key.clone_from(&new.snapshot_key),
        "runtime.options" => container.runtime.options.clone_from(&new.runtime.options),
        "sandboxid" | "sandbox" => container.sandbox.clone_from(&new.sandbox),
        _ => {
            return Err(Error::invalid(format!(
                "cannot update {path} field on container \"{}\"",
                container.id
            )));
        }
    }
    Ok(())
}

impl Fields for Container {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.split_first()? {
            (first, []) if first == "id" => Some(self.id.as_str().into()),
            (first, []) if first == "image" => Some(self.image.as_str().into()),
            (first, [name]) if first == "runtime" && name == "name" => {
                Some(self.runtime.name.as_str().into())
            }
            (first, rest) if first == "labels" => label(&self.labels, rest),
            _ => None,
        }
    }
}

fn check(container: &Container) -> Result<()> {
    if let Err(error) = proto::namespace::check(&container.id) {
        // The text of the identifier ends in its class, ours adds it again.
        let text = error.to_string();
        let text = text.strip_suffix(": invalid argument").unwrap_or(&text);
        return Err(Error::invalid(format!("container.ID: {text}")));
    }
    for (name, value) in &container.extensions {
        if name.is_empty() || value.type_url.is_empty() {
            return Err(Error::invalid(format!(
                "container.Extensions[\"{name}\"].TypeURL must not be empty"
            )));
        }
    }
    check_labels(&container.labels)?;
    if container.runtime.name.is_empty() {
        return Err(Error::invalid("container.Runtime.Name must be set"));
    }
    if container.spec.is_none() {
        return Err(Error::invalid("container.Spec must be set"));
    }
    if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
        return Err(Error::invalid("container.Snapshotter must be set if snapshotKey is set"));
    }
    Ok(())
}

fn gone(namespace: &Namespace, id: &str) -> Error {
    Error::ContainerGone { id: id.to_owned(), namespace: namespace.to_string() }
}

fn at(namespace: &Namespace, id: &str) -> Vec<u8> {
    key(CONTAINER, &[namespace.as_str(), id])
}

pub(crate) const CONTAINER: &str = "container";
/// What an update without a mask changes.
const ALL: [&str; 7] =
    ["labels", "spec", "extensions", "image", "snapshotkey", "runtime.options", "sandboxid"];
