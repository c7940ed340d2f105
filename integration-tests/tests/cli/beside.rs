//! Runs command lines with docker-rs and with the stock client, and compares what they print: the
//! release's, or `BESIDE=PATH`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration_tests::{Output, Stack, parts};

/// What is expected of our answer.
pub(crate) enum Same {
    /// The stock client's.
    Exactly,
    /// The first line of stderr is the stock client's, and nothing but a hint follows.
    ButForTheHint,
    /// Docker 28 says so on stderr, with this exit code; without a line's end, before a hint.
    AsNewer(i32, &'static str),
    /// The stock client's of 20.10; docker 28 does otherwise.
    AsOlder,
    /// What ours says on stderr on purpose, with this exit code.
    OnPurpose(i32, &'static str),
    /// Docker 28 prints so on stdout.
    PrintsAsNewer(&'static str),
    /// The same lines in any order: an engine pulls several layers at once.
    InAnyOrder,
}

use Same::{AsNewer, AsOlder, ButForTheHint, InAnyOrder, OnPurpose, PrintsAsNewer};

type Seen = (i32, String, String);
pub(crate) type Table<'a> = &'a [(&'a str, Same)];

/// Runs the lines with one client, then, after all containers are gone, with the other.
#[track_caller]
pub(crate) fn compare(stack: &Stack, table: Table<'_>, clean: &[&str]) {
    let run = |program: &Path| -> Vec<Output> {
        let outputs = table.iter().map(|(line, _)| client(stack, program, line)).collect();
        for line in clean {
            client(stack, program, line);
        }
        stack.check();
        outputs
    };
    let other = std::env::var_os("BESIDE").map_or_else(|| parts::peer("docker"), PathBuf::from);
    let is_newer = !client(stack, &other, "--version").stdout.contains(" 20.10.");
    let (theirs, ours) = (run(&other), run(&parts::ours("docker-rs")));
    let mut wrong = Vec::new();
    for (((line, same), theirs), ours) in table.iter().zip(&theirs).zip(&ours) {
        let theirs_seen = seen(&without_the_cancelled_wait(theirs), same);
        let ours_seen = seen(ours, same);
        let expected = match same {
            AsOlder if is_newer => continue,
            OnPurpose(code, text) => (*code, String::new(), (*text).to_owned()),
            // What the table says of it is held to it.
            _ if is_newer => theirs_seen.clone(),
            AsNewer(code, text) => {
                let stdout = if *code == theirs_seen.0 { &*theirs_seen.1 } else { "" };
                (*code, stdout.to_owned(), (*text).to_owned())
            }
            PrintsAsNewer(text) => (theirs_seen.0, (*text).to_owned(), theirs_seen.2.clone()),
            _ => theirs_seen.clone(),
        };
        if ours_seen != expected {
            let (expected, ours_seen) = without_common_lines(&expected, &ours_seen);
            wrong.push(format!("docker {line}\n  expected {expected:?}\n  ours     {ours_seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A start that fails ends the stock client's wait, which may say so before or after the failure is
/// told, or come to its end first.
fn without_the_cancelled_wait(output: &Output) -> Output {
    let wait = "msg=\"error waiting for container: context canceled\"";
    let lines = output.stderr.split_inclusive('\n');
    let stderr = lines.filter(|line| !line.trim_end().ends_with(wait)).collect();
    Output { stderr, ..output.clone() }
}

/// What differs of long answers.
fn without_common_lines(one: &Seen, other: &Seen) -> (Seen, Seen) {
    let rest = |of: &Seen, than: &Seen| {
        let lines = of.1.lines().filter(|line| !than.1.lines().any(|other| other == *line));
        (of.0, lines.collect::<Vec<_>>().join("\n"), of.2.clone())
    };
    (rest(one, other), rest(other, one))
}

/// A line may end with `< input`; single quotes keep words together.
fn client(stack: &Stack, program: &Path, line: &str) -> Output {
    let (line, input) = line.split_once(" < ").unwrap_or((line, ""));
    let arguments = words(line);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let template = stack.docker_command(&arguments);
    let mut command = Command::new(program);
    command.env_clear().args(&arguments).env("DOCKER_API_VERSION", "1.41").env("TZ", "UTC");
    for (name, value) in template.get_envs() {
        command.env(name, value.unwrap());
    }
    let file = stack.root().join("input");
    std::fs::write(&file, input.replace("\\n", "\n")).unwrap();
    command.stdin(Stdio::from(std::fs::File::open(&file).unwrap()));
    command.output().unwrap().into()
}

fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut begun) = (false, false);
    for letter in line.chars() {
        match letter {
            '\'' => (quoted, begun) = (!quoted, true),
            ' ' if !quoted => {
                if begun {
                    words.push(String::new());
                }
                begun = false;
            }
            letter => {
                begun = true;
                words.last_mut().unwrap().push(letter);
            }
        }
    }
    if !begun {
        words.pop();
    }
    words
}

/// Exit code, stdout, stderr, without what differs from run to run.
fn seen(output: &Output, same: &Same) -> Seen {
    let (stdout, mut stderr) = (redacted(&output.stdout), redacted(&output.stderr));
    if let AsNewer(_, text) = same
        && !text.ends_with('\n')
    {
        stderr = stderr.lines().next().unwrap_or_default().to_owned();
    } else {
        // 20.10 has words of its own for some of the daemon's answers.
        stderr = stderr.replace("Error response from daemon: No such", "Error: No such");
    }
    if matches!(same, ButForTheHint) {
        let first = stderr.lines().next().unwrap_or_default();
        // `"docker rm" requires …` and `docker: 'docker rm' requires …`
        let plain = first.trim_start_matches("docker: ").replace(['"', '\''], "");
        stderr = plain.trim_end_matches('.').replace("requires exactly", "requires").to_owned();
    }
    if matches!(same, InAnyOrder) {
        let mut lines: Vec<&str> = stdout.lines().collect();
        lines.sort_unstable();
        lines.dedup();
        return (output.code, lines.join("\n"), stderr);
    }
    (output.code, stdout, stderr)
}

fn redacted(text: &str) -> String {
    // The list that one client sends empty is none with the other; of capabilities 28 writes the names in full.
    let text = text.replace("\": null", "\": []").replace("\"CAP_", "\"");
    let lines: Vec<String> = text.split_inclusive('\n').map(redacted_line).collect();
    if !lines.iter().any(|line| line.contains(SPAN)) {
        return lines.concat();
    }
    // What stands in columns beside a span of time moves.
    let columns =
        |line: &String| line.split(' ').filter(|c| !c.is_empty()).collect::<Vec<_>>().join(" ");
    lines.iter().map(columns).collect()
}

const SPAN: &str = "SPAN";

fn redacted_line(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    // Hexadecimal runs of 12 and 64 are ids, and a date begins a time.
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let hexadecimal = word.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        rest = after;
        if hexadecimal && matches!(word.len(), 12 | 64) {
            out.push_str(&format!("ID{}", word.len()));
        } else if word.len() == 4 && word.starts_with("20") && is_date(word, after) {
            let end = after.find(['"', '\n', ')', '}', ']', ',']).unwrap_or(after.len());
            let until = after.find(' ').filter(|_| after.contains('T')).unwrap_or(end).min(end);
            out.push_str("TIME");
            rest = &after[until..];
        } else {
            out.push_str(word);
        }
    }
    out.push_str(rest);
    in_words(&out)
}

fn is_date(year: &str, after: &str) -> bool {
    let head = format!("{year}{}", &after[..after.len().min(6)]);
    let pattern = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    head.len() == 10 && head.bytes().enumerate().all(pattern)
}

/// `2 seconds ago`, `Up 2 seconds`, and the number of a process.
fn in_words(line: &str) -> String {
    let spans = ["second", "minute", "hour", "day", "week", "month", "year"];
    let mut words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    let mut found = false;
    while let Some(at) =
        words.iter().position(|w| spans.contains(&w.trim_end().trim_end_matches('s')))
    {
        let begin = words[..at]
            .iter()
            .rposition(|word| matches!(*word, "Less" | "About") || word.parse::<u32>().is_ok());
        let Some(begin) = begin else { break };
        words.splice(begin..=at, [SPAN]);
        found = true;
    }
    match line.split_once("\"Pid\": ") {
        Some((before, after)) => {
            let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}\"Pid\": PID{after}")
        }
        None if found => words.join(" "),
        None => line.to_owned(),
    }
}
