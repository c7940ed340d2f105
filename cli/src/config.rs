//! The stock client's `config.json`, as far as we read it: credentials, detach keys and formats.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Config {
    pub(crate) auths: BTreeMap<String, Auth>,
    pub(crate) current_context: String,
    pub(crate) detach_keys: String,
    pub(crate) ps_format: String,
    pub(crate) images_format: String,
    pub(crate) networks_format: String,
    pub(crate) volumes_format: String,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Auth {
    /// base64 of `user:password`.
    pub(crate) auth: String,
    #[serde(rename = "identitytoken")]
    pub(crate) identity_token: String,
}

impl Config {
    /// Reads `config.json` from `directory`; a missing file is an empty one. Compat: so is one that
    /// cannot be read, with the warning that comes beside it.
    pub(crate) fn load(directory: Option<&str>) -> (Self, Option<String>) {
        let path = match directory {
            Some(directory) => PathBuf::from(directory),
            None => match std::env::var_os("HOME") {
                Some(home) => PathBuf::from(home).join(".docker"),
                None => return (Self::default(), None),
            },
        }
        .join("config.json");
        Self::of(&path, std::fs::read(&path))
    }

    fn of(path: &Path, read: std::io::Result<Vec<u8>>) -> (Self, Option<String>) {
        let read = match read {
            Ok(text) => Self::parse(&text).map_err(|problem| problem.to_string()),
            Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(problem) => Err(problem.to_string()),
        };
        match read {
            Ok(config) => (config, None),
            Err(problem) => {
                let path = path.display();
                let warning = format!("WARNING: Error loading config file: {path}: {problem}");
                (Self::default(), Some(warning))
            }
        }
    }

    /// Compat: an empty file is none, `null` is what is not there, and what follows the document does
    /// not matter.
    fn parse(text: &[u8]) -> serde_json::Result<Self> {
        let mut documents = serde_json::Deserializer::from_slice(text).into_iter();
        let mut document: Value = documents.next().transpose()?.unwrap_or_default();
        drop_nulls(&mut document);
        match document {
            Value::Null => Ok(Self::default()),
            Value::Array(_) => Err(serde::de::Error::custom("a list is no configuration")),
            document => serde_json::from_value(document),
        }
    }

    /// The value of `X-Registry-Auth` for a registry, if there are credentials for it.
    pub(crate) fn registry_auth(&self, registry: &str) -> Option<String> {
        use base64::Engine as _;
        let name = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
        let auth = self.auths.get(name).or_else(|| self.auths.get(&format!("https://{name}")))?;
        let plain = base64::engine::general_purpose::STANDARD.decode(&auth.auth).ok()?;
        let plain = String::from_utf8(plain).ok()?;
        let (username, password) = plain.split_once(':')?;
        let value = serde_json::json!({
            "username": username,
            "password": password,
            "identitytoken": auth.identity_token,
            "serveraddress": name,
        });
        Some(base64::engine::general_purpose::URL_SAFE.encode(value.to_string()))
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    fn load(text: &[u8]) -> (Config, Option<String>) {
        let (config, warning) = Config::of(Path::new("/d/config.json"), Ok(text.to_vec()));
        let place = "WARNING: Error loading config file: /d";
        (config, warning.map(|warning| warning.strip_prefix(place).unwrap().to_owned()))
    }

    #[test]
    fn what_stock_takes_for_a_configuration_is_one() {
        for text in [
            "",
            " ",
            "null",
            "{}",
            r#"{"auths":null}"#,
            r#"{"auths":{"a":null},"detachKeys":null}"#,
        ] {
            assert_eq!(load(text.as_bytes()), (Config::default(), None), "{text}");
        }
        let (config, warning) = load(br#"{"detachKeys":"a","auths":{"b":{"auth":null}}} trailing"#);
        assert_eq!((config.detach_keys.as_str(), config.auths.len(), warning), ("a", 1, None));
    }

    #[test]
    fn what_is_no_configuration_is_told_and_passed_over() {
        for text in ["{", "[]", r#"{"detachKeys":5}"#, "\u{0}"] {
            let (config, warning) = load(text.as_bytes());
            assert_eq!(config, Config::default());
            assert!(warning.is_some_and(|warning| warning.starts_with("/config.json: ")), "{text}");
        }
    }

    const CONFIG: &str = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi","identitytoken":"t"},"r:5000":{}},
"currentContext":"default","detachKeys":"ctrl-a","psFormat":"{{.ID}}","HttpHeaders":{"A":"b"},"credsStore":"x"}"#;
    const WORDS: &[&str] =
        &["null", "[]", "{}", "\"\"", "-1", ",", "\"", "é", "[[[[", "\\ud800", "\0"];

    proptest! {
        #[test]
        fn a_damaged_configuration_is_told_or_read(
            edits in proptest::collection::vec((any::<usize>(), 0_usize..9, 0..WORDS.len()), 0..4), bytes: [u8; 2],
        ) {
            let mut text = CONFIG.as_bytes().to_vec();
            for (at, cut, word) in &edits {
                let at = at % (text.len() + 1);
                text.splice(at..(at + cut).min(text.len()), WORDS[*word].bytes());
            }
            if edits.len() > 2 {
                text.extend(bytes);
            }
            match load(&text) {
                (config, Some(warning)) => {
                    prop_assert_eq!(config, Config::default());
                    prop_assert_eq!(warning.lines().count(), 1);
                }
                (config, None) => {
                    let said = config.auths.keys().map(String::len).sum::<usize>() + config.detach_keys.len();
                    prop_assert!(said <= text.len());
                    drop(config.registry_auth("docker.io"));
                }
            }
        }

        #[test]
        fn credentials_are_passed_on_or_left_out(
            user in "[a-z:]{0,5}",
            password in proptest::option::of("\\PC{0,6}"),
            broken in "[a-zA-Z0-9+/=:]{0,9}",
        ) {
            let plain = password.as_ref().map_or(user.clone(), |password| format!("{user}:{password}"));
            let config = serde_json::json!({"auths": {
                "good": {"auth": STANDARD.encode(&plain)}, "bad": {"auth": broken},
            }});
            let config: Config = serde_json::from_value(config).unwrap();
            let read = config.registry_auth("good").map(|value| {
                serde_json::from_slice::<serde_json::Value>(&URL_SAFE.decode(value).unwrap()).unwrap()
            });
            match plain.split_once(':') {
                Some((name, secret)) => {
                    let read = read.unwrap();
                    prop_assert_eq!(read["username"].as_str(), Some(name));
                    prop_assert_eq!(read["password"].as_str(), Some(secret));
                }
                None => prop_assert_eq!(read, None),
            }
            drop(config.registry_auth("bad"));
            prop_assert_eq!(config.registry_auth("docker.io"), None);
        }
    }
}
