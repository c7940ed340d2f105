//! JSON as templates see it: members in the order they came in, and printed as Go prints.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Number;

/// A document, or a part of one.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Value {
    /// A key that its map does not have.
    #[default]
    Missing,
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

/// Members of this name are for templates' methods only.
pub(crate) const HIDDEN: &str = "\0labels";

/// What is a map in Go, where other objects are structures.
const MAPS: &[&str] = &[
    "Labels",
    "Networks",
    "Ports",
    "Volumes",
    "Sysctls",
    "PortBindings",
    "ExposedPorts",
    "Options",
    "Attributes",
    "Tmpfs",
    "Annotations",
    "DriverOpts",
    "StorageOpt",
    "GraphDriverData",
    "Details",
    "Runtimes",
];

/// What is a pointer in Go, and prints as `<nil>` when it is not there.
const POINTERS: &[&str] = &[
    "MemorySwappiness",
    "OomKillDisable",
    "PidsLimit",
    "Init",
    "Health",
    "Healthcheck",
    "Platform",
    "StopTimeout",
    "GraphDriver",
    "SizeRw",
    "SizeRootFs",
    "IPAMConfig",
];

impl Value {
    /// Whether a member called `name` is a map in Go.
    pub(super) fn is_map(name: &str) -> bool {
        MAPS.contains(&name)
    }

    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// A member; Compat: Go's names differ from JSON's in capital letters (`ID`, `Id`).
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(members) = self else { return None };
        members
            .iter()
            .find(|(key, _)| key == name)
            .or_else(|| members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)))
            .map(|(_, value)| value)
    }

    /// What Go calls the truth: not nothing, not zero, not empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Missing | Self::Null => false,
            Self::Bool(value) => *value,
            Self::Number(number) => number.as_f64() != Some(0.0),
            Self::Text(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(members) => !members.is_empty(),
        }
    }

    /// As an action prints it that found it under `name`.
    pub(super) fn print(&self, name: Option<&str>) -> String {
        match (self, name) {
            (Self::Missing, _) => "<no value>".to_owned(),
            (Self::Null, Some(name)) if POINTERS.contains(&name) => "<nil>".to_owned(),
            (Self::Null, Some(name)) if Self::is_map(name) => "map[]".to_owned(),
            (Self::Null, Some(_)) => "[]".to_owned(),
            (Self::Null, None) => "<no value>".to_owned(),
            (Self::Map(members), Some(name)) if !Self::is_map(name) => {
                let parts: Vec<String> =
                    members.iter().map(|(key, value)| value.print(Some(key))).collect();
                format!("{{{}}}", parts.join(" "))
            }
            (other, _) => other.to_string(),
        }
    }

    /// As Go's encoder writes it, by itself (`<` as it is) or as a part of a row (`\u003c`).
    pub(crate) fn to_json(&self, escaped: bool) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        if !escaped {
            return text;
        }
        text.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing | Self::Null => f.write_str("<nil>"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::List(items) => {
                let parts: Vec<String> = items.iter().map(|item| item.print(Some(""))).collect();
                write!(f, "[{}]", parts.join(" "))
            }
            Self::Map(members) => {
                let mut parts: Vec<String> = members
                    .iter()
                    .map(|(key, value)| format!("{key}:{}", value.print(Some(""))))
                    .collect();
                parts.sort();
                write!(f, "map[{}]", parts.join(" "))
            }
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Missing | Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => items.serialize(serializer),
            Self::Map(members) => {
                let mut map = serializer.serialize_map(None)?;
                for (key, value) in members.iter().filter(|(key, _)| key != HIDDEN) {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(member) = members.next_entry()? {
            map.push(member);
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order() {
        let text = r#"{"b":1,"a":[null,1.5,"x"],"c":{"z":true}}"#;
        assert_eq!(Value::from_json(text.as_bytes()).unwrap().to_json(false), text);
    }

    #[test]
    fn values_print_as_in_go() {
        let value = Value::from_json(br#"{"Labels":{"b":"2","a":"1"},"P":{"Name":"no","N":0},"Cmd":["a","b"],"PidsLimit":null,"Binds":null,"Volumes":null}"#).unwrap();
        for (name, text) in [
            ("Labels", "map[a:1 b:2]"),
            ("P", "{no 0}"),
            ("Cmd", "[a b]"),
            ("PidsLimit", "<nil>"),
            ("Binds", "[]"),
            ("Volumes", "map[]"),
        ] {
            assert_eq!(value.get(name).unwrap().print(Some(name)), text);
        }
    }
}
