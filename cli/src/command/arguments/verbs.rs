//! The commands and their groups, as the stock client has them: how many words each takes, and how
//! that is written.

/// What follows a command's flags.
pub(super) struct Form {
    verb: &'static str,
    pub(super) usage: &'static str,
    pub(super) least: usize,
    pub(super) most: usize,
}

pub(super) const ANY: usize = usize::MAX;
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

pub(super) fn form_of(verb: &str) -> Option<&'static Form> {
    FORMS.iter().find(|form| form.verb == verb)
}

/// Whether it is a command of its own.
pub(super) fn is_verb(word: &str) -> bool {
    !word.contains('-') && form_of(word).is_some()
}

/// What can follow the name of a group.
pub(super) fn verbs_of(group: &str) -> Option<&'static [&'static str]> {
    GROUPS.iter().find(|(name, _)| *name == group).map(|(_, verbs)| *verbs)
}

/// The command that one of a group is, in the grammar, and how the stock client calls it.
pub(super) fn of_group(group: &str, typed: &str) -> (String, String) {
    let shown = match typed {
        "list" | "ps" => "ls",
        "remove" => "rm",
        other => other,
    };
    let grouped = format!("{group}-{shown}");
    let verb = match (group, shown) {
        ("container", "ls") => "ps".to_owned(),
        ("image", "ls") => "images".to_owned(),
        ("image", "rm") => "rmi".to_owned(),
        _ if form_of(&grouped).is_some() => grouped,
        _ => shown.to_owned(),
    };
    (verb, format!("docker {group} {shown}"))
}

pub(crate) fn is_group(word: &str) -> bool {
    verbs_of(word).is_some()
}

/// The commands of a group.
pub(crate) fn group_help(group: &str) -> String {
    let verbs = verbs_of(group).unwrap_or_default();
    format!("Usage: docker {group} COMMAND\n\nCommands: {}", verbs.join(", "))
}

/// What follows the name of a command.
pub(super) fn words_of(verb: &str) -> &'static str {
    form_of(verb).map_or("", |form| form.usage)
}

/// How a command is to be called.
pub(crate) fn usage_of(verb: &str) -> String {
    format!("docker {} {}", verb.replacen('-', " ", 1), words_of(verb))
}
