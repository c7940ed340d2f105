//! `run --trace`: one timeline over all programs. Over stock dockerd it is the client's own part.

use integration_tests::parts::{ours, peer};
use integration_tests::pool::lease;
use integration_tests::stack::Builder;
use integration_tests::{Output, Stack};
use serde_json::{Value, json};

use crate::is_stock_client;
use crate::relay::Relay;

const TITLE: &str = "     start       took  what";
const SILENT: &str = "The engine recorded nothing: these are the client's own times.";

/// A line of the tree: the names from the root down to it, and when it began.
#[derive(Debug)]
struct Row {
    path: Vec<String>,
    start: f64,
}

/// What the container wrote, the sentence before the tree, and the tree.
#[track_caller]
fn taken_apart(stderr: &str) -> (String, bool, Vec<Row>) {
    let (before, tree) = stderr.split_once(TITLE).unwrap_or_else(|| panic!("no tree: {stderr}"));
    let silent = before.ends_with(&format!("{SILENT}\n"));
    let own = if silent { before.strip_suffix(&format!("{SILENT}\n")).unwrap() } else { before };
    let mut path: Vec<String> = Vec::new();
    let lines = tree.lines().skip(1).take_while(|line| line.starts_with("  "));
    let rows = lines.map(|line| {
        let (start, took) = (number(&line[..10]), number(&line[11..21]));
        assert!(took >= 0.0, "{line}");
        let name = line[23..].trim_start();
        path.truncate((line.len() - 23 - name.len()) / 2);
        path.push(name.to_owned());
        Row { path: path.clone(), start }
    });
    (own.to_owned(), silent, rows.collect())
}

/// Milliseconds with two decimals.
#[track_caller]
fn number(text: &str) -> f64 {
    let text = text.trim_start();
    assert_eq!(text.rsplit_once('.').map(|(_, decimals)| decimals.len()), Some(2), "{text}");
    text.parse().unwrap()
}

/// Where a span stands: its own name is the last.
#[track_caller]
fn find<'a>(rows: &'a [Row], name: &str) -> &'a Row {
    let mut found = rows.iter().filter(|row| row.path.last().is_some_and(|last| last == name));
    let row = found.next().unwrap_or_else(|| panic!("no {name} in {rows:#?}"));
    assert!(found.next().is_none(), "two {name} in {rows:#?}");
    row
}

/// Each begins no earlier than what it stands below and than what stands before it there.
#[track_caller]
fn assert_in_order(rows: &[Row]) {
    for (at, row) in rows.iter().enumerate() {
        let (_, above) = row.path.split_last().unwrap();
        let before = rows[..at]
            .iter()
            .rfind(|other| other.path == above || other.path.split_last().unwrap().1 == above);
        let from = before.map_or(0.0, |other| other.start);
        assert!(row.start >= from, "{row:?} after {from}");
    }
}

#[track_caller]
fn assert_below(rows: &[Row], parent: &str, children: &[&str]) {
    for child in children {
        let path = &find(rows, child).path;
        assert_eq!(
            path.get(path.len().wrapping_sub(2)).map(String::as_str),
            Some(parent),
            "{child}"
        );
    }
}

const CLIENT: [&str; 6] = [
    "docker-rs connect",
    "docker-rs create",
    "docker-rs wait",
    "docker-rs attach",
    "docker-rs start",
    "docker-rs output",
];

fn traced(stack: &Stack, flags: &[&str], command: &[&str]) -> Output {
    stack.docker(&[&["run", "--trace"], flags, &["busybox"], command].concat())
}

/// Upstream's client has no such flag.
fn refused(stack: &Stack) -> bool {
    if !is_stock_client() {
        return false;
    }
    let output = traced(stack, &["--rm"], &["true"]);
    assert_eq!(output.code, 125);
    assert!(output.stderr.starts_with("unknown flag: --trace"), "{}", output.stderr);
    true
}

#[test]
fn a_traced_run_shows_what_all_five_programs_did_and_leaves_the_container_alone() {
    let stack = lease();
    if refused(&stack) {
        return;
    }
    // The first container of an image makes the layer that all of them share.
    stack.docker_ok(&["run", "--rm", "busybox", "true"]);
    let output = traced(&stack, &["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((output.code, output.stdout.as_str()), (7, "out\n"), "{}", output.stderr);
    let (own, silent, rows) = taken_apart(&output.stderr);
    assert_eq!(own, "err\n");
    assert_eq!(rows[0].path, ["docker-rs run"]);
    assert_in_order(&rows);
    assert_below(&rows, "docker-rs run", &CLIENT);
    let order = CLIENT.map(|name| rows.iter().position(|row| row.path[1..] == [name]).unwrap());
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(silent, stack.is_stock());
    if silent {
        assert_eq!(rows.len(), 1 + CLIENT.len(), "{rows:#?}");
        return;
    }
    for (parent, children) in [
        ("docker-rs create", &["dockerd-rs create"][..]),
        ("dockerd-rs create", &["dockerd-rs image", "dockerd-rs snapshot", "dockerd-rs record"]),
        ("dockerd-rs snapshot", &["containerd-rs Snapshots.Prepare"]),
        ("docker-rs attach", &["dockerd-rs attach"]),
        ("docker-rs start", &["dockerd-rs start"]),
        (
            "dockerd-rs start",
            &[
                "dockerd-rs mount rootfs",
                "dockerd-rs attach network",
                "dockerd-rs specification",
                "dockerd-rs create container",
                "dockerd-rs create task",
                "dockerd-rs start task",
            ],
        ),
        ("dockerd-rs mount rootfs", &["containerd-rs Snapshots.Mounts"]),
        ("dockerd-rs create container", &["containerd-rs Containers.Create"]),
        ("dockerd-rs create task", &["containerd-rs Tasks.Create"]),
        (
            "containerd-rs Tasks.Create",
            &[
                "containerd-rs bundle",
                "containerd-rs start shim",
                "containerd-shim-runc-rs-v2 Create",
            ],
        ),
        ("containerd-rs start shim", &["containerd-shim-runc-rs-v2 bootstrap"]),
        ("containerd-shim-runc-rs-v2 Create", &["containerd-shim-runc-rs-v2 runtime create"]),
        ("containerd-shim-runc-rs-v2 runtime create", &["runc-rs create"]),
        (
            "runc-rs create",
            &[
                "runc-rs parse",
                "runc-rs plan",
                "runc-rs cgroup",
                "runc-rs clone",
                "runc-rs limits",
                "runc-rs rootfs",
                "runc-rs process",
            ],
        ),
        ("dockerd-rs start task", &["containerd-rs Tasks.Start"]),
        ("containerd-rs Tasks.Start", &["containerd-shim-runc-rs-v2 Start"]),
        ("containerd-shim-runc-rs-v2 Start", &["containerd-shim-runc-rs-v2 runtime start"]),
        ("containerd-shim-runc-rs-v2 runtime start", &["runc-rs start"]),
        ("docker-rs wait", &["dockerd-rs run", "dockerd-rs exit"]),
        ("dockerd-rs run", &["containerd-rs Tasks.Wait"]),
        (
            "dockerd-rs exit",
            &["dockerd-rs drain output", "dockerd-rs release", "dockerd-rs remove"],
        ),
        (
            "dockerd-rs release",
            &[
                "dockerd-rs delete task",
                "dockerd-rs unmount",
                "dockerd-rs detach network",
                "dockerd-rs remove snapshot",
                "dockerd-rs delete container",
            ],
        ),
        ("dockerd-rs delete task", &["containerd-rs Tasks.Delete"]),
        (
            "containerd-rs Tasks.Delete",
            &["containerd-shim-runc-rs-v2 Delete", "containerd-rs end shim"],
        ),
        ("containerd-shim-runc-rs-v2 Delete", &["containerd-shim-runc-rs-v2 runtime delete"]),
        ("containerd-shim-runc-rs-v2 runtime delete", &["runc-rs delete"]),
    ] {
        assert_below(&rows, parent, children);
    }
    let starts: Vec<f64> =
        ["create", "parse", "plan", "cgroup", "clone", "limits", "rootfs", "process"]
            .map(|step| find(&rows, &format!("runc-rs {step}")).start)
            .to_vec();
    assert!(starts.is_sorted(), "{starts:?}");
    // A container this short may have ended before anybody waits.
    let drain = find(&rows, "containerd-shim-runc-rs-v2 drain").path.iter().rev().nth(1).unwrap();
    let waited = ["containerd-shim-runc-rs-v2 Wait", "dockerd-rs start"];
    assert!(waited.contains(&drain.as_str()), "{drain}");
    let commits = rows.iter().filter(|row| row.path.last().unwrap() == "containerd-rs commit");
    assert!(commits.clone().count() >= 4, "{rows:#?}");
    assert!(commits.clone().all(|row| row.path[row.path.len() - 2].starts_with("containerd-rs ")));
}

#[test]
fn detached_it_shows_the_start_and_a_failure_as_far_as_it_came() {
    let stack = lease();
    if refused(&stack) {
        return;
    }
    let output = traced(&stack, &["-d", "--name", "td"], &["sleep", "1000"]);
    assert_eq!((output.code, output.stdout.len()), (0, 65), "{}", output.stderr);
    let (own, silent, rows) = taken_apart(&output.stderr);
    assert_eq!(own, "");
    assert_in_order(&rows);
    assert_below(&rows, "docker-rs run", &["docker-rs create", "docker-rs start"]);
    assert!(rows.iter().all(|row| row.path.last().unwrap() != "docker-rs wait"));
    if !silent {
        assert_below(&rows, "containerd-shim-runc-rs-v2 runtime start", &["runc-rs start"]);
        assert!(rows.iter().all(|row| row.path.last().unwrap() != "dockerd-rs exit"));
    }
    // Nothing of it is to be seen in the container.
    let inspect = stack.api().inspect("td");
    assert!(!inspect.to_string().contains("trace"), "{inspect}");
    // One that is started again is no part of it.
    let id = output.stdout.trim();
    let lines = || {
        let (api, files) = (stack.api(), files(&stack));
        assert_eq!(files.is_empty(), stack.is_stock());
        files.iter().map(|id| spans(&api.get(&format!("/rs/trace/{id}")).json())).sum::<usize>()
    };
    stack.docker_ok(&["kill", id]);
    stack.docker_ok(&["wait", id]);
    for id in files(&stack) {
        stack.api().get(&format!("/rs/trace/{id}?wait=1")).expect(200);
    }
    let before = lines();
    stack.docker_ok(&["start", "td"]);
    stack.docker_ok(&["rm", "-f", "td"]);
    assert_eq!(lines(), before);

    let output = traced(&stack, &["--rm"], &["nosuch"]);
    assert_eq!((output.code, output.stdout.as_str()), (127, ""));
    let (_, silent, rows) = taken_apart(&output.stderr);
    assert_in_order(&rows);
    assert!(output.stderr.contains("executable file not found in $PATH"), "{}", output.stderr);
    if !silent {
        assert_below(&rows, "containerd-shim-runc-rs-v2 runtime create", &["runc-rs create"]);
        assert_below(&rows, "runc-rs create", &["runc-rs rootfs"]);
        assert!(rows.iter().all(|row| row.path.last().unwrap() != "runc-rs process"));
    }
}

fn spans(timeline: &Value) -> usize {
    timeline["Spans"].as_array().unwrap().len()
}

/// The traces that the engine keeps.
fn files(stack: &Stack) -> Vec<String> {
    let directory = stack.sandbox().path(stack.exec_root().join("traces"));
    let names = std::fs::read_dir(directory).into_iter().flatten().map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_suffix(".spans").unwrap().to_owned()
    });
    names.collect()
}

#[test]
fn without_the_flag_nothing_is_named_or_recorded() {
    let stack = Stack::from_environment().with_busybox().start();
    if refused(&stack) {
        return;
    }
    let relay = Relay::holding(&stack, "/nothing");
    let run = |flags: &[&str]| {
        let arguments = [&["-H", &relay.host, "run", "--rm"], flags, &["busybox", "true"]].concat();
        assert_eq!(stack.docker(&arguments).code, 0);
        relay.until("/start ")
    };
    let names_a_trace = |head: &String| head.to_lowercase().contains("\r\ntraceparent: 00-");
    assert!(!run(&[]).iter().any(names_a_trace));
    let directory = stack.sandbox().path(stack.exec_root().join("traces"));
    assert!(!directory.exists());
    let named: Vec<String> = run(&["--trace"]).into_iter().filter(names_a_trace).collect();
    let paths = named.iter().map(|head| head.split([' ', '?']).nth(1).unwrap());
    let verbs: Vec<&str> = paths.map(|path| path.rsplit('/').next().unwrap()).collect();
    assert_eq!(verbs, ["create", "wait", "attach", "start"]);
    assert_eq!(directory.exists(), !stack.is_stock());
    drop(relay);
    stack.end();
}

#[test]
fn upstreams_programs_below_do_not_mind_and_are_missing_in_the_tree() {
    let run = |parts: Builder| {
        let stack = parts.cli(ours("docker-rs")).with_busybox().start();
        let output = traced(&stack, &["--rm"], &["echo", "out"]);
        stack.end();
        assert_eq!((output.code, output.stdout.as_str()), (0, "out\n"), "{}", output.stderr);
        let (own, silent, rows) = taken_apart(&output.stderr);
        assert_eq!((own.as_str(), silent), ("", false));
        assert_in_order(&rows);
        rows
    };
    let wrote = |rows: &[Row], program: &str| {
        rows.iter().any(|row| row.path.last().is_some_and(|name| name.starts_with(program)))
    };
    let rows = run(Stack::ours().runtime(peer("runc")));
    assert!(!wrote(&rows, "runc-rs "), "{rows:#?}");
    let create = "containerd-shim-runc-rs-v2 Create";
    assert_below(&rows, create, &["containerd-shim-runc-rs-v2 runtime create"]);
    // A shim that does not know of it hands on what it was started with.
    let rows = run(Stack::ours().shim(peer("containerd-shim-runc-v2")));
    assert!(!wrote(&rows, "containerd-shim"), "{rows:#?}");
    assert_below(&rows, "containerd-rs start shim", &["runc-rs create", "runc-rs start"]);
    assert_below(&rows, "runc-rs create", &["runc-rs rootfs"]);
}

#[test]
fn a_header_that_names_no_recorded_trace_is_ignored() {
    let stack = Stack::from_environment().with_busybox().start();
    let body = json!({"Image": "busybox", "Cmd": ["true"]}).to_string();
    for (name, header) in [
        ("ha", "../../../../../../../../../../etc/x"),
        ("hb", "00-../../../../../../../../../../etc-00f067aa0ba902b7-01"),
        ("hc", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),
        ("hd", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
    ] {
        let answer = stack.api().raw(&format!(
            "POST /v1.41/containers/create?name={name} HTTP/1.1\r\nHost: d\r\ntraceparent: {header}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(answer.status, 201, "{}", answer.head);
    }
    assert!(!stack.sandbox().path(stack.exec_root().join("traces")).exists());
    for id in ["x", "4bf92f3577b34da6a3ce929d0e0e4736"] {
        stack.api().get(&format!("/rs/trace/{id}")).expect(404);
    }
    stack.docker_ok(&["rm", "ha", "hb", "hc", "hd"]);
    stack.end();
}
