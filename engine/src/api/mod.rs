//! HTTP: the version prefix is stripped, the path is matched by segments, the answer rendered.
//!
//! Each resource has `route(app, call) -> Reply`; what no resource knows is dockerd's 404.
//! Image names contain slashes, so segments are matched from both ends (`Call::name`).

pub(crate) mod call;
mod connection;
pub(crate) mod containers;
pub(crate) mod error;
pub(crate) mod exec;
pub(crate) mod hijack;
pub(crate) mod images;
pub(crate) mod listen;
pub(crate) mod networks;
pub(crate) mod reply;
pub(crate) mod system;
pub(crate) mod volumes;
pub(crate) mod watched;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use docker_api::filters::Filters;
use docker_api::version::ApiVersion;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::app::App;
use call::Call;
use error::ApiError;
use reply::Reply;

/// Answers one request; never fails.
pub(crate) async fn handle(app: Arc<App>, request: Request<Incoming>) -> Reply {
    tracing::debug!("Calling {} {}", request.method(), request.uri().path());
    let mut reply = match dispatch(&app, request).await {
        Ok(reply) => reply,
        Err(error) => error.into_reply(),
    };
    for (name, value) in reply::EVERYWHERE {
        reply.headers_mut().entry(name).or_insert(http::HeaderValue::from_static(value));
    }
    reply
}

async fn dispatch(app: &Arc<App>, request: Request<Incoming>) -> Result<Reply, ApiError> {
    if request.method() == http::Method::OPTIONS {
        return Ok(status(StatusCode::OK));
    }
    if let Some(mut location) = call::cleaned(request.uri().path()) {
        if let Some(query) = request.uri().query() {
            location = format!("{location}?{query}");
        }
        let mut moved = status(StatusCode::MOVED_PERMANENTLY);
        if let Ok(location) = http::HeaderValue::from_str(&location) {
            moved.headers_mut().insert(http::header::LOCATION, location);
        }
        return Ok(moved);
    }
    let call = Call::new(request)?;
    if call.version > ApiVersion::MAX {
        // Compat: clients match "is too new" and "is too old".
        return Err(ApiError::invalid(format!(
            "client version {} is too new. Maximum supported API version is {}",
            call.asked,
            ApiVersion::MAX
        )));
    }
    if call.version < ApiVersion::MIN {
        return Err(ApiError::invalid(format!(
            "client version {} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
            call.asked,
            ApiVersion::MIN
        )));
    }
    let area = call.segments.first().cloned().unwrap_or_default();
    match area.as_str() {
        "containers" => containers::route(app, call).await,
        "exec" => exec::route(app, call).await,
        "images" => images::route(app, call).await,
        "networks" => networks::route(app, call).await,
        "volumes" => volumes::route(app, call).await,
        _ => system::route(app, call).await,
    }
}

/// The `until` filter of a prune, in seconds: a time, or how long ago.
pub(crate) fn until(filters: &Filters) -> Result<Option<i64>, ApiError> {
    let mut times = filters.get("until");
    let Some(text) = times.next() else { return Ok(None) };
    if times.next().is_some() {
        return Err(ApiError::invalid("more than one until filter specified"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or_default();
    docker_api::time::parse_unix(text)
        .or_else(|| docker_api::time::parse_rfc3339(text))
        .map(|(seconds, _)| seconds)
        .or_else(|| docker_api::time::parse_duration(text).map(|age| now - age / 1_000_000_000))
        .map(Some)
        .ok_or_else(|| ApiError::invalid(format!("invalid filter 'until={text}'")))
}

/// Keeps `Response` named in one place.
pub(crate) fn status(code: StatusCode) -> Reply {
    let mut reply: Reply = Response::new(reply::no_body());
    *reply.status_mut() = code;
    reply
}
