//! `containerd.services.snapshots.v1.Snapshots`.

use std::pin::Pin;

use futures_util::{Stream, stream};
use proto::containerd::services::snapshots::v1 as api;
use proto::containerd::services::snapshots::v1::snapshots_server::Snapshots;
use tonic::{Request, Response, Status};

use super::wire::{
    Answer, context, from_labels, labels, mask, mounts, required, signed, timestamp, to_status,
};
use crate::app::App;
use crate::filter::Filters;
use crate::snapshot::{Commit, Info, Kind};

pub(crate) struct SnapshotsService(pub(crate) App);

#[tonic::async_trait]
impl Snapshots for SnapshotsService {
    type ListStream =
        Pin<Box<dyn Stream<Item = Result<api::ListSnapshotsResponse, Status>> + Send + 'static>>;

    async fn prepare(
        &self,
        request: Request<api::PrepareSnapshotRequest>,
    ) -> Answer<api::PrepareSnapshotResponse> {
        let context = context(&request)?;
        let r = request.into_inner();
        let labels = from_labels(r.labels);
        let made =
            self.0.snapshots.prepare(&context, &r.snapshotter, &r.key, &r.parent, labels).await;
        let mounts = mounts(made.map_err(to_status)?);
        self.0.collector.mutated();
        Ok(Response::new(api::PrepareSnapshotResponse { mounts }))
    }

    async fn view(
        &self,
        request: Request<api::ViewSnapshotRequest>,
    ) -> Answer<api::ViewSnapshotResponse> {
        let context = context(&request)?;
        let r = request.into_inner();
        let labels = from_labels(r.labels);
        let made = self.0.snapshots.view(&context, &r.snapshotter, &r.key, &r.parent, labels).await;
        let mounts = mounts(made.map_err(to_status)?);
        Ok(Response::new(api::ViewSnapshotResponse { mounts }))
    }

    async fn mounts(&self, request: Request<api::MountsRequest>) -> Answer<api::MountsResponse> {
        let context = context(&request)?;
        let r = request.into_inner();
        let found = self.0.snapshots.mounts(&context.namespace, &r.snapshotter, &r.key);
        Ok(Response::new(api::MountsResponse { mounts: mounts(found.map_err(to_status)?) }))
    }

    async fn commit(&self, request: Request<api::CommitSnapshotRequest>) -> Answer<()> {
        let context = context(&request)?;
        let r = request.into_inner();
        let labels = from_labels(r.labels);
        let commit = Commit { key: r.key, name: r.name, labels, onto: Some(r.parent) };
        let done = self.0.snapshots.commit(&context, &r.snapshotter, commit);
        done.await.map(Response::new).map_err(to_status)
    }

    async fn remove(&self, request: Request<api::RemoveSnapshotRequest>) -> Answer<()> {
        let context = context(&request)?;
        let r = request.into_inner();
        let done = self.0.snapshots.remove(&context, &r.snapshotter, &r.key).await;
        self.0.collector.mutated();
        done.map(Response::new).map_err(to_status)
    }

    async fn stat(
        &self,
        request: Request<api::StatSnapshotRequest>,
    ) -> Answer<api::StatSnapshotResponse> {
        let context = context(&request)?;
        let r = request.into_inner();
        let info = self.0.snapshots.stat(&context.namespace, &r.snapshotter, &r.key);
        let info = Some(to_wire(info.map_err(to_status)?));
        Ok(Response::new(api::StatSnapshotResponse { info }))
    }

    async fn update(
        &self,
        request: Request<api::UpdateSnapshotRequest>,
    ) -> Answer<api::UpdateSnapshotResponse> {
        let context = context(&request)?;
        let r = request.into_inner();
        let wire = required(r.info, "info")?;
        let (labels, paths) = (from_labels(wire.labels), mask(r.update_mask));
        let info =
            self.0.snapshots.update(&context, &r.snapshotter, &wire.name, labels, paths).await;
        let info = Some(to_wire(info.map_err(to_status)?));
        Ok(Response::new(api::UpdateSnapshotResponse { info }))
    }

    async fn list(&self, request: Request<api::ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        let context = context(&request)?;
        let r = request.into_inner();
        let filters = Filters::parse(&r.filters).map_err(to_status)?;
        let found = self.0.snapshots.list(&context.namespace, &r.snapshotter, &filters);
        let found: Vec<api::Info> = found.map_err(to_status)?.into_iter().map(to_wire).collect();
        let chunks: Vec<_> = found
            .chunks(CHUNK)
            .map(|chunk| Ok(api::ListSnapshotsResponse { info: chunk.to_vec() }))
            .collect();
        Ok(Response::new(Box::pin(stream::iter(chunks))))
    }

    async fn usage(&self, request: Request<api::UsageRequest>) -> Answer<api::UsageResponse> {
        let context = context(&request)?;
        let r = request.into_inner();
        let usage = self.0.snapshots.usage(&context.namespace, &r.snapshotter, &r.key).await;
        let usage = usage.map_err(to_status)?;
        let (size, inodes) = (signed(usage.size), signed(usage.inodes));
        Ok(Response::new(api::UsageResponse { size, inodes }))
    }

    async fn cleanup(&self, request: Request<api::CleanupRequest>) -> Answer<()> {
        let done = self.0.snapshots.cleanup(&request.into_inner().snapshotter).await;
        done.map(Response::new).map_err(to_status)
    }
}

fn to_wire(info: Info) -> api::Info {
    let kind = match info.kind {
        Kind::View => api::Kind::View,
        Kind::Active => api::Kind::Active,
        Kind::Committed => api::Kind::Committed,
    };
    api::Info {
        name: info.name,
        parent: info.parent,
        kind: kind.into(),
        created_at: Some(timestamp(info.created_at)),
        updated_at: Some(timestamp(info.updated_at)),
        labels: labels(info.labels),
    }
}

/// Snapshots in one message of a list.
const CHUNK: usize = 100;
