//! `--change`: Dockerfile instructions applied to a configuration.

use docker_api::Empty;
use docker_api::container::Config;

use super::ImageError;

/// Applies the instructions in order.
pub(crate) fn apply(config: &mut Config, changes: &[String]) -> Result<(), ImageError> {
    for line in changes.iter().map(|line| line.trim()).filter(|line| !line.is_empty()) {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let refused =
            |reason: &str| ImageError::Change { line: line.to_owned(), reason: reason.to_owned() };
        if rest.is_empty() {
            return Err(refused("it requires at least one argument"));
        }
        match word.to_ascii_uppercase().as_str() {
            "CMD" => config.cmd = Some(command(rest)),
            "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
            "ENV" => {
                let env = config.env.get_or_insert_default();
                for (key, value) in pairs(rest) {
                    env.retain(|known| known.split('=').next() != Some(key.as_str()));
                    env.push(format!("{key}={value}"));
                }
            }
            "LABEL" => config.labels.get_or_insert_default().extend(pairs(rest)),
            "EXPOSE" => {
                for port in rest.split_whitespace() {
                    let port =
                        if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
                    config.exposed_ports.get_or_insert_default().insert(port, Empty {});
                }
            }
            "VOLUME" => {
                let paths = match list(rest) {
                    Some(paths) => paths,
                    None => words(rest),
                };
                for path in paths {
                    config.volumes.get_or_insert_default().insert(path, Empty {});
                }
            }
            "USER" => rest.clone_into(&mut config.user),
            "WORKDIR" => rest.clone_into(&mut config.working_dir),
            "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
            "ONBUILD" => config.on_build.get_or_insert_default().push(rest.to_owned()),
            other => return Err(refused(&format!("{other} is not a valid change command"))),
        }
    }
    Ok(())
}

/// The JSON form as it is, the other one for a shell.
fn command(text: &str) -> Vec<String> {
    list(text).unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into(), text.to_owned()])
}

fn list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// `k=v k2="v 2"`, or the old `k v`.
fn pairs(text: &str) -> Vec<(String, String)> {
    let words = words(text);
    if words.first().is_some_and(|first| first.contains('=')) {
        let split = |word: String| {
            let (key, value) = word.split_once('=').unwrap_or((word.as_str(), ""));
            (key.to_owned(), value.to_owned())
        };
        return words.into_iter().map(split).collect();
    }
    let (key, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    vec![(key.to_owned(), value.trim().to_owned())]
}

/// Words by white space; quotes and backslashes as in a shell.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn changes_read_as_a_dockerfile() {
        let mut config = Config::default();
        let lines = [
            "CMD [\"a\", \"b\"]",
            "ENTRYPOINT run me",
            "ENV A=1 B=\"two words\"",
            "ENV A 3",
            "EXPOSE 80 53/udp",
            "LABEL x=y",
            "VOLUME /data /more",
            "user nobody",
            "WORKDIR /w",
        ];
        apply(&mut config, &lines.map(str::to_owned)).unwrap();
        assert_eq!(config.cmd, Some(vec!["a".into(), "b".into()]));
        assert_eq!(config.entrypoint, Some(vec!["/bin/sh".into(), "-c".into(), "run me".into()]));
        assert_eq!(config.env, Some(vec!["B=two words".into(), "A=3".into()]));
        assert_eq!(config.exposed_ports.unwrap().len(), 2);
        assert_eq!(config.volumes.unwrap().len(), 2);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("nobody", "/w"));
        let error = apply(&mut Config::default(), &["RUN x".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("RUN is not a valid change command"), "{error}");
    }

    proptest! {
        #[test]
        fn broken_instructions_are_refused_or_small(
            lines in proptest::collection::vec(
                "(CMD|entrypoint|ENV|LABEL|EXPOSE|VOLUME|USER|ONBUILD|x)[ \t]?[a=\"' \\\\\\[\\],/é]{0,16}",
                0..5,
            ),
        ) {
            let mut config = Config::default();
            if apply(&mut config, &lines).is_ok() {
                let said: usize = lines.iter().map(String::len).sum();
                let empty = serde_json::to_vec(&Config::default()).unwrap().len();
                prop_assert!(serde_json::to_vec(&config).unwrap().len() <= empty + 8 * said + 64 * lines.len());
            }
        }

        #[test]
        fn quoted_words_survive(given in proptest::collection::vec("\\PC{0,8}", 0..5)) {
            let quote = |word: &String| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""));
            let text = given.iter().map(quote).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(words(&text), given);
        }
    }
}
