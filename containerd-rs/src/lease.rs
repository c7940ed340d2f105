//! Leases keep what a client is working on from the garbage collector.
//!
//! Keys: `lease␀namespace␀id` → record; `leased␀namespace␀id␀type␀resource` → mark.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::context::{Context, Namespace};
use crate::error::{Error, Result};
use crate::filter::{Fields, Filters, label};
use crate::store::labels::check_labels;
use crate::store::record::{Labels, Timestamp};
use crate::store::{Reader, Store, Transaction, check_name, key, namespaces, prefix};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) id: String,
    pub(crate) created_at: Timestamp,
    #[serde(default)]
    pub(crate) labels: Labels,
}

/// What a lease holds: kind is `content`, `ingests`, `images` or `snapshots/<snapshotter>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resource {
    pub(crate) kind: String,
    pub(crate) id: String,
}

#[derive(Clone)]
pub(crate) struct Leases {
    store: Store,
}

impl Leases {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Without an id, one is made up.
    pub(crate) async fn create(
        &self,
        namespace: &Namespace,
        id: &str,
        labels: Labels,
    ) -> Result<Lease> {
        check_labels(&labels)?;
        let id = if id.is_empty() { made_up_id() } else { id.to_owned() };
        check_name("lease id", &id)?;
        let lease = Lease { id, created_at: Timestamp::now(), labels };
        let namespace = namespace.clone();
        self.store
            .write(move |transaction| {
                let at = lease_key(&namespace, &lease.id);
                if transaction.exists(&at)? {
                    return Err(Error::already_exists("lease", lease.id));
                }
                namespaces::ensure(transaction, &namespace)?;
                transaction.put(&at, &lease)?;
                Ok(lease)
            })
            .await
    }

    pub(crate) async fn delete(&self, namespace: &Namespace, id: &str) -> Result<()> {
        let (namespace, id) = (namespace.clone(), id.to_owned());
        self.store
            .write(move |transaction| {
                let at = lease_key(&namespace, &id);
                if !transaction.exists(&at)? {
                    return Err(Error::not_found("lease", id));
                }
                remove(transaction, &namespace, &id)
            })
            .await
    }

    pub(crate) fn list(&self, namespace: &Namespace, filters: &Filters) -> Result<Vec<Lease>> {
        let mut leases: Vec<Lease> =
            self.store.snapshot()?.records(&prefix(LEASE, &[namespace.as_str()]))?;
        leases.retain(|lease| filters.matches(lease));
        Ok(leases)
    }

    pub(crate) async fn add_resource(
        &self,
        namespace: &Namespace,
        id: &str,
        resource: Resource,
    ) -> Result<()> {
        let (namespace, id) = (namespace.clone(), id.to_owned());
        check_resource(&resource)?;
        self.store.write(move |transaction| add(transaction, &namespace, &id, &resource)).await
    }

    pub(crate) async fn delete_resource(
        &self,
        namespace: &Namespace,
        id: &str,
        resource: Resource,
    ) -> Result<()> {
        let (namespace, id) = (namespace.clone(), id.to_owned());
        check_resource(&resource)?;
        self.store
            .write(move |transaction| {
                if !transaction.exists(&lease_key(&namespace, &id))? {
                    return Err(Error::not_found("lease", id));
                }
                transaction.remove(&resource_key(&namespace, &id, &resource));
                Ok(())
            })
            .await
    }

    pub(crate) fn resources(&self, namespace: &Namespace, id: &str) -> Result<Vec<Resource>> {
        let snapshot = self.store.snapshot()?;
        if !snapshot.exists(&lease_key(namespace, id))? {
            return Err(Error::not_found("lease", id));
        }
        resources(&snapshot, namespace, id)
    }
}

impl Lease {
    /// Whether its time has come; a label that is no time never expires a lease.
    pub(crate) fn expired(&self, now: Timestamp) -> bool {
        self.labels
            .get(EXPIRE)
            .and_then(|at| at.parse::<Timestamp>().ok())
            .is_some_and(|at| at < now)
    }
}

impl Fields for Lease {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.split_first()? {
            (first, []) if first == "id" => Some(self.id.as_str().into()),
            (first, rest) if first == "labels" => label(&self.labels, rest),
            _ => None,
        }
    }
}

/// Puts a resource under the lease of the context, inside the transaction that makes it.
pub(crate) fn hold(
    transaction: &mut Transaction<'_>,
    context: &Context,
    kind: &str,
    id: &str,
) -> Result<()> {
    match &context.lease {
        Some(lease) => {
            let resource = Resource { kind: kind.to_owned(), id: id.to_owned() };
            add(transaction, &context.namespace, lease, &resource)
        }
        None => Ok(()),
    }
}

/// Takes a resource that was removed out of the lease of the context.
pub(crate) fn release(transaction: &mut Transaction<'_>, context: &Context, kind: &str, id: &str) {
    if let Some(lease) = &context.lease {
        let resource = Resource { kind: kind.to_owned(), id: id.to_owned() };
        transaction.remove(&resource_key(&context.namespace, lease, &resource));
    }
}

/// All leases of all namespaces, for the collector.
pub(crate) fn every(reader: &impl Reader) -> Result<Vec<(String, Lease)>> {
    let mut all = Vec::new();
    reader.scan(&prefix(LEASE, &[]), &mut |key, value| {
        let namespace = crate::store::fields(key).get(1).cloned().unwrap_or_default();
        let lease = serde_json::from_slice(value)
            .map_err(|source| Error::Record { key: LEASE.into(), source })?;
        all.push((namespace, lease));
        Ok(true)
    })?;
    Ok(all)
}

pub(crate) fn exists(reader: &impl Reader, namespace: &str, id: &str) -> Result<bool> {
    reader.exists(&key(LEASE, &[namespace, id]))
}

pub(crate) fn resources(
    reader: &impl Reader,
    namespace: &Namespace,
    id: &str,
) -> Result<Vec<Resource>> {
    let mut all = Vec::new();
    reader.scan(&prefix(LEASED, &[namespace.as_str(), id]), &mut |key, _| {
        if let [_, _, _, kind, id] = crate::store::fields(key).as_slice() {
            all.push(Resource { kind: kind.clone(), id: id.clone() });
        }
        Ok(true)
    })?;
    Ok(all)
}

pub(crate) fn remove(
    transaction: &mut Transaction<'_>,
    namespace: &Namespace,
    id: &str,
) -> Result<()> {
    transaction.remove(&lease_key(namespace, id));
    transaction.remove_prefix(&prefix(LEASED, &[namespace.as_str(), id]))
}

fn add(
    transaction: &mut Transaction<'_>,
    namespace: &Namespace,
    id: &str,
    resource: &Resource,
) -> Result<()> {
    if !transaction.exists(&lease_key(namespace, id))? {
        return Err(Error::LeaseGone);
    }
    transaction.mark(&resource_key(namespace, id, resource));
    Ok(())
}

fn check_resource(resource: &Resource) -> Result<()> {
    check_name("resource id", &resource.id)?;
    let snapshotter = resource.kind.strip_prefix("snapshots/");
    match resource.kind.as_str() {
        "content" | "ingests" | "images" => Ok(()),
        kind if snapshotter.is_some_and(|name| !name.is_empty() && !kind.contains('\0')) => Ok(()),
        kind => Err(Error::Unimplemented { reason: format!("resource type {kind}") }),
    }
}

fn lease_key(namespace: &Namespace, id: &str) -> Vec<u8> {
    key(LEASE, &[namespace.as_str(), id])
}

fn resource_key(namespace: &Namespace, id: &str, resource: &Resource) -> Vec<u8> {
    key(LEASED, &[namespace.as_str(), id, &resource.kind, &resource.id])
}

fn made_up_id() -> String {
    let mut random = [0_u8; 8];
    if getrandom::fill(&mut random).is_err() {
        tracing::warn!("no random bytes for a lease id; its time must do");
    }
    let number = u64::from_be_bytes(random);
    format!("{}-{number:016x}", Timestamp::now().as_nanosecond())
}

pub(crate) const LEASE: &str = "lease";
const LEASED: &str = "leased";
/// A lease with this label (RFC 3339) ends at that time.
pub(crate) const EXPIRE: &str = "containerd.io/gc.expire";
