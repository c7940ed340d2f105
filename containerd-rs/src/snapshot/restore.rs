//! After a power cut: metadata is synced when it is answered, directories made for it are not. So records may
//! name trees that the disk does not have.

use super::{Kind, Snapshots, chain, every};
use crate::context::Namespace;
use crate::error::Result;

impl Snapshots {
    /// No number is given twice, and what was lost with its directory begins empty again: of what was written
    /// into an active snapshot nothing was promised. Committed ones were synced.
    pub(super) fn restore(&self) -> Result<()> {
        let reader = self.0.store.snapshot()?;
        for (namespace, by, info) in every(&reader)? {
            let Some(trees) = self.0.snapshotters.get(by.as_str()) else { continue };
            trees.take_id(info.id);
            if trees.stands(info.id) {
                continue;
            }
            if info.kind == Kind::Committed {
                tracing::error!(snapshotter = by, name = info.name, "a snapshot's tree is lost");
                continue;
            }
            let parents = Namespace::parse(&namespace)
                .and_then(|namespace| chain(&reader, &namespace, &by, &info.parent));
            let made = parents.and_then(|parents| trees.create(info.id, info.kind, &parents));
            match made {
                Ok(()) => {
                    tracing::info!(snapshotter = by, name = info.name, "a lost tree was made again")
                }
                Err(error) => {
                    tracing::warn!(snapshotter = by, name = info.name, %error, "a tree is lost")
                }
            }
        }
        Ok(())
    }
}
