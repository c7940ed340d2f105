//! The stock client's `config.json`, as far as we read it: credentials, detach keys and formats.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::error::CliError;

#[derive(Debug, Default, Deserialize)]
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

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Auth {
    /// base64 of `user:password`.
    pub(crate) auth: String,
    #[serde(rename = "identitytoken")]
    pub(crate) identity_token: String,
}

impl Config {
    /// Reads `config.json` from `directory`; a missing file is an empty one.
    pub(crate) fn load(directory: Option<&str>) -> Result<Self, CliError> {
        let path = match directory {
            Some(directory) => PathBuf::from(directory),
            None => match std::env::var_os("HOME") {
                Some(home) => PathBuf::from(home).join(".docker"),
                None => return Ok(Self::default()),
            },
        }
        .join("config.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(source) => return Err(CliError::io(format!("read {}", path.display()), source)),
        };
        serde_json::from_slice(&text).map_err(|problem| {
            CliError::Usage(format!("{}: not a docker configuration: {problem}", path.display()))
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    proptest! {
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
