//! One client's words for what docker and ctr both can, so that rows of all seams see the same.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use integration_tests::sandbox::{PATIENCE, until};
use integration_tests::{Output, Stack};

use crate::podman;

/// The image as ctr calls it.
const BUSYBOX: &str = "docker.io/library/busybox:latest";

/// What of its own stdio a client hands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdin {
    Closed,
    Open,
    Terminal,
}

pub(crate) struct Client<'a> {
    stack: &'a Stack,
    kind: Kind,
}

enum Kind {
    /// Also any whose words are docker's.
    Docker(fn(&Stack, &[&str]) -> Command),
    /// With its name for the shim.
    Ctr(&'static str),
}

impl<'a> Client<'a> {
    pub(crate) fn docker(stack: &'a Stack) -> Self {
        Self { stack, kind: Kind::Docker(|stack, words| stack.docker_command(words)) }
    }

    pub(crate) fn podman(stack: &'a Stack) -> Self {
        Self { stack, kind: Kind::Docker(podman::command) }
    }

    pub(crate) fn ctr(stack: &'a Stack, runtime: &'static str) -> Self {
        Self { stack, kind: Kind::Ctr(runtime) }
    }

    pub(crate) fn is_ctr(&self) -> bool {
        matches!(self.kind, Kind::Ctr(_))
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        match self.kind {
            Kind::Docker(command) => command(self.stack, words),
            Kind::Ctr(_) => self.stack.ctr_command(words),
        }
    }

    /// Run to its end with nothing on stdin.
    pub(crate) fn say(&self, words: &[&str]) -> Output {
        feed(self.command(words), b"")
    }

    /// As [`Self::say`], for what must succeed; gives stdout without the last line's end.
    #[track_caller]
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let output = self.say(words);
        assert_eq!(output.code, 0, "{words:?}: {}{}", output.stdout, output.stderr);
        output.stdout.trim_end_matches('\n').to_owned()
    }

    /// A container that goes with its client.
    pub(crate) fn run(&self, stdin: Stdin, script: &str) -> Command {
        let name = unique("run");
        let mut words = vec!["run", "--rm"];
        if let Kind::Ctr(runtime) = self.kind {
            words.extend(["--runtime", runtime]);
            if stdin == Stdin::Terminal {
                words.push("-t");
            }
            words.extend([BUSYBOX, &name, "sh", "-c", script]);
        } else {
            words.extend(["--network", "none"]);
            words.extend(docker_stdin(stdin));
            words.extend(["busybox", "sh", "-c", script]);
        }
        self.command(&words)
    }

    /// A container that stays.
    #[track_caller]
    pub(crate) fn start(&self, name: &str, script: &str) {
        let mut words = vec!["run", "-d"];
        if let Kind::Ctr(runtime) = self.kind {
            words.extend(["--runtime", runtime, BUSYBOX, name, "sh", "-c", script]);
        } else {
            words.extend(["--network", "none", "--name", name, "busybox", "sh", "-c", script]);
        }
        // The shim may inherit the client's stdio: a pipe would have no end.
        let said = self.stack.root().join("home/said");
        let file = std::fs::File::create_new(&said).expect("a file of its own");
        let mut command = self.command(&words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let status = command.status().expect("the client runs");
        let told = std::fs::read_to_string(&said).unwrap_or_default();
        std::fs::remove_file(said).expect("it is there");
        assert!(status.success(), "{words:?}: {status}: {told}");
    }

    pub(crate) fn exec(&self, name: &str, stdin: Stdin, script: &str) -> Command {
        let id = unique("exec");
        let mut words;
        if self.is_ctr() {
            words = vec!["tasks", "exec", "--exec-id", &id];
            if stdin == Stdin::Terminal {
                words.push("-t");
            }
        } else {
            words = vec!["exec"];
            words.extend(docker_stdin(stdin));
        }
        words.extend([name, "sh", "-c", script]);
        self.command(&words)
    }

    /// Kills what [`Self::start`] started, waits for the end, removes it and gives the exit code.
    #[track_caller]
    pub(crate) fn kill(&self, name: &str) -> i32 {
        if !self.is_ctr() {
            self.ok(&["kill", name]);
            let code = self.ok(&["wait", name]);
            self.ok(&["rm", name]);
            return code.parse().expect("a code");
        }
        self.ok(&["tasks", "kill", "-s", "KILL", name]);
        until("the task has stopped", || self.state(name) == "STOPPED");
        let removed = self.say(&["tasks", "rm", name]);
        self.ok(&["containers", "rm", name]);
        // It tells a code that is not zero, in one of two ways.
        let told = removed.stderr.rsplit_once("exit code ").map(|(_, rest)| rest);
        let digits: String = told.unwrap_or("0").chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a code")
    }

    /// `RUNNING`, `PAUSED`, `STOPPED`, or nothing where there is no such container.
    pub(crate) fn state(&self, name: &str) -> String {
        if !self.is_ctr() {
            let state = self.say(&["inspect", "-f", "{{.State.Status}}", name]).stdout;
            return match state.trim() {
                "exited" => "STOPPED".to_owned(),
                other => other.to_uppercase(),
            };
        }
        let list = self.ok(&["tasks", "ls"]);
        let row = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = row.into_iter().find(|row| row.first() == Some(&name));
        row.and_then(|row| Some((*row.get(2)?).to_owned())).unwrap_or_default()
    }
}

fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{stem}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn docker_stdin(stdin: Stdin) -> &'static [&'static str] {
    match stdin {
        Stdin::Closed => &[],
        Stdin::Open => &["-i"],
        Stdin::Terminal => &["-it"],
    }
}

/// A command run to its end with something on stdin. One that has none in time is killed.
pub(crate) fn feed(mut command: Command, input: &[u8]) -> Output {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    // A group of its own: what runs inside is a child of the one that is killed.
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().expect("the client starts");
    let stdin = child.stdin.take();
    let pid = rustix::process::Pid::from_child(&child);
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        if let Some(mut stdin) = stdin {
            // Who does not read to the end says so by what it answers.
            scope.spawn(move || drop(stdin.write_all(input)));
        }
        scope.spawn(move || {
            if end.recv_timeout(2 * PATIENCE) == Err(RecvTimeoutError::Timeout) {
                rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).ok();
            }
        });
        let output = Output::from(child.wait_with_output().expect("the client ends"));
        ended.send(()).ok();
        output
    })
}

/// A command that runs while its output is read line by line.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the client starts");
        let lines = lines_of(child.stdout.take().expect("a pipe"));
        let errors = lines_of(child.stderr.take().expect("a pipe"));
        Self { child, lines, errors }
    }

    pub(crate) fn lines(&self) -> &Receiver<String> {
        &self.lines
    }

    #[track_caller]
    pub(crate) fn line(&self) -> String {
        in_time(&self.lines)
    }

    pub(crate) fn send(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("not closed yet");
        stdin.write_all(text.as_bytes()).expect("the client reads");
    }

    /// Closes stdin and gives the rest of the output, which comes to an end, and the exit code.
    #[track_caller]
    pub(crate) fn end(self) -> Output {
        self.end_after((0, 0))
    }

    /// Closes stdin once so many lines of stdout and stderr came. All output, and the exit code.
    #[track_caller]
    pub(crate) fn end_after(mut self, (lines, errors): (usize, usize)) -> Output {
        let mut stdout: String = (0..lines).map(|_| self.line() + "\n").collect();
        let mut stderr: String = (0..errors).map(|_| in_time(&self.errors) + "\n").collect();
        drop(self.child.stdin.take());
        stdout += &rest(&self.lines);
        stderr += &rest(&self.errors);
        Output { stdout, stderr, ..Output::from(self.child.wait_with_output().expect("its end")) }
    }
}

/// The lines of a pipe, as they come.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (told, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Whoever listened may be gone.
        BufReader::new(pipe)
            .lines()
            .map_while(Result::ok)
            .try_for_each(|line| told.send(line))
            .ok();
    });
    lines
}

#[track_caller]
fn in_time(lines: &Receiver<String>) -> String {
    lines.recv_timeout(PATIENCE).expect("a line in time")
}

/// Every further line, to the end of the pipe.
#[track_caller]
fn rest(lines: &Receiver<String>) -> String {
    let mut text = String::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => text += &format!("{line}\n"),
            Err(RecvTimeoutError::Disconnected) => return text,
            Err(RecvTimeoutError::Timeout) => panic!("no end after {text:?}"),
        }
    }
}
