//! How an argument vector is read. The rules and the words for mistakes are the stock client's
//! (those of Go's pflag and cobra); `clap` knows which flags there are and gets them in one form.

mod flags;
mod nearest;
#[cfg(test)]
mod tests;
mod verbs;

use clap::Command;

use self::nearest::nearest;
use self::verbs::{ANY, Form};

pub(crate) use self::flags::wrong_value;
pub(crate) use self::verbs::{group_help, is_group, usage_of};

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
    let globals = flags::read(typed, root, false)
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
    let (Some(command), Some(form)) = (root.find_subcommand(verb), verbs::form_of(verb)) else {
        return Err(unknown(&path, "docker", root));
    };
    // After the image, or the container of `exec` and `top`, everything is the command's.
    let interspersed = !matches!(verb, "run" | "create" | "exec" | "top");
    let own = flags::read(rest, command, interspersed)
        .map_err(|text| mistaken(&text, &path, form.usage))?;
    if own.help {
        return Ok(Reading::Help(vec![verb.to_owned()]));
    }
    let mut own_words = own.rest.iter().take(if interspersed { ANY } else { form.least });
    if let Some(dashed) = own_words.find(|word| long_dash(word)) {
        return Err(dashed_mistake(dashed));
    }
    count(own.rest.len(), &path, form)?;
    let mut canonical = vec![program];
    canonical.extend(flags::spelled(&globals.given, root));
    canonical.push(verb.to_owned());
    canonical.extend(flags::spelled(&own.given, command));
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
    let Some(verbs) = verbs::verbs_of(word) else {
        let path = format!("docker {word}");
        if verbs::is_verb(word) {
            return Ok(Target { verb: word.to_owned(), path, rest });
        }
        return Err(unknown(&path, "docker", root));
    };
    let group = word;
    let Some((verb, rest)) = rest.split_first() else {
        return Err(Reading::Nothing(Some(group.to_owned())));
    };
    if matches!(verb.as_str(), "--help" | "-h") {
        return Err(Reading::Help(vec![group.to_owned()]));
    }
    if !verbs.contains(&verb.as_str()) {
        let mut text = format!("docker: unknown command: docker {group} {verb}\n");
        if let Some(near) = nearest(verb, verbs.iter().copied()) {
            text.push_str(&format!("\nDid you mean: docker {group} {near}?\n"));
        }
        // Compat: one of the groups says it in full.
        let usage = if group == "volume" { " COMMAND" } else { "" };
        text.push_str(&format!(
            "\nUsage:  docker {group}{usage}\n\nRun 'docker {group} --help' for more information"
        ));
        return Err(Reading::Mistake { text, code: 1 });
    }
    let (verb, path) = verbs::of_group(group, verb);
    Ok(Target { verb, path, rest })
}

/// A mistake in the flags of `path`.
pub(crate) fn flag_mistake(text: &str, path: &str, verb: &str) -> Reading {
    mistaken(text, path, verbs::words_of(verb))
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
    let verbs = root.get_subcommands().map(Command::get_name).filter(|verb| verbs::is_verb(verb));
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
