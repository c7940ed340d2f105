//! Terminals: what a user sees who sits at one.

use std::time::{Duration, Instant};

use integration_tests::pool::lease;
use integration_tests::terminal::Terminal;

/// A shell without line editing, whose prompt is `>`.
const SHELL: [&str; 4] =
    ["busybox", "sh", "-c", "stty size; while printf '>' && read -r line; do eval \"$line\"; done"];

fn interactive<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    [&["run", "-it"][..], flags, &SHELL].concat()
}

#[test]
fn the_containers_terminal_has_the_size_of_the_users() {
    let stack = lease();
    let mut terminal = Terminal::docker(&stack, &interactive(&["--rm"]), 31, 97);
    // Older engines learn the size only after the start.
    if stack.is_stock() {
        terminal.until(">");
    } else {
        terminal.until("31 97\r\n>");
    }
    let begun = Instant::now();
    loop {
        terminal.resize(42, 123);
        terminal.send(b"stty size\n");
        if terminal.until(">").contains("42 123\r\n") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "the size never came");
    }
    terminal.send(b"tty; exit 9\n");
    let (text, code) = terminal.until_end();
    assert!(text.ends_with("/dev/pts/0\r\n") || text.ends_with("/dev/console\r\n"), "{text:?}");
    assert_eq!(code, 9);
    assert_eq!(stack.docker_ok(&["ps", "-aq"]), "", "--rm cleans up");
}

#[test]
fn detach_keys_leave_the_container_running() {
    let stack = lease();
    let mut terminal = Terminal::docker(&stack, &interactive(&["--name", "cd"]), 24, 80);
    terminal.until(">");
    // Half of the sequence is input like any other.
    terminal.send(b"\x10x\n");
    terminal.until(">");
    terminal.send(b"\x10\x11");
    let (_, code) = terminal.until_end();
    assert_eq!(code, 0);
    let running = || stack.docker_ok(&["inspect", "-f", "{{.State.Running}}", "cd"]);
    assert_eq!(running(), "true");
    // `attach` sees the container again; its keys can be chosen, and leaving is told.
    let mut terminal =
        Terminal::docker(&stack, &["attach", "--detach-keys", "ctrl-x,x", "cd"], 24, 80);
    terminal.send(b"echo he''re\n");
    terminal.until("here\r\n");
    terminal.send(b"\x18x");
    let (text, code) = terminal.until_end();
    assert!(text.ends_with("read escape sequence\r\n"), "{text:?}");
    assert_eq!((code, running().as_str()), (1, "true"));
    let mut terminal = Terminal::docker(&stack, &["attach", "cd"], 24, 80);
    terminal.send(b"exit 6\n");
    assert_eq!(terminal.until_end().1, 6);
    // `start -ai` is quiet about it, as `run` is.
    let mut terminal = Terminal::docker(&stack, &["start", "-ai", "cd"], 24, 80);
    terminal.until(">");
    terminal.send(b"\x10\x11");
    let (text, code) = terminal.until_end();
    assert!(!text.contains("escape sequence"), "{text:?}");
    assert_eq!((code, running().as_str()), (0, "true"));
    stack.docker_ok(&["rm", "-f", "cd"]);
}

#[test]
fn the_configurations_detach_keys_count() {
    let stack = lease();
    let directory = stack.root().join("config");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("config.json"), "{\"detachKeys\": \"ctrl-e,e\"}").unwrap();
    let directory = directory.to_str().unwrap();
    let arguments = [&["--config", directory][..], &interactive(&["--name", "ck"])].concat();
    let mut terminal = Terminal::docker(&stack, &arguments, 24, 80);
    terminal.until(">");
    terminal.send(b"\x05e");
    assert_eq!(terminal.until_end().1, 0);
    let mut terminal =
        Terminal::docker(&stack, &["--config", directory, "exec", "-it", "ck", "cat"], 24, 80);
    terminal.send(b"typed\n");
    terminal.until("typed\r\ntyped\r\n");
    terminal.send(b"\x05e");
    let (text, code) = terminal.until_end();
    assert_eq!((text.ends_with("read escape sequence\r\n"), code), (true, 1), "{text:?}");
    stack.docker_ok(&["rm", "-f", "ck"]);
}

#[test]
fn exec_on_a_terminal_has_its_size_and_exit_code() {
    let stack = lease();
    stack.docker_ok(&["run", "-d", "--name", "cx", "busybox", "sleep", "1000"]);
    let exec = [&["exec", "-it", "cx"][..], &SHELL[1..]].concat();
    let mut terminal = Terminal::docker(&stack, &exec, 33, 88);
    terminal.until(">");
    let begun = Instant::now();
    loop {
        terminal.resize(44, 111);
        terminal.send(b"stty size\n");
        if terminal.until(">").contains("44 111\r\n") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "the size never came");
    }
    terminal.send(b"exit 5\n");
    assert_eq!(terminal.until_end().1, 5);
    stack.docker_ok(&["rm", "-f", "cx"]);
}

#[test]
fn end_of_input_and_control_c_without_a_terminal_inside() {
    let stack = lease();
    // -i without -t: the user's terminal does the line editing.
    let mut terminal = Terminal::docker(&stack, &["run", "--rm", "-i", "busybox", "cat"], 24, 80);
    terminal.send(b"line\n");
    terminal.until("line\r\nline\r\n");
    terminal.send(b"\x04");
    assert_eq!(terminal.until_end(), (String::new(), 0));
    let script = "trap 'echo int; exit 5' INT; echo up; while :; do sleep 1000 & wait $!; done";
    let mut terminal =
        Terminal::docker(&stack, &["run", "--rm", "busybox", "sh", "-c", script], 24, 80);
    terminal.until("up\r\n");
    terminal.send(b"\x03");
    let (text, code) = terminal.until_end();
    assert_eq!((text.trim_start_matches("^C"), code), ("int\r\n", 5));
}
