//! The one failure type of the metadata nouns (namespaces, images, containers, content,
//! snapshots, leases). Its texts are the ones clients of containerd match on.

use std::io;
use std::path::PathBuf;

use proto::errdefs::Kind;

/// What a noun answers when it cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    // Compat: containerd prints `image "x": not found`; docker and ctr match "not found".
    #[error("{what} \"{name}\": not found")]
    NotFound { what: &'static str, name: String },
    #[error("{what} \"{name}\": already exists")]
    AlreadyExists { what: &'static str, name: String },
    // Compat: containerd's metadata names the snapshot without quotes.
    #[error("{what} {name} does not exist: not found")]
    SnapshotGone { what: &'static str, name: String },
    #[error("container \"{id}\" in namespace \"{namespace}\": not found")]
    ContainerGone { id: String, namespace: String },
    // Compat: a missing blob is a digest, an existing one is content.
    #[error("content digest {digest}: not found")]
    BlobNotFound { digest: String },
    #[error("content {digest}: already exists")]
    BlobExists { digest: String },
    #[error("{reason}: invalid argument")]
    Invalid { reason: String },
    #[error("{reason}: failed precondition")]
    Precondition { reason: String },
    #[error("{reason}: unavailable")]
    Unavailable { reason: String },
    #[error("{reason}: not implemented")]
    Unimplemented { reason: String },
    // Compat: the bare sentence of containerd's namespaces package.
    #[error("namespace is required: failed precondition")]
    NamespaceRequired,
    #[error(transparent)]
    Identifier(#[from] proto::namespace::IdentifierError),
    #[error("lease does not exist: not found")]
    LeaseGone,
    #[error("{operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("failed to extract layer {digest}: {source}")]
    Layer { digest: String, source: oci_image::layer::LayerError },
    #[error("metadata store: {operation}: {source}")]
    Database { operation: &'static str, source: Box<redb::Error> },
    #[error("metadata record {key}: {source}")]
    Record { key: String, source: serde_json::Error },
    #[error("metadata store: no space left on device")]
    Full,
    #[error("metadata store is closed: unavailable")]
    Closed,
}

/// Inside this crate, where the module says which one is meant.
pub(crate) use self::StoreError as Error;

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl StoreError {
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

    /// The failure class; `grpc/` turns it into a status code.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. }
            | Self::SnapshotGone { .. }
            | Self::ContainerGone { .. }
            | Self::BlobNotFound { .. }
            | Self::LeaseGone => Kind::NotFound,
            Self::AlreadyExists { .. } | Self::BlobExists { .. } => Kind::AlreadyExists,
            Self::Invalid { .. } | Self::Identifier(_) => Kind::InvalidArgument,
            Self::Precondition { .. } | Self::NamespaceRequired => Kind::FailedPrecondition,
            Self::Unavailable { .. } | Self::Closed => Kind::Unavailable,
            Self::Unimplemented { .. } => Kind::Unimplemented,
            Self::Layer { source, .. } if source.is_malformed() => Kind::InvalidArgument,
            Self::Full => Kind::ResourceExhausted,
            Self::Layer { .. } => Kind::Unknown,
            Self::Io { .. } | Self::Database { .. } | Self::Record { .. } => Kind::Internal,
        }
    }
}
