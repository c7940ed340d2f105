//! `containerd.services.version.v1.Version` and `grpc.health.v1.Health`.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use proto::containerd::services::version::v1::VersionResponse;
use proto::containerd::services::version::v1::version_server::Version;
use proto::errdefs::Kind;
use proto::grpc::health::v1::health_check_response::ServingStatus;
use proto::grpc::health::v1::health_server::Health;
use proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use tonic::{Request, Response, Status};

use super::wire::Answer;
use crate::app::App;

pub(crate) struct VersionService;

#[tonic::async_trait]
impl Version for VersionService {
    async fn version(&self, _request: Request<()>) -> Answer<VersionResponse> {
        Ok(Response::new(VersionResponse {
            version: crate::VERSION.to_owned(),
            revision: crate::REVISION.to_owned(),
        }))
    }
}

pub(crate) struct HealthService(pub(crate) App);

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Answer<HealthCheckResponse> {
        if !request.get_ref().service.is_empty() {
            return Err(Kind::NotFound.status("unknown service"));
        }
        Ok(Response::new(answer(ServingStatus::Serving)))
    }

    /// Serving, until we are told to end.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Answer<Self::WatchStream> {
        let known = request.get_ref().service.is_empty();
        let now = if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
        let end = self.0.shutdown.clone();
        let last = stream::once(async move {
            end.cancelled().await;
            Ok(answer(ServingStatus::NotServing))
        });
        Ok(Response::new(Box::pin(stream::iter([Ok(answer(now))]).chain(last))))
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
