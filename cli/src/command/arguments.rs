//! How an argument vector is read. The rules and the words for mistakes are the stock client's
//! (those of Go's pflag and cobra); `clap` knows which flags there are and gets them in one form.

use clap::{Arg, ArgAction, Command};

/// What an argument vector comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// A command: `docker --host=… ps --all -- …`, and its name as typed.
    Command {
        canonical: Vec<String>,
        path: String,
    },
    /// Help for these words was asked for.
    Help(Vec<String>),
    /// No command at all, or none of this group.
    Nothing(Option<String>),
    Version,
    Mistake {
        text: String,
        code: u8,
    },
}

/// What follows a command's flags.
struct Form {
    verb: &'static str,
    usage: &'static str,
    least: usize,
    most: usize,
}

const ANY: usize = usize::MAX;
const CONTAINERS: &str = "[OPTIONS] CONTAINER [CONTAINER...]";
const RUN: &str = "[OPTIONS] IMAGE [COMMAND] [ARG...]";

/// A command of a group that is none without it is called `GROUP-COMMAND` here and in the grammar;
/// nobody can type that.
#[rustfmt::skip]
static FORMS: &[Form] = &[
    Form { verb: "run", usage: RUN, least: 1, most: ANY },
    Form { verb: "create", usage: RUN, least: 1, most: ANY },
    Form { verb: "start", usage: CONTAINERS, least: 1, most: ANY },
    Form { verb: "stop", usage: CONTAINERS, least: 1, most: ANY },
    Form { verb: "restart", usage: CONTAINERS, least: 1, most: ANY },
    Form { verb: "kill", usage: CONTAINERS, least: 1, most: ANY },
    Form { verb: "rm", usage: CONTAINERS, least: 1, most: ANY },
    Form { verb: "update", usage: CONTAINERS, least: 1, most: ANY },
    Form { verb: "wait", usage: "CONTAINER [CONTAINER...]", least: 1, most: ANY },
    Form { verb: "pause", usage: "CONTAINER [CONTAINER...]", least: 1, most: ANY },
    Form { verb: "unpause", usage: "CONTAINER [CONTAINER...]", least: 1, most: ANY },
    Form { verb: "rename", usage: "CONTAINER NEW_NAME", least: 2, most: 2 },
    Form { verb: "top", usage: "CONTAINER [ps OPTIONS]", least: 1, most: ANY },
    Form { verb: "port", usage: "CONTAINER [PRIVATE_PORT[/PROTO]]", least: 1, most: 2 },
    Form { verb: "ps", usage: "[OPTIONS]", least: 0, most: 0 },
    Form { verb: "logs", usage: "[OPTIONS] CONTAINER", least: 1, most: 1 },
    Form { verb: "exec", usage: "[OPTIONS] CONTAINER COMMAND [ARG...]", least: 2, most: ANY },
    Form { verb: "attach", usage: "[OPTIONS] CONTAINER", least: 1, most: 1 },
    Form { verb: "inspect", usage: "[OPTIONS] NAME|ID [NAME|ID...]", least: 1, most: ANY },
    Form { verb: "images", usage: "[OPTIONS] [REPOSITORY[:TAG]]", least: 0, most: 1 },
    Form { verb: "pull", usage: "[OPTIONS] NAME[:TAG|@DIGEST]", least: 1, most: 1 },
    Form { verb: "load", usage: "[OPTIONS]", least: 0, most: 0 },
    Form { verb: "import", usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]", least: 1, most: 2 },
    Form { verb: "tag", usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", least: 2, most: 2 },
    Form { verb: "rmi", usage: "[OPTIONS] IMAGE [IMAGE...]", least: 1, most: ANY },
    Form { verb: "events", usage: "[OPTIONS]", least: 0, most: 0 },
    Form { verb: "version", usage: "[OPTIONS]", least: 0, most: 0 },
    Form { verb: "info", usage: "[OPTIONS]", least: 0, most: 0 },
    Form { verb: "container-inspect", usage: CONTAINERS, least: 1, most: ANY },
    Form { verb: "container-prune", usage: "[OPTIONS]", least: 0, most: 0 },
    Form { verb: "image-inspect", usage: "[OPTIONS] IMAGE [IMAGE...]", least: 1, most: ANY },
    Form { verb: "image-prune", usage: "[OPTIONS]", least: 0, most: 0 },
    Form { verb: "network-inspect", usage: "[OPTIONS] NETWORK [NETWORK...]", least: 1, most: ANY },
    Form { verb: "network-ls", usage: "[OPTIONS]", least: 0, most: 0 },
    Form { verb: "network-prune", usage: "[OPTIONS]", least: 0, most: 0 },
    Form { verb: "volume-create", usage: "[OPTIONS] [VOLUME]", least: 0, most: 1 },
    Form { verb: "volume-inspect", usage: "[OPTIONS] VOLUME [VOLUME...]", least: 1, most: ANY },
    Form { verb: "volume-ls", usage: "[OPTIONS]", least: 0, most: 0 },
    Form { verb: "volume-prune", usage: "[OPTIONS]", least: 0, most: 0 },
    Form { verb: "volume-rm", usage: "[OPTIONS] VOLUME [VOLUME...]", least: 1, most: ANY },
];

#[rustfmt::skip]
static GROUPS: &[(&str, &[&str])] = &[
    ("container", &[
        "run", "create", "start", "stop", "restart", "kill", "rm", "remove", "update", "wait",
        "pause", "unpause", "rename", "top", "port", "ls", "list", "ps", "logs", "exec", "attach",
        "inspect", "prune",
    ]),
    ("image", &[
        "ls", "list", "pull", "load", "import", "tag", "rm", "remove", "inspect", "prune",
    ]),
    ("network", &["inspect", "ls", "list", "prune"]),
    ("system", &["events", "info"]),
    ("volume", &["create", "inspect", "ls", "list", "prune", "rm", "remove"]),
];

/// The flags of one command, read up to where they end.
struct Flags {
    given: Vec<(String, String, bool)>,
    rest: Vec<String>,
    help: bool,
}

/// Reads `arguments`, the program's name first.
pub(crate) fn read(arguments: &[String], root: &Command) -> Reading {
    match read_or_stop(arguments, root) {
        Ok(reading) | Err(reading) => reading,
    }
}

fn read_or_stop(arguments: &[String], root: &Command) -> Result<Reading, Reading> {
    let program = arguments.first().cloned().unwrap_or_default();
    let typed = arguments.get(1..).unwrap_or_default();
    if let [first, ..] = typed
        && matches!(first.as_str(), "-v" | "--version")
    {
        return Ok(Reading::Version);
    }
    let globals = flags(typed, root, false)
        .map_err(|text| mistaken(&text, "docker", "[OPTIONS] COMMAND [ARG...]"))?;
    if globals.help {
        return Ok(Reading::Help(Vec::new()));
    }
    if globals.given.iter().filter(|(name, ..)| name == "host").count() > 1 {
        let last = globals.given.iter().rfind(|(name, ..)| name == "host");
        let value = last.map(|(_, value, _)| value.clone()).unwrap_or_default();
        let text =
            format!("invalid argument {value:?} for \"-H, --host\" flag: specify only one -H");
        return Err(mistaken(&text, "docker", "[OPTIONS] COMMAND [ARG...]"));
    }
    let Some((word, rest)) = globals.rest.split_first() else { return Ok(Reading::Nothing(None)) };
    if word == "help" {
        return Ok(Reading::Help(rest.to_vec()));
    }
    let Target { verb, path, rest } = command_of(word, rest, root)?;
    let verb = verb.as_str();
    let form = FORMS.iter().find(|form| form.verb == verb);
    let (Some(command), Some(form)) = (root.find_subcommand(verb), form) else {
        return Err(unknown(&path, "docker", root));
    };
    // After the image, or the container of `exec` and `top`, everything is the command's.
    let interspersed = !matches!(verb, "run" | "create" | "exec" | "top");
    let own =
        flags(rest, command, interspersed).map_err(|text| mistaken(&text, &path, form.usage))?;
    if own.help {
        return Ok(Reading::Help(vec![verb.to_owned()]));
    }
    let mut own_words = own.rest.iter().take(if interspersed { ANY } else { form.least });
    if let Some(dashed) = own_words.find(|word| long_dash(word)) {
        return Err(dashed_mistake(dashed));
    }
    count(own.rest.len(), &path, form)?;
    let mut canonical = vec![program];
    canonical.extend(spelled(&globals.given, root));
    canonical.push(verb.to_owned());
    canonical.extend(spelled(&own.given, command));
    canonical.push("--".to_owned());
    canonical.extend(own.rest);
    Ok(Reading::Command { canonical, path })
}

/// The verb behind one or two words, and how the stock client calls it.
struct Target<'a> {
    verb: String,
    path: String,
    rest: &'a [String],
}

fn command_of<'a>(
    word: &'a str,
    rest: &'a [String],
    root: &Command,
) -> Result<Target<'a>, Reading> {
    if long_dash(word) {
        return Err(dashed_mistake(word));
    }
    let Some((group, verbs)) = GROUPS.iter().find(|(group, _)| *group == word) else {
        let path = format!("docker {word}");
        if is_verb(word) {
            return Ok(Target { verb: word.to_owned(), path, rest });
        }
        return Err(unknown(&path, "docker", root));
    };
    let Some((verb, rest)) = rest.split_first() else {
        return Err(Reading::Nothing(Some((*group).to_owned())));
    };
    if matches!(verb.as_str(), "--help" | "-h") {
        return Err(Reading::Help(vec![(*group).to_owned()]));
    }
    if !verbs.contains(&verb.as_str()) {
        let mut text = format!("docker: unknown command: docker {group} {verb}\n");
        if let Some(near) = nearest(verb, verbs.iter().copied()) {
            text.push_str(&format!("\nDid you mean: docker {group} {near}?\n"));
        }
        // Compat: one of the groups says it in full.
        let usage = if *group == "volume" { " COMMAND" } else { "" };
        text.push_str(&format!(
            "\nUsage:  docker {group}{usage}\n\nRun 'docker {group} --help' for more information"
        ));
        return Err(Reading::Mistake { text, code: 1 });
    }
    let shown = match verb.as_str() {
        "list" | "ps" => "ls",
        "remove" => "rm",
        other => other,
    };
    let grouped = format!("{group}-{shown}");
    let verb = match (*group, shown) {
        ("container", "ls") => "ps".to_owned(),
        ("image", "ls") => "images".to_owned(),
        ("image", "rm") => "rmi".to_owned(),
        _ if FORMS.iter().any(|form| form.verb == grouped) => grouped,
        _ => shown.to_owned(),
    };
    Ok(Target { verb, path: format!("docker {group} {shown}"), rest })
}

/// Whether it is a command of its own.
fn is_verb(word: &str) -> bool {
    !word.contains('-') && FORMS.iter().any(|form| form.verb == word)
}

/// Takes the flags out of `words`, as pflag does.
fn flags(words: &[String], command: &Command, interspersed: bool) -> Result<Flags, String> {
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
fn spelled(given: &[(String, String, bool)], command: &Command) -> Vec<String> {
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

/// A mistake in the flags of `path`.
pub(crate) fn flag_mistake(text: &str, path: &str, verb: &str) -> Reading {
    let usage = FORMS.iter().find(|form| form.verb == verb).map_or("", |form| form.usage);
    mistaken(text, path, usage)
}

fn mistaken(text: &str, path: &str, usage: &str) -> Reading {
    Reading::Mistake {
        text: format!(
            "{text}\n\nUsage:  {path} {usage}\n\nRun '{path} --help' for more information"
        ),
        code: 125,
    }
}

fn count(given: usize, path: &str, form: &Form) -> Result<(), Reading> {
    let Form { least, most, usage, .. } = *form;
    if given >= least && given <= most {
        return Ok(());
    }
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let (needs, hint) = match (least, most) {
        (0, 0) => ("accepts no arguments".to_owned(), "Run"),
        (least, ANY) => (format!("requires at least {least} argument{}", plural(least)), "See"),
        (0, most) => (format!("requires at most {most} argument{}", plural(most)), "Run"),
        (least, most) if least == most => {
            (format!("requires {least} argument{}", plural(least)), "Run")
        }
        (least, most) => (
            format!("requires at least {least} and at most {most} argument{}", plural(most)),
            "Run",
        ),
    };
    let text = format!(
        "docker: '{path}' {needs}\n\nUsage:  {path} {usage}\n\n{hint} '{path} --help' for more information"
    );
    Err(Reading::Mistake { text, code: 1 })
}

fn unknown(path: &str, group: &str, root: &Command) -> Reading {
    let mut text = format!("docker: unknown command: {path}\n");
    let typed = path.rsplit(' ').next().unwrap_or_default();
    let verbs = root.get_subcommands().map(Command::get_name).filter(|verb| is_verb(verb));
    if let Some(near) = nearest(typed, verbs) {
        text.push_str(&format!("\nDid you mean: {group} {near}?\n"));
    }
    text.push_str(&format!("\nRun '{group} --help' for more information"));
    Reading::Mistake { text, code: 1 }
}

fn long_dash(word: &str) -> bool {
    word.starts_with(['–', '—', '‒', '―', '−'])
}

fn dashed_mistake(word: &str) -> Reading {
    let text = format!(
        "docker: {word:?} begins with a long dash, as word processors make them; type a plain \"-\""
    );
    Reading::Mistake { text, code: 125 }
}

/// The verb that differs from `typed` by at most two letters, or that it begins.
fn nearest<'a>(typed: &str, verbs: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let close = |verb: &&str| {
        (typed.len() > 2 && verb.starts_with(typed))
            || distance(typed, verb) <= typed.len().min(6) / 3
    };
    verbs.filter(close).min_by_key(|verb| distance(typed, verb))
}

/// How many letters must be put in, left out or changed, or neighbours exchanged.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let width = other.len() + 1;
    let mut table = vec![0; (one.len() + 1) * width];
    let at = |row: usize, column: usize| row * width + column;
    for row in 0..=one.len() {
        for column in 0..=other.len() {
            let get = |row, column| table.get(at(row, column)).copied().unwrap_or(0);
            let best = if row == 0 || column == 0 {
                row + column
            } else {
                let changed = usize::from(one.get(row - 1) != other.get(column - 1));
                let mut best = (get(row - 1, column) + 1)
                    .min(get(row, column - 1) + 1)
                    .min(get(row - 1, column - 1) + changed);
                if row > 1
                    && column > 1
                    && one.get(row - 1) == other.get(column - 2)
                    && one.get(row - 2) == other.get(column - 1)
                {
                    best = best.min(get(row - 2, column - 2) + 1);
                }
                best
            };
            if let Some(cell) = table.get_mut(at(row, column)) {
                *cell = best;
            }
        }
    }
    table.last().copied().unwrap_or(0)
}

pub(crate) fn is_group(word: &str) -> bool {
    GROUPS.iter().any(|(group, _)| *group == word)
}

/// The commands of a group.
pub(crate) fn group_help(group: &str) -> String {
    let verbs = GROUPS.iter().find(|(name, _)| *name == group).map_or(&[][..], |(_, verbs)| *verbs);
    format!("Usage: docker {group} COMMAND\n\nCommands: {}", verbs.join(", "))
}

/// How a command is to be called.
pub(crate) fn usage_of(verb: &str) -> String {
    let usage = FORMS.iter().find(|form| form.verb == verb).map_or("", |form| form.usage);
    format!("docker {} {usage}", verb.replacen('-', " ", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn reading(text: &str) -> Reading {
        read(&words(text), &crate::command::grammar())
    }

    #[track_caller]
    fn mistake(text: &str) -> (String, u8) {
        match reading(text) {
            Reading::Mistake { text, code } => (text, code),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn every_way_to_write_a_flag_comes_to_one_form() {
        for (typed, meant) in [
            ("docker container ls -a", "docker ps --all --"),
            ("docker -H unix:///x image rm y", "docker --host=unix:///x rmi -- y"),
            ("docker container run busybox image ls", "docker run -- busybox image ls"),
            ("docker run --rm=true --init=false x", "docker run --rm -- x"),
            ("docker run --rm -it --rm=false x -it", "docker run --interactive --tty -- x -it"),
            (
                "docker run --name -x -eA=1 -e B -e=C y",
                "docker run --name=-x --env=A=1 --env=B --env=C -- y",
            ),
            ("docker run -it=false x", "docker run --interactive -- x"),
            ("docker run --name a --name b x", "docker run --name=b -- x"),
            ("docker attach --sig-proxy=0 x", "docker attach --sig-proxy=false -- x"),
            ("docker attach x --sig-proxy", "docker attach --sig-proxy=true -- x"),
            ("docker exec x -- ls -l", "docker exec -- x -- ls -l"),
            ("docker stop --time 3 x", "docker stop --timeout=3 -- x"),
            ("docker image inspect x", "docker image-inspect -- x"),
            ("docker volume list -q", "docker volume-ls --quiet --"),
            ("docker container update -m 5m x", "docker update --memory=5m -- x"),
        ] {
            match reading(typed) {
                Reading::Command { canonical, .. } => {
                    assert_eq!(canonical, words(meant), "{typed}")
                }
                other => panic!("{typed}: {other:?}"),
            }
        }
    }

    #[test]
    fn mistakes_in_flags_are_told_in_the_stock_clients_words() {
        for (typed, line, usage) in [
            ("docker run --nope x", "unknown flag: --nope", "docker run"),
            ("docker ps -aqZ", "unknown shorthand flag: 'Z' in -Z", "docker ps"),
            (
                "docker container ls -Zq",
                "unknown shorthand flag: 'Z' in -Zq",
                "docker container ls",
            ),
            ("docker run --name", "flag needs an argument: --name", "docker run"),
            ("docker ps -qn", "flag needs an argument: 'n' in -n", "docker ps"),
            ("docker ps --=x", "bad flag syntax: --=x", "docker ps"),
            (
                "docker ps --all=maybe",
                "invalid argument \"maybe\" for \"-a, --all\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
                "docker ps",
            ),
            ("docker --nope", "unknown flag: --nope", "docker"),
        ] {
            let (text, code) = mistake(typed);
            assert_eq!(text.lines().next(), Some(line), "{typed}");
            assert!(text.contains(&format!("\n\nUsage:  {usage} [OPTIONS]")), "{text}");
            assert!(
                text.ends_with(&format!("\n\nRun '{usage} --help' for more information")),
                "{text}"
            );
            assert_eq!(code, 125);
        }
    }

    #[test]
    fn too_few_and_too_many_words_are_counted() {
        for (typed, line) in [
            ("docker run", "docker: 'docker run' requires at least 1 argument"),
            ("docker exec x", "docker: 'docker exec' requires at least 2 arguments"),
            ("docker logs", "docker: 'docker logs' requires 1 argument"),
            ("docker tag a", "docker: 'docker tag' requires 2 arguments"),
            ("docker images a b", "docker: 'docker images' requires at most 1 argument"),
            ("docker container ps x", "docker: 'docker container ls' accepts no arguments"),
        ] {
            let (text, code) = mistake(typed);
            assert_eq!((text.lines().next(), code), (Some(line), 1), "{typed}");
        }
    }

    #[test]
    fn a_mistyped_command_is_answered_with_the_nearest() {
        assert_eq!(
            mistake("docker log x").0,
            "docker: unknown command: docker log\n\nDid you mean: docker logs?\n\nRun 'docker --help' for more information"
        );
        assert!(mistake("docker iamges").0.contains("docker images?"));
        assert!(mistake("docker container strat x").0.contains("docker container start?"));
        assert!(!mistake("docker build .").0.contains("Did you mean"));
    }

    #[test]
    fn commands_of_a_group_are_none_without_it() {
        assert!(
            mistake("docker volume-ls").0.starts_with("docker: unknown command: docker volume-ls")
        );
        assert!(!mistake("docker volume-l").0.contains("volume-ls"));
        assert_eq!(reading("docker volume"), Reading::Nothing(Some("volume".to_owned())));
    }

    #[test]
    fn a_long_dash_is_named() {
        for typed in ["docker run –it busybox", "docker ps —all", "docker –version"] {
            assert!(mistake(typed).0.contains("begins with a long dash"), "{typed}");
        }
        assert!(matches!(reading("docker run busybox echo –x"), Reading::Command { .. }));
    }
}
