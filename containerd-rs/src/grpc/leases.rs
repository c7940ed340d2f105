//! `containerd.services.leases.v1.Leases`.

use proto::containerd::services::leases::v1::leases_server::Leases;
use proto::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, CreateResponse, DeleteRequest, DeleteResourceRequest,
    Lease as WireLease, ListRequest, ListResourcesRequest, ListResourcesResponse, ListResponse,
    Resource as WireResource,
};
use tonic::{Request, Response, Status};

use super::wire::{Answer, context, from_labels, labels, required, timestamp, to_status};
use crate::app::App;
use crate::filter::Filters;
use crate::lease::{Lease, Resource};

pub(crate) struct LeasesService(pub(crate) App);

#[tonic::async_trait]
impl Leases for LeasesService {
    async fn create(&self, request: Request<CreateRequest>) -> Answer<CreateResponse> {
        let context = context(&request)?;
        let request = request.into_inner();
        let labels = from_labels(request.labels);
        let lease = self.0.leases.create(&context.namespace, &request.id, labels).await;
        Ok(Response::new(CreateResponse { lease: Some(to_wire(lease.map_err(to_status)?)) }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Answer<()> {
        let context = context(&request)?;
        let request = request.into_inner();
        self.0.leases.delete(&context.namespace, &request.id).await.map_err(to_status)?;
        if request.sync {
            self.0.collector.run().await.map_err(to_status)?;
        } else {
            self.0.collector.schedule();
        }
        Ok(Response::new(()))
    }

    async fn list(&self, request: Request<ListRequest>) -> Answer<ListResponse> {
        let context = context(&request)?;
        let filters = Filters::parse(&request.get_ref().filters).map_err(to_status)?;
        let leases = self.0.leases.list(&context.namespace, &filters).map_err(to_status)?;
        Ok(Response::new(ListResponse { leases: leases.into_iter().map(to_wire).collect() }))
    }

    async fn add_resource(&self, request: Request<AddResourceRequest>) -> Answer<()> {
        let context = context(&request)?;
        let request = request.into_inner();
        let resource = from_wire(request.resource)?;
        let added = self.0.leases.add_resource(&context.namespace, &request.id, resource).await;
        added.map(Response::new).map_err(to_status)
    }

    async fn delete_resource(&self, request: Request<DeleteResourceRequest>) -> Answer<()> {
        let context = context(&request)?;
        let request = request.into_inner();
        let resource = from_wire(request.resource)?;
        let removed =
            self.0.leases.delete_resource(&context.namespace, &request.id, resource).await;
        self.0.collector.mutated();
        removed.map(Response::new).map_err(to_status)
    }

    async fn list_resources(
        &self,
        request: Request<ListResourcesRequest>,
    ) -> Answer<ListResourcesResponse> {
        let context = context(&request)?;
        let id = request.into_inner().id;
        let found = self.0.leases.resources(&context.namespace, &id).map_err(to_status)?;
        let resources = found
            .into_iter()
            .map(|resource| WireResource { id: resource.id, r#type: resource.kind })
            .collect();
        Ok(Response::new(ListResourcesResponse { resources }))
    }
}

fn to_wire(lease: Lease) -> WireLease {
    WireLease {
        id: lease.id,
        created_at: Some(timestamp(lease.created_at)),
        labels: labels(lease.labels),
    }
}

fn from_wire(wire: Option<WireResource>) -> Result<Resource, Status> {
    let wire = required(wire, "resource")?;
    Ok(Resource { kind: wire.r#type, id: wire.id })
}
