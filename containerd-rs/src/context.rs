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
        proto::namespace::check(name)?;
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

/// What a request says beside its message.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) namespace: Namespace,
    pub(crate) lease: Option<String>,
    pub(crate) when: Durable,
}

/// When a change has to be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    /// Before it is answered.
    Now,
    /// With the next one.
    Later,
}

impl Context {
    #[cfg(test)]
    pub(crate) fn new(namespace: Namespace) -> Self {
        Self { namespace, lease: None, when: Durable::Now }
    }
}

/// containerd's identifier rule, for ids that become paths.
pub(crate) fn check_identifier(name: &str) -> Result<()> {
    Ok(proto::namespace::check(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_identifier_is_what_upstreams_pattern_matches(
            name in "[a-zA-Z0-9._/é-]{0,8}|[a-z]{70,80}",
        ) {
            let pattern = regex::Regex::new("^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$").unwrap();
            let wanted = name.len() <= 76 && pattern.is_match(&name);
            prop_assert_eq!(check_identifier(&name).is_ok(), wanted);
            prop_assert_eq!(Namespace::parse(&name).is_ok(), wanted);
        }
    }
}
