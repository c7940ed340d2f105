//! Conversions that several services share.

use std::collections::HashMap;

use prost_types::{FieldMask, Timestamp as WireTimestamp};
use proto::containerd::types;
use proto::errdefs::Kind;
use tonic::{Request, Status};

use crate::context::{Context, Durable, Namespace};
use crate::error::Error;
use crate::snapshot::Mount;
use crate::store::record::{Descriptor, Labels, Timestamp};

pub(crate) type Answer<T> = Result<tonic::Response<T>, Status>;

/// Namespace and lease of a request, from its headers.
pub(crate) fn context<T>(request: &Request<T>) -> Result<Context, Status> {
    let header = |name: &str| request.metadata().get(name).and_then(|value| value.to_str().ok());
    let namespace = header(proto::namespace::GRPC_KEY).unwrap_or_default();
    let namespace = Namespace::parse(namespace).map_err(|error| match error {
        Error::NamespaceRequired => to_status(error),
        other => other.kind().status(format!("namespace validation: {other}")),
    })?;
    let lease = header(proto::namespace::LEASE_KEY).filter(|lease| !lease.is_empty());
    let later = request.metadata().contains_key(proto::namespace::LATER_KEY);
    let when = if later { Durable::Later } else { Durable::Now };
    Ok(Context { namespace, lease: lease.map(str::to_owned), when })
}

pub(crate) fn to_status(error: Error) -> Status {
    let kind = error.kind();
    if kind == Kind::Internal {
        tracing::error!(%error, "request failed");
    }
    kind.status(error.to_string())
}

/// A message that must be there.
pub(crate) fn required<T>(field: Option<T>, name: &str) -> Result<T, Status> {
    field.ok_or_else(|| Kind::InvalidArgument.status(format!("{name} is required")))
}

pub(crate) fn timestamp(at: Timestamp) -> WireTimestamp {
    WireTimestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

pub(crate) fn from_timestamp(at: WireTimestamp) -> Result<Timestamp, Status> {
    Timestamp::new(at.seconds, at.nanos)
        .map_err(|error| Kind::InvalidArgument.status(format!("timestamp: {error}")))
}

pub(crate) fn labels(labels: Labels) -> HashMap<String, String> {
    labels.into_iter().collect()
}

pub(crate) fn from_labels(labels: HashMap<String, String>) -> Labels {
    labels.into_iter().collect()
}

pub(crate) fn mask(mask: Option<FieldMask>) -> Vec<String> {
    mask.map(|mask| mask.paths).unwrap_or_default()
}

pub(crate) fn descriptor(descriptor: Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type,
        digest: descriptor.digest,
        size: descriptor.size,
        annotations: labels(descriptor.annotations),
    }
}

pub(crate) fn from_descriptor(descriptor: types::Descriptor) -> Descriptor {
    Descriptor {
        media_type: descriptor.media_type,
        digest: descriptor.digest,
        size: descriptor.size,
        annotations: from_labels(descriptor.annotations),
    }
}

pub(crate) fn mounts(mounts: Vec<Mount>) -> Vec<types::Mount> {
    let convert = |mount: Mount| types::Mount {
        r#type: mount.kind,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    };
    mounts.into_iter().map(convert).collect()
}

pub(crate) fn from_mounts(mounts: Vec<types::Mount>) -> Vec<Mount> {
    let convert = |mount: types::Mount| Mount {
        kind: mount.r#type,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    };
    mounts.into_iter().map(convert).collect()
}

/// Sizes on the wire are signed; ours are not.
pub(crate) fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(size: i64, name: &str) -> Result<u64, Status> {
    u64::try_from(size)
        .map_err(|_| Kind::InvalidArgument.status(format!("{name} must not be negative: {size}")))
}
