//! Signals for the client: what reaches the container, what ends the client, and that the other
//! one goes on. Each step is taken when a line or an event says that the one before has happened.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Stdio};

use integration_tests::Stack;
use integration_tests::pool::lease;
use integration_tests::sandbox::until;
use nix::sys::signal::Signal;

use crate::relay::Relay;
use crate::{PATIENT, is_stock_client, shell_code, spawn};
use integration_tests::terminal::Terminal;

/// A client whose output is read line by line.
struct Client {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn of(mut child: Child) -> Self {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn signal(&self, number: Signal) {
        signal(self.child.id(), number);
    }

    /// The exit code, and what came on stderr.
    fn end(mut self) -> (i32, String) {
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (shell_code(self.child.wait().unwrap()), stderr)
    }
}

fn signal(pid: u32, number: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.try_into().unwrap()), number).unwrap();
}

/// A line of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut lines = text.lines().filter_map(|line| line.split_once(":\t"));
    lines.find(|(key, _)| *key == name).unwrap().1.to_owned()
}

/// Whether a process waits, and has been told of all its signals.
fn is_idle(pid: u32) -> bool {
    status(pid, "ShdPnd") == "0000000000000000" && status(pid, "State").starts_with('S')
}

fn running(stack: &Stack, name: &str) -> String {
    stack.docker_ok(&["inspect", "-f", "{{.State.Running}} {{.State.ExitCode}}", name])
}

/// A container that says which lines and signals it gets, so that one can know who is attached.
const TALKING: &str = "for s in HUP INT TERM; do trap \"echo got $s\" $s; done; echo ready; \
     while :; do read -r line && echo \"read $line\"; done";

const DONE: (i32, String) = (7, String::new());

#[test]
fn signals_are_passed_on() {
    let stack = lease();
    let mut client = Client::of(spawn(&stack, &["run", "--rm", "busybox", "sh", "-c", PATIENT]));
    assert_eq!(client.line(), "ready");
    for (number, name) in [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGUSR2, "USR2"),
        (Signal::SIGALRM, "ALRM"),
        (Signal::SIGCONT, "CONT"),
        (Signal::SIGWINCH, "WINCH"),
        (Signal::SIGTERM, "TERM"),
    ] {
        client.signal(number);
        assert_eq!(client.line(), format!("got {name}"));
    }
    assert_eq!(client.end(), DONE);
    assert_eq!(stack.docker_ok(&["ps", "-aq"]), "");
}

#[test]
fn start_attached_and_attach_pass_them_on_as_run_does() {
    let stack = lease();
    stack.docker_ok(&["create", "--name", "sa", "busybox", "sh", "-c", PATIENT]);
    let mut client = Client::of(spawn(&stack, &["start", "-a", "sa"]));
    assert_eq!(client.line(), "ready");
    // Docker 28 leaves `start -a` at the first one; 20.10 and we pass it on.
    if !is_stock_client() {
        client.signal(Signal::SIGINT);
        assert_eq!(client.line(), "got INT");
    }
    client.signal(Signal::SIGHUP);
    assert_eq!(client.line(), "got HUP");
    stack.docker_ok(&["kill", "-s", "TERM", "sa"]);
    assert_eq!((client.line().as_str(), client.end()), ("got TERM", DONE));
    stack.docker_ok(&["rm", "sa"]);

    stack.docker_ok(&["run", "-d", "-i", "--name", "at", "busybox", "sh", "-c", TALKING]);
    let mut client = attach(&stack, &["attach", "at"]);
    for (number, name) in [(Signal::SIGINT, "INT"), (Signal::SIGHUP, "HUP")] {
        client.signal(number);
        assert_eq!(client.line(), format!("got {name}"));
    }
    stack.docker_ok(&["kill", "at"]);
    assert_eq!(client.end(), (137, String::new()));
    stack.docker_ok(&["rm", "at"]);
}

/// A client of [`TALKING`] that is attached for certain.
fn attach(stack: &Stack, arguments: &[&str]) -> Client {
    let mut command = stack.docker_command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = Client::of(command.spawn().unwrap());
    client.child.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    // What the container said before may come first.
    while client.line() != "read hello" {}
    client
}

#[test]
fn the_third_interrupt_ends_the_client_and_nothing_else() {
    let stack = lease();
    let ends = |mut client: Client, name: &str, numbers: [(Signal, &str); 2]| {
        for (number, text) in numbers {
            client.signal(number);
            assert_eq!(client.line(), format!("got {text}"));
        }
        client.signal(Signal::SIGINT);
        assert_eq!(client.end(), (1, "\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n".to_owned()));
        assert_eq!(running(&stack, name), "true 0");
    };
    let (int, term) = ((Signal::SIGINT, "INT"), (Signal::SIGTERM, "TERM"));
    let mut client =
        Client::of(spawn(&stack, &["run", "--name", "th", "busybox", "sh", "-c", PATIENT]));
    assert_eq!(client.line(), "ready");
    ends(client, "th", [int, int]);
    stack.docker_ok(&["run", "-d", "-i", "--name", "ta", "busybox", "sh", "-c", TALKING]);
    ends(attach(&stack, &["attach", "ta"]), "ta", [term, int]);
    stack.docker_ok(&["rm", "-f", "th", "ta"]);
}

#[test]
fn without_a_proxy_the_client_ends_and_the_container_goes_on() {
    let stack = lease();
    stack.docker_ok(&["run", "-d", "-i", "--name", "na", "busybox", "sh", "-c", TALKING]);
    // Docker 28 ignores the first two of these; 20.10 and we do what the user asks for.
    let mut numbers = vec![(Signal::SIGHUP, 129)];
    if !is_stock_client() {
        numbers.extend([(Signal::SIGINT, 130), (Signal::SIGTERM, 143)]);
    }
    for (number, code) in numbers {
        let run = ["run", "--sig-proxy=false", "--name", "nr", "busybox", "sh", "-c", PATIENT];
        let mut client = Client::of(spawn(&stack, &run));
        assert_eq!(client.line(), "ready");
        client.signal(number);
        assert_eq!(client.end(), (code, String::new()));
        assert_eq!(running(&stack, "nr"), "true 0");
        assert_eq!(stack.docker_ok(&["logs", "nr"]), "ready", "no signal came");
        stack.docker_ok(&["rm", "-f", "nr"]);
        let client = attach(&stack, &["attach", "--sig-proxy=false", "na"]);
        client.signal(number);
        assert_eq!(client.end(), (code, String::new()));
        assert_eq!(running(&stack, "na"), "true 0");
    }
    assert!(!stack.docker_ok(&["logs", "na"]).contains("got"), "no signal came");
    stack.docker_ok(&["rm", "-f", "na"]);
}

#[test]
fn a_signal_reaches_a_container_that_has_closed_its_outputs() {
    let stack = lease();
    let directory = stack.root().join("closed");
    fs::create_dir(&directory).unwrap();
    let bind = format!("{}:/b", directory.display());
    let script = "trap 'exit 7' INT; exec >&- 2>&-; touch /b/closed; \
         while :; do sleep 1000 & wait $!; done";
    let run = ["run", "--rm", "-v", &bind, "busybox", "sh", "-c", script];
    let client = Client::of(spawn(&stack, &run));
    until("the outputs are closed", || directory.join("closed").exists());
    client.signal(Signal::SIGINT);
    assert_eq!(client.end(), DONE);
    assert_eq!(stack.docker_ok(&["ps", "-aq"]), "");
}

#[test]
fn while_an_image_is_pulled_the_client_ends_and_no_container_is_made() {
    let stack = lease();
    for (number, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        // A registry that never answers.
        let bind = || TcpListener::bind("127.0.0.1:0");
        let listener = stack.sandbox().on_network(bind).unwrap();
        listener.set_nonblocking(true).unwrap();
        let name = format!("{}/never", listener.local_addr().unwrap());
        let client = Client::of(spawn(&stack, &["run", "--rm", &name]));
        let mut asked = None;
        until("the engine pulls", || {
            asked = listener.accept().ok();
            asked.is_some()
        });
        client.signal(number);
        let told = format!("Unable to find image '{name}:latest' locally\n");
        assert_eq!(client.end(), (code, told));
        drop(asked);
    }
    assert_eq!(stack.docker_ok(&["ps", "-aq"]), "");
}

#[test]
fn a_signal_before_the_start_is_passed_on_after_it() {
    // The stock client sends it at once, and the engine refuses it: it is lost.
    if is_stock_client() {
        return;
    }
    let stack = lease();
    let relay = Relay::holding(&stack, "/start");
    let run = ["-H", &relay.host, "run", "--rm", "--name", "bs", "busybox", "sh", "-c", PATIENT];
    let mut client = Client::of(spawn(&stack, &run));
    relay.until("/start ");
    client.signal(Signal::SIGUSR1);
    client.signal(Signal::SIGINT);
    until("the client has heard", || is_idle(client.child.id()));
    relay.release();
    let mut kills = [relay.until("/kill?").pop(), relay.until("/kill?").pop()]
        .map(|line| line.unwrap().split(['=', ' ']).nth(2).unwrap().to_owned());
    kills.sort();
    assert_eq!(kills, ["INT", "USR1"]);
    while client.line() != "ready" {}
    client.signal(Signal::SIGTERM);
    while client.line() != "got TERM" {}
    assert_eq!(client.end(), DONE);
    let events =
        ["events", "--since", "0", "--until", "0s", "-f", "container=bs", "-f", "event=kill"];
    let format = ["--format", "{{.Actor.Attributes.signal}}"];
    let mut numbers: Vec<i32> = stack
        .docker_ok(&[&events[..], &format].concat())
        .lines()
        .map(|number| number.parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [libc::SIGINT, libc::SIGUSR1, libc::SIGTERM], "all were taken");

    drop(relay);

    // Whoever asks three times needs not wait for the start.
    let relay = Relay::holding(&stack, "/start");
    let run = ["-H", &relay.host, "run", "--name", "bs", "busybox", "true"];
    let client = Client::of(spawn(&stack, &run));
    relay.until("/start ");
    // More than three, as those that come too soon after one another are one.
    until("the client is gone", || {
        signal(client.child.id(), Signal::SIGTERM);
        status(client.child.id(), "State").starts_with('Z')
    });
    let (code, told) = client.end();
    assert_eq!((code, told.as_str()), (1, "\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n"));
    stack.docker_ok(&["rm", "-f", "bs"]);
}

#[test]
fn control_c_on_a_terminal_is_the_clients_signal_or_the_containers() {
    let stack = lease();
    for flags in [&[][..], &["-t"], &["-i"], &["-it"]] {
        // Stock dockerd never lets go of an input that nobody has ended.
        if stack.is_stock() && flags.iter().any(|flags| flags.contains('i')) {
            continue;
        }
        let run = [&["run", "--rm"][..], flags, &["busybox", "sh", "-c", PATIENT]].concat();
        let mut terminal = Terminal::docker(&stack, &run, 24, 80);
        terminal.until("ready\r");
        // Without an input the user's terminal goes on as it was.
        assert_eq!(terminal.is_cooked(), flags != ["-it"], "{flags:?}");
        terminal.send(b"\x03");
        terminal.until("got INT\r");
        signal(terminal.pid(), Signal::SIGTERM);
        terminal.until("got TERM\r");
        assert_eq!(terminal.until_end().1, 7, "{flags:?}");
        assert!(terminal.is_cooked(), "{flags:?}");
    }
    assert_eq!(stack.docker_ok(&["ps", "-aq"]), "");
}

#[test]
fn a_client_that_ends_by_a_signal_leaves_the_terminal_as_it_was() {
    let stack = lease();
    stack.docker_ok(&["run", "-dit", "--name", "lt", "busybox", "sh", "-c", TALKING]);
    let exec = ["exec", "-it", "lt", "cat"];
    let attach = ["attach", "lt"];
    let run = ["run", "-it", "--sig-proxy=false", "--name", "lr", "busybox", "cat"];
    let echo = "hello\r\nhello\r\n";
    for (arguments, answer) in [(&attach[..], "read hello\r\n"), (&exec, echo), (&run, echo)] {
        let mut terminal = Terminal::docker(&stack, arguments, 24, 80);
        until("the client has the terminal", || !terminal.is_cooked());
        terminal.send(b"hello\n");
        terminal.until(answer);
        signal(terminal.pid(), Signal::SIGTERM);
        // Docker 28 takes the first for `exec` only, and 20.10 leaves the terminal as it is.
        if is_stock_client() {
            continue;
        }
        let (text, code) = terminal.until_end();
        assert_eq!((text.as_str(), code), ("", 143), "{arguments:?}");
        assert!(terminal.is_cooked(), "{arguments:?}");
    }
    assert_eq!(running(&stack, "lt"), "true 0");
    assert_eq!(running(&stack, "lr"), "true 0");
    stack.docker_ok(&["rm", "-f", "lt", "lr"]);
}

#[test]
fn control_c_ends_attach_where_it_takes_no_input() {
    // Docker 28 wants it three times.
    if is_stock_client() {
        return;
    }
    let stack = lease();
    stack.docker_ok(&["run", "-dit", "--name", "ni", "busybox", "sh", "-c", PATIENT]);
    let events = ["events", "--since", "0", "-f", "container=ni", "-f", "event=attach"];
    let mut attached = Client::of(spawn(&stack, &events));
    let mut terminal = Terminal::docker(&stack, &["attach", "--no-stdin", "ni"], 24, 80);
    assert!(attached.line().contains(" container attach "));
    terminal.send(b"\x03");
    let (text, code) = terminal.until_end();
    assert_eq!((text.ends_with("^C"), code), (true, 130), "{text:?}");
    assert_eq!(running(&stack, "ni"), "true 0");
    attached.signal(Signal::SIGINT);
    assert_eq!(attached.end(), (130, String::new()));
    stack.docker_ok(&["rm", "-f", "ni"]);
}
