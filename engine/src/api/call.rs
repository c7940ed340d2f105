//! One request, taken apart.

use std::collections::BTreeMap;

use docker_api::filters::Filters;
use docker_api::version::ApiVersion;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// A request without its version prefix.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) version: ApiVersion,
    /// The decoded path, without the version and without empty segments.
    pub(crate) segments: Vec<String>,
    pub(crate) query: Query,
    /// The undivided request, for bodies and upgrades.
    pub(crate) request: Request<Incoming>,
}

/// Marks a request whose body has been read: what follows is no part of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyRead;

impl Call {
    pub(crate) fn new(request: Request<Incoming>) -> Result<Self, ApiError> {
        let mut segments: Vec<String> = request
            .uri()
            .path()
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(decode)
            .collect();
        let mut version = ApiVersion::MAX;
        if let Some(asked) = segments.first().and_then(|first| version_prefix(first)) {
            version = asked;
            segments.remove(0);
        }
        Ok(Self {
            method: request.method().clone(),
            version,
            segments,
            query: Query::parse(request.uri().query().unwrap_or_default()),
            request,
        })
    }

    /// Method and path, ready for `match`.
    pub(crate) fn key(&self) -> (&str, Vec<&str>) {
        (self.method.as_str(), self.segments.iter().map(String::as_str).collect())
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// The name between the area and the last `tail` segments; slashes belong to it.
    pub(crate) fn name(&self, tail: usize) -> String {
        let end = self.segments.len().saturating_sub(tail).max(1);
        self.segments[1..end].join("/")
    }

    /// The JSON body. An empty one is the default value.
    pub(crate) async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T, ApiError> {
        let bytes = self.bytes(MAX_JSON).await?;
        if bytes.is_empty() || bytes.trim_ascii() == b"null" {
            return Ok(T::default());
        }
        let content_type = self
            .headers()
            .get(http::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media = content_type.split(';').next().unwrap_or_default().trim();
        if !media.eq_ignore_ascii_case("application/json") {
            // Compat: dockerd names the type quoted.
            if media.is_empty() {
                return Err(ApiError::invalid(format!(
                    "malformed Content-Type header ({content_type}): mime: no media type"
                )));
            }
            return Err(ApiError::invalid(format!(
                "unsupported Content-Type header ({content_type}): must be 'application/json'"
            )));
        }
        docker_api::from_request(&bytes)
            .map_err(|error| ApiError::invalid(format!("invalid JSON: {}", json_reason(&error))))
    }

    /// The whole body, up to a limit.
    pub(crate) async fn bytes(&mut self, limit: usize) -> Result<bytes::Bytes, ApiError> {
        self.request.extensions_mut().insert(BodyRead);
        let body = Limited::new(self.request.body_mut(), limit);
        match body.collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(ApiError::invalid(format!("read request body: {error}"))),
        }
    }
}

/// Bodies of JSON requests are small.
const MAX_JSON: usize = 16 << 20;

fn json_reason(error: &serde_json::Error) -> String {
    if error.is_eof() { "unexpected EOF".to_owned() } else { error.to_string() }
}

fn version_prefix(segment: &str) -> Option<ApiVersion> {
    segment.strip_prefix('v')?.parse().ok()
}

/// The query parameters; the first value of each counts, as in Go's `Form.Get`.
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    fn parse(text: &str) -> Self {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            map.entry(decode(&key.replace('+', " ")))
                .or_default()
                .push(decode(&value.replace('+', " ")));
        }
        Self(map)
    }

    /// The value, or the empty text.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0.get(key).and_then(|values| values.first()).map_or("", String::as_str)
    }

    /// All values of a repeated parameter.
    pub(crate) fn all(&self, key: &str) -> Vec<String> {
        self.0.get(key).cloned().unwrap_or_default()
    }

    /// Compat: everything but empty, 0, no, false and none is true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        let value = self.get(key).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    pub(crate) fn filters(&self) -> Result<Filters, ApiError> {
        Filters::parse(self.get("filters")).map_err(|error| ApiError::invalid(error.to_string()))
    }
}

/// Percent decoding; what is not valid stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let decoded = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match decoded {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_truth_is_dockerds() {
        let query = Query::parse("a=1&b=0&c=False&d=&e=yes&f=none&name=x%2Fy+z");
        assert!(query.flag("a") && query.flag("e"));
        assert!(["b", "c", "d", "f", "missing"].iter().all(|key| !query.flag(key)));
        assert_eq!(query.get("name"), "x/y z");
    }

    #[test]
    fn only_versions_are_taken_for_versions() {
        assert_eq!(version_prefix("v1.41"), Some(ApiVersion::new(1, 41)));
        assert_eq!(version_prefix("volumes"), None);
        assert_eq!(decode("100%"), "100%");
    }
}
