//! Where the namespace of a request travels, and what an identifier may look like.

/// gRPC metadata key.
pub const GRPC_KEY: &str = "containerd-namespace";
/// ttrpc metadata key.
pub const TTRPC_KEY: &str = "containerd-namespace-ttrpc";
/// gRPC metadata key of the lease that holds what the request makes.
pub const LEASE_KEY: &str = "containerd-lease";
/// gRPC metadata key of ours, there when the caller can do without the change should the power fail: it is
/// seen at once and on the disk with the next one that is not so marked. Other containerds pass over it.
pub const LATER_KEY: &str = "docker-rs-durable-later";
/// Environment variable with a client's default.
pub const ENVIRONMENT: &str = "CONTAINERD_NAMESPACE";
/// A client's default where nothing else is said.
pub const DEFAULT: &str = "default";
/// Bytes in an identifier.
pub const MAX_IDENTIFIER: usize = 76;

/// Why a string is not an identifier. The texts are containerd's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    #[error("identifier must not be empty: invalid argument")]
    Empty,
    #[error("identifier {0:?} greater than maximum length (76 characters): invalid argument")]
    Long(String),
    #[error(
        "identifier {0:?} must match {pattern}: invalid argument",
        pattern = "^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$"
    )]
    Pattern(String),
}

/// Checks an identifier: alphanumeric groups, joined by single `.`, `_` or `-`.
pub fn check(identifier: &str) -> Result<(), IdentifierError> {
    if identifier.is_empty() {
        return Err(IdentifierError::Empty);
    }
    if identifier.len() > MAX_IDENTIFIER {
        return Err(IdentifierError::Long(identifier.to_owned()));
    }
    let well_formed = identifier
        .split(['.', '_', '-'])
        .all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    if well_formed { Ok(()) } else { Err(IdentifierError::Pattern(identifier.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_groups_joined_by_single_separators() {
        for good in ["a", "A9", "k8s.io", "a-b_c.d", &"x".repeat(76)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [".a", "a.", "a..b", "a/b", "a b", "ä"] {
            assert_eq!(check(bad), Err(IdentifierError::Pattern(bad.into())), "{bad}");
        }
        assert_eq!(check(""), Err(IdentifierError::Empty));
        assert_eq!(check(&"x".repeat(77)), Err(IdentifierError::Long("x".repeat(77))));
    }
}
