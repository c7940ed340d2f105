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
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    #[error("invalid boolean value {value:?} for -{name}")]
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
                (false, value) => {
                    let value = value.unwrap_or_else(|| "true".to_owned());
                    if !matches!(value.as_str(), "true" | "false" | "1" | "0") {
                        return Err(FlagError::NotBool { name: name.to_owned(), value });
                    }
                    value
                }
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
        matches!(self.get(name), Some("true" | "1"))
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
        assert_eq!(text("--detach=x"), "invalid boolean value \"x\" for -detach");
    }
}
