//! What is known of a container, as fields with values: the unit of every comparison here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

/// Field to value; the first word of a field says where it was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts(BTreeMap<String, String>);

/// One field in which two containers differ; `None` where one has no such field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) field: String,
    pub(crate) stock: Option<String>,
    pub(crate) ours: Option<String>,
}

impl Facts {
    pub(crate) fn set(&mut self, field: impl Into<String>, value: impl Into<String>) {
        self.0.insert(field.into(), value.into());
    }

    /// A line more for a field that may have several.
    pub(crate) fn add(&mut self, field: impl Into<String>, line: &str) {
        let value = self.0.entry(field.into()).or_default();
        if !value.is_empty() {
            value.push('\n');
        }
        value.push_str(line);
    }

    pub(crate) fn get(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(field, value)| (field.as_str(), value.as_str()))
    }

    pub(crate) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        self.0.retain(|field, value| keep(field, value));
    }

    /// The same fields with other values.
    pub(crate) fn map(self, mut change: impl FnMut(&str, String) -> String) -> Self {
        let changed = self.0.into_iter().map(|(field, value)| {
            let value = change(&field, value);
            (field, value)
        });
        Self(changed.collect())
    }

    /// JSON by path; lists of plain values as they are, other members of lists by their place.
    pub(crate) fn flatten(&mut self, path: &str, value: &Value) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                for (name, value) in members {
                    self.flatten(&format!("{path}.{name}"), value);
                }
            }
            Value::Array(members)
                if members.iter().any(|one| one.is_object() || one.is_array()) =>
            {
                for (place, value) in members.iter().enumerate() {
                    self.flatten(&format!("{path}.{place}"), value);
                }
            }
            Value::String(text) => self.set(path, text.clone()),
            other => self.set(path, other.to_string()),
        }
    }

    pub(crate) fn differences(stock: &Self, ours: &Self) -> Vec<Difference> {
        let mut fields: Vec<&String> = stock.0.keys().chain(ours.0.keys()).collect();
        fields.sort();
        fields.dedup();
        let differences = fields.into_iter().filter_map(|field| {
            let (stock, ours) = (stock.0.get(field).cloned(), ours.0.get(field).cloned());
            (stock != ours).then(|| Difference { field: field.clone(), stock, ours })
        });
        differences.collect()
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = |value: &Option<String>| {
            value.as_ref().map_or_else(|| "(no such field)".to_owned(), |value| escape(value))
        };
        write!(
            f,
            "{}\n    stock  {}\n    ours   {}",
            self.field,
            side(&self.stock),
            side(&self.ours)
        )
    }
}

/// One line for any value.
pub(crate) fn escape(value: &str) -> String {
    let mut text = String::new();
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            other if other.is_control() => {
                let _ = write!(text, "\\u{{{:x}}}", u32::from(other));
            }
            other => text.push(other),
        }
    }
    text
}

/// What [`escape`] made; of control characters only its own.
pub(crate) fn unescape(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line.chars();
    while let Some(character) = rest.next() {
        match (character, rest.clone().next()) {
            ('\\', Some(next)) => {
                rest.next();
                text.push(match next {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other => other,
                });
            }
            (other, _) => text.push(other),
        }
    }
    text
}
