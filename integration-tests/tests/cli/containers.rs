//! Verbs on containers that are there: what they print, and in which order things are refused.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use integration_tests::pool::lease;
use integration_tests::sandbox::until;

use crate::{PATIENT, assert_output};

#[test]
fn start_stop_restart_and_kill_print_the_name_they_were_given() {
    let stack = lease();
    let id = stack.docker_ok(&["create", "--name", "cc", "busybox", "sh", "-c", PATIENT]);
    let state =
        || stack.docker_ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "cc"]);
    let logs = |text: &str| {
        until("the container says so", || stack.docker(&["logs", "cc"]).stdout.contains(text));
    };
    assert_eq!(stack.docker_ok(&["start", "cc"]), "cc");
    logs("ready");
    assert_eq!(stack.docker_ok(&["start", &id[..12]]), id[..12], "again is no error");
    assert_eq!(stack.docker_ok(&["kill", "-s", "USR1", "cc"]), "cc");
    logs("got USR1");
    assert_eq!(stack.docker_ok(&["stop", "cc"]), "cc");
    assert_eq!(state(), "exited 7");
    assert_eq!(stack.docker_ok(&["stop", "-t", "0", "cc"]), "cc", "again is no error");
    assert_eq!(stack.docker_ok(&["restart", "-t", "0", "cc"]), "cc");
    assert_eq!(state(), "running 0");
    assert_eq!(stack.docker_ok(&["kill", "cc"]), "cc");
    assert_eq!(stack.docker_ok(&["wait", "cc"]), "137");
    let again = stack.docker(&["kill", "cc"]);
    assert_eq!((again.code, again.stdout.as_str()), (1, ""));
    assert!(again.stderr.ends_with(&format!("ontainer {id} is not running\n")), "{}", again.stderr);
    let wrong = stack.docker(&["kill", "-s", "FOO", "cc"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.starts_with("Error response from daemon: "), "{}", wrong.stderr);
    assert!(wrong.stderr.ends_with("nvalid signal: FOO\n"), "{}", wrong.stderr);
    assert_eq!(stack.docker_ok(&["rm", "cc"]), "cc");
}

#[test]
fn what_is_not_there_is_told_for_each_and_the_others_go_on() {
    let stack = lease();
    stack.docker_ok(&["create", "--name", "cc", "busybox", "true"]);
    let none = |name: &str| format!("Error response from daemon: No such container: {name}\n");
    let two = none("xa") + &none("xb");
    for verb in ["stop", "restart", "wait", "rm", "pause"] {
        assert_output(&stack.docker(&[verb, "xa", "xb"]), 1, "", &two);
    }
    for verb in ["logs", "attach", "top", "port"] {
        assert_output(&stack.docker(&[verb, "xa"]), 1, "", &none("xa"));
    }
    let start = stack.docker(&["start", "xa", "cc", "xb"]);
    assert_output(&start, 1, "cc\n", &(two + "Error: failed to start containers: xa, xb\n"));
    assert_eq!(stack.docker_ok(&["wait", "cc"]), "0");
    // With -f it is enough that it is gone.
    assert_output(&stack.docker(&["rm", "-f", "xa", "cc"]), 0, "cc\n", &none("xa"));
    let rename = none("xa") + "Error: failed to rename container named xa\n";
    assert_output(&stack.docker(&["rename", "xa", "xb"]), 1, "", &rename);
    assert_output(
        &stack.docker(&["rename", "", ""]),
        1,
        "",
        "Error: Neither old nor new names may be empty\n",
    );
}

#[test]
fn ps_shows_what_it_is_asked_for() {
    let stack = lease();
    stack.docker_ok(&["run", "-d", "--name", "one", "-l", "k=v", "busybox", "sleep", "1000"]);
    assert_eq!(stack.docker(&["run", "--name", "two", "busybox", "sh", "-c", "exit 3"]).code, 3);
    let names = |arguments: &[&str]| {
        stack.docker_ok(&[&["ps", "--format", "{{.Names}}"][..], arguments].concat())
    };
    assert_eq!(names(&[]), "one");
    assert_eq!(names(&["-a"]), "two\none");
    assert_eq!(names(&["-n", "1"]), "two");
    assert_eq!(names(&["--latest"]), "two");
    assert_eq!(names(&["-f", "label=k=v"]), "one");
    assert_eq!(names(&["-af", "exited=3"]), "two");
    assert_eq!(names(&["--filter", "status=exited", "--filter", "name=o"]), "two");
    assert_eq!(names(&["-a", "-f", "name=zzz"]), "");
    let id = stack.docker_ok(&["inspect", "-f", "{{.ID}}", "one"]);
    assert_eq!(stack.docker_ok(&["ps", "-q"]), id[..12]);
    assert_eq!(stack.docker_ok(&["ps", "-q", "--no-trunc"]), id);
    let wrong = stack.docker(&["ps", "-f", "foo=bar"]);
    assert_eq!(wrong.code, 1);
    assert_eq!(wrong.stderr.to_lowercase(), "error response from daemon: invalid filter 'foo'\n");
    assert_eq!(stack.docker_ok(&["rm", "-f", "one", "two"]), "one\ntwo");
}

#[test]
fn logs_keep_streams_apart_and_can_be_cut() {
    let stack = lease();
    let script = "echo one; echo bad >&2; echo two; echo three";
    stack.docker_ok(&["run", "-d", "--name", "cl", "busybox", "sh", "-c", script]);
    stack.docker_ok(&["wait", "cl"]);
    let logs = |arguments: &[&str]| stack.docker(&[&["logs"][..], arguments, &["cl"]].concat());
    assert_output(&logs(&[]), 0, "one\ntwo\nthree\n", "bad\n");
    assert_output(&logs(&["-f"]), 0, "one\ntwo\nthree\n", "bad\n");
    let last = logs(&["-n", "1"]);
    assert_eq!(last.stdout.lines().count() + last.stderr.lines().count(), 1, "{last:?}");
    assert_output(&logs(&["--tail=0"]), 0, "", "");
    assert_output(&logs(&["--tail", "all"]), 0, "one\ntwo\nthree\n", "bad\n");
    assert_output(&logs(&["--until", "1"]), 0, "", "");
    assert_output(&logs(&["--since", "1h"]), 0, "one\ntwo\nthree\n", "bad\n");
    // The two streams are two pipes: only within one is the order sure, and see below.
    let stamped = logs(&["-t"]);
    let (time, text) = stamped.stdout.lines().last().unwrap().split_once(' ').unwrap();
    assert_eq!((time.len(), &time[10..11], &time[29..], text), (30, "T", "Z", "three"));
    let wrong = logs(&["--since", "10x"]);
    assert_output(
        &wrong,
        1,
        "",
        "invalid value for \"since\": failed to parse value as time or duration: \"10x\"\n",
    );
    stack.docker_ok(&["rm", "cl"]);
}

/// Two streams are two pipes, and what is in both at once has no order. A line that was in the log
/// before another was written comes before it.
#[test]
fn lines_of_two_streams_have_the_order_in_which_they_were_logged() {
    let stack = lease();
    let script =
        "echo one; read -r go; echo two >&2; read -r go; echo three; read -r go; echo four >&2";
    stack.docker_ok(&["run", "-d", "-i", "--name", "lo", "busybox", "sh", "-c", script]);
    let mut attached = stack.docker_command(&["attach", "lo"]);
    attached.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut attached = attached.spawn().unwrap();
    // Both streams in one, as a terminal or `2>&1` has them.
    let (read, write) = std::io::pipe().unwrap();
    let mut logs = stack.docker_command(&["logs", "-f", "-t", "lo"]);
    let mut follower =
        logs.stdout(write.try_clone().unwrap()).stderr(write).stdin(Stdio::null()).spawn().unwrap();
    drop(logs);
    let mut lines = BufReader::new(read).lines().map(|line| {
        let line = line.unwrap();
        let (time, text) = line.split_once(' ').unwrap();
        (time.to_owned(), text.to_owned())
    });
    let mut seen = Vec::new();
    for text in ["one", "two", "three"] {
        seen.push(lines.next().unwrap());
        assert_eq!(seen.last().unwrap().1, text);
        attached.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }
    seen.extend(lines);
    assert_eq!(seen.last().unwrap().1, "four");
    assert!(seen.is_sorted() && seen.len() == 4, "times go up: {seen:?}");
    assert!(follower.wait().unwrap().success() && attached.wait().unwrap().success());
    let tail = |count: &str| stack.docker(&["logs", "--tail", count, "lo"]);
    assert_output(&tail("1"), 0, "", "four\n");
    assert_output(&tail("2"), 0, "three\n", "four\n");
    assert_output(&tail("3"), 0, "three\n", "two\nfour\n");
    let since = &seen[2].0;
    assert_output(&stack.docker(&["logs", "--since", since, "lo"]), 0, "three\n", "four\n");
    assert_output(&stack.docker(&["logs", "--until", &seen[1].0, "lo"]), 0, "one\n", "two\n");
    stack.docker_ok(&["rm", "lo"]);
}

#[test]
fn exec_takes_environment_directory_user_and_input() {
    let stack = lease();
    stack.docker_ok(&["run", "-d", "--name", "ce", "-e", "A=1", "busybox", "sleep", "1000"]);
    let script = "echo $A$B; pwd; id -u";
    let shown =
        stack.docker_ok(&["exec", "-e", "B=2", "-w", "/tmp", "-u", "5", "ce", "sh", "-c", script]);
    assert_eq!(shown, "12\n/tmp\n5");
    assert_output(&stack.docker_with(&["exec", "-i", "ce", "cat"], b"in"), 0, "in", "");
    assert_output(&stack.docker_with(&["exec", "ce", "cat"], b"in"), 0, "", "");
    assert_output(&stack.docker(&["exec", "-d", "ce", "touch", "/made"]), 0, "", "");
    until("the file is there", || stack.docker(&["exec", "ce", "ls", "/made"]).code == 0);
    let top = stack.docker_ok(&["top", "ce", "-o", "pid,args"]);
    let lines: Vec<Vec<&str>> = top.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!((&lines[0][..], &lines[1][1..]), (&["PID", "COMMAND"][..], &["sleep", "1000"][..]));
    assert_eq!(stack.docker_ok(&["pause", "ce"]), "ce");
    let paused = stack.docker(&["exec", "ce", "true"]);
    assert_output(
        &paused,
        1,
        "",
        "Error response from daemon: Container ce is paused, unpause the container before exec\n",
    );
    assert_output(
        &stack.docker(&["attach", "ce"]),
        1,
        "",
        "You cannot attach to a paused container, unpause it first\n",
    );
    assert_eq!(stack.docker_ok(&["unpause", "ce"]), "ce");
    assert_eq!(stack.docker_ok(&["rename", "ce", "cf"]), "");
    assert_eq!(stack.docker_ok(&["rm", "-f", "cf"]), "cf");
}

#[test]
fn start_attached_gives_output_and_exit_code_again() {
    let stack = lease();
    stack.docker_ok(&[
        "create",
        "-i",
        "--name",
        "cc",
        "busybox",
        "sh",
        "-c",
        "cat; echo bad >&2; exit 9",
    ]);
    assert_output(&stack.docker_with(&["start", "-ai", "cc"], b"in\n"), 9, "in\n", "bad\n");
    assert_output(&stack.docker_with(&["start", "-a", "-i", "cc"], b""), 9, "", "bad\n");
    let stopped = stack.docker(&["attach", "cc"]);
    assert_output(&stopped, 1, "", "You cannot attach to a stopped container, start it first\n");
    let two = stack.docker(&["start", "-a", "cc", "d"]);
    assert_output(&two, 1, "", "you cannot start and attach multiple containers at once\n");
    assert_eq!(stack.docker_ok(&["rm", "cc"]), "cc");
    assert_eq!(
        stack.docker(&["start", "-ai", "cc"]).stderr,
        "Error response from daemon: No such container: cc\n"
    );
}
