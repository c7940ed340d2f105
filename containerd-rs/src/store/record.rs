//! What is kept: the records of the nouns, in their own types. The form on disk is JSON; fields
//! are only ever added, with defaults, so that an older file stays readable.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use jiff::Timestamp;

pub(crate) type Labels = BTreeMap<String, String>;

/// A typed value that is kept and returned byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Any {
    pub(crate) type_url: String,
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub(crate) value: Vec<u8>,
}

impl From<prost_types::Any> for Any {
    fn from(wire: prost_types::Any) -> Self {
        Self { type_url: wire.type_url, value: wire.value }
    }
}

impl From<Any> for prost_types::Any {
    fn from(any: Any) -> Self {
        Self { type_url: any.type_url, value: any.value }
    }
}

/// What a name points at: an OCI descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: i64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: Labels,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) labels: Labels,
    pub(crate) target: Descriptor,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

impl Image {
    pub(crate) fn new(name: impl Into<String>, target: Descriptor) -> Self {
        let now = Timestamp::now();
        Self { name: name.into(), labels: Labels::new(), target, created_at: now, updated_at: now }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct RuntimeChoice {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) options: Option<Any>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Container {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) labels: Labels,
    #[serde(default)]
    pub(crate) image: String,
    #[serde(default)]
    pub(crate) runtime: RuntimeChoice,
    #[serde(default)]
    pub(crate) spec: Option<Any>,
    #[serde(default)]
    pub(crate) snapshotter: String,
    #[serde(default)]
    pub(crate) snapshot_key: String,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    #[serde(default)]
    pub(crate) extensions: BTreeMap<String, Any>,
    #[serde(default)]
    pub(crate) sandbox: String,
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}
