//! A private stack: an engine, its containerd, shim and runtime in a sandbox of their own, and a
//! CLI and an API client that talk to it from the test's process.
//!
//! ```text
//! ROOT/              /tmp/it-PID-N, the same inside and outside
//!   d.sock           the engine's socket        log/      what the daemons wrote
//!   bin/             the programs, by bind mounts inside only: whoever looks for a sibling or in
//!                    PATH finds the exchanged part under the name it looks for
//!   data/            --data-root                c/        a containerd that the harness starts
//!   home/            HOME of the CLI
//! /run/e             --exec-root, on the sandbox's own tmpfs
//! ```

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::client::Api;
use crate::disk::Disk;
use crate::leaks::Inventory;
use crate::output::Output;
use crate::parts::Peers;
use crate::sandbox::{Layout, Sandbox};
use crate::{image, parts};

/// What a stack is made of.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    pub(crate) engine: Option<PathBuf>,
    pub(crate) containerd: Option<PathBuf>,
    pub(crate) shim: Option<PathBuf>,
    pub(crate) runtime: Option<PathBuf>,
    cli: Option<PathBuf>,
    ctr: Option<PathBuf>,
    peers: Option<Peers>,
    daemons: Daemons,
    layout: Layout,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// A file system of its own for the data root.
    pub(crate) disk: Option<Disk>,
    pub(crate) copies: bool,
    image: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Daemons {
    #[default]
    Both,
    Containerd,
    None,
}

/// A running stack. Dropping it looks for leaks and ends it.
pub struct Stack {
    sandbox: Sandbox,
    pub(crate) parts: Builder,
    pub(crate) engine: Mutex<Option<i32>>,
    pub(crate) containerd: Option<Mutex<Option<i32>>>,
    baseline: Option<Inventory>,
}

impl Builder {
    #[must_use]
    pub fn engine(mut self, path: impl Into<PathBuf>) -> Self {
        self.engine = Some(path.into());
        self
    }

    /// A program, or the socket of one that runs already.
    #[must_use]
    pub fn containerd(mut self, path: impl Into<PathBuf>) -> Self {
        self.containerd = Some(path.into());
        self
    }

    #[must_use]
    pub fn shim(mut self, path: impl Into<PathBuf>) -> Self {
        self.shim = Some(path.into());
        self
    }

    #[must_use]
    pub fn runtime(mut self, path: impl Into<PathBuf>) -> Self {
        self.runtime = Some(path.into());
        self
    }

    #[must_use]
    pub fn cli(mut self, path: impl Into<PathBuf>) -> Self {
        self.cli = Some(path.into());
        self
    }

    #[must_use]
    pub fn ctr(mut self, path: impl Into<PathBuf>) -> Self {
        self.ctr = Some(path.into());
        self
    }

    /// The set that upstream's programs in this stack come from; the release's where nothing is said.
    #[must_use]
    pub fn peers(mut self, peers: Peers) -> Self {
        self.peers = Some(peers);
        self
    }

    /// Only containerd and what is below it.
    #[must_use]
    pub fn without_engine(mut self) -> Self {
        self.daemons = Daemons::Containerd;
        self
    }

    /// Only the sandbox with the programs, for clients that need no daemon.
    #[must_use]
    pub fn without_daemons(mut self) -> Self {
        self.daemons = Daemons::None;
        self
    }

    #[must_use]
    pub fn cgroup(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// One more argument for the engine.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// One more variable in the environment of the daemons.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// A small disk for the data root, which the test can fill.
    #[must_use]
    pub fn with_disk_of(mut self, bytes: u64) -> Self {
        self.disk = Some(Disk::Memory(bytes));
        self
    }

    /// A disk for the data root: a file with an ext4, and the options of its mount. The data root is
    /// then at the same place in every stack.
    #[must_use]
    pub fn with_disk_image(mut self, file: impl Into<PathBuf>, options: &str) -> Self {
        self.disk = Some(Disk::Image(file.into(), options.to_owned()));
        self
    }

    /// Files of its own in ROOT/bin, which the test can replace.
    #[must_use]
    pub fn with_copies_of_programs(mut self) -> Self {
        self.copies = true;
        self
    }

    /// Load busybox before the test begins.
    #[must_use]
    pub fn with_busybox(mut self) -> Self {
        self.image = true;
        self
    }

    /// Whether a containerd is named, which the engine then does not start itself.
    #[must_use]
    pub fn names_containerd(&self) -> bool {
        self.containerd.is_some()
    }

    /// Starts it and waits until the engine answers.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(self) -> Stack {
        let sandbox = Sandbox::start(self.layout);
        for directory in ["bin", "log", "home", "c"] {
            fs::create_dir(sandbox.root().join(directory)).expect("a directory of the stack");
        }
        let image = self.image;
        let mut stack = Stack {
            sandbox,
            parts: self,
            engine: Mutex::new(None),
            containerd: None,
            baseline: None,
        };
        stack.lay_out_programs();
        if let Some(disk) = &stack.parts.disk {
            stack.mount_disk(disk);
        }
        if stack.own_containerd() {
            stack.containerd = Some(Mutex::new(None));
            stack.start_containerd();
        }
        if stack.parts.has_engine() {
            stack.start_engine();
        }
        if image {
            stack.load_busybox();
        }
        stack.baseline = Some(Inventory::take(&stack));
        stack
    }

    pub(crate) fn has_engine(&self) -> bool {
        self.daemons == Daemons::Both
    }

    pub(crate) fn has_containerd(&self) -> bool {
        self.daemons != Daemons::None
    }

    pub(crate) fn upstream(&self) -> Peers {
        self.peers.clone().unwrap_or_else(Peers::of_the_release)
    }

    pub(crate) fn engine_path(&self) -> PathBuf {
        self.engine.clone().unwrap_or_else(|| parts::ours("dockerd-rs"))
    }
}

impl Stack {
    /// Our programs, each exchangeable.
    #[must_use]
    pub fn ours() -> Builder {
        Builder::default()
    }

    /// Stock docker with its own containerd, shim, runtime and CLI.
    #[must_use]
    pub fn stock() -> Builder {
        Builder::default()
            .engine(parts::peer("dockerd"))
            .containerd(parts::peer("containerd"))
            .shim(parts::peer("containerd-shim-runc-v2"))
            .runtime(parts::peer("runc"))
            .cli(parts::peer("docker"))
    }

    /// What the environment asks for: `ENGINE=stock` for all of it, or single parts by path in
    /// `ENGINE`, `CONTAINERD`, `SHIM`, `RUNTIME`, `CLI`; ours where nothing is said.
    #[must_use]
    pub fn from_environment() -> Builder {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let mut parts = match variable("ENGINE") {
            Some(word) if word == "stock" => Self::stock(),
            Some(path) => Self::ours().engine(path),
            None => Self::ours(),
        };
        parts.containerd = variable("CONTAINERD").map(PathBuf::from).or(parts.containerd);
        parts.shim = variable("SHIM").map(PathBuf::from).or(parts.shim);
        parts.runtime = variable("RUNTIME").map(PathBuf::from).or(parts.runtime);
        parts.cli = variable("CLI").map(PathBuf::from).or(parts.cli);
        parts
    }

    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        self.sandbox.root()
    }

    /// The engine's socket, usable from the test's process.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.root().join("d.sock")
    }

    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(&self.socket())
    }

    /// Whether the engine is upstream's: for the few places where ours differs on purpose.
    #[must_use]
    pub fn is_stock(&self) -> bool {
        self.parts.has_engine()
            && self.parts.engine_path().file_name().is_some_and(|name| name == "dockerd")
    }

    /// `--exec-root`, a path of the inside.
    #[must_use]
    pub fn exec_root(&self) -> PathBuf {
        PathBuf::from("/run/e")
    }

    /// `--data-root`; a path of the inside where it is on a disk of its own.
    #[must_use]
    pub fn data_root(&self) -> PathBuf {
        match self.parts.disk {
            Some(Disk::Image(..)) => PathBuf::from(Disk::PLACE),
            _ => self.root().join("data"),
        }
    }

    /// A program in the sandbox's namespaces, run to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn inside(&self, command: &[&str]) -> Output {
        let (program, arguments) = command.split_first().expect("a program");
        Output::of(self.sandbox.inside(program).args(arguments))
    }

    /// The CLI against this stack, not yet started.
    #[must_use]
    pub fn docker_command(&self, arguments: &[&str]) -> Command {
        let cli = self.parts.cli.clone().unwrap_or_else(|| parts::ours("docker-rs"));
        let home = self.root().join("home");
        let mut command = Command::new(cli);
        command
            .env_clear()
            .env("HOME", &home)
            .env("DOCKER_CONFIG", home.join(".docker"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LD_LIBRARY_PATH", self.parts.upstream().libraries())
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .args(arguments);
        command
    }

    /// ctr against this stack's containerd, not yet started. It runs inside: its fifos are there.
    #[must_use]
    pub fn ctr_command(&self, arguments: &[&str]) -> Command {
        let ctr = self.parts.ctr.clone().unwrap_or_else(|| parts::ours("ctr-rs"));
        self.ctr_at(&ctr, arguments)
    }

    fn ctr_at(&self, ctr: &Path, arguments: &[&str]) -> Command {
        let socket = self.containerd_socket().expect("a containerd of the harness");
        let mut command = self.sandbox.inside(ctr);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LD_LIBRARY_PATH", self.parts.upstream().libraries())
            .env("CONTAINERD_ADDRESS", socket)
            .args(arguments);
        command
    }

    /// The CLI, run to its end with nothing on stdin.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        Output::of(&mut self.docker_command(arguments))
    }

    /// The CLI with something on stdin.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn docker_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .docker_command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the CLI starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        std::thread::scope(|scope| {
            // A CLI that does not read to the end is no failure of the harness.
            scope.spawn(move || stdin.write_all(input).ok());
            Output::from(child.wait_with_output().expect("the CLI ends"))
        })
    }

    /// As [`Self::docker`], for what must succeed; gives stdout without the last line's end.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn docker_ok(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        assert_eq!(output.code, 0, "docker {arguments:?}: {}{}", output.stdout, output.stderr);
        output.stdout.trim_end_matches('\n').to_owned()
    }

    /// `busybox:latest`, made once a test process.
    ///
    /// # Panics
    /// When it cannot be loaded.
    pub fn load_busybox(&self) {
        if !self.parts.has_containerd() {
            return;
        }
        if !self.parts.has_engine() {
            let archive = image::busybox_archive().display().to_string();
            let arguments = ["images", "import", &archive];
            let mut command = self.ctr_command(&arguments);
            if self.stock_containerd() {
                // Older ones lack the service that ours imports with.
                command = self.ctr_at(&self.parts.upstream().program("ctr"), &arguments);
            }
            Output::of(&mut command).ok();
            return;
        }
        let archive = fs::read(image::busybox_archive()).expect("the archive");
        let answer = self.api().post_bytes("/images/load?quiet=1", "application/x-tar", archive);
        let answer = answer.expect(200);
        assert!(answer.text().contains("Loaded image"), "{}", answer.text());
    }

    /// Collects what is left of loads: a name is taken away with that done when it is answered.
    ///
    /// # Panics
    /// When the engine refuses.
    pub fn collect_content(&self) {
        let api = self.api();
        api.post("/images/busybox/tag?repo=collected&tag=1").expect(201);
        api.delete("/images/collected:1").expect(200);
    }

    /// What a daemon wrote: `engine` or `containerd`.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        let file = match name {
            // The engine's own keeps it beside its socket.
            "containerd" if self.containerd.is_none() => {
                self.sandbox.path(self.exec_root()).join("containerd/containerd.log")
            }
            name => self.root().join("log").join(name),
        };
        fs::read_to_string(file).unwrap_or_default()
    }

    /// Removes all containers, and fails for what they leave; the stack goes on.
    ///
    /// # Panics
    /// When something is left.
    pub fn check(&self) {
        if let Err(left) = self.try_check() {
            panic!("left behind:\n{left}\n{}", self.said_of(&left));
        }
    }

    /// What the daemons wrote of the containers whose ids stand in a text.
    fn said_of(&self, text: &str) -> String {
        let mut ids: Vec<&str> = text
            .split(|letter: char| !letter.is_ascii_hexdigit())
            .filter(|word| word.len() == 64)
            .collect();
        ids.dedup();
        let mut said = String::new();
        for name in ["engine", "containerd"] {
            let log = self.log(name);
            let lines = log.lines().filter(|line| ids.iter().any(|id| line.contains(id)));
            lines.take(100).for_each(|line| said.extend([name, ": ", line, "\n"]));
        }
        said
    }

    fn try_check(&self) -> Result<(), String> {
        if !self.parts.has_engine() {
            if !self.parts.has_containerd() {
                return Ok(());
            }
            let left = Output::of(&mut self.ctr_command(&["containers", "ls", "-q"])).ok();
            if !left.is_empty() {
                return Err(format!("containers {left}"));
            }
            return self.baseline.as_ref().map_or(Ok(()), |baseline| baseline.compare(self));
        }
        let api = self.api();
        let containers = api.get("/containers/json?all=1").expect(200).json();
        for container in containers.as_array().into_iter().flatten() {
            let id = container["Id"].as_str().unwrap_or_default();
            let answer = api.delete(&format!("/containers/{id}?force=1&v=1"));
            if !matches!(answer.status, 204 | 404 | 409) {
                return Err(answer.text());
            }
        }
        match &self.baseline {
            Some(baseline) => baseline.compare(self),
            None => Ok(()),
        }
    }

    /// Looks for leaks, ends the engine and then everything else.
    ///
    /// # Panics
    /// When something is left behind.
    pub fn end(self) {
        drop(self);
    }

    fn finish(&self) {
        if !self.parts.has_engine() {
            self.check();
            return;
        }
        let running = *self.engine.lock().expect("no panic holds it");
        let Some(pid) = running else { return };
        // The test may have left it stopped.
        self.sandbox.signal(pid, libc::SIGCONT);
        self.check();
        self.stop_engine();
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["engine", "containerd"] {
                let log = self.log(name);
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(30)..].join("\n");
                drop(writeln!(std::io::stderr(), "-- the end of {name}'s log\n{tail}"));
            }
        } else {
            self.finish();
        }
    }
}
