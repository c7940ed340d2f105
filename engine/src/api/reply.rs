//! Building answers.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use serde::Serialize;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
pub(crate) type Reply = Response<Body>;

pub(crate) const SERVER: &str = concat!("Docker/", env!("CARGO_PKG_VERSION"), " (linux)");

/// Headers of every answer.
pub(crate) const EVERYWHERE: [(&str, &str); 4] = [
    ("Api-Version", "1.51"),
    ("Docker-Experimental", "false"),
    ("Ostype", "linux"),
    ("Server", SERVER),
];

pub(crate) fn no_body() -> Body {
    Empty::new().boxed_unsync()
}

/// A JSON document, ended by a newline as Go's encoder does.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    full(status, "application/json", bytes)
}

/// 200 with a JSON document.
pub(crate) fn ok<T: Serialize>(value: &T) -> Reply {
    json(StatusCode::OK, value)
}

/// 204.
pub(crate) fn no_content() -> Reply {
    super::status(StatusCode::NO_CONTENT)
}

/// A body known in full.
pub(crate) fn full(
    status: StatusCode,
    content_type: &'static str,
    bytes: impl Into<Bytes>,
) -> Reply {
    let mut reply = Response::new(Full::new(bytes.into()).boxed_unsync());
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    reply
}

/// 200 with a body that is flushed item by item; the headers go out at once.
pub(crate) fn stream<S>(content_type: &'static str, items: S) -> Reply
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    let body = StreamBody::new(items.map(|item| Ok::<_, Infallible>(Frame::data(item))));
    let mut reply = Response::new(body.boxed_unsync());
    reply.extensions_mut().insert(Streamed);
    reply
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    reply
}

/// Marks an answer that ends when its client is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streamed;

/// Ends a streamed answer early, when `gone` is over.
pub(crate) fn until(mut reply: Reply, gone: impl Future<Output = ()> + Send + 'static) -> Reply {
    if reply.extensions_mut().remove::<Streamed>().is_none() {
        return reply;
    }
    reply.map(|body| {
        StreamBody::new(body.into_data_stream().take_until(gone).map(|item| item.map(Frame::data)))
            .boxed_unsync()
    })
}
