//! The `filters` query parameter: `{"k":{"v":true}}` (the CLI) or `{"k":["v"]}` (SDKs).

use std::collections::{BTreeMap, BTreeSet};

/// Keys with the set of values given for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

/// Why a filter is refused. The texts are dockerd's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FilterError {
    #[error("invalid filter")]
    Malformed,
    // Compat: dockerd 20.10 says `Invalid filter 'x'`, newer ones `invalid filter 'x'`.
    #[error("invalid filter '{0}'")]
    UnknownKey(String),
    #[error("invalid filter '{key}={value}'")]
    BadValue { key: String, value: String },
}

impl Filters {
    /// Reads either form; an empty text is no filter.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|_| FilterError::Malformed)?;
        let serde_json::Value::Object(keys) = value else {
            return if value.is_null() { Ok(Self::default()) } else { Err(FilterError::Malformed) };
        };
        let mut filters = Self::default();
        for (key, values) in keys {
            let values: BTreeSet<String> = match values {
                serde_json::Value::Object(set) => set
                    .into_iter()
                    .filter(|(_, on)| on.as_bool() != Some(false))
                    .map(|(value, _)| value)
                    .collect(),
                serde_json::Value::Array(items) => items
                    .into_iter()
                    .map(|item| match item {
                        serde_json::Value::String(text) => Ok(text),
                        serde_json::Value::Bool(on) => Ok(on.to_string()),
                        serde_json::Value::Number(number) => Ok(number.to_string()),
                        _ => Err(FilterError::Malformed),
                    })
                    .collect::<Result<_, _>>()?,
                _ => return Err(FilterError::Malformed),
            };
            filters.0.insert(key, values);
        }
        Ok(filters)
    }

    /// Adds one value, as a client does.
    pub fn add(&mut self, key: &str, value: &str) {
        self.0.entry(key.to_owned()).or_default().insert(value.to_owned());
    }

    /// The query parameter's text, in the CLI's form.
    #[must_use]
    pub fn to_json(&self) -> String {
        let keys: serde_json::Map<_, _> = self
            .0
            .iter()
            .map(|(key, values)| {
                let set: serde_json::Map<_, _> =
                    values.iter().map(|value| (value.clone(), true.into())).collect();
                (key.clone(), serde_json::Value::Object(set))
            })
            .collect();
        serde_json::Value::Object(keys).to_string()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when the key was given at all.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The values given for a key.
    pub fn get(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Refuses keys other than these.
    pub fn only(&self, known: &[&str]) -> Result<(), FilterError> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(FilterError::UnknownKey(key.clone())),
            None => Ok(()),
        }
    }

    /// True when the key is not given or one of its values satisfies the test.
    pub fn any(&self, key: &str, test: impl FnMut(&str) -> bool) -> bool {
        self.0
            .get(key)
            .is_none_or(|values| values.is_empty() || values.iter().map(String::as_str).any(test))
    }

    /// True when the value is given exactly, or the key is not given.
    #[must_use]
    pub fn exact(&self, key: &str, value: &str) -> bool {
        self.any(key, |given| given == value)
    }

    /// True when every `label` value (`key` or `key=value`) is met by the labels.
    #[must_use]
    pub fn labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(key).all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        })
    }

    /// A boolean filter such as `dangling`.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, FilterError> {
        let mut result = None;
        for value in self.get(key) {
            result = Some(match value {
                "1" | "true" | "True" | "TRUE" | "t" | "T" => true,
                "0" | "false" | "False" | "FALSE" | "f" | "F" => false,
                _ => {
                    return Err(FilterError::BadValue {
                        key: key.to_owned(),
                        value: value.to_owned(),
                    });
                }
            });
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_wire_forms_mean_the_same() {
        let cli = Filters::parse(r#"{"name":{"a":true,"b":true}}"#).unwrap();
        let sdk = Filters::parse(r#"{"name":["a","b"]}"#).unwrap();
        assert_eq!(cli, sdk);
        assert_eq!(Filters::parse(&cli.to_json()).unwrap(), cli);
        assert!(cli.exact("name", "a") && !cli.exact("name", "c") && cli.exact("label", "x"));
    }

    #[test]
    fn malformed_and_unknown_are_told() {
        assert_eq!(Filters::parse("x"), Err(FilterError::Malformed));
        assert_eq!(Filters::parse("[]"), Err(FilterError::Malformed));
        let filters = Filters::parse(r#"{"wat":["a"]}"#).unwrap();
        assert_eq!(filters.only(&["name"]).unwrap_err().to_string(), "invalid filter 'wat'");
    }

    #[test]
    fn labels_match_by_name_or_pair() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let filters = |text: &str| Filters::parse(text).unwrap();
        assert!(filters(r#"{"label":["a"]}"#).labels("label", &labels));
        assert!(filters(r#"{"label":["a=1"]}"#).labels("label", &labels));
        assert!(!filters(r#"{"label":["a=1","b"]}"#).labels("label", &labels));
    }
}
