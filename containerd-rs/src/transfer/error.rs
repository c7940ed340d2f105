//! Why a transfer did not come about.

use oci_image::Digest;
use oci_image::manifest::ManifestError;
use oci_image::reference::ReferenceError;
use oci_registry::RegistryError;
use proto::errdefs::Kind;

use crate::error::Error as StoreError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    // Compat: ctr and docker show this sentence; "not found" at its end is matched on.
    #[error("failed to resolve image: {0}")]
    Resolve(#[source] RegistryError),
    #[error("failed to fetch {digest}: {source}")]
    Fetch { digest: Digest, source: RegistryError },
    #[error("invalid reference \"{reference}\": {source}")]
    Reference { reference: String, source: ReferenceError },
    #[error("{operation}: {source}")]
    Store { operation: &'static str, source: StoreError },
    #[error("{digest}: {source}")]
    Manifest { digest: Digest, source: ManifestError },
    #[error("no match for platform in manifest {0}: not found")]
    Platform(Digest),
    #[error("failed to extract layer {diff_id}: {}", reason(source))]
    Extract { diff_id: Digest, source: StoreError },
    // Compat: containerd's sentence, continued.
    #[error("wrong diff id calculated on extraction \"{got}\": {want} expected of layer {layer}")]
    DiffId { layer: Digest, got: String, want: Digest },
    #[error("number of layers and diffIDs don't match: {layers} != {diff_ids}")]
    Layers { layers: usize, diff_ids: usize },
    // Compat: containerd's word for an archive that is neither OCI nor Docker.
    #[error("unrecognized image format")]
    Unrecognized,
    #[error("read archive: {0}")]
    Archive(#[source] std::io::Error),
    #[error("archive member {member}: {reason}")]
    Member { member: String, reason: String },
    #[error("no image name found: not found")]
    NoName,
    #[error("image \"{0}\": not found")]
    NoImage(String),
    #[error("{0}: not implemented")]
    Unimplemented(String),
    #[error("{0}: invalid argument")]
    Invalid(String),
    #[error("write archive: {0}")]
    Write(#[source] std::io::Error),
    #[error("the transfer was abandoned")]
    Abandoned,
}

pub(crate) type Result<T> = std::result::Result<T, TransferError>;

impl TransferError {
    pub(crate) fn store(operation: &'static str) -> impl FnOnce(StoreError) -> Self {
        move |source| Self::Store { operation, source }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Resolve(source) | Self::Fetch { source, .. } => of_registry(source),
            Self::Reference { .. } | Self::Invalid(_) | Self::Unrecognized => Kind::InvalidArgument,
            Self::Store { source, .. } | Self::Extract { source, .. } => source.kind(),
            Self::Platform(_) | Self::NoName | Self::NoImage(_) => Kind::NotFound,
            Self::Manifest { .. } | Self::Member { .. } | Self::Archive(_) => Kind::InvalidArgument,
            Self::DiffId { .. } | Self::Layers { .. } => Kind::FailedPrecondition,
            Self::Unimplemented(_) => Kind::Unimplemented,
            Self::Write(_) => Kind::Unknown,
            Self::Abandoned => Kind::Canceled,
        }
    }
}

/// Without the sentence that a layer's own error begins with, too.
fn reason(error: &StoreError) -> &dyn std::fmt::Display {
    match error {
        StoreError::Layer { source, .. } => source,
        other => other,
    }
}

fn of_registry(error: &RegistryError) -> Kind {
    match error {
        RegistryError::NotFound { .. } => Kind::NotFound,
        // Compat: containerd gives refused pulls this class, with its text.
        RegistryError::AccessDenied { .. } => Kind::PermissionDenied,
        RegistryError::Unauthorized(_) => Kind::Unauthenticated,
        RegistryError::TooManyRequests { .. } => Kind::ResourceExhausted,
        RegistryError::Size { .. } | RegistryError::Digest { .. } => Kind::FailedPrecondition,
        RegistryError::Hosts(_) => Kind::InvalidArgument,
        RegistryError::Request { .. } => Kind::Unavailable,
        _ => Kind::Unknown,
    }
}
