//! Image references, parsed and normalised as Docker does it: `busybox` is
//! `docker.io/library/busybox`, and is shown as `busybox` again.
//! Document: distribution's reference grammar (`reference := name [ ":" tag ] [ "@" digest ]`).
//! Texts of errors are matched on by clients and pinned below.

use crate::digest::{Digest, DigestError};
use std::fmt;
use std::str::FromStr;

/// A full reference: always with a domain, perhaps with a tag and a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Compat: texts of distribution/reference 0.6, which dockerd 28 and its clients print.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Lowercase(String),
    #[error("repository name must be lowercase")]
    UppercaseName,
    #[error("repository name must have at least one component")]
    Empty,
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Hexadecimal(String),
    #[error("invalid tag format")]
    Tag,
    #[error("repository name must be canonical")]
    NotCanonical,
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Reference {
    /// Parses what a user types: missing domain and `library/` are filled in. No tag is added.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if is_identifier(text) {
            return Err(ReferenceError::Hexadecimal(text.to_owned()));
        }
        let (domain, rest) = split_domain(text);
        let remote = rest.split(':').next().unwrap_or_default();
        if remote.chars().any(char::is_uppercase) {
            return Err(ReferenceError::Lowercase(remote.to_owned()));
        }
        Self::parse_parts(&domain, &rest)
    }

    /// Parses a name that already carries its domain, as image names in containerd do; nothing is
    /// filled in, so `foo/bar` is the repository `bar` on the host `foo`.
    pub fn parse_qualified(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (domain, rest) = text.split_once('/').ok_or(ReferenceError::NotCanonical)?;
        Self::parse_parts(domain, rest)
    }

    fn parse_parts(domain: &str, rest: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (rest, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let well_formed =
            is_domain(domain) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest_shaped);
        if !well_formed || !is_path(path) {
            if well_formed && is_path(&path.to_lowercase()) {
                return Err(ReferenceError::UppercaseName);
            }
            return Err(ReferenceError::Format);
        }
        if path.len() > NAME_MAX {
            return Err(ReferenceError::TooLong);
        }
        let digest = digest.map(Digest::parse).transpose()?;
        Ok(Self {
            domain: domain.to_owned(),
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the domain: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Domain and path: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name as people write it: `busybox`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            // Compat: `library/a/b` keeps its prefix, or it would read as another repository.
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as people write it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// Adds the tag `latest` when there is neither tag nor digest.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Tag);
        }
        Ok(Self { tag: Some(tag.to_owned()), ..self.clone() })
    }

    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The name alone, without tag and digest.
    #[must_use]
    pub fn without_version(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

/// Whether `text` is a full 64-digit id, which is never a name.
pub fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'a'..=b'f' | b'0'..=b'9'))
}

/// Whether `text` may be a tag.
pub fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = text.bytes();
    text.len() <= 128
        && bytes.next().is_some_and(word)
        && bytes.all(|b| word(b) || b == b'.' || b == b'-')
}

/// Splits what a user typed into domain and the rest, filling in Docker Hub's.
fn split_domain(text: &str) -> (String, String) {
    let (domain, rest) = match text.split_once('/') {
        None => (DEFAULT_DOMAIN, text),
        Some((LEGACY_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        Some(_) => (DEFAULT_DOMAIN, text),
    };
    if domain == DEFAULT_DOMAIN && !rest.contains('/') {
        return (domain.to_owned(), format!("{OFFICIAL}{rest}"));
    }
    (domain.to_owned(), rest.to_owned())
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => {
            let Some((address, rest)) = inner.split_once(']') else { return false };
            if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                return false;
            }
            match rest.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None if rest.is_empty() => (None, None),
                None => return false,
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    host.is_none_or(|host| host.split('.').all(is_host_label))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_path(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(is_path_component)
}

/// Lower-case words joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(|separator| {
        matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
    })
}

fn is_digest_shaped(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(word)
        && hex.len() >= 32
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

pub const DEFAULT_DOMAIN: &str = "docker.io";
pub const DEFAULT_TAG: &str = "latest";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const NAME_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised_and_shown_familiar() {
        for (typed, full, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("foo/bar", "docker.io/foo/bar", "foo/bar"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("index.docker.io/a/b:x", "docker.io/a/b:x", "a/b:x"),
            ("localhost/busybox", "localhost/busybox", "localhost/busybox"),
            ("localhost:5000/a:b", "localhost:5000/a:b", "localhost:5000/a:b"),
            ("[::1]:5000/a/b", "[::1]:5000/a/b", "[::1]:5000/a/b"),
            ("ghcr.io/a/b__c/d-e.f:V1", "ghcr.io/a/b__c/d-e.f:V1", "ghcr.io/a/b__c/d-e.f:V1"),
            ("FOO/bar", "FOO/bar", "FOO/bar"),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ] {
            let reference = Reference::parse(typed).unwrap();
            assert_eq!(reference.to_string(), full, "{typed}");
            assert_eq!(reference.familiar(), familiar, "{typed}");
        }
        let both = Reference::parse(&format!("busybox:1@{HASH}")).unwrap();
        assert_eq!(both.familiar(), format!("busybox:1@{HASH}"));
        assert_eq!(both.tag(), Some("1"));
        assert_eq!(both.digest().unwrap().as_str(), HASH);
    }

    #[test]
    fn refusals_use_the_texts_clients_know() {
        let long = "a".repeat(256);
        for (typed, text) in [
            ("", "invalid reference format"),
            (":tag", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("busybox:", "invalid reference format"),
            ("busybox@sha256:12", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("a/../b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("http://example.com/a", "invalid reference format"),
            (
                "Busybox",
                "invalid reference format: repository name (library/Busybox) must be lowercase",
            ),
            (
                "example.com/Foo:x",
                "invalid reference format: repository name (Foo) must be lowercase",
            ),
            (
                &HASH[7..],
                &format!(
                    "invalid repository name ({}), cannot specify 64-byte hexadecimal strings",
                    &HASH[7..]
                ),
            ),
            (&long, "repository name must not be more than 255 characters"),
            ("a@md5:d41d8cd98f00b204e9800998ecf8427e", "unsupported digest algorithm"),
        ] {
            assert_eq!(Reference::parse(typed).unwrap_err().to_string(), text, "{typed}");
        }
    }

    #[test]
    fn latest_is_added_only_to_a_bare_name() {
        let tagged = |text: &str| Reference::parse(text).unwrap().with_default_tag().familiar();
        assert_eq!(tagged("a"), "a:latest");
        assert_eq!(tagged("a:b"), "a:b");
        assert_eq!(tagged(&format!("a@{HASH}")), format!("a@{HASH}"));
    }

    #[test]
    fn qualified_names_are_taken_as_they_are() {
        assert_eq!(Reference::parse_qualified("foo/bar:1").unwrap().domain(), "foo");
        assert_eq!(Reference::parse_qualified("bar"), Err(ReferenceError::NotCanonical));
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(text in "([a-z0-9]{1,8}(\\.[a-z]{2,3})?(:[0-9]{1,4})?/)?[a-z0-9]{1,5}([._-][a-z0-9]{1,5})?(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,9})?") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }

        #[test]
        fn nothing_typed_panics(text in "\\PC{0,80}") {
            drop(Reference::parse(&text));
            drop(Reference::parse_qualified(&text));
        }
    }
}
