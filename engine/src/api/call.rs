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
    /// The version as the client wrote it.
    pub(crate) asked: String,
    /// The decoded path, without the version.
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
        let path = request.uri().path();
        let rooted = path.starts_with('/') || request.method() == Method::CONNECT;
        if !rooted || !escapes_are_whole(path) {
            // Compat: of the path alone; in a query what is broken stays as it is.
            return Err(ApiError::invalid("400 Bad Request"));
        }
        // A slash at the end is one more, empty name.
        let mut segments: Vec<String> =
            path.strip_prefix('/').unwrap_or(path).split('/').map(decode).collect();
        let mut version = Asked::newest();
        if let Some(asked) = segments.first().and_then(|first| version_prefix(first)) {
            version = asked;
            segments.remove(0);
        }
        Ok(Self {
            method: request.method().clone(),
            version: version.version,
            asked: version.text,
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

    /// The JSON body; `null` is the default value.
    pub(crate) async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T, ApiError> {
        let bytes = self.bytes(MAX_JSON).await?;
        if bytes.is_empty() {
            // Compat: whatever its type.
            return Err(ApiError::invalid("invalid JSON: got EOF while reading request body"));
        }
        let content_type = self
            .headers()
            .get(http::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let mut parts = content_type.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        if parts.any(|parameter| !parameter.is_empty() && !parameter.contains('=')) {
            return Err(ApiError::invalid(format!(
                "malformed Content-Type header ({content_type}): mime: invalid media parameter"
            )));
        }
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
        if bytes.trim_ascii() == b"null" {
            return Ok(T::default());
        }
        docker_api::from_request(&bytes)
            .map_err(|error| ApiError::invalid(format!("invalid JSON: {}", json_reason(&error))))
    }

    /// Reads what nobody wanted: a client that is still sending when the connection ends never gets
    /// to the answer. Compat: as much as Go's servers read.
    pub(crate) async fn drain(&mut self) {
        let body = Limited::new(self.request.body_mut(), UNWANTED);
        drop(tokio::time::timeout(std::time::Duration::from_secs(2), body.collect()).await);
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
const UNWANTED: usize = 256 << 10;

fn json_reason(error: &serde_json::Error) -> String {
    if error.is_eof() { "unexpected EOF".to_owned() } else { error.to_string() }
}

/// A version that was asked for.
#[derive(Debug)]
struct Asked {
    version: ApiVersion,
    text: String,
}

impl Asked {
    fn newest() -> Self {
        Self { version: ApiVersion::MAX, text: ApiVersion::MAX.to_string() }
    }
}

/// Compat: whatever consists of digits and dots is a version, and what it lacks is nought.
fn version_prefix(segment: &str) -> Option<Asked> {
    let text = segment.strip_prefix('v')?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let mut numbers = text.split('.').map(|part| match part {
        "" => 0,
        part => part.parse::<u16>().unwrap_or(u16::MAX),
    });
    let mut next = || numbers.next().unwrap_or_default();
    let mut version = ApiVersion::new(next(), next());
    // More than the newest, if only by a third number.
    if version == ApiVersion::MAX && next() > 0 {
        version.minor += 1;
    }
    Some(Asked { version, text: text.to_owned() })
}

/// Whether every `%` is followed by two digits.
fn escapes_are_whole(text: &str) -> bool {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        let digits = after.get(..2).unwrap_or_default();
        if digits.len() < 2 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return false;
        }
        rest = after;
    }
    true
}

/// Where a path with empty or dotted names leads: dockerd's router sends the client there. A slash at
/// the end stays.
pub(crate) fn cleaned(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    let decoded = decode(path);
    let mut parts: Vec<&str> = Vec::new();
    for part in decoded.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let end = if decoded.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    let clean = format!("/{}{end}", parts.join("/"));
    (clean != decoded).then(|| encode(&clean))
}

fn encode(path: &str) -> String {
    let mut text = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~:@+,;=&$!*'()".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    text
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

    /// A parameter that Go's `ParseBool` reads; not given is false.
    pub(crate) fn boolean(&self, key: &str) -> Result<bool, ApiError> {
        match self.get(key) {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
            "" | "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
            other => Err(ApiError::invalid(format!(
                "invalid value for {key}: {other}: strconv.ParseBool: parsing \"{other}\": invalid syntax"
            ))),
        }
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
            .filter(|digits| !digits.starts_with('+'))
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
    use proptest::prelude::*;

    #[test]
    fn query_truth_is_dockerds() {
        let query = Query::parse("a=1&b=0&c=False&d=&e=yes&f=none&name=x%2Fy+z");
        assert!(query.flag("a") && query.flag("e"));
        assert!(["b", "c", "d", "f", "missing"].iter().all(|key| !query.flag(key)));
        assert_eq!(query.get("name"), "x/y z");
    }

    #[test]
    fn paths_with_empty_or_dotted_names_lead_elsewhere() {
        assert_eq!(cleaned("/containers//json").as_deref(), Some("/containers/json"));
        assert_eq!(cleaned("/v1.41/../../etc/a%20b/").as_deref(), Some("/etc/a%20b/"));
        assert_eq!(cleaned("/containers/%2e%2e/json").as_deref(), Some("/json"));
        for clean in ["/", "/containers/json", "/containers/json/", "/images/a/b:1.2/json"] {
            assert_eq!(cleaned(clean), None, "{clean}");
        }
        assert!(
            escapes_are_whole("/a%20b") && !escapes_are_whole("/a%2") && !escapes_are_whole("/%zz")
        );
    }

    #[test]
    fn only_versions_are_taken_for_versions() {
        let version = |text| version_prefix(text).map(|asked| asked.version);
        assert_eq!(version("v1.41"), Some(ApiVersion::new(1, 41)));
        assert_eq!(version("v1.41.1"), Some(ApiVersion::new(1, 41)));
        assert_eq!(version("v1"), Some(ApiVersion::new(1, 0)));
        assert_eq!(version("v1..41"), Some(ApiVersion::new(1, 0)));
        assert!(version("v1.51.1") > Some(ApiVersion::MAX));
        assert!(version("v99999999999999999999.1") > Some(ApiVersion::MAX));
        for other in ["volumes", "v", "v1.41x", "v-1.41"] {
            assert_eq!(version(other), None, "{other}");
        }
        assert_eq!(decode("100%"), "100%");
    }

    proptest! {
        #[test]
        fn a_query_survives_its_encoding(
            pairs in proptest::collection::vec(("\\PC{1,5}", "\\PC{0,6}"), 0..6),
        ) {
            let plain = |text: &str| !text.contains(['+', '&', '=', ';']);
            prop_assume!(pairs.iter().all(|(key, value)| plain(key) && plain(value)));
            let text = pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value)));
            let query = Query::parse(&text.collect::<Vec<_>>().join("&"));
            for (key, _) in &pairs {
                let given: Vec<String> =
                    pairs.iter().filter(|(other, _)| other == key).map(|(_, value)| value.clone()).collect();
                prop_assert_eq!(query.get(key), given[0].as_str());
                prop_assert_eq!(query.all(key), given);
            }
        }

        #[test]
        fn broken_escapes_stay_as_they_are(text in "[a%+0-9F/é]{0,16}") {
            let read = decode(&text);
            prop_assert!(read.chars().count() <= text.chars().count());
            prop_assert_eq!(decode(&encode(&text)), text.clone());
            if !text.contains('%') {
                prop_assert_eq!(read, text);
            } else if !escapes_are_whole(&text) {
                // One that is broken is still there.
                prop_assert!(read.contains('%'));
            }
        }

        #[test]
        fn where_a_path_leads_it_stays(path in "/[a./%20F]{0,16}") {
            if let Some(clean) = cleaned(&path) {
                prop_assert!(clean.starts_with('/') && !clean.contains("//"));
                let dotted = clean.split('/').any(|part| part == ".." || part == ".");
                prop_assert!(!dotted, "{}", clean);
                prop_assert_eq!(cleaned(&clean), None);
            }
        }

        #[test]
        fn any_version_is_compared(text in "v?[0-9.]{0,12}") {
            if let Some(asked) = version_prefix(&text) {
                prop_assert_eq!(format!("v{}", asked.text), text.clone());
                if let Ok(version) = asked.text.parse::<ApiVersion>() {
                    prop_assert_eq!(asked.version, version);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_boolean_is_one_of_gos_words_and_a_flag_anything(text in "(true|TRUE|t|1|0|no|none|False|FALSE|f|)|[ tTrRuUeE01%+a-f]{0,5}") {
            let query = Query::parse(&format!("a={}", encode(&text)));
            let truth = ["1", "t", "T", "true", "True", "TRUE"].contains(&text.as_str());
            let lie = ["", "0", "f", "F", "false", "False", "FALSE"].contains(&text.as_str());
            match query.boolean("a") {
                Ok(value) => prop_assert!(truth && value || lie && !value, "{:?}", text),
                Err(error) => prop_assert!(!truth && !lie, "{:?}: {:?}", text, error),
            }
            if truth {
                prop_assert!(query.flag("a"));
            }
        }

        #[test]
        fn any_query_has_no_more_than_its_text(text in "[a=&%+;0-9é]{0,24}") {
            let query = Query::parse(&text);
            let said: usize = query.0.iter().map(|(key, values)| key.chars().count() * values.len() + values.iter().map(|value| value.chars().count()).sum::<usize>()).sum();
            prop_assert!(said <= text.chars().count());
            prop_assert!(query.0.keys().all(|key| query.all(key)[0] == query.get(key)));
        }
    }
}
