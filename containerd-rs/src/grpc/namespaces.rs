//! `containerd.services.namespaces.v1.Namespaces`.

use proto::containerd::services::namespaces::v1::namespaces_server::Namespaces;
use proto::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, CreateNamespaceResponse, DeleteNamespaceRequest, GetNamespaceRequest,
    GetNamespaceResponse, ListNamespacesRequest, ListNamespacesResponse,
    Namespace as WireNamespace, UpdateNamespaceRequest, UpdateNamespaceResponse,
};
use tonic::{Request, Response, Status};

use super::wire::{Answer, context, from_labels, labels, mask, required, to_status};
use crate::app::App;
use crate::context::Namespace;
use crate::store::record::Labels;

pub(crate) struct NamespacesService(pub(crate) App);

#[tonic::async_trait]
impl Namespaces for NamespacesService {
    async fn get(&self, request: Request<GetNamespaceRequest>) -> Answer<GetNamespaceResponse> {
        let name = parse(&request.into_inner().name)?;
        let found = self.0.namespaces.get(&name).map_err(to_status)?;
        Ok(Response::new(GetNamespaceResponse { namespace: Some(to_wire(&name, found)) }))
    }

    async fn list(
        &self,
        _request: Request<ListNamespacesRequest>,
    ) -> Answer<ListNamespacesResponse> {
        let found = self.0.namespaces.list().map_err(to_status)?;
        let namespaces = found.into_iter().map(|(name, labels)| to_wire(&name, labels)).collect();
        Ok(Response::new(ListNamespacesResponse { namespaces }))
    }

    async fn create(
        &self,
        request: Request<CreateNamespaceRequest>,
    ) -> Answer<CreateNamespaceResponse> {
        let caller = caller(&request);
        let wire = required(request.into_inner().namespace, "namespace")?;
        let name = parse(&wire.name)?;
        let caller = caller.unwrap_or_else(|| name.clone());
        let new = from_labels(wire.labels);
        let made = self.0.namespaces.create(&caller, &name, new).await.map_err(to_status)?;
        Ok(Response::new(CreateNamespaceResponse { namespace: Some(to_wire(&name, made)) }))
    }

    async fn update(
        &self,
        request: Request<UpdateNamespaceRequest>,
    ) -> Answer<UpdateNamespaceResponse> {
        let caller = caller(&request);
        let request = request.into_inner();
        let wire = required(request.namespace, "namespace")?;
        let name = parse(&wire.name)?;
        let caller = caller.unwrap_or_else(|| name.clone());
        let (new, paths) = (from_labels(wire.labels), mask(request.update_mask));
        let found =
            self.0.namespaces.update(&caller, &name, new, paths).await.map_err(to_status)?;
        Ok(Response::new(UpdateNamespaceResponse { namespace: Some(to_wire(&name, found)) }))
    }

    async fn delete(&self, request: Request<DeleteNamespaceRequest>) -> Answer<()> {
        let name = parse(&request.into_inner().name)?;
        self.0.namespaces.delete(&name).await.map_err(to_status)?;
        Ok(Response::new(()))
    }
}

/// The namespace header; this service works without it.
fn caller<T>(request: &Request<T>) -> Option<Namespace> {
    context(request).ok().map(|context| context.namespace)
}

fn parse(name: &str) -> Result<Namespace, Status> {
    Namespace::parse(name).map_err(to_status)
}

fn to_wire(name: &Namespace, found: Labels) -> WireNamespace {
    WireNamespace { name: name.to_string(), labels: labels(found) }
}
