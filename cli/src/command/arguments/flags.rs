//! Flags as pflag reads them: where they end, which of them take a value, and what is said of wrong
//! ones.

use clap::{Arg, ArgAction, Command};

/// The flags of one command, read up to where they end.
pub(super) struct Flags {
    pub(super) given: Vec<(String, String, bool)>,
    pub(super) rest: Vec<String>,
    pub(super) help: bool,
}

/// Takes the flags out of `words`, as pflag does.
pub(super) fn read(
    words: &[String],
    command: &Command,
    interspersed: bool,
) -> Result<Flags, String> {
    let mut read = Flags { given: Vec::new(), rest: Vec::new(), help: false };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if !word.starts_with('-') || word.len() == 1 {
            read.rest.push(word.clone());
            if !interspersed {
                break;
            }
        } else if word == "--" {
            break;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            if name.is_empty() || name.starts_with('-') {
                return Err(format!("bad flag syntax: {word}"));
            }
            let Some(flag) = find(command, |flag| named(flag, name)) else {
                if name == "help" {
                    read.help = true;
                    return Ok(read);
                }
                return Err(format!("unknown flag: --{name}"));
            };
            if flag.get_id() == "help" {
                read.help = true;
                return Ok(read);
            }
            let value = match value {
                Some(value) => value,
                None if is_switch(flag) => "true".to_owned(),
                None => words.next().cloned().ok_or(format!("flag needs an argument: --{name}"))?,
            };
            read.push(flag, value)?;
        } else if shorthands(word, command, &mut words, &mut read)? {
            return Ok(read);
        }
    }
    read.rest.extend(words.cloned());
    Ok(read)
}

/// Reads `-abc`, `-n5`, `-n=5` and `-n 5`; true if help was asked for.
fn shorthands<'a>(
    word: &str,
    command: &Command,
    words: &mut impl Iterator<Item = &'a String>,
    read: &mut Flags,
) -> Result<bool, String> {
    let cluster = word.get(1..).unwrap_or_default();
    for (at, letter) in cluster.char_indices() {
        let tail = cluster.get(at..).unwrap_or_default();
        let after = tail.get(letter.len_utf8()..).unwrap_or_default();
        let Some(flag) = find(command, |flag| flag.get_short() == Some(letter)) else {
            if letter == 'h' {
                read.help = true;
                return Ok(true);
            }
            return Err(format!("unknown shorthand flag: '{letter}' in -{tail}"));
        };
        if let Some(value) = after.strip_prefix('=').filter(|value| !value.is_empty()) {
            read.push(flag, value.to_owned())?;
            return Ok(false);
        }
        if is_switch(flag) {
            read.push(flag, "true".to_owned())?;
            continue;
        }
        let value = if after.is_empty() {
            words.next().cloned().ok_or(format!("flag needs an argument: '{letter}' in -{tail}"))?
        } else {
            after.to_owned()
        };
        read.push(flag, value)?;
        return Ok(false);
    }
    Ok(false)
}

impl Flags {
    fn push(&mut self, flag: &Arg, value: String) -> Result<(), String> {
        let name = flag.get_long().unwrap_or_default().to_owned();
        if !is_switch(flag) {
            self.given.push((name, value, false));
            return Ok(());
        }
        let on = match value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => "true",
            "0" | "f" | "F" | "false" | "FALSE" | "False" => "false",
            _ => {
                return Err(wrong_value(
                    flag,
                    &value,
                    &format!("strconv.ParseBool: parsing {value:?}: invalid syntax"),
                ));
            }
        };
        self.given.push((name, on.to_owned(), true));
        Ok(())
    }
}

/// The flags in the one form clap gets to see; of what can be given once, the last counts.
pub(super) fn spelled(given: &[(String, String, bool)], command: &Command) -> Vec<String> {
    let mut out = Vec::new();
    for (at, (name, value, switch)) in given.iter().enumerate() {
        let flag = find(command, |flag| named(flag, name));
        let repeats = flag.is_some_and(|flag| matches!(flag.get_action(), ArgAction::Append));
        let later = given.get(at + 1..).unwrap_or_default();
        if !repeats && later.iter().any(|(other, ..)| other == name) {
            continue;
        }
        let plain = flag.is_some_and(|flag| matches!(flag.get_action(), ArgAction::SetTrue));
        match (switch, plain, value.as_str()) {
            (true, true, "true") => out.push(format!("--{name}")),
            (true, true, _) => {}
            _ => out.push(format!("--{name}={value}")),
        }
    }
    out
}

fn find(command: &Command, is: impl Fn(&Arg) -> bool) -> Option<&Arg> {
    command.get_arguments().find(|flag| !flag.is_positional() && is(flag))
}

fn named(flag: &Arg, name: &str) -> bool {
    flag.get_long() == Some(name)
        || flag.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
}

fn is_switch(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::SetTrue | ArgAction::Help)
        || flag.get_num_args().is_some_and(|values| values.min_values() == 0)
}

/// What the stock client says to a flag's value that it cannot read.
pub(crate) fn wrong_value(flag: &Arg, value: &str, why: &str) -> String {
    let long = flag.get_long().unwrap_or_default();
    let name = match flag.get_short() {
        Some(short) => format!("-{short}, --{long}"),
        None => format!("--{long}"),
    };
    format!("invalid argument {value:?} for {name:?} flag: {why}")
}
