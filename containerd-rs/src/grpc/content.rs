//! `containerd.services.content.v1.Content`.

use std::os::unix::fs::FileExt as _;
use std::pin::Pin;

use async_stream::try_stream;
use futures_util::{Stream, StreamExt as _, stream};
use proto::containerd::services::content::v1 as api;
use proto::containerd::services::content::v1::content_server::Content;
use proto::errdefs::Kind;
use tonic::{Request, Response, Status, Streaming};

use super::wire::{
    Answer, context, from_labels, labels, mask, required, signed, timestamp, to_status, unsigned,
};
use crate::app::App;
use crate::content::{self, Writer};
use crate::context::Context;
use crate::error::Error;
use crate::filter::Filters;

pub(crate) struct ContentService(pub(crate) App);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

#[tonic::async_trait]
impl Content for ContentService {
    type ListStream = Responses<api::ListContentResponse>;
    type ReadStream = Responses<api::ReadContentResponse>;
    type WriteStream = Responses<api::WriteContentResponse>;

    async fn info(&self, request: Request<api::InfoRequest>) -> Answer<api::InfoResponse> {
        let context = context(&request)?;
        let found = self.0.content.info(&context.namespace, &request.into_inner().digest);
        let info = Some(to_wire(found.map_err(to_status)?));
        Ok(Response::new(api::InfoResponse { info }))
    }

    async fn update(&self, request: Request<api::UpdateRequest>) -> Answer<api::UpdateResponse> {
        let context = context(&request)?;
        let request = request.into_inner();
        let wire = required(request.info, "info")?;
        let (labels, paths) = (from_labels(wire.labels), mask(request.update_mask));
        let updated = self.0.content.update(&context, &wire.digest, labels, paths).await;
        let info = Some(to_wire(updated.map_err(to_status)?));
        Ok(Response::new(api::UpdateResponse { info }))
    }

    async fn list(&self, request: Request<api::ListContentRequest>) -> Answer<Self::ListStream> {
        let context = context(&request)?;
        let filters = Filters::parse(&request.get_ref().filters).map_err(to_status)?;
        let found = self.0.content.list(&context.namespace, &filters).map_err(to_status)?;
        let found: Vec<api::Info> = found.into_iter().map(to_wire).collect();
        let chunks: Vec<_> = found
            .chunks(CHUNK)
            .map(|chunk| Ok(api::ListContentResponse { info: chunk.to_vec() }))
            .collect();
        Ok(Response::new(Box::pin(stream::iter(chunks))))
    }

    async fn delete(&self, request: Request<api::DeleteContentRequest>) -> Answer<()> {
        let context = context(&request)?;
        let digest = request.into_inner().digest;
        self.0.content.delete(&context, &digest).await.map_err(to_status)?;
        self.0.collector.schedule();
        Ok(Response::new(()))
    }

    async fn read(&self, request: Request<api::ReadContentRequest>) -> Answer<Self::ReadStream> {
        let context = context(&request)?;
        let request = request.into_inner();
        let offset = unsigned(request.offset, "offset")?;
        let wanted = unsigned(request.size, "size")?;
        let reader =
            self.0.content.reader(&context.namespace, &request.digest).map_err(to_status)?;
        if offset > reader.size {
            return Err(
                Kind::OutOfRange.status(format!("read past object length {} bytes", reader.size))
            );
        }
        let length = if wanted == 0 { reader.size - offset } else { wanted };
        if offset.checked_add(length).is_none_or(|end| end > reader.size) {
            return Err(Kind::OutOfRange.status(format!(
                "requested range {offset}+{length} past object length {} bytes",
                reader.size
            )));
        }
        let end = offset + length;
        let stream = try_stream! {
            let mut at = offset;
            while at < end {
                let size = usize::try_from((end - at).min(MESSAGE)).unwrap_or(usize::MAX);
                let data = tokio::task::block_in_place(|| {
                    let mut data = vec![0; size];
                    reader.file.read_exact_at(&mut data, at).map(|()| data)
                })
                .map_err(|error| Kind::DataLoss.status(format!("read content: {error}")))?;
                let next = at + data.len() as u64;
                yield api::ReadContentResponse { offset: signed(at), data };
                at = next;
            }
        };
        Ok(Response::new(Box::pin(stream)))
    }

    async fn status(&self, request: Request<api::StatusRequest>) -> Answer<api::StatusResponse> {
        let context = context(&request)?;
        let found = self.0.content.status(&context.namespace, &request.into_inner().r#ref);
        let status = Some(status_to_wire(found.map_err(to_status)?));
        Ok(Response::new(api::StatusResponse { status }))
    }

    async fn list_statuses(
        &self,
        request: Request<api::ListStatusesRequest>,
    ) -> Answer<api::ListStatusesResponse> {
        let context = context(&request)?;
        let filters = Filters::parse(&request.get_ref().filters).map_err(to_status)?;
        let found = self.0.content.statuses(&context.namespace, &filters).map_err(to_status)?;
        let statuses = found.into_iter().map(status_to_wire).collect();
        Ok(Response::new(api::ListStatusesResponse { statuses }))
    }

    async fn write(
        &self,
        request: Request<Streaming<api::WriteContentRequest>>,
    ) -> Answer<Self::WriteStream> {
        let context = context(&request)?;
        let mut requests = request.into_inner();
        let app = self.0.clone();
        let stream = try_stream! {
            let Some(first) = requests.next().await else { return };
            let first = first?;
            let mut session = Session::open(app, context, &first).await?;
            yield session.handle(first).await?;
            while let Some(request) = requests.next().await {
                yield session.handle(request?).await?;
            }
        };
        Ok(Response::new(Box::pin(stream)))
    }

    async fn abort(&self, request: Request<api::AbortRequest>) -> Answer<()> {
        let context = context(&request)?;
        let reference = request.into_inner().r#ref;
        let aborted = self.0.content.abort(&context.namespace, &reference);
        aborted.map(Response::new).map_err(to_status)
    }
}

/// One write stream: a writer and what its client said about the blob.
struct Session {
    app: App,
    context: Context,
    writer: Option<Writer>,
    reference: String,
    total: u64,
    expected: String,
}

impl Session {
    async fn open(
        app: App,
        context: Context,
        first: &api::WriteContentRequest,
    ) -> Result<Self, Status> {
        if first.r#ref.is_empty() {
            return Err(Kind::InvalidArgument.status("first message must have a reference"));
        }
        let total = unsigned(first.total, "total")?;
        let expected = Some(first.expected.as_str()).filter(|expected| !expected.is_empty());
        let opened = app.content.open_writer(&context, &first.r#ref, total, expected).await;
        let writer = Some(opened.map_err(to_status)?);
        let (reference, expected) = (first.r#ref.clone(), first.expected.clone());
        Ok(Self { app, context, writer, reference, total, expected })
    }

    async fn handle(
        &mut self,
        request: api::WriteContentRequest,
    ) -> Result<api::WriteContentResponse, Status> {
        self.note(&request)?;
        let Some(mut writer) = self.writer.take() else {
            return Err(Kind::FailedPrecondition.status("content was committed already"));
        };
        let action = request.action();
        let mut digest = String::new();
        if action != api::WriteAction::Stat {
            self.receive(&mut writer, &request)?;
        } else {
            digest = writer.digest();
        }
        let status = writer.status();
        if action == api::WriteAction::Commit {
            digest = writer
                .commit(self.total, Some(&self.expected), from_labels(request.labels))
                .await
                .map_err(to_status)?;
            self.app.collector.mutated();
        } else {
            self.writer = Some(writer);
        }
        Ok(api::WriteContentResponse {
            action: action.into(),
            started_at: Some(timestamp(status.started_at)),
            updated_at: Some(timestamp(status.updated_at)),
            offset: signed(status.offset),
            total: signed(status.total),
            digest,
        })
    }

    /// What later messages say of total and digest must fit what is known.
    fn note(&mut self, request: &api::WriteContentRequest) -> Result<(), Status> {
        if !request.r#ref.is_empty() && request.r#ref != self.reference {
            return Err(Kind::InvalidArgument.status("reference of a write stream cannot change"));
        }
        if !request.expected.is_empty() {
            if !self.expected.is_empty() && self.expected != request.expected {
                return Err(Kind::InvalidArgument.status(format!(
                    "commit digest differ from provided digest: {} != {}",
                    request.expected, self.expected
                )));
            }
            if self.expected.is_empty()
                && self.app.content.info(&self.context.namespace, &request.expected).is_ok()
            {
                return Err(to_status(Error::BlobExists { digest: request.expected.clone() }));
            }
            self.expected.clone_from(&request.expected);
        }
        let total = unsigned(request.total, "total")?;
        if total > 0 {
            if self.total > 0 && self.total != total {
                return Err(Kind::FailedPrecondition.status(format!(
                    "commit size differs from provided total: {total} != {}",
                    self.total
                )));
            }
            self.total = total;
            if let Some(writer) = &mut self.writer {
                writer.set_total(total);
            }
        }
        Ok(())
    }

    fn receive(
        &self,
        writer: &mut Writer,
        request: &api::WriteContentRequest,
    ) -> Result<(), Status> {
        let (given, current) = (unsigned(request.offset, "offset")?, writer.status().offset);
        if given > 0 && given != current {
            return Err(Kind::OutOfRange
                .status(format!("write @{given} must occur at current offset {current}")));
        }
        tokio::task::block_in_place(|| {
            if given == 0 && current != 0 {
                writer.truncate(0)?;
            }
            if !request.data.is_empty() {
                writer.write(&request.data)?;
            }
            Ok(())
        })
        .map_err(to_status)
    }
}

fn to_wire(info: content::Info) -> api::Info {
    api::Info {
        digest: info.digest,
        size: signed(info.size),
        created_at: Some(timestamp(info.created_at)),
        updated_at: Some(timestamp(info.updated_at)),
        labels: labels(info.labels),
    }
}

fn status_to_wire(status: content::Status) -> api::Status {
    api::Status {
        started_at: Some(timestamp(status.started_at)),
        updated_at: Some(timestamp(status.updated_at)),
        r#ref: status.reference,
        offset: signed(status.offset),
        total: signed(status.total),
        expected: status.expected.unwrap_or_default(),
    }
}

/// Infos in one message of a list.
const CHUNK: usize = 100;
/// Bytes in one message of a read.
const MESSAGE: u64 = 1 << 20;
