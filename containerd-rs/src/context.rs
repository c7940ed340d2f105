//! Under whose name a request runs: namespace and, where the caller holds one, lease.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// A checked namespace name. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Namespace(Arc<str>);

impl Namespace {
    pub(crate) fn parse(name: &str) -> Result<Self> {
        if name.is_empty() {
            return Err(Error::NamespaceRequired);
        }
        check_identifier(name)?;
        Ok(Self(name.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Namespace and lease of one request.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) namespace: Namespace,
    pub(crate) lease: Option<String>,
}

impl Context {
    pub(crate) fn new(namespace: Namespace) -> Self {
        Self { namespace, lease: None }
    }
}

/// containerd's identifier rule: runs of letters and digits, joined by single `.`, `_` or `-`;
/// at most 76 bytes.
pub(crate) fn check_identifier(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid("identifier must not be empty"));
    }
    if name.len() > MAX_IDENTIFIER {
        return Err(Error::invalid(format!(
            "identifier \"{name}\" greater than maximum length ({MAX_IDENTIFIER} characters)"
        )));
    }
    let mut joined = true;
    for byte in name.bytes() {
        match byte {
            b'.' | b'_' | b'-' if !joined => joined = true,
            _ if byte.is_ascii_alphanumeric() => joined = false,
            _ => return Err(bad_identifier(name)),
        }
    }
    if joined { Err(bad_identifier(name)) } else { Ok(()) }
}

fn bad_identifier(name: &str) -> Error {
    // Compat: the pattern is part of the text that containerd answers.
    Error::invalid(format!(
        "identifier \"{name}\" must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$"
    ))
}

const MAX_IDENTIFIER: usize = 76;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_follow_containerds_pattern() {
        for good in ["a", "moby", "k8s.io", "a-b_c.d", "0"] {
            assert!(check_identifier(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a--b", "a/b", ".", "a b", &"x".repeat(77)] {
            assert!(check_identifier(bad).is_err(), "{bad}");
        }
    }
}
