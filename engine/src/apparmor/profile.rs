//! The text of `docker-default` for `apparmor_parser` (apparmor.d(5)), made of tables.
//!
//! Which attempts it denies is dockerd's choice, and the same as there (28.5). Names are told as the
//! kernel resolves them: `/proc/self` is a number.

use std::path::Path;

/// As in the parser's language: deny wins over what is allowed.
const ALLOWED: [&str; 4] = ["capability", "file", "network", "umount"];

/// Who may send signals besides the container, its daemon and the host: runtimes, where the
/// distribution confines them.
const RUNTIMES: [&str; 2] = ["runc", "crun"];

/// What the host has of the parser's own files.
const CONFIGURATION: &str = "/etc/apparmor.d";

/// Which names of a directory.
enum Names {
    /// Those directly in it.
    Files,
    /// One, and what is below it.
    All(&'static str),
    /// What is below directories other than these, and in `/proc` other than processes.
    But(&'static [&'static str]),
    ButProcessesAnd(&'static [&'static str]),
    /// Compat: not those that have any of the letters in its place: dockerd's rule means those that begin
    /// with all of them, and leaves more.
    Letters(&'static str),
}

const WRITE: &str = "w";
const CHANGE: &str = "wklx";
const TOUCH: &str = "rwklx";

const DENIED: &[(&str, Names, &str)] = &[
    ("/proc", Names::Files, WRITE),
    ("/proc", Names::All("kcore"), TOUCH),
    ("/proc", Names::All("sysrq-trigger"), TOUCH),
    // Compat: dockerd's rule misses `bus`, which is mounted read-only.
    ("/proc", Names::ButProcessesAnd(&["bus", "sys"]), WRITE),
    ("/proc/sys", Names::Letters("k"), WRITE),
    ("/proc/sys/kernel", Names::Letters("shm"), WRITE),
    ("/sys", Names::But(&["fs"]), CHANGE),
    ("/sys/fs", Names::But(&["cgroup"]), CHANGE),
    ("/sys", Names::All("firmware/**"), TOUCH),
    ("/sys", Names::All("kernel/security/**"), TOUCH),
    ("/sys", Names::All("devices/virtual/powercap/**"), TOUCH),
];

/// The profile; `daemon` confines this process.
pub(super) fn text(name: &str, daemon: &str) -> String {
    let flags = "attach_disconnected,mediate_deleted";
    let mut rules = vec![format!("profile {name} flags=({flags}) {{")];
    // The second file uses what the first one names.
    let (global, base) = ("tunables/global", "abstractions/base");
    if [global, base].iter().all(|file| Path::new(CONFIGURATION).join(file).exists()) {
        rules.insert(0, format!("#include <{global}>"));
        rules.push(format!("#include <{base}>"));
    }
    rules.extend(ALLOWED.map(|class| format!("{class},")));
    rules.push(format!("signal (receive, send) peer={name},"));
    let senders = ["unconfined", daemon].into_iter().chain(RUNTIMES);
    rules.extend(senders.map(|peer| format!("signal (receive) peer={},", quoted(peer))));
    rules.push(format!("ptrace (read, readby, trace, tracedby) peer={name},"));
    rules.push("deny mount,".to_owned());
    for (directory, names, access) in DENIED {
        for glob in names.globs() {
            rules.push(format!("deny {directory}/{glob} {access},"));
        }
    }
    rules.push("}\n".to_owned());
    rules.join("\n")
}

impl Names {
    fn globs(&self) -> Vec<String> {
        match self {
            Self::Files => vec!["*".to_owned()],
            Self::All(name) => vec![(*name).to_owned()],
            Self::But(names) => below(others(names, "")),
            Self::ButProcessesAnd(names) => below(others(names, "0-9")),
            Self::Letters(letters) => {
                let places: String = letters.chars().map(|letter| format!("[^{letter}]")).collect();
                let shorter = (1..letters.len()).map(|length| "?".repeat(length));
                shorter.chain([format!("{places}**")]).collect()
            }
        }
    }
}

fn below(directories: Vec<String>) -> Vec<String> {
    directories.into_iter().map(|directory| format!("{directory}/**")).collect()
}

/// Globs of all names but these, and but those that begin with one of `first`: per beginning that some
/// of them have, the name that ends there and those that go on otherwise.
fn others(names: &[&str], first: &str) -> Vec<String> {
    let mut beginnings: Vec<&str> =
        names.iter().flat_map(|name| (0..=name.len()).map(|end| &name[..end])).collect();
    beginnings.sort_unstable();
    beginnings.dedup();
    let mut globs = Vec::new();
    for beginning in beginnings {
        let rest = names.iter().filter_map(|name| name.strip_prefix(beginning));
        let mut next: Vec<char> = rest.filter_map(|rest| rest.chars().next()).collect();
        next.sort_unstable();
        next.dedup();
        let next: String = next.into_iter().collect();
        let first = if beginning.is_empty() { first } else { "" };
        if !beginning.is_empty() && !names.contains(&beginning) {
            globs.push(beginning.to_owned());
        }
        globs.push(match next.as_str() {
            "" => format!("{beginning}?*"),
            next => format!("{beginning}[^{first}{next}]*"),
        });
    }
    globs
}

/// A name as it stands, whatever the language means by its characters.
fn quoted(name: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in name.chars() {
        if "\\\"*?[]{}^".contains(letter) {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
