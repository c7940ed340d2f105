//! The probe's text (`probe.sh`) as facts.

use std::collections::BTreeMap;

use crate::facts::Facts;

pub(crate) const SCRIPT: &str = include_str!("probe.sh");

/// The last line of a whole text.
pub(crate) const END: &str = "@@ end";

/// Every section of the text, and what it says.
pub(crate) fn parse(text: &str) -> Facts {
    let text = text.replace('\r', "");
    let mut sections: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        match line.strip_prefix("@@ ") {
            Some(next) => {
                name = next;
                sections.entry(name).or_default();
            }
            None => sections.entry(name).or_default().push(line),
        }
    }
    assert!(sections.contains_key("end"), "the probe ended early:\n{text}");
    let mut facts = Facts::default();
    for (name, lines) in &sections {
        section(&mut facts, name, lines);
    }
    facts
}

fn section(facts: &mut Facts, name: &str, lines: &[&str]) {
    match name {
        "status" => status(facts, lines),
        "stat" => stat(facts, lines.first().copied().unwrap_or_default()),
        "environ" => {
            for (place, line) in lines.iter().enumerate() {
                facts.set(format!("env {place:02}"), *line);
            }
        }
        "limits" => limits(facts, &lines.join("\n")),
        "mountinfo" => lines.iter().for_each(|line| mount(facts, line)),
        "nodes" | "tree" => lines.iter().for_each(|line| node(facts, name, line)),
        "links" => lines.iter().for_each(|line| link(facts, line)),
        "addresses" => lines.iter().for_each(|line| address(facts, line)),
        "routes" => lines.iter().for_each(|line| facts.add("routes", line.trim())),
        "cgroup" => {
            for line in lines {
                let fields: Vec<&str> = line.splitn(3, ':').collect();
                if let [_, controllers, path] = fields[..] {
                    facts.set(format!("cgroup inside {controllers}"), path);
                }
            }
        }
        "fds" => lines.iter().for_each(|line| descriptor(facts, line)),
        "process" | "sysctl" | "masked" | "written" | "devices" => {
            for line in lines {
                match line.split_once('|') {
                    Some((key, value)) => facts.set(format!("{name} {key}"), value),
                    // A value of several lines goes on.
                    None => facts.add(format!("{name} more"), line),
                }
            }
        }
        "" | "end" => {
            assert!(lines.iter().all(|line| line.is_empty()), "beside the probe: {lines:?}");
        }
        _ => facts.set(name, lines.join("\n")),
    }
}

/// Of /proc/self/status what is set from outside.
fn status(facts: &mut Facts, lines: &[&str]) {
    const KEPT: [&str; 19] = [
        "Umask",
        "Uid",
        "Gid",
        "Groups",
        "SigQ",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "Speculation_Store_Bypass",
        "Cpus_allowed_list",
        "Mems_allowed_list",
    ];
    for line in lines {
        let Some((key, value)) = line.split_once(':') else { continue };
        if !KEPT.contains(&key) {
            continue;
        }
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        // How many signals of the user are queued changes; how many may be does not.
        let value =
            if key == "SigQ" { value.split('/').nth(1).unwrap_or_default() } else { &value };
        let value = if key == "SigIgn" { without_libcs(value) } else { value.to_owned() };
        facts.set(format!("status {key}"), value);
    }
}

/// Signals 32 to 34 belong to the C library, which leaves them ignored in what it spawns, the daemons
/// of this harness first of all.
fn without_libcs(mask: &str) -> String {
    let mask = u64::from_str_radix(mask, 16).unwrap_or(u64::MAX);
    format!("{:016x}", mask & !(0b111 << 31))
}

/// A line of `ls -l`; which pipe or socket it is changes from run to run.
fn descriptor(facts: &mut Facts, line: &str) {
    let Some((before, target)) = line.split_once(" -> ") else { return };
    let number = before.rsplit(' ').next().unwrap_or_default();
    facts.set(format!("fd {number}"), target.split(":[").next().unwrap_or_default());
}

/// Who the process is to its session and terminal, and how it is scheduled.
fn stat(facts: &mut Facts, line: &str) {
    let fields: Vec<&str> =
        line.rsplit_once(") ").map_or(vec![], |(_, rest)| rest.split(' ').collect());
    let pid = line.split(' ').next().unwrap_or_default();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
    facts.set("process first", (pid == "1").to_string());
    facts.set("process leads its group", (field(5) == pid).to_string());
    facts.set("process leads its session", (field(6) == pid).to_string());
    facts.set("process has a terminal", (field(7) != "0").to_string());
    facts.set("process nice", field(19));
    facts.set("process policy", field(41));
}

/// /proc/…/limits.
pub(crate) fn limits(facts: &mut Facts, text: &str) {
    for line in text.lines().skip(1) {
        let Some((name, rest)) = line.split_at_checked(25) else { continue };
        let values: Vec<&str> = rest.split_whitespace().take(2).collect();
        facts.set(format!("limit {}", name.trim()), values.join(" "));
    }
}

/// By where it is mounted; several on one place are numbered from the second.
fn mount(facts: &mut Facts, line: &str) {
    let (own, file_system) = line.split_once(" - ").unwrap_or((line, ""));
    let own: Vec<&str> = own.split(' ').collect();
    let file_system: Vec<&str> = file_system.split(' ').collect();
    let ([_, _, _, root, place, options, tags @ ..], [kind, source, details]) =
        (own.as_slice(), file_system.as_slice())
    else {
        panic!("no line of mountinfo: {line}");
    };
    // Which peer group it is changes from run to run.
    let tags: Vec<&str> = tags.iter().map(|tag| tag.split(':').next().unwrap_or(tag)).collect();
    let mut key = format!("mount {place}");
    let mut number = 1;
    while facts.get(&format!("{key} options")).is_some() {
        number += 1;
        key = format!("mount {place} #{number}");
    }
    facts.set(format!("{key} options"), *options);
    facts.set(format!("{key} root"), *root);
    facts.set(format!("{key} propagation"), tags.join(" "));
    facts.set(format!("{key} type"), *kind);
    facts.set(format!("{key} source"), *source);
    facts.set(format!("{key} details"), layers(kind, details));
}

/// An overlay's directories by their number alone.
fn layers(kind: &str, details: &str) -> String {
    if kind != "overlay" {
        return details.to_owned();
    }
    let words = details.split(',').map(|word| match word.split_once('=') {
        Some(("lowerdir", below)) => {
            format!("lowerdir={}", vec!["*"; below.split(':').count()].join(":"))
        }
        Some((name @ ("upperdir" | "workdir"), _)) => format!("{name}=*"),
        _ => word.to_owned(),
    });
    // The kernel shows that only of the first mount of an upper directory.
    words.filter(|word| word != "uuid=on").collect::<Vec<_>>().join(",")
}

/// Kind, numbers, mode and owner of a file, and where a link leads.
pub(crate) fn node(facts: &mut Facts, section: &str, line: &str) {
    let fields: Vec<&str> = line.splitn(6, '|').collect();
    let [path, kind, numbers, mode, owner, name] = fields[..] else {
        panic!("not from the probe: {line}");
    };
    let mut words = vec![kind, mode, owner];
    if kind.contains("special") {
        words.push(numbers);
    }
    if let Some((_, target)) = name.split_once(" -> ") {
        words.push(target);
    }
    facts.set(
        format!("{} {path}", if section == "nodes" { "dev" } else { "file" }),
        words.join(" "),
    );
}

/// `2: eth0@if5: <FLAGS> mtu 1500 …\    link/ether 02:42:…`, without the numbers of links.
fn link(facts: &mut Facts, line: &str) {
    let Some((_, rest)) = line.split_once(": ") else { return };
    let (name, rest) = rest.split_once(": ").unwrap_or((rest, ""));
    let name = name.split('@').next().unwrap_or(name);
    let words = rest.replace('\\', " ");
    let words: Vec<&str> = words.split_whitespace().collect();
    facts.set(format!("link {name}"), words.join(" "));
}

fn address(facts: &mut Facts, line: &str) {
    let Some((_, rest)) = line.split_once(": ") else { return };
    let words = rest.replace('\\', " ");
    let words: Vec<&str> = words.split_whitespace().collect();
    let Some((name, rest)) = words.split_first() else { return };
    // Lifetimes and the state of duplicate detection change by the second.
    let rest: Vec<&str> = rest
        .iter()
        .take_while(|word| !word.starts_with("valid_lft"))
        .filter(|word| **word != "tentative")
        .copied()
        .collect();
    facts.add(format!("address {name}"), &rest.join(" "));
}
