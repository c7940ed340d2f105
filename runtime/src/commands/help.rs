//! `--help` and `help`: what the commands are and which flags they take.

use super::{
    checkpoint, create, delete, events, exec, explain, kill, list, restore, run, spec, update,
};
use crate::args::Flag;

struct Page {
    name: &'static str,
    does: &'static str,
    arguments: &'static str,
    flags: &'static [Flag],
}

/// The page of one command.
pub(crate) fn page(command: &str) -> Option<String> {
    let page = PAGES.iter().find(|page| page.name == command)?;
    let options = if page.flags.is_empty() { "" } else { " [command options]" };
    let program = name();
    let mut text = format!(
        "NAME:\n   {program} {} - {}\n\nUSAGE:\n   {program} {}{options} {}\n",
        page.name, page.does, page.name, page.arguments
    );
    if !page.flags.is_empty() {
        text.push_str("\nOPTIONS:\n");
        text.extend(page.flags.iter().map(option));
    }
    Some(text)
}

/// All commands and the global options.
pub(crate) fn overview(version: &str, flags: &[Flag]) -> String {
    let program = name();
    let mut text = format!(
        "NAME:\n   {program} - Open Container Initiative runtime\n\n\
         USAGE:\n   {program} [global options] command [command options] [arguments...]\n\n\
         VERSION:\n   ",
    );
    let (_, version) = version.split_once(" version ").unwrap_or(("", version));
    text.push_str(version);
    text.push_str("\nCOMMANDS:\n");
    text.extend(PAGES.iter().map(|page| format!("   {:<10}  {}\n", page.name, page.does)));
    text.push_str("\nGLOBAL OPTIONS:\n");
    text.extend(flags.iter().map(option));
    text
}

/// As it was called: it may stand in runc's place.
pub(crate) fn name() -> String {
    let program = super::program();
    program.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("runc-rs").to_owned()
}

fn option((long, short, takes_value): &Flag) -> String {
    let value = if *takes_value { " value" } else { "" };
    let short = if short.is_empty() { String::new() } else { format!(", -{short}{value}") };
    format!("   --{long}{value}{short}\n")
}

const PAGES: &[Page] = &[
    Page {
        name: "checkpoint",
        does: "keep a running container in files, with criu",
        arguments: "<container-id>",
        flags: checkpoint::FLAGS,
    },
    Page {
        name: "create",
        does: "make a container from a bundle, up to its start",
        arguments: "<container-id>",
        flags: create::FLAGS,
    },
    Page {
        name: "delete",
        does: "remove a container that has stopped",
        arguments: "<container-id>",
        flags: delete::FLAGS,
    },
    Page {
        name: "events",
        does: "show what a container uses",
        arguments: "<container-id>",
        flags: events::FLAGS,
    },
    Page {
        name: "exec",
        does: "run a further process in a container",
        arguments: "<container-id> <command> [arguments...]",
        flags: exec::FLAGS,
    },
    Page {
        name: "explain",
        does: "show what run would do with a bundle, and do nothing",
        arguments: "<bundle>",
        flags: explain::FLAGS,
    },
    Page { name: "features", does: "show what this runtime can do", arguments: "", flags: &[] },
    Page {
        name: "kill",
        does: "send a signal to a container, SIGTERM unless another is given",
        arguments: "<container-id> [signal]",
        flags: kill::FLAGS,
    },
    Page { name: "list", does: "show all containers", arguments: "", flags: list::FLAGS },
    Page {
        name: "mounts",
        does: "add mounts to a running container, or remove them",
        arguments: "add|remove <container-id> <file>",
        flags: &[],
    },
    Page { name: "pause", does: "freeze a container", arguments: "<container-id>", flags: &[] },
    Page {
        name: "ps",
        does: "show the processes of a container",
        arguments: "<container-id> [ps options]",
        flags: kill::PS_FLAGS,
    },
    Page {
        name: "restore",
        does: "bring a container back from the files of a checkpoint",
        arguments: "<container-id>",
        flags: restore::FLAGS,
    },
    Page { name: "resume", does: "thaw a container", arguments: "<container-id>", flags: &[] },
    Page {
        name: "run",
        does: "create and start a container",
        arguments: "<container-id>",
        flags: run::FLAGS,
    },
    Page {
        name: "spec",
        does: "write a configuration to start from",
        arguments: "",
        flags: spec::FLAGS,
    },
    Page {
        name: "start",
        does: "start what create has made",
        arguments: "<container-id>",
        flags: &[],
    },
    Page { name: "state", does: "show a container", arguments: "<container-id>", flags: &[] },
    Page {
        name: "update",
        does: "change a container's limits",
        arguments: "<container-id>",
        flags: update::FLAGS,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_flags_of_its_command() {
        let text = page("create").unwrap();
        assert!(text.starts_with(&format!("NAME:\n   {} create - ", name())), "{text}");
        assert!(text.contains("\n   --bundle value, -b value\n"), "{text}");
        assert!(page("no-such").is_none());
    }

    #[test]
    fn the_overview_has_every_command() {
        let text = overview("runc-rs version 1\ncommit: 2\n", &[("debug", "", false)]);
        assert!(text.contains("VERSION:\n   1\ncommit: 2\n"), "{text}");
        assert!(text.contains("\n   update  ") && text.contains("\n   --debug\n"), "{text}");
    }
}
