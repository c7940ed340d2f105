//! `containerd.services.containers.v1.Containers`.

use std::pin::Pin;

use futures_util::{Stream, stream};
use proto::containerd::services::containers::v1::container::Runtime;
use proto::containerd::services::containers::v1::containers_server::Containers;
use proto::containerd::services::containers::v1::{
    Container as WireContainer, CreateContainerRequest, CreateContainerResponse,
    DeleteContainerRequest, GetContainerRequest, GetContainerResponse, ListContainerMessage,
    ListContainersRequest, ListContainersResponse, UpdateContainerRequest, UpdateContainerResponse,
};
use tonic::{Request, Response, Status};

use super::wire::{Answer, context, from_labels, labels, mask, required, timestamp, to_status};
use crate::app::App;
use crate::filter::Filters;
use crate::store::record::{Container, RuntimeChoice, Timestamp};

pub(crate) struct ContainersService(pub(crate) App);

impl ContainersService {
    fn listed(&self, request: &Request<ListContainersRequest>) -> Result<Vec<Container>, Status> {
        let context = context(request)?;
        let filters = Filters::parse(&request.get_ref().filters).map_err(to_status)?;
        self.0.containers.list(&context.namespace, &filters).map_err(to_status)
    }
}

#[tonic::async_trait]
impl Containers for ContainersService {
    type ListStreamStream =
        Pin<Box<dyn Stream<Item = Result<ListContainerMessage, Status>> + Send + 'static>>;

    async fn get(&self, request: Request<GetContainerRequest>) -> Answer<GetContainerResponse> {
        let context = context(&request)?;
        let id = request.into_inner().id;
        let container = self.0.containers.get(&context.namespace, &id).map_err(to_status)?;
        Ok(Response::new(GetContainerResponse { container: Some(to_wire(container)) }))
    }

    async fn list(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        let containers = self.listed(&request)?.into_iter().map(to_wire).collect();
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn list_stream(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<Self::ListStreamStream> {
        let listed = self.listed(&request)?;
        let messages = listed
            .into_iter()
            .map(|container| Ok(ListContainerMessage { container: Some(to_wire(container)) }));
        Ok(Response::new(Box::pin(stream::iter(messages))))
    }

    async fn create(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        let context = context(&request)?;
        let container = from_wire(required(request.into_inner().container, "container")?);
        let container = self.0.containers.create(&context, container).await.map_err(to_status)?;
        Ok(Response::new(CreateContainerResponse { container: Some(to_wire(container)) }))
    }

    async fn update(
        &self,
        request: Request<UpdateContainerRequest>,
    ) -> Answer<UpdateContainerResponse> {
        let context = context(&request)?;
        let request = request.into_inner();
        let container = from_wire(required(request.container, "container")?);
        let paths = mask(request.update_mask);
        let container =
            self.0.containers.update(&context, container, paths).await.map_err(to_status)?;
        Ok(Response::new(UpdateContainerResponse { container: Some(to_wire(container)) }))
    }

    async fn delete(&self, request: Request<DeleteContainerRequest>) -> Answer<()> {
        let context = context(&request)?;
        let id = request.into_inner().id;
        self.0.containers.delete(&context, &id).await.map_err(to_status)?;
        self.0.collector.mutated();
        Ok(Response::new(()))
    }
}

fn to_wire(container: Container) -> WireContainer {
    WireContainer {
        id: container.id,
        labels: labels(container.labels),
        image: container.image,
        runtime: Some(Runtime {
            name: container.runtime.name,
            options: container.runtime.options.map(Into::into),
        }),
        spec: container.spec.map(Into::into),
        snapshotter: container.snapshotter,
        snapshot_key: container.snapshot_key,
        created_at: Some(timestamp(container.created_at)),
        updated_at: Some(timestamp(container.updated_at)),
        extensions: container.extensions.into_iter().map(|(k, v)| (k, v.into())).collect(),
        sandbox: container.sandbox,
    }
}

/// The times of the request do not count.
fn from_wire(wire: WireContainer) -> Container {
    let runtime = wire.runtime.unwrap_or_default();
    let now = Timestamp::now();
    Container {
        id: wire.id,
        labels: from_labels(wire.labels),
        image: wire.image,
        runtime: RuntimeChoice { name: runtime.name, options: runtime.options.map(Into::into) },
        spec: wire.spec.map(Into::into),
        snapshotter: wire.snapshotter,
        snapshot_key: wire.snapshot_key,
        created_at: now,
        updated_at: now,
        extensions: wire.extensions.into_iter().map(|(k, v)| (k, v.into())).collect(),
        sandbox: wire.sandbox,
    }
}
