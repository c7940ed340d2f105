//! `containerd.services.diff.v1.Diff`.

use proto::containerd::services::diff::v1::diff_server::Diff;
use proto::containerd::services::diff::v1::{
    ApplyRequest, ApplyResponse, DiffRequest, DiffResponse,
};
use proto::errdefs::Kind;
use tonic::{Request, Response};

use super::wire::{Answer, context, descriptor, from_descriptor, from_mounts, required, to_status};
use crate::app::App;

pub(crate) struct DiffService(pub(crate) App);

#[tonic::async_trait]
impl Diff for DiffService {
    async fn apply(&self, request: Request<ApplyRequest>) -> Answer<ApplyResponse> {
        let context = context(&request)?;
        let request = request.into_inner();
        let layer = from_descriptor(required(request.diff, "diff")?);
        let mounts = from_mounts(request.mounts);
        let applied = self.0.diff.apply(&context, &layer, mounts, request.sync_fs).await;
        let applied = Some(descriptor(applied.map_err(to_status)?));
        Ok(Response::new(ApplyResponse { applied }))
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Answer<DiffResponse> {
        context(&request)?;
        Err(Kind::Unimplemented.status("comparing snapshots is not implemented"))
    }
}
