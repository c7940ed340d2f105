//! The Docker Engine API as data: one module a resource, read and written by both sides.
//!
//! Follows the Engine API 1.24 to 1.51. Every type is both `Serialize` and `Deserialize`; unknown
//! fields are ignored and missing ones default. What Go writes as an explicit `null` is an
//! `Option` without `skip_serializing_if`, what Go omits when empty is skipped. Requests may
//! carry `null` anywhere: read them with [`from_json`], which forgets nulls first.
//! Transport, policy and storage are left to the programs.

#![forbid(unsafe_code)]

pub mod container;
pub mod error;
pub mod event;
pub mod exec;
pub mod filters;
#[cfg(test)]
mod foreign;
pub mod frame;
pub mod image;
pub mod keys;
pub mod mount;
pub mod network;
pub mod progress;
pub mod system;
pub mod time;
pub mod trace;
pub mod version;
pub mod volume;

use std::collections::BTreeMap;

/// String to string, sorted as Go prints maps.
pub type StringMap = BTreeMap<String, String>;

/// A Go set: the values carry nothing.
pub type Set = BTreeMap<String, Empty>;

/// Go's `struct{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Empty {}

/// Reads a JSON document as dockerd does: `null` means "not given", wherever it stands in an object.
pub fn from_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let mut value: serde_json::Value = serde_json::from_slice(bytes)?;
    forget_nulls(&mut value);
    serde_json::from_value(value)
}

/// Reads a request: as [`from_json`], and names match whatever their case.
pub fn from_request<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let mut value: serde_json::Value = serde_json::from_slice(bytes)?;
    forget_nulls(&mut value);
    keys::fold_keys(&mut value);
    // Derived readers would take a list for an object whose members come one by one.
    if let Some(place) = keys::list_for_object(&value) {
        use serde::de::{Error, Unexpected};
        let wanted = if place.is_empty() {
            "an object".to_owned()
        } else {
            format!("an object for {place}")
        };
        return Err(serde_json::Error::invalid_type(Unexpected::Seq, &wanted.as_str()));
    }
    serde_json::from_value(value)
}

/// Removes null members of objects, at every depth.
pub fn forget_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(forget_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(forget_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_mean_not_given() {
        let body = br#"{"Image":"busybox","Cmd":null,"HostConfig":{"Binds":null,"Memory":null,
            "PortBindings":{"80/tcp":null},"RestartPolicy":{"Name":"","MaximumRetryCount":0}}}"#;
        let request: container::CreateRequest = from_json(body).unwrap();
        assert_eq!(request.config.image, "busybox");
        assert_eq!(request.config.cmd, None);
        assert_eq!(request.host_config.unwrap().resources.memory, 0);
    }
}
