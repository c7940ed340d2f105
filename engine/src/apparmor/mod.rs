//! AppArmor: whether this host confines by it, and `docker-default`, the profile of containers that ask
//! for none. It belongs to the kernel, not to us: loaded where it is missing, never replaced, never
//! taken away.

mod profile;

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use docker_api::container::HostConfig;

pub(crate) const DEFAULT: &str = "docker-default";
const UNCONFINED: &str = "unconfined";

const PARSER: &str = "apparmor_parser";
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// What this host has of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Apparmor {
    /// The kernel shows its files: containers are told to have a profile.
    known: bool,
    /// Their processes get it.
    enabled: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ApparmorError {
    // Compat: dockerd's words, here and below.
    #[error("Could not check if {DEFAULT} AppArmor profile was loaded: open {PROFILES}: {0}")]
    Profiles(#[source] io::Error),
    #[error(
        "AppArmor enabled on system but the {DEFAULT} profile could not be loaded: running `{PARSER} -Kr` failed with output: {output}\nerror: {reason}"
    )]
    Parser { output: String, reason: String },
}

impl Apparmor {
    pub(crate) fn of_host() -> Self {
        let known = Path::new("/sys/kernel/security/apparmor").exists();
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Self { known, enabled: known && enabled.is_ok_and(|text| text.starts_with('Y')) }
    }

    pub(crate) fn is_known(self) -> bool {
        self.known
    }

    /// What inspect says from the first start on.
    pub(crate) fn told(self, host: &HostConfig) -> String {
        if self.known { profile_of(host).to_owned() } else { String::new() }
    }

    /// What the runtime is told of a container's processes. Blocking: the default is loaded if it has to be.
    pub(crate) fn confine(self, host: &HostConfig) -> Result<Option<String>, ApparmorError> {
        if !self.enabled {
            return Ok(None);
        }
        let profile = profile_of(host);
        if profile == DEFAULT {
            self.load_default()?;
        }
        Ok(Some(profile.to_owned()))
    }

    /// Loads the default profile unless one of that name is loaded. Blocking.
    pub(crate) fn load_default(self) -> Result<(), ApparmorError> {
        if !self.enabled || is_loaded(DEFAULT)? {
            return Ok(());
        }
        load(&profile::text(DEFAULT, &own_label()))
    }
}

/// Compat: of several names the last one counts, and an empty one is none.
pub(crate) fn named(host: &HostConfig) -> Option<&str> {
    let options = host.security_opt.iter().flatten().rev();
    let mut names = options.filter_map(|option| {
        let (key, name) = option.split_once(['=', ':'])?;
        (key == "apparmor").then_some(name)
    });
    names.next().filter(|name| !name.is_empty())
}

fn profile_of(host: &HostConfig) -> &str {
    named(host).unwrap_or(if host.privileged { UNCONFINED } else { DEFAULT })
}

fn is_loaded(name: &str) -> Result<bool, ApparmorError> {
    let profiles = std::fs::read_to_string(PROFILES).map_err(ApparmorError::Profiles)?;
    Ok(profiles.lines().any(|line| without_mode(line) == name))
}

/// What confines this process.
fn own_label() -> String {
    let of = |file| std::fs::read_to_string(format!("/proc/self/attr/{file}"));
    let label = of("apparmor/current").or_else(|_| of("current")).unwrap_or_default();
    match without_mode(label.trim_end_matches(['\n', '\0'])) {
        "" => UNCONFINED.to_owned(),
        label => label.to_owned(),
    }
}

/// `NAME (MODE)`, and a name may have blanks.
fn without_mode(label: &str) -> &str {
    label.rsplit_once(" (").map_or(label, |(name, _)| name)
}

/// Hands a profile to the parser, past its cache.
fn load(text: &str) -> Result<(), ApparmorError> {
    let failed = |output: &[u8], reason: String| ApparmorError::Parser {
        output: String::from_utf8_lossy(output).into_owned(),
        reason,
    };
    let failed_to = |error: io::Error| failed(b"", error.to_string());
    let (mut told, errors) = io::pipe().map_err(failed_to)?;
    let mut parser = Command::new(PARSER);
    parser.arg("-Kr").stdin(Stdio::piped());
    parser.stdout(errors.try_clone().map_err(failed_to)?).stderr(errors);
    let mut child = parser.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            failed(b"", format!("exec: \"{PARSER}\": executable file not found in $PATH"))
        }
        _ => failed(b"", format!("exec: \"{PARSER}\": {error}")),
    })?;
    // It holds our ends of the pipe.
    drop(parser);
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(text.as_bytes())
    {
        // One that does not read to the end says why.
        tracing::debug!("{PARSER}: {error}");
    }
    let mut output = Vec::new();
    told.read_to_end(&mut output).map_err(failed_to)?;
    let status = child.wait().map_err(failed_to)?;
    if status.success() {
        return Ok(());
    }
    let reason = match status.code() {
        Some(code) => format!("exit status {code}"),
        None => status.to_string(),
    };
    Err(failed(&output, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_profile_that_is_named_counts() {
        for (options, privileged, profile) in [
            (&[][..], false, DEFAULT),
            (&[], true, UNCONFINED),
            (&["apparmor=unconfined"], false, UNCONFINED),
            (&["apparmor=a"], true, "a"),
            (&["apparmor:a:b"], false, "a:b"),
            (&["apparmor=a", "no-new-privileges", "apparmor:b"], false, "b"),
            (&["apparmor=a", "apparmor="], false, DEFAULT),
            (&["apparmor="], true, UNCONFINED),
            (&["apparmors=a"], false, DEFAULT),
        ] {
            let options: Vec<String> = options.iter().copied().map(str::to_owned).collect();
            let host = HostConfig {
                security_opt: Some(options.clone()),
                privileged,
                ..HostConfig::default()
            };
            assert_eq!(profile_of(&host), profile, "{options:?} {privileged}");
            let known = Apparmor { known: true, enabled: false };
            assert_eq!(known.told(&host), profile);
            assert_eq!(known.confine(&host).unwrap(), None, "the kernel does not enforce any");
            assert_eq!(Apparmor { known: false, enabled: false }.told(&host), "");
        }
    }

    #[test]
    fn a_label_is_a_name_and_a_mode() {
        assert_eq!(without_mode("docker-default (enforce)"), "docker-default");
        assert_eq!(without_mode("a (b) c (complain)"), "a (b) c");
        assert_eq!(without_mode("unconfined"), "unconfined");
    }
}
