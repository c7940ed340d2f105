//! `containerd.services.images.v1.Images`.

use proto::containerd::services::images::v1::images_server::Images;
use proto::containerd::services::images::v1::{
    CreateImageRequest, CreateImageResponse, DeleteImageRequest, GetImageRequest, GetImageResponse,
    Image as WireImage, ListImagesRequest, ListImagesResponse, UpdateImageRequest,
    UpdateImageResponse,
};
use tonic::{Request, Response, Status};

use super::wire::{
    Answer, context, descriptor, from_descriptor, from_labels, labels, mask, required, timestamp,
    to_status,
};
use crate::app::App;
use crate::filter::Filters;
use crate::store::record::Image;

pub(crate) struct ImagesService(pub(crate) App);

#[tonic::async_trait]
impl Images for ImagesService {
    async fn get(&self, request: Request<GetImageRequest>) -> Answer<GetImageResponse> {
        let context = context(&request)?;
        let name = request.into_inner().name;
        let image = self.0.images.get(&context.namespace, &name).map_err(to_status)?;
        Ok(Response::new(GetImageResponse { image: Some(to_wire(image)) }))
    }

    async fn list(&self, request: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let context = context(&request)?;
        let filters = Filters::parse(&request.get_ref().filters).map_err(to_status)?;
        let images = self.0.images.list(&context.namespace, &filters).map_err(to_status)?;
        let images = images.into_iter().map(to_wire).collect();
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn create(&self, request: Request<CreateImageRequest>) -> Answer<CreateImageResponse> {
        let context = context(&request)?;
        let image = from_wire(required(request.into_inner().image, "image")?)?;
        let image = self.0.images.create(&context, image).await.map_err(to_status)?;
        self.0.collector.mutated();
        Ok(Response::new(CreateImageResponse { image: Some(to_wire(image)) }))
    }

    async fn update(&self, request: Request<UpdateImageRequest>) -> Answer<UpdateImageResponse> {
        let context = context(&request)?;
        let request = request.into_inner();
        let mut wire = required(request.image, "image")?;
        // A mask of labels alone may come without a target.
        let target = wire.target.take().unwrap_or_default();
        let image = Image {
            labels: from_labels(wire.labels),
            ..Image::new(wire.name, from_descriptor(target))
        };
        let paths = mask(request.update_mask);
        let image = self.0.images.update(&context, image, paths).await.map_err(to_status)?;
        self.0.collector.mutated();
        Ok(Response::new(UpdateImageResponse { image: Some(to_wire(image)) }))
    }

    async fn delete(&self, request: Request<DeleteImageRequest>) -> Answer<()> {
        let context = context(&request)?;
        let request = request.into_inner();
        let target = request.target.map(from_descriptor);
        self.0.images.delete(&context, &request.name, target).await.map_err(to_status)?;
        if request.sync {
            self.0.collector.run().await.map_err(to_status)?;
        } else {
            self.0.collector.schedule();
        }
        Ok(Response::new(()))
    }
}

fn to_wire(image: Image) -> WireImage {
    WireImage {
        name: image.name,
        labels: labels(image.labels),
        target: Some(descriptor(image.target)),
        created_at: Some(timestamp(image.created_at)),
        updated_at: Some(timestamp(image.updated_at)),
    }
}

fn from_wire(wire: WireImage) -> Result<Image, Status> {
    let target = required(wire.target, "image.target")?;
    let labels = from_labels(wire.labels);
    Ok(Image { labels, ..Image::new(wire.name, from_descriptor(target)) })
}
