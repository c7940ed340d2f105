//! Names move: by a pull, a load, an import, a tag. Compat: the image that loses its last name by it
//! stays, nameless, until it is pruned.

use std::collections::{BTreeSet, HashMap};

use proto::containerd::services::leases::v1 as wire;

use super::catalog::{DANGLING, Named};
use super::{ImageError, Images};
use crate::containerd::Containerd;

impl Images {
    /// Runs `work`, which may move the names that `may_move`.
    pub(super) async fn keeping<T>(
        &self,
        may_move: impl Fn(&Named) -> bool,
        work: impl Future<Output = Result<T, ImageError>>,
    ) -> Result<T, ImageError> {
        let mut before = self.catalog.list().await?;
        before.retain(|image| image.reference().is_some() && may_move(image));
        if before.is_empty() {
            return work.await;
        }
        let containerd = self.catalog.containerd();
        let lease = hold(containerd, &before).await?;
        let outcome = work.await;
        let kept = self.keep(&before).await;
        let request = wire::DeleteRequest { id: lease, ..wire::DeleteRequest::default() };
        if let Err(status) = containerd.leases().delete(request).await {
            tracing::warn!("delete lease over images: {}", status.message());
        }
        let done = outcome?;
        kept.map(|()| done)
    }

    /// What nothing holds any more is gone when this returns.
    pub(crate) async fn collect(&self) -> Result<(), ImageError> {
        let containerd = self.catalog.containerd();
        let id = hold(containerd, &[]).await?;
        containerd.leases().delete(wire::DeleteRequest { id, sync: true }).await?;
        Ok(())
    }

    async fn keep(&self, before: &[Named]) -> Result<(), ImageError> {
        let now = self.catalog.list().await?;
        for image in before {
            let moved = now.iter().any(|n| n.name == image.name && n.target != image.target);
            if moved && now.iter().all(|other| other.target != image.target) {
                self.name(image, &format!("{DANGLING}@{}", image.target)).await?;
            }
        }
        Ok(())
    }
}

/// A lease over the targets, so that none is collected between losing its name and getting another.
async fn hold(containerd: &Containerd, images: &[Named]) -> Result<String, ImageError> {
    let expires = jiff::Timestamp::now() + std::time::Duration::from_secs(24 * 60 * 60);
    let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expires.to_string())]);
    let request = wire::CreateRequest { labels, ..wire::CreateRequest::default() };
    let lease = containerd.leases().create(request).await?.into_inner().lease.unwrap_or_default();
    let targets: BTreeSet<String> = images.iter().map(|image| image.target.to_string()).collect();
    let held = targets.into_iter().map(|target| {
        let resource = wire::Resource { id: target, r#type: "content".to_owned() };
        let request = wire::AddResourceRequest { id: lease.id.clone(), resource: Some(resource) };
        let mut leases = containerd.leases();
        async move { leases.add_resource(request).await }
    });
    futures_util::future::try_join_all(held).await?;
    Ok(lease.id)
}
