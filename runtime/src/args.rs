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
    use crate::foreign::assert_sentence;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

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

    #[derive(Clone, Debug)]
    enum Part {
        Word(&'static str),
        Flag { flag: Flag, name: String, value: &'static str, apart: bool },
    }

    /// A flag by one of its names, and a value that it may have.
    fn flag() -> impl Strategy<Value = Part> {
        let values = (select(&["/b", "", "-d", "--", "a=b", "é\n"]), select(&["true", "false"]));
        let written = (select(&["--", "-"]), any::<bool>(), any::<bool>());
        (select(FLAGS), values, written).prop_map(|(flag, (text, yes_or_no), written)| {
            let (dashes, short, apart) = written;
            let name = dashes.to_owned() + if short { flag.1 } else { flag.0 };
            Part::Flag { flag, name, value: if flag.2 { text } else { yes_or_no }, apart }
        })
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![1 => select(&["c1", "", "-", "a=b", "é"]).prop_map(Part::Word), 2 => flag()]
    }

    fn order() -> impl Strategy<Value = Order> {
        select(&[Order::First, Order::Mixed, Order::UntilProgram])
    }

    /// What is no flag any more, whatever it looks like.
    fn rest() -> impl Strategy<Value = Vec<&'static str>> {
        vec(select(&["-d", "--env", "--", "x"]), 0..=3)
    }

    /// What a caller means, and one of the ways to write it.
    fn spelled(order: Order, parts: &[Part], ended: bool, rest: &[&str]) -> (Parsed, Vec<String>) {
        let (mut meant, mut line) = (Parsed::default(), Vec::new());
        let rest = || rest.iter().copied().map(str::to_owned);
        for part in parts {
            match part {
                Part::Word(word) => {
                    line.push((*word).to_owned());
                    meant.words.push((*word).to_owned());
                    let program = order == Order::UntilProgram && meant.words.len() > 1;
                    if order == Order::First || program {
                        line.extend(rest());
                        meant.words.extend(rest());
                        return (meant, line);
                    }
                }
                Part::Flag { flag, name, value, apart } => {
                    match (flag.2, *value, apart) {
                        (true, value, true) => line.extend([name.clone(), value.to_owned()]),
                        (false, "true", true) => line.push(name.clone()),
                        _ => line.push(format!("{name}={value}")),
                    }
                    meant.values.push((flag.0, (*value).to_owned()));
                }
            }
        }
        if ended {
            line.push("--".to_owned());
            line.extend(rest());
            meant.words.extend(rest());
        }
        (meant, line)
    }

    /// Nearly a flag, or a word.
    fn nearly() -> impl Strategy<Value = String> {
        let dashes = select(&["", "-", "-", "--", "--", "---"]);
        let name = select(&["bundle", "b", "d", "detach", "env", "help", "x", "é", "-", ""]);
        let value = select(&["", "", "=", "=1", "=x=y", " "]);
        (dashes, name, value).prop_map(|(dashes, name, value)| format!("{dashes}{name}{value}"))
    }

    proptest! {
        #[test]
        fn flags_mean_the_same_however_and_wherever_they_stand(
            order in order(), parts in vec(part(), 0..7), ended in prop::bool::weighted(0.3), rest in rest(),
        ) {
            let (meant, line) = spelled(order, &parts, ended, &rest);
            let parsed = Parsed::new(line.clone(), FLAGS, order).unwrap();
            prop_assert_eq!((&parsed.values, &parsed.words), (&meant.values, &meant.words), "{:?}", line);
        }

        #[test]
        fn any_command_line_is_read_or_refused_with_a_sentence(line in vec(nearly(), 0..=6), order in order()) {
            match Parsed::new(line.clone(), FLAGS, order) {
                Ok(parsed) => {
                    prop_assert!(parsed.words.iter().all(|word| line.contains(word)));
                    prop_assert!(parsed.values.len() + parsed.words.len() <= line.len());
                }
                Err(error) => assert_sentence(error.to_string().trim_end()),
            }
        }
    }
}
