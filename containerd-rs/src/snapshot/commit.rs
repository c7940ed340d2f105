//! Active snapshots becoming committed ones.

use super::{Info, Kind, Snapshots, Usage, at, blocking, child, committed, gone};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::lease;
use crate::store::labels::{check_labels, drop_empty};
use crate::store::record::{Labels, Timestamp};
use crate::store::{Reader as _, Transaction, check_name};

/// An active snapshot that is to be committed.
pub(crate) struct Commit {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) labels: Labels,
    /// The parent it is to have; it must be committed, and the snapshot without one (layers unpacked side by
    /// side).
    pub(crate) onto: Option<String>,
}

impl Snapshots {
    /// Turns the active snapshot `key` into the committed `name`.
    pub(crate) async fn commit(
        &self,
        context: &Context,
        snapshotter: &str,
        commit: Commit,
    ) -> Result<()> {
        let name = commit.name.clone();
        match self.commit_all(context, snapshotter, vec![commit]).await?.pop() {
            Some(_) => Err(Error::already_exists("snapshot", name)),
            None => Ok(()),
        }
    }

    /// All of them, in this order, with one sync and one record of it, or none. Answers the keys of those whose
    /// name others had taken; they stay active.
    pub(crate) async fn commit_all(
        &self,
        context: &Context,
        snapshotter: &str,
        mut commits: Vec<Commit>,
    ) -> Result<Vec<String>> {
        let trees = self.snapshotter(snapshotter)?.clone();
        let mut ids = Vec::new();
        for commit in &mut commits {
            check_name("snapshot name", &commit.name)?;
            check_labels(&commit.labels)?;
            drop_empty(&mut commit.labels);
            let key = &commit.key;
            let active = self.stat(&context.namespace, snapshotter, key)?;
            if active.kind != Kind::Active {
                return Err(Error::precondition(format!(
                    "failed to commit snapshot: snapshot \"{key}\" is not active"
                )));
            }
            ids.push(active.id);
        }
        // What others will be built on is whole, also after a power cut.
        let settle = move || {
            let usages = ids.iter().map(|id| trees.usage(*id).map(|usage| (*id, usage)));
            let usages = usages.collect::<Result<Vec<_>>>()?;
            trees.sync().map(|()| usages)
        };
        let settled = blocking(settle).await?;
        let (scope, by) = (context.clone(), snapshotter.to_owned());
        let (taken, made) = self
            .0
            .store
            .write(move |transaction| {
                let (mut taken, mut made) = (Vec::new(), Vec::new());
                for (commit, settled) in commits.into_iter().zip(settled) {
                    let (key, name) = (commit.key.clone(), commit.name.clone());
                    match commit.record(transaction, &scope, &by, settled) {
                        Ok(()) => made.push((key, name)),
                        Err(Error::AlreadyExists { .. }) => taken.push(key),
                        Err(error) => return Err(error),
                    }
                }
                Ok((taken, made))
            })
            .await?;
        for (key, name) in made {
            self.0.events.snapshot_commit(&context.namespace, snapshotter, &key, &name);
        }
        Ok(taken)
    }
}

impl Commit {
    fn record(
        self,
        transaction: &mut Transaction<'_>,
        scope: &Context,
        by: &str,
        (id, usage): (u64, Usage),
    ) -> Result<()> {
        let space = &scope.namespace;
        let (from, to) = (self.key, self.name);
        let found: Option<Info> = transaction.record(&at(space, by, &from))?;
        let found = found.filter(|found| found.id == id && found.kind == Kind::Active);
        let mut info = found.ok_or_else(|| gone("snapshot", &from))?;
        if transaction.exists(&at(space, by, &to))? {
            return Err(Error::already_exists("snapshot", to));
        }
        if !info.parent.is_empty() {
            transaction.remove(&child(space, by, &info.parent, &from));
        }
        if let Some(parent) = self.onto.filter(|parent| !parent.is_empty()) {
            if !info.parent.is_empty() && info.parent != parent {
                return Err(Error::invalid(format!(
                    "snapshot {from} has the parent {}, not {parent}",
                    info.parent
                )));
            }
            committed(transaction, space, by, &parent)?;
            info.parent = parent;
        }
        if !info.parent.is_empty() {
            transaction.mark(&child(space, by, &info.parent, &to));
        }
        let kind = format!("snapshots/{by}");
        lease::release(transaction, scope, &kind, &from);
        lease::hold(transaction, scope, &kind, &to)?;
        transaction.remove(&at(space, by, &from));
        let now = Timestamp::now();
        info.name = to;
        info.kind = Kind::Committed;
        info.labels = self.labels;
        (info.created_at, info.updated_at) = (now, now);
        info.usage = usage;
        transaction.put(&at(space, by, &info.name), &info)
    }
}
