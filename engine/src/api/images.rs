//! `/images`.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use docker_api::image::AuthConfig;
use docker_api::progress::Message;
use docker_api::version::ApiVersion;
use futures_util::Stream;
use http::StatusCode;
use http_body_util::{BodyExt, BodyStream};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_util::task::AbortOnDropHandle;

use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::reply::{Reply, ok, stream};
use crate::app::App;
use crate::container::rootfs;
use crate::image::{ImageError, ImportRequest, Lines, ListOptions, PullRequest};

pub(crate) async fn route(app: &Arc<App>, call: Call) -> Result<Reply, ApiError> {
    let options = ListOptions {
        shared_size: call.query.flag("shared-size"),
        old: call.version < ApiVersion::new(1, 44),
        descriptor: call.version >= ApiVersion::new(1, 48),
    };
    match call.key() {
        ("GET", path) if path == ["images", "json"] => {
            let filters = call.query.filters()?;
            // Compat: the list does not count containers.
            Ok(ok(&app.images.list(&filters, options, |_id| -1).await?))
        }
        ("GET", path) if path == ["images", "search"] => {
            Err(ApiError::not_implemented("searching a registry is not supported yet"))
        }
        ("GET", path)
            if path == ["images", "get"] || path.len() > 2 && path.last() == Some(&"get") =>
        {
            Err(ApiError::not_implemented("saving images is not supported yet"))
        }
        ("GET", path) if path.len() > 2 && path.last() == Some(&"json") => {
            Ok(ok(&app.images.inspect(&call.name(1), options).await?))
        }
        ("GET", path) if path.len() > 2 && path.last() == Some(&"history") => {
            Ok(ok(&app.images.history(&call.name(1)).await?))
        }
        ("POST", path) if path == ["images", "create"] => create(app, call).await,
        ("POST", path) if path == ["images", "load"] => load(app, call).await,
        ("POST", path) if path == ["images", "prune"] => {
            let filters = call.query.filters()?;
            let before = app.images.chains().await;
            let pruned = app.images.prune(&filters, |id| app.containers.using_image(id)).await?;
            rootfs::forget_unused(app, before.into_iter().collect()).await;
            Ok(ok(&pruned))
        }
        ("POST", path) if path.len() > 2 && path.last() == Some(&"tag") => {
            let (repository, tag) = (call.query.get("repo"), call.query.get("tag"));
            app.images.tag(&call.name(1), repository, tag).await?;
            Ok(crate::api::status(StatusCode::CREATED))
        }
        ("POST", path) if path.len() > 2 && path.last() == Some(&"push") => {
            Err(ApiError::not_implemented("pushing images is not supported yet"))
        }
        ("DELETE", path) if path.len() > 1 => {
            if call.name(0).is_empty() {
                return Err(ApiError::invalid("image name cannot be blank"));
            }
            let force = call.query.flag("force");
            let users = |id: &str| app.containers.using_image(id);
            let before = app.images.chains().await;
            let removed = app.images.remove(&call.name(0), force, users).await?;
            rootfs::forget_unused(app, before.into_iter().collect()).await;
            Ok(ok(&removed))
        }
        _ => Err(ApiError::page_not_found()),
    }
}

/// Pull or import.
async fn create(app: &Arc<App>, call: Call) -> Result<Reply, ApiError> {
    let query = &call.query;
    let platform = query.get("platform").to_owned();
    let app = Arc::clone(app);
    if query.get("fromSrc").is_empty() {
        let image = query.get("fromImage");
        if image.is_empty() {
            return Err(ApiError::invalid("invalid reference format"));
        }
        let request = PullRequest {
            image: image.to_owned(),
            tag: query.get("tag").to_owned(),
            platform,
            auth: registry_auth(&call),
            headers: meta_headers(&call),
        };
        return streamed(async move |lines| app.images.pull(request, &lines).await).await;
    }
    if query.get("fromSrc") != "-" {
        return Err(ApiError::not_implemented("importing from a URL is not supported yet"));
    }
    let request = ImportRequest {
        repository: query.get("repo").to_owned(),
        tag: query.get("tag").to_owned(),
        message: query.get("message").to_owned(),
        changes: query.all("changes"),
        platform,
    };
    let mut body = Box::pin(archive(call));
    streamed(async move |lines| {
        let id = app.images.import(&mut body, request).await;
        let id = heard(id, body).await?;
        // The client may have left; the image is here nevertheless.
        drop(lines.send(Message::status(None, id)).await);
        Ok(())
    })
    .await
}

async fn load(app: &Arc<App>, call: Call) -> Result<Reply, ApiError> {
    let platform = call.query.get("platform").to_owned();
    let app = Arc::clone(app);
    let mut body = Box::pin(archive(call));
    streamed(async move |lines| {
        let loaded = app.images.load_archive(&mut body, &platform, &lines).await;
        heard(loaded, body).await
    })
    .await
}

/// A client that is cut off while it sends does not hear why: what it has left is read first.
async fn heard<T>(
    result: Result<T, ImageError>,
    mut rest: impl Stream + Unpin + Send,
) -> Result<T, ImageError> {
    if result.is_err() {
        let all = async { while rest.next().await.is_some() {} };
        drop(tokio::time::timeout(LEFT, all).await);
    }
    result
}

/// What takes longer to come than this is cut off after all.
const LEFT: std::time::Duration = std::time::Duration::from_secs(30);

/// The request's body as it comes.
fn archive(call: Call) -> impl Stream<Item = Result<Bytes, hyper::Error>> + Send {
    let body: Incoming = call.request.into_body();
    BodyStream::new(body.map_frame(|frame| frame))
        .filter_map(|frame| frame.map(|frame| frame.into_data().ok()).transpose())
}

/// Runs the work beside the answer. Compat: what fails before the first line is a status of its own,
/// what fails later is the last line. A client that leaves ends the work.
async fn streamed<W, F>(work: W) -> Result<Reply, ApiError>
where
    W: FnOnce(Lines) -> F,
    F: Future<Output = Result<(), ImageError>> + Send + 'static,
{
    let (lines, mut told) = mpsc::channel::<Message>(64);
    let mut task = AbortOnDropHandle::new(tokio::spawn(work(lines)));
    let first = told.recv().await;
    if first.is_none() {
        (&mut task).await.map_err(|_error| ImageError::Interrupted)??;
    }
    let items = async_stream::stream! {
        let Some(first) = first else { return };
        yield Bytes::from(first.to_line());
        while let Some(message) = told.recv().await {
            yield Bytes::from(message.to_line());
        }
        let failed = match (&mut task).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(ImageError::Interrupted.to_string()),
        };
        if let Some(text) = failed {
            yield Bytes::from(Message::error(text).to_line());
        }
    };
    Ok(stream("application/json", items))
}

/// Compat: both alphabets, with or without padding; what cannot be read is ignored.
fn registry_auth(call: &Call) -> Option<AuthConfig> {
    decode_auth(call.headers().get("x-registry-auth")?.as_bytes())
}

fn decode_auth(text: &[u8]) -> Option<AuthConfig> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&URL_SAFE, config)
        .decode(text)
        .or_else(|_error| GeneralPurpose::new(&STANDARD, config).decode(text))
        .ok()?;
    docker_api::from_json(&bytes).ok()
}

fn meta_headers(call: &Call) -> HashMap<String, String> {
    call.headers()
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-meta-"))
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn credentials_survive_either_alphabet(
            name in "\\PC{0,8}",
            password in "\\PC{0,8}",
            standard: bool,
            pad: bool,
        ) {
            use base64::engine::general_purpose as bases;
            let auth = AuthConfig { username: name, password, ..AuthConfig::default() };
            let text = serde_json::to_vec(&auth).unwrap();
            let base = match (standard, pad) {
                (true, true) => bases::STANDARD,
                (true, false) => bases::STANDARD_NO_PAD,
                (false, true) => bases::URL_SAFE,
                (false, false) => bases::URL_SAFE_NO_PAD,
            };
            let read = decode_auth(base.encode(text).as_bytes());
            prop_assert!(read == Some(auth));
        }

        #[test]
        fn what_is_no_credential_is_ignored(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            text in "[{}\":a,]{0,20}",
        ) {
            drop(decode_auth(&bytes));
            drop(decode_auth(base64::engine::general_purpose::URL_SAFE.encode(text).as_bytes()));
        }
    }
}
