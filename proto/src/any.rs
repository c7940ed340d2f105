//! `google.protobuf.Any` as containerd fills it: the type URL is the bare message name, JSON
//! documents travel under `types.containerd.io/…`, and a reader accepts any leading path.

use prost::{Message, Name};
use prost_types::Any;

/// The OCI runtime specification, JSON.
pub const TYPE_SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// One process of the OCI runtime specification, JSON.
pub const TYPE_PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// The resources of the OCI runtime specification, JSON.
pub const TYPE_LINUX_RESOURCES: &str =
    "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
/// The features document of a runtime, JSON.
pub const TYPE_FEATURES: &str =
    "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// A failure to read an [`Any`].
#[derive(Debug, thiserror::Error)]
pub enum AnyError {
    #[error("type {found:?} where {expected:?} was expected")]
    Type { found: String, expected: String },
    #[error("decode {type_url}: {source}")]
    Decode { type_url: String, source: prost::DecodeError },
}

/// Wraps a protobuf message.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

/// Wraps a JSON document under one of the `TYPE_` names.
pub fn pack_json(type_url: &str, json: Vec<u8>) -> Any {
    Any { type_url: type_url.to_owned(), value: json }
}

/// Reads a protobuf message, if the type is the expected one.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, AnyError> {
    if !is::<M>(any) {
        return Err(AnyError::Type { found: any.type_url.clone(), expected: M::full_name() });
    }
    M::decode(any.value.as_slice())
        .map_err(|source| AnyError::Decode { type_url: any.type_url.clone(), source })
}

/// Whether the document has this type.
pub fn is<M: Name>(any: &Any) -> bool {
    type_name(any) == M::full_name()
}

/// The message's name without a leading path. JSON types keep their whole URL.
pub fn type_name(any: &Any) -> &str {
    let url = any.type_url.as_str();
    if url.starts_with("types.containerd.io/") {
        return url;
    }
    url.rsplit('/').next().unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::events::TaskOom;

    #[test]
    fn a_message_travels_under_its_bare_name() {
        let any = pack(&TaskOom { container_id: "c".into() });
        assert_eq!(any.type_url, "containerd.events.TaskOOM");
        assert_eq!(unpack::<TaskOom>(&any).unwrap().container_id, "c");
    }

    #[test]
    fn a_leading_path_is_accepted() {
        let mut any = pack(&TaskOom { container_id: "c".into() });
        any.type_url = format!("type.googleapis.com/{}", any.type_url);
        assert_eq!(unpack::<TaskOom>(&any).unwrap().container_id, "c");
    }

    #[test]
    fn another_type_is_named_in_the_error() {
        let any = pack_json(TYPE_SPEC, b"{}".to_vec());
        let error = unpack::<TaskOom>(&any).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("type {TYPE_SPEC:?} where \"containerd.events.TaskOOM\" was expected")
        );
    }
}
