//! Requests with everything around them: settings of the host, authorisation on demand, redirects
//! that do not carry secrets elsewhere, plain http where TLS is not spoken, patience with 429.

use crate::auth::{Authorization, SharedCredentials};
use crate::error::{RegistryError, Transport};
use crate::hosts::{Host, Hosts, Scheme};
use crate::http1::{Body, Endpoint, Http};
use crate::repository::Repository;
use crate::tls;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use oci_image::Reference;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_rustls::rustls::ClientConfig;

#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    pub connect: Duration,
    /// From the request to the head of the answer.
    pub response: Duration,
    /// Without a single byte of the body.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            response: Duration::from_secs(60),
            stall: Duration::from_secs(60),
        }
    }
}

#[derive(Clone)]
pub struct Options {
    pub hosts: Hosts,
    pub credentials: Option<SharedCredentials>,
    /// Sent to registries (never to where they redirect).
    pub headers: Vec<(String, String)>,
    pub user_agent: String,
    pub timeouts: Timeouts,
    /// How often a request or a cut download is tried again without progress.
    pub attempts: u32,
    /// The first pause between tries; it doubles.
    pub backoff: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hosts: Hosts::default(),
            credentials: None,
            headers: Vec::new(),
            user_agent: concat!("containerd-rs/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeouts: Timeouts::default(),
            attempts: 5,
            backoff: Duration::from_millis(200),
        }
    }
}

#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    options: Options,
    http: Arc<Http>,
    authorizations: Mutex<HashMap<(String, String), Authorization>>,
    /// Hosts found to speak plain http only.
    plain: Mutex<HashSet<String>>,
}

/// One request to a host; the path continues the host's own.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) reference: &'a Reference,
}

impl Client {
    pub fn new(options: Options) -> Self {
        let http = Http::new(options.timeouts);
        Self(Arc::new(Inner {
            options,
            http,
            authorizations: Mutex::new(HashMap::new()),
            plain: Mutex::new(HashSet::new()),
        }))
    }

    /// The repository a reference names, with the hosts that speak for it.
    pub fn repository(&self, reference: &Reference) -> Result<Repository, RegistryError> {
        let hosts = self.0.options.hosts.lookup(reference.domain())?;
        Ok(Repository::new(self.clone(), reference.clone(), hosts))
    }

    pub(crate) fn options(&self) -> &Options {
        &self.0.options
    }

    /// Sends `call` to `host` and answers its challenge once.
    pub(crate) async fn call(
        &self,
        host: &Host,
        call: &Call<'_>,
    ) -> Result<(http::response::Parts, Body), RegistryError> {
        let tls = tls::for_host(host)?;
        let scope = format!("repository:{}:pull", call.reference.path());
        let key = (host.authority.clone(), scope.clone());
        let mut waits = 0;
        let mut challenged = false;
        loop {
            let authorization = self.cached(&key);
            let (parts, body) = self
                .once(host, &tls, call, authorization.as_ref().map(|a| a.header.as_str()))
                .await?;
            match parts.status {
                StatusCode::UNAUTHORIZED if !challenged => {
                    challenged = true;
                    self.lock_authorizations().remove(&key);
                    let lines = parts
                        .headers
                        .get_all(WWW_AUTHENTICATE)
                        .iter()
                        .filter_map(|value| value.to_str().ok().map(str::to_owned))
                        .collect();
                    let reference = call.reference.to_string();
                    let fresh = self.authorize(&host.authority, &reference, &scope, lines).await?;
                    self.lock_authorizations().insert(key.clone(), fresh);
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    let denied = parts
                        .headers
                        .get(WWW_AUTHENTICATE)
                        .and_then(|value| value.to_str().ok())
                        .and_then(|line| {
                            crate::auth::parse(line).into_iter().find_map(|challenge| {
                                challenge.parameters.into_iter().find(|(name, _)| name == "error")
                            })
                        });
                    let detail = match denied {
                        Some((_, error)) => error,
                        None => parts.status.to_string(),
                    };
                    return Err(RegistryError::AccessDenied {
                        detail: format!("server message: {detail}: authorization failed"),
                    });
                }
                StatusCode::TOO_MANY_REQUESTS => {
                    waits += 1;
                    let text = body.all(DETAIL_MAX).await.ok().flatten().unwrap_or_default();
                    if waits >= self.0.options.attempts {
                        return Err(RegistryError::TooManyRequests { detail: detail(&text) });
                    }
                    tokio::time::sleep(self.pause(waits, &parts.headers)).await;
                }
                _ => return Ok((parts, body)),
            }
        }
    }

    fn pause(&self, tries: u32, headers: &HeaderMap) -> Duration {
        let asked = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok())
            .map(Duration::from_secs);
        asked.map_or_else(|| self.backoff(tries), |asked| asked.min(Duration::from_secs(60)))
    }

    pub(crate) fn backoff(&self, tries: u32) -> Duration {
        self.0.options.backoff * 2u32.saturating_pow(tries.saturating_sub(1).min(6))
    }

    async fn once(
        &self,
        host: &Host,
        tls: &Arc<ClientConfig>,
        call: &Call<'_>,
        authorization: Option<&str>,
    ) -> Result<(http::response::Parts, Body), RegistryError> {
        let known_plain = self.lock_plain().contains(&host.authority);
        let scheme = match host.scheme {
            Scheme::HttpsThenHttp if known_plain => Scheme::Http,
            other => other,
        };
        let request = self.request(host, scheme, call, authorization)?;
        match self.follow(tls, request).await {
            Err(RegistryError::Request {
                source: Transport::Tls(_) | Transport::Http(_), ..
            }) if scheme == Scheme::HttpsThenHttp => {
                self.lock_plain().insert(host.authority.clone());
                self.follow(tls, self.request(host, Scheme::Http, call, authorization)?).await
            }
            other => other,
        }
    }

    fn request(
        &self,
        host: &Host,
        scheme: Scheme,
        call: &Call<'_>,
        authorization: Option<&str>,
    ) -> Result<Request<Bytes>, RegistryError> {
        let prefix = if scheme == Scheme::Http { "http" } else { "https" };
        let namespace =
            if host.mirror { format!("?ns={}", call.reference.domain()) } else { String::new() };
        let url = format!("{prefix}://{}{}{}{namespace}", host.authority, host.path, call.path);
        let wrong = |_| RegistryError::Request {
            method: name_of(&call.method),
            url: url.clone(),
            source: Transport::Url(url.clone()),
        };
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(&url)
            .body(Bytes::new())
            .map_err(wrong)?;
        let headers = request.headers_mut();
        headers.extend(call.headers.clone());
        for (name, value) in self.0.options.headers.iter().chain(&host.headers) {
            if let (Ok(name), Ok(value)) =
                (name.parse::<HeaderName>(), HeaderValue::from_str(value))
            {
                headers.append(name, value);
            }
        }
        if let Some(mut value) = authorization.and_then(|text| HeaderValue::from_str(text).ok()) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    /// Sends and follows redirects. What is meant for the first server only (authorisation and
    /// configured headers) is left behind when another one answers.
    pub(crate) async fn follow(
        &self,
        tls: &Arc<ClientConfig>,
        mut request: Request<Bytes>,
    ) -> Result<(http::response::Parts, Body), RegistryError> {
        let method = name_of(request.method());
        let failed =
            |url: &Uri, source| RegistryError::Request { method, url: without_query(url), source };
        let agent = HeaderValue::from_str(&self.0.options.user_agent);
        if let Ok(agent) = agent {
            request.headers_mut().insert(http::header::USER_AGENT, agent);
        }
        let first = Endpoint::of(request.uri()).map_err(|e| failed(request.uri(), e))?;
        for _ in 0..=REDIRECTS_MAX {
            let here = Endpoint::of(request.uri()).map_err(|e| failed(request.uri(), e))?;
            let settings = if here == first { tls.clone() } else { tls::plain() };
            let (parts, body) = self
                .0
                .http
                .send(&settings, &request)
                .await
                .map_err(|error| failed(request.uri(), error))?;
            let moved = matches!(parts.status.as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(location) = parts.headers.get(LOCATION).filter(|_| moved) else {
                return Ok((parts, body));
            };
            let target = location
                .to_str()
                .ok()
                .and_then(|location| join(request.uri(), location))
                .ok_or_else(|| {
                    failed(request.uri(), Transport::Url(format!("{location:?} in a redirect")))
                })?;
            let there = Endpoint::of(&target).map_err(|e| failed(&target, e))?;
            if there != first {
                let headers = request.headers_mut();
                headers.remove(AUTHORIZATION);
                for (name, _) in &self.0.options.headers {
                    headers.remove(name.as_str());
                }
                let keep = [http::header::ACCEPT, http::header::RANGE, http::header::USER_AGENT];
                let names: Vec<HeaderName> = headers.keys().cloned().collect();
                for name in names.into_iter().filter(|name| !keep.contains(name)) {
                    headers.remove(name);
                }
                tracing::debug!(from = %first.host, to = %there.host, "registry redirects");
            }
            *request.uri_mut() = target;
        }
        Err(failed(request.uri(), Transport::Redirects))
    }

    fn cached(&self, key: &(String, String)) -> Option<Authorization> {
        let mut all = self.lock_authorizations();
        let found = all.get(key)?;
        if found.expires.is_some_and(|expires| expires <= Instant::now()) {
            all.remove(key);
            return None;
        }
        Some(found.clone())
    }

    fn lock_authorizations(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<(String, String), Authorization>> {
        self.0.authorizations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_plain(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.plain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The messages in a registry's error document, or nothing.
pub(crate) fn detail(body: &[u8]) -> String {
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(body) else {
        return String::new();
    };
    let mut text = String::new();
    for error in document["errors"].as_array().into_iter().flatten() {
        let code = error["code"].as_str().unwrap_or("UNKNOWN").to_lowercase();
        let message = error["message"].as_str().unwrap_or_default();
        text.push_str(": ");
        text.push_str(&code.replace('_', " "));
        if !message.is_empty() && message != code.replace('_', " ") {
            text.push_str(": ");
            text.push_str(message);
        }
    }
    if text.is_empty() && document["details"].is_string() {
        text = format!(": {}", document["details"].as_str().unwrap_or_default());
    }
    text
}

pub(crate) fn name_of(method: &Method) -> &'static str {
    match method.as_str() {
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        _ => "GET",
    }
}

/// Signed redirects carry their secret in the query.
pub(crate) fn without_query(url: &Uri) -> String {
    url.to_string().split('?').next().unwrap_or_default().to_owned()
}

fn join(base: &Uri, location: &str) -> Option<Uri> {
    if location.contains("://") {
        return location.parse().ok();
    }
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    if location.starts_with('/') {
        return format!("{scheme}://{authority}{location}").parse().ok();
    }
    let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
    format!("{scheme}://{authority}{directory}/{location}").parse().ok()
}

const REDIRECTS_MAX: usize = 10;
pub(crate) const DETAIL_MAX: usize = 64 * 1024;

#[cfg(test)]
mod unit {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_redirect_to_no_host_is_refused() {
        let base: Uri = "https://r.example/v2/a/blobs/x".parse().unwrap();
        for location in ["//[]#", "https://[]:443/", "http://:80/"] {
            let target = join(&base, location);
            assert!(target.is_none_or(|target| Endpoint::of(&target).is_err()), "{location}");
        }
    }

    proptest! {
        #[test]
        fn a_redirect_leads_somewhere_or_is_refused(
            location in "(https?:|ftp:)?(//)?[a-z@:\\[\\]/?#%. é\\\\-]{0,20}",
        ) {
            let base: Uri = "https://r.example:5000/v2/a/blobs/x?y=1".parse().unwrap();
            let Some(target) = join(&base, &location) else { return Ok(()) };
            if let Ok(endpoint) = Endpoint::of(&target) {
                prop_assert!(!endpoint.host.is_empty());
                let relative = !location.contains("://") && !location.starts_with("//");
                if relative {
                    prop_assert_eq!(endpoint, Endpoint::of(&base).unwrap());
                }
            }
        }

        #[test]
        fn an_error_document_is_told_in_its_own_length(
            errors in proptest::collection::vec(("[A-Z_]{0,8}", "\\PC{0,8}"), 0..6),
            cut in 0_usize..300,
        ) {
            let list: Vec<_> = errors
                .iter()
                .map(|(code, message)| serde_json::json!({"code": code, "message": message}))
                .collect();
            let mut text = serde_json::json!({"errors": list}).to_string().into_bytes();
            let told = detail(&text);
            prop_assert!(told.len() <= 2 * text.len());
            prop_assert!(errors.iter().all(|(_, message)| told.contains(message.as_str())));
            text.truncate(cut);
            prop_assert!(detail(&text).len() <= 2 * text.len());
        }
    }
}
