//! Input and output of `run` without a terminal.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use integration_tests::pool::lease;

use crate::{PATIENT, assert_output, spawn};

#[test]
fn input_is_passed_on_to_its_end() {
    let stack = lease();
    assert_output(
        &stack.docker_with(&["run", "--rm", "-i", "busybox", "cat"], b"a\nb"),
        0,
        "a\nb",
        "",
    );
    assert_output(&stack.docker_with(&["run", "--rm", "-i", "busybox", "cat"], b""), 0, "", "");
    assert_output(&stack.docker_with(&["run", "--rm", "busybox", "cat"], b"unread"), 0, "", "");
    // A container that does not read to the end does not hold the client up.
    let output = stack.docker_with(
        &["run", "--rm", "-i", "busybox", "head", "-n", "1"],
        &b"line\n".repeat(400_000),
    );
    assert_output(&output, 0, "line\n", "");
    // Output goes on after the input's end.
    let script = "cat; echo after; echo bad >&2";
    let output = stack.docker_with(&["run", "--rm", "-i", "busybox", "sh", "-c", script], b"in\n");
    assert_output(&output, 0, "in\nafter\n", "bad\n");
}

#[test]
fn fifty_megabytes_go_through_and_back_unchanged() {
    let stack = lease();
    let input: Vec<u8> =
        (0..50_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut command =
        stack.docker_command(&["run", "--rm", "-i", "--log-driver", "none", "busybox", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let output = std::thread::scope(|scope| {
        let input = &input;
        scope.spawn(move || {
            stdin.write_all(input).unwrap();
            drop(stdin);
        });
        let mut output = Vec::new();
        stdout.read_to_end(&mut output).unwrap();
        output
    });
    assert!(child.wait().unwrap().success());
    assert_eq!(output.len(), 50 << 20);
    assert!(output == input, "other bytes came back");
}

#[test]
fn a_reader_that_leaves_ends_the_client_and_nothing_else() {
    let stack = lease();
    let mut child = spawn(&stack, &["run", "--name", "cy", "busybox", "yes"]);
    let mut first = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"y\ny\n");
    // 141 is what a shell makes of SIGPIPE.
    let status = child.wait().unwrap();
    assert!(status.code() == Some(141) || status.signal() == Some(13), "{status}");
    assert_eq!(stack.docker_ok(&["inspect", "-f", "{{.State.Running}}", "cy"]), "true");
    stack.docker_ok(&["rm", "-f", "cy"]);
}

#[test]
fn logs_follow_to_the_end() {
    let stack = lease();
    stack.docker_ok(&["run", "-d", "--name", "cf", "busybox", "sh", "-c", PATIENT]);
    let mut child = spawn(&stack, &["logs", "-f", "cf"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().transpose().unwrap();
    assert_eq!(next().as_deref(), Some("ready"));
    stack.docker_ok(&["kill", "-s", "USR1", "cf"]);
    assert_eq!(next().as_deref(), Some("got USR1"));
    stack.docker_ok(&["stop", "cf"]);
    assert_eq!(next().as_deref(), Some("got TERM"));
    assert_eq!(next(), None);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    stack.docker_ok(&["rm", "cf"]);
}

#[test]
fn only_the_streams_asked_for_are_attached() {
    let stack = lease();
    let run = |streams: &[&str]| {
        stack.docker(
            &[
                &["run", "--rm"][..],
                streams,
                &["busybox", "sh", "-c", "echo out; echo err >&2; exit 3"],
            ]
            .concat(),
        )
    };
    assert_output(&run(&["-a", "stdout"]), 3, "out\n", "");
    assert_output(&run(&["-a", "STDERR"]), 3, "", "err\n");
    assert_output(&run(&["-a", "stdout", "--attach=stderr"]), 3, "out\n", "err\n");
}
