//! Flags as runc's command line takes them: one or two dashes, value attached or separate, before
//! or after the container's id.

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum FlagError {
    /// Asked for rather than wrong.
    #[error("help requested")]
    Help,
    // Compat: the texts of Go's flag package.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    #[error("invalid boolean value {value:?} for -{name}: parse error")]
    NotBool { name: String, value: String },
    #[error("invalid value {value:?} for flag -{name}")]
    Invalid { name: String, value: String },
}

/// One flag a command knows: long name, short one or "", whether a value follows.
pub(crate) type Flag = (&'static str, &'static str, bool);

/// Where the flags of a command end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// At the first word that is no flag (global flags; `ps`, whose other flags are those of ps).
    First,
    /// Flags anywhere.
    Mixed,
    /// Anywhere up to the second plain word, where a program of the user's begins (`exec`).
    UntilProgram,
}

#[derive(Debug, Default)]
pub(crate) struct Parsed {
    values: Vec<(&'static str, String)>,
    pub(crate) words: Vec<String>,
}

impl Parsed {
    pub(crate) fn new(
        arguments: impl IntoIterator<Item = String>,
        flags: &[Flag],
        order: Order,
    ) -> Result<Self, FlagError> {
        let mut parsed = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                parsed.words.extend(arguments);
                break;
            }
            if !argument.starts_with('-') || argument == "-" {
                parsed.words.push(argument);
                let ends = match order {
                    Order::First => true,
                    Order::Mixed => false,
                    Order::UntilProgram => parsed.words.len() > 1,
                };
                if ends {
                    parsed.words.extend(arguments);
                    break;
                }
                continue;
            }
            let body = argument.strip_prefix("--").unwrap_or(&argument[1..]);
            let (name, attached) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            // Not every flag has a short name.
            if name.is_empty() || name.starts_with('-') {
                return Err(FlagError::Syntax(argument));
            }
            let Some((long, _, takes_value)) =
                flags.iter().find(|(long, short, _)| name == *long || name == *short)
            else {
                return Err(match name {
                    "help" | "h" => FlagError::Help,
                    _ => FlagError::Unknown(name.to_owned()),
                });
            };
            let value = match (takes_value, attached) {
                (true, Some(value)) => value,
                (true, None) => {
                    arguments.next().ok_or_else(|| FlagError::NoValue(name.to_owned()))?
                }
                (false, None) => "true".to_owned(),
                (false, Some(value)) => match value.as_str() {
                    "1" | "t" | "T" | "true" | "TRUE" | "True" => "true".to_owned(),
                    "0" | "f" | "F" | "false" | "FALSE" | "False" => "false".to_owned(),
                    _ => return Err(FlagError::NotBool { name: name.to_owned(), value }),
                },
            };
            parsed.values.push((long, value));
        }
        Ok(parsed)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().rev().find(|pair| pair.0 == name).map(|pair| pair.1.as_str())
    }

    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.values.iter().filter(|pair| pair.0 == name).map(|pair| pair.1.clone()).collect()
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    pub(crate) fn number(&self, name: &str) -> Result<u32, FlagError> {
        match self.get(name) {
            None => Ok(0),
            Some(value) => value
                .parse()
                .map_err(|_| FlagError::Invalid { name: name.to_owned(), value: value.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{Noise, assert_sentence};

    const FLAGS: &[Flag] = &[("bundle", "b", true), ("detach", "d", false), ("env", "e", true)];

    fn parse(line: &str, order: Order) -> Result<Parsed, FlagError> {
        Parsed::new(line.split_whitespace().map(str::to_owned), FLAGS, order)
    }

    #[test]
    fn flags_may_stand_before_or_after_the_id() {
        for line in ["--bundle /b -d c1", "c1 -bundle=/b --detach", "-b /b c1 --detach=true"] {
            let parsed = parse(line, Order::Mixed).unwrap();
            assert_eq!(parsed.get("bundle"), Some("/b"), "{line}");
            assert!(parsed.is_set("detach"), "{line}");
            assert_eq!(parsed.words, ["c1"], "{line}");
        }
    }

    #[test]
    fn a_program_keeps_its_flags() {
        let parsed = parse("-e A=1 c1 -e B=2 ls -d --env", Order::UntilProgram).unwrap();
        assert_eq!(parsed.all("env"), ["A=1", "B=2"]);
        assert_eq!(parsed.words, ["c1", "ls", "-d", "--env"]);
    }

    #[test]
    fn mistakes_are_told_as_go_tells_them() {
        let text = |line| parse(line, Order::Mixed).unwrap_err().to_string();
        assert_eq!(text("--foo"), "flag provided but not defined: -foo");
        assert_eq!(parse("c1 --help", Order::Mixed).unwrap_err(), FlagError::Help);
        assert_eq!(parse("c1 ls --help", Order::UntilProgram).unwrap().words[2], "--help");
        assert_eq!(text("c1 --bundle"), "flag needs an argument: -bundle");
        assert_eq!(text("--detach=x"), "invalid boolean value \"x\" for -detach: parse error");
        for bad in ["--=true", "-=", "---debug", "--", "-"] {
            match parse(bad, Order::Mixed) {
                Err(error) => assert_eq!(error.to_string(), format!("bad flag syntax: {bad}")),
                Ok(parsed) => assert!(bad.len() < 3 && parsed.values.is_empty(), "{bad}"),
            }
        }
    }

    #[test]
    fn a_flag_without_a_short_name_is_not_meant_by_no_name() {
        const LONG: &[Flag] = &[("debug", "", false), ("root", "", true)];
        for line in ["--=true", "-=x"] {
            let parsed = Parsed::new([line.to_owned()], LONG, Order::Mixed);
            assert_eq!(parsed.unwrap_err(), FlagError::Syntax(line.to_owned()));
        }
    }

    /// What a caller means, and one of the ways to write it.
    fn spelled(noise: &mut Noise, order: Order) -> (Parsed, Vec<String>) {
        let (mut meant, mut line) = (Parsed::default(), Vec::new());
        for _ in 0..noise.below(7) {
            if noise.one_in(3) {
                let word = noise.pick(&["c1", "", "-", "a=b", "é"]).to_owned();
                line.push(word.clone());
                meant.words.push(word);
                if order == Order::First || order == Order::UntilProgram && meant.words.len() > 1 {
                    let rest =
                        noise.list(3, |noise| noise.pick(&["-d", "--env", "--", "x"]).to_owned());
                    line.extend(rest.clone());
                    meant.words.extend(rest);
                    return (meant, line);
                }
                continue;
            }
            let (long, short, takes_value) = noise.pick(FLAGS);
            let flag = noise.pick(&["--", "-"]).to_owned() + noise.pick(&[long, short]);
            let value = match takes_value {
                true => noise.pick(&["/b", "", "-d", "--", "a=b", "é\n"]),
                false => noise.pick(&["true", "false"]),
            };
            if takes_value && noise.one_in(2) {
                line.extend([flag, value.to_owned()]);
            } else if value == "true" && noise.one_in(2) {
                line.push(flag);
            } else {
                line.push(format!("{flag}={value}"));
            }
            meant.values.push((long, value.to_owned()));
        }
        if noise.one_in(3) {
            let rest = noise.list(3, |noise| noise.pick(&["-d", "--env", "--", "x"]).to_owned());
            line.push("--".to_owned());
            line.extend(rest.clone());
            meant.words.extend(rest);
        }
        (meant, line)
    }

    properties! {
        #[test]
        fn flags_mean_the_same_however_and_wherever_they_stand(noise) {
            let order = noise.pick(&[Order::First, Order::Mixed, Order::UntilProgram]);
            let (meant, line) = spelled(noise, order);
            let parsed = Parsed::new(line.clone(), FLAGS, order).unwrap();
            assert_eq!((&parsed.values, &parsed.words), (&meant.values, &meant.words), "{line:?}");
        }

        #[test]
        fn any_command_line_is_read_or_refused_with_a_sentence(noise) {
            let names = ["bundle", "b", "d", "detach", "env", "help", "x", "é", "-", ""];
            let word = |noise: &mut Noise| {
                let (dashes, value) = (["", "-", "-", "--", "--", "---"], ["", "", "=", "=1", "=x=y", " "]);
                noise.pick(&dashes).to_owned() + noise.pick(&names) + noise.pick(&value)
            };
            let line = noise.list(6, word);
            let order = noise.pick(&[Order::First, Order::Mixed, Order::UntilProgram]);
            match Parsed::new(line.clone(), FLAGS, order) {
                Ok(parsed) => {
                    assert!(parsed.words.iter().all(|word| line.contains(word)), "{line:?}");
                    assert!(parsed.values.len() + parsed.words.len() <= line.len(), "{line:?}");
                }
                Err(error) => assert_sentence(error.to_string().trim_end()),
            }
        }
    }
}
