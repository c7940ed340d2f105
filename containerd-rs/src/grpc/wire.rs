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
    // A fraction counts forward on the wire, before 1970 too.
    let (seconds, nanos) = (at.as_second(), at.subsec_nanosecond());
    let borrowed = i64::from(nanos < 0);
    let second = 1_000_000_000;
    WireTimestamp {
        seconds: seconds - borrowed,
        nanos: if nanos < 0 { nanos + second } else { nanos },
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIRST: i64 = -62_135_596_800;
    const LAST: i64 = 253_402_207_199;

    #[test]
    fn a_fraction_before_1970_counts_forward() {
        let wire = WireTimestamp { seconds: -1, nanos: 500_000_000 };
        assert_eq!(timestamp(Timestamp::new(0, -500_000_000).unwrap()), wire);
    }

    proptest! {
        #[test]
        fn a_timestamp_survives_the_way(seconds in FIRST..=LAST, nanos in 0..1_000_000_000_i32) {
            let wire = WireTimestamp { seconds, nanos };
            prop_assert_eq!(timestamp(from_timestamp(wire).unwrap()), wire);
        }

        #[test]
        fn any_timestamp_is_refused_or_one_of_the_wires(seconds: i64, small in -5_i64..5, nanos: i32, little in -1_500_000_000..1_500_000_000_i32) {
            for wire in [(seconds, nanos), (small, nanos), (small, little)] {
                match from_timestamp(WireTimestamp { seconds: wire.0, nanos: wire.1 }) {
                    Ok(at) => {
                        let wire = timestamp(at);
                        prop_assert!((0..1_000_000_000).contains(&wire.nanos), "{:?}", wire);
                        prop_assert_eq!(from_timestamp(wire).unwrap(), at);
                    }
                    Err(status) => prop_assert_eq!(status.code(), tonic::Code::InvalidArgument),
                }
            }
        }

        #[test]
        fn headers_name_a_namespace_and_a_lease(
            namespace in proptest::option::of("[a-z]{1,9}|[a-zA-Z0-9._/ ~-]{0,12}"),
            lease in proptest::option::of("|[ -~]{0,9}"),
        ) {
            let mut request = Request::new(());
            for (name, value) in [(proto::namespace::GRPC_KEY, &namespace), (proto::namespace::LEASE_KEY, &lease)] {
                if let Some(value) = value {
                    request.metadata_mut().insert(name, value.parse().unwrap());
                }
            }
            let parsed = Namespace::parse(namespace.as_deref().unwrap_or_default());
            match (context(&request), parsed) {
                (Ok(context), Ok(namespace)) => {
                    prop_assert_eq!(context.namespace, namespace);
                    prop_assert_eq!(context.lease, lease.filter(|lease| !lease.is_empty()));
                }
                (Err(status), Err(_)) => prop_assert!(!status.message().is_empty()),
                (got, wanted) => prop_assert!(false, "{:?}, should be {:?}", got, wanted),
            }
        }

        #[test]
        fn a_size_is_signed_on_the_wire_only(size: u64, wire: i64) {
            prop_assert_eq!(unsigned(signed(size), "size").unwrap(), size.min(i64::MAX.unsigned_abs()));
            prop_assert_eq!(unsigned(wire, "size").ok(), u64::try_from(wire).ok());
        }
    }
}
