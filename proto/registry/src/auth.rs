//! Being let in: challenges, tokens, and where credentials come from.
//! Document: RFC 9110 §11, Docker's token authentication specification.

use crate::client::Client;
use crate::error::RegistryError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    Basic {
        username: String,
        secret: String,
    },
    /// An identity token, exchanged for access tokens.
    Refresh {
        token: String,
    },
    /// The value of the Authorization header itself.
    Header(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// For whom credentials are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRequest {
    /// The host that asks, with its port.
    pub host: String,
    pub reference: String,
    pub challenges: Vec<String>,
}

/// Whoever knows the user's credentials; asked when a registry wants some.
pub trait Credentials: Send + Sync {
    fn credential(
        &self,
        request: CredentialRequest,
    ) -> Pin<Box<dyn Future<Output = Option<Credential>> + Send + '_>>;
}

/// One credential for one host.
impl Credentials for (String, Credential) {
    fn credential(
        &self,
        request: CredentialRequest,
    ) -> Pin<Box<dyn Future<Output = Option<Credential>> + Send + '_>> {
        let found = (request.host == self.0).then(|| self.1.clone());
        Box::pin(async move { found })
    }
}

#[derive(Clone)]
pub(crate) struct Authorization {
    pub(crate) header: String,
    pub(crate) expires: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) scheme: String,
    pub(crate) parameters: Vec<(String, String)>,
}

impl Challenge {
    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Client {
    /// Answers a 401: finds credentials and makes the header for the next try.
    pub(crate) async fn authorize(
        &self,
        host: &str,
        reference: &str,
        scope: &str,
        lines: Vec<String>,
    ) -> Result<Authorization, RegistryError> {
        let challenges: Vec<Challenge> = lines.iter().flat_map(|line| parse(line)).collect();
        let bearer = challenges.iter().find(|c| c.scheme == "bearer");
        let basic = challenges.iter().any(|c| c.scheme == "basic");
        let detail = challenges
            .iter()
            .find_map(|c| c.get("error"))
            .map(|error| format!("server message: {error}: authorization failed"));
        let credential = match &self.options().credentials {
            Some(source) => {
                let request = CredentialRequest {
                    host: host.to_owned(),
                    reference: reference.to_owned(),
                    challenges: lines,
                };
                source.credential(request).await
            }
            None => None,
        };
        if let Some(Credential::Header(header)) = credential {
            return Ok(Authorization { header, expires: None });
        }
        if let Some(challenge) = bearer {
            // A scope refused before will not be granted now, save to someone with a name.
            return self.token(challenge, credential, scope).await.map_err(|error| match error {
                RegistryError::Token { status, .. } if status.is_client_error() => {
                    RegistryError::AccessDenied {
                        detail: detail.unwrap_or_else(|| error.to_string()),
                    }
                }
                other => other,
            });
        }
        if !basic {
            return Err(RegistryError::Unauthorized("no known authorization scheme".to_owned()));
        }
        match credential {
            Some(Credential::Basic { username, secret }) => {
                Ok(Authorization { header: basic_header(&username, &secret), expires: None })
            }
            // Compat: the text Docker prints when one has not logged in.
            _ => Err(RegistryError::Unauthorized("no basic auth credentials".to_owned())),
        }
    }

    async fn token(
        &self,
        challenge: &Challenge,
        credential: Option<Credential>,
        scope: &str,
    ) -> Result<Authorization, RegistryError> {
        let realm = challenge.get("realm").unwrap_or_default().to_owned();
        let wrong = |reason: &str| RegistryError::TokenAnswer {
            url: realm.clone(),
            reason: reason.to_owned(),
        };
        if !realm.starts_with("http://") && !realm.starts_with("https://") {
            return Err(wrong("no usable realm in the challenge"));
        }
        let mut scopes: Vec<&str> = challenge
            .get("scope")
            .unwrap_or_default()
            .split(' ')
            .filter(|s| !s.is_empty())
            .collect();
        if scopes.is_empty() {
            scopes.push(scope);
        }
        let service = challenge.get("service").unwrap_or_default();
        let mut query: Vec<(&str, &str)> = Vec::new();
        if !service.is_empty() {
            query.push(("service", service));
        }
        let request = match &credential {
            Some(Credential::Refresh { token }) => {
                let joined = scopes.join(" ");
                query.extend([
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token.as_str()),
                    ("client_id", CLIENT_ID),
                    ("scope", joined.as_str()),
                ]);
                http::Request::post(&realm)
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(Bytes::from(encode(&query)))
            }
            other => {
                query.extend(scopes.iter().map(|scope| ("scope", *scope)));
                let mut header = None;
                if let Some(Credential::Basic { username, secret }) = other {
                    query.push(("account", username));
                    query.push(("client_id", CLIENT_ID));
                    header = Some(basic_header(username, secret));
                }
                let separator = if realm.contains('?') { '&' } else { '?' };
                let mut builder =
                    http::Request::get(format!("{realm}{separator}{}", encode(&query)));
                if let Some(header) = header {
                    builder = builder.header("authorization", header);
                }
                builder.body(Bytes::new())
            }
        }
        .map_err(|_| wrong("no usable realm in the challenge"))?;
        let (parts, body) = self.follow(&crate::tls::plain(), request).await?;
        let body = body
            .all(TOKEN_MAX)
            .await
            .map_err(|error| wrong(&error.to_string()))?
            .ok_or_else(|| wrong("the answer is too long"))?;
        if !parts.status.is_success() {
            return Err(RegistryError::Token {
                url: realm.clone(),
                status: parts.status,
                detail: crate::client::detail(&body),
            });
        }
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|error| wrong(&error.to_string()))?;
        let token = [answer.token, answer.access_token]
            .into_iter()
            .flatten()
            .find(|token| !token.is_empty())
            .ok_or_else(|| wrong("authorization server did not include a token in the response"))?;
        let expires = Instant::now() + lifetime(answer.expires_in);
        Ok(Authorization { header: format!("Bearer {token}"), expires: Some(expires) })
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// How long a token is used. Compat: 60 seconds where the server does not say.
fn lifetime(stated: Option<u64>) -> Duration {
    Duration::from_secs(stated.unwrap_or(60).clamp(5, LIFETIME_MAX)) - Duration::from_secs(2)
}

fn basic_header(username: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{secret}")))
}

/// Percent-encodes a form.
fn encode(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~:/,".contains(&byte) {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    text
}

/// Reads one WWW-Authenticate line; broken parts are skipped.
pub(crate) fn parse(line: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',', '"']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let trimmed = after.trim_start();
        if let Some(value) = trimmed.strip_prefix('=') {
            let (value, next) = read_value(value.trim_start());
            if let Some(challenge) = challenges.last_mut() {
                challenge.parameters.push((word.to_lowercase(), value));
            }
            rest = next;
        } else {
            if !word.is_empty() {
                challenges.push(Challenge { scheme: word.to_lowercase(), parameters: Vec::new() });
            }
            rest = trimmed.strip_prefix('"').unwrap_or(trimmed);
        }
        rest = rest.trim_start_matches([' ', ',']);
    }
    challenges
}

fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[index + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

pub(crate) type SharedCredentials = Arc<dyn Credentials>;
const CLIENT_ID: &str = "containerd-client";
const TOKEN_MAX: usize = 1 << 20;
/// A year: a clock takes no more than it can count to.
const LIFETIME_MAX: u64 = 365 * 24 * 3600;

#[cfg(test)]
mod unit {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_are_read_several_to_a_line() {
        let line = r#"Bearer realm="https://a/t?x=1,2",service="s",scope="repository:a/b:pull,push", Basic realm="x \"y\"""#;
        let found = parse(line);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].get("realm"), Some("https://a/t?x=1,2"));
        assert_eq!(found[0].get("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(found[1].scheme, "basic");
        assert_eq!(found[1].get("realm"), Some("x \"y\""));
        for odd in ["", "=", "\"", "Bearer", "Bearer realm=\"open", ",,,", "a b=\"\\"] {
            drop(parse(odd));
        }
    }

    #[test]
    fn forms_are_percent_encoded() {
        assert_eq!(encode(&[("a", "b c&d"), ("e", "f:g/h")]), "a=b%20c%26d&e=f:g/h");
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = Credential::Basic { username: "u".into(), secret: "hush".into() };
        assert!(!format!("{secret:?}").contains("hush"));
    }

    proptest! {
        #[test]
        fn challenges_survive_their_line(given in proptest::collection::vec(
            ("[a-z]{1,6}", proptest::collection::vec(("[a-z]{1,6}", "\\PC{0,10}"), 0..4)), 0..4),
        ) {
            let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let challenge = |(scheme, parameters): &(String, Vec<(String, String)>)| {
                let parts = parameters.iter().map(|(key, value)| format!("{key}={}", quote(value)));
                format!("{scheme} {}", parts.collect::<Vec<_>>().join(", "))
            };
            let line = given.iter().map(challenge).collect::<Vec<_>>().join(", ");
            let read = parse(&line).into_iter().map(|c| (c.scheme, c.parameters)).collect::<Vec<_>>();
            prop_assert_eq!(read, given);
        }

        #[test]
        fn broken_challenges_are_no_longer_than_their_line(line in r#"[a-zA-Z=", \\\té]{0,60}"#) {
            let length: usize = parse(&line)
                .iter()
                .map(|c| c.scheme.len() + c.parameters.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>())
                .sum();
            prop_assert!(length <= line.len());
        }

        #[test]
        fn forms_survive_their_encoding(value in "\\PC{0,20}") {
            let text = encode(&[("k", &value)]);
            prop_assert!(text.is_ascii() && !text.contains(['&', '+', ' ', '#']));
            let uri: http::Uri = format!("http://h/?{text}").parse().unwrap();
            let mut bytes = Vec::new();
            let mut rest = uri.query().unwrap().strip_prefix("k=").unwrap().bytes();
            while let Some(byte) = rest.next() {
                let hex = |b: u8| char::from(b).to_digit(16).unwrap();
                let escaped = byte == b'%';
                bytes.push(if escaped {
                    u8::try_from(hex(rest.next().unwrap()) * 16 + hex(rest.next().unwrap())).unwrap()
                } else {
                    byte
                });
            }
            prop_assert_eq!(bytes, value.as_bytes());
        }

        #[test]
        fn any_stated_lifetime_is_one(stated: Option<u64>) {
            let expires = Instant::now().checked_add(lifetime(stated));
            prop_assert!(expires.is_some_and(|expires| expires > Instant::now()));
        }
    }
}
