//! Namespaces: made by the first object in them, removable only when empty.
//!
//! Key: `namespace␀name` → labels.

use crate::context::Namespace;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::snapshot;
use crate::store::labels::{apply_path, check_labels, drop_empty};
use crate::store::record::Labels;
use crate::store::{Reader, Store, Transaction, containers, fields, images, key, prefix};

#[derive(Clone)]
pub(crate) struct Namespaces {
    store: Store,
    events: Events,
}

impl Namespaces {
    pub(crate) fn new(store: Store, events: Events) -> Self {
        Self { store, events }
    }

    /// Compat: one that nobody made yet has no labels, and is no error: clients ask when they connect.
    pub(crate) fn get(&self, name: &Namespace) -> Result<Labels> {
        Ok(self.store.snapshot()?.record(&at(name))?.unwrap_or_default())
    }

    pub(crate) fn list(&self) -> Result<Vec<(Namespace, Labels)>> {
        let mut all = Vec::new();
        self.store.snapshot()?.scan(&prefix(NAMESPACE, &[]), &mut |key, value| {
            let name = fields(key).pop().unwrap_or_default();
            let labels = serde_json::from_slice(value)
                .map_err(|source| Error::Record { key: name.clone(), source })?;
            all.push((Namespace::parse(&name)?, labels));
            Ok(true)
        })?;
        Ok(all)
    }

    /// Compat: creation and update are announced in the namespace of the `caller`, removal in the
    /// one that is removed.
    pub(crate) async fn create(
        &self,
        caller: &Namespace,
        name: &Namespace,
        mut labels: Labels,
    ) -> Result<Labels> {
        check_labels(&labels)?;
        drop_empty(&mut labels);
        let new = name.clone();
        let labels = self
            .store
            .write(move |transaction| {
                if transaction.exists(&at(&new))? {
                    return Err(Error::already_exists("namespace", new.as_str()));
                }
                transaction.put(&at(&new), &labels)?;
                Ok(labels)
            })
            .await?;
        self.events.namespace_create(caller, name, &labels);
        Ok(labels)
    }

    /// Without a mask all labels are replaced.
    pub(crate) async fn update(
        &self,
        caller: &Namespace,
        name: &Namespace,
        new: Labels,
        mask: Vec<String>,
    ) -> Result<Labels> {
        check_labels(&new)?;
        let (target, announced) = (name, new.clone());
        let name = name.clone();
        let labels = self
            .store
            .write(move |transaction| {
                let found: Option<Labels> = transaction.record(&at(&name))?;
                let mut labels =
                    found.ok_or_else(|| Error::not_found("namespace", name.as_str()))?;
                if mask.is_empty() {
                    labels = new;
                } else {
                    for path in &mask {
                        if !apply_path(path, &mut labels, &new) {
                            return Err(Error::invalid(format!(
                                "cannot update {path} field on namespace \"{name}\""
                            )));
                        }
                    }
                }
                drop_empty(&mut labels);
                transaction.put(&at(&name), &labels)?;
                Ok(labels)
            })
            .await?;
        self.events.namespace_update(caller, target, &announced);
        Ok(labels)
    }

    pub(crate) async fn delete(&self, target: &Namespace) -> Result<()> {
        let name = target.clone();
        self.store
            .write(move |transaction| {
                if !transaction.exists(&at(&name))? {
                    return Err(Error::not_found("namespace", name.as_str()));
                }
                let mut held = Vec::new();
                for (what, table) in HELD {
                    if transaction.any(&prefix(table, &[name.as_str()]))? {
                        held.push((*what).to_owned());
                    }
                }
                for by in snapshot::used(transaction, &name)? {
                    held.push(format!("snapshots on \"{by}\" snapshotter"));
                }
                if !held.is_empty() {
                    return Err(Error::precondition(format!(
                        "namespace \"{name}\" must be empty, but it still has {}",
                        held.join(", ")
                    )));
                }
                transaction.remove(&at(&name));
                Ok(())
            })
            .await?;
        self.events.namespace_delete(target);
        Ok(())
    }
}

/// The namespace of a new object comes into being with it.
pub(crate) fn ensure(transaction: &mut Transaction<'_>, name: &Namespace) -> Result<()> {
    if !transaction.exists(&at(name))? {
        transaction.put(&at(name), &Labels::new())?;
    }
    Ok(())
}

fn at(name: &Namespace) -> Vec<u8> {
    key(NAMESPACE, &[name.as_str()])
}

const NAMESPACE: &str = "namespace";
/// What keeps a namespace from being removed, as containerd names it.
const HELD: &[(&str, &str)] = &[
    ("images", images::IMAGE),
    ("blobs", crate::content::BLOB),
    ("containers", containers::CONTAINER),
    ("leases", crate::lease::LEASE),
];
