//! The one failure type of the metadata nouns (namespaces, images, containers, content,
//! snapshots, leases). Its texts are the ones clients of containerd match on.

use std::io;
use std::path::PathBuf;

/// What a noun answers when it cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    // Compat: containerd prints `image "x": not found`; docker and ctr match "not found".
    #[error("{what} \"{name}\": not found")]
    NotFound { what: &'static str, name: String },
    #[error("{what} \"{name}\": already exists")]
    AlreadyExists { what: &'static str, name: String },
    // Compat: blobs are named without a noun: `content sha256:…: not found`.
    #[error("content {digest}: not found")]
    BlobNotFound { digest: String },
    #[error("content {digest}: already exists")]
    BlobExists { digest: String },
    #[error("{reason}: invalid argument")]
    Invalid { reason: String },
    #[error("{reason}: failed precondition")]
    Precondition { reason: String },
    #[error("{reason}: out of range")]
    OutOfRange { reason: String },
    #[error("{reason}: unavailable")]
    Unavailable { reason: String },
    #[error("{reason}: not implemented")]
    Unimplemented { reason: String },
    // Compat: the bare sentence of containerd's namespaces package.
    #[error("namespace is required: failed precondition")]
    NamespaceRequired,
    #[error("lease does not exist: not found")]
    LeaseGone,
    #[error("{operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("metadata store: {operation}: {source}")]
    Database { operation: &'static str, source: Box<redb::Error> },
    #[error("metadata record {key}: {source}")]
    Record { key: String, source: serde_json::Error },
    #[error("metadata store is closed: unavailable")]
    Closed,
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// The failure class of an [`Error`]; `grpc/` turns it into a status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    NotFound,
    AlreadyExists,
    InvalidArgument,
    FailedPrecondition,
    OutOfRange,
    Unavailable,
    Unimplemented,
    Internal,
}

impl Error {
    pub(crate) fn not_found(what: &'static str, name: impl Into<String>) -> Self {
        Self::NotFound { what, name: name.into() }
    }

    pub(crate) fn already_exists(what: &'static str, name: impl Into<String>) -> Self {
        Self::AlreadyExists { what, name: name.into() }
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }

    pub(crate) fn precondition(reason: impl Into<String>) -> Self {
        Self::Precondition { reason: reason.into() }
    }

    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }

    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    pub(crate) fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } | Self::BlobNotFound { .. } | Self::LeaseGone => Class::NotFound,
            Self::AlreadyExists { .. } | Self::BlobExists { .. } => Class::AlreadyExists,
            Self::Invalid { .. } => Class::InvalidArgument,
            Self::Precondition { .. } | Self::NamespaceRequired => Class::FailedPrecondition,
            Self::OutOfRange { .. } => Class::OutOfRange,
            Self::Unavailable { .. } | Self::Closed => Class::Unavailable,
            Self::Unimplemented { .. } => Class::Unimplemented,
            Self::Io { .. } | Self::Database { .. } | Self::Record { .. } => Class::Internal,
        }
    }
}
