//! One of the two stacks: where its programs are, how its daemons start, how the client reaches it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::http::Connection;
use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Ours,
    Stock,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Stock => "stock",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) kind: Kind,
    pub(crate) world: World,
    directory: PathBuf,
    pub(crate) engine: Child,
    /// Started by us; ours is started by its engine.
    containerd: Option<Child>,
    /// The engine's mounts before the first container.
    pub(crate) mounts: Vec<String>,
}

impl Stack {
    pub(crate) fn start(kind: Kind, work: &Path) -> anyhow::Result<Self> {
        let directory = work.join(kind.name());
        fs::create_dir_all(&directory)?;
        let world = World::new(work, kind.name())?;
        let containerd = match kind {
            Kind::Ours => None,
            Kind::Stock => {
                let root = directory.join("c");
                let child = world.spawn(&mut supervisor(kind, &root)?, false)?;
                until("containerd listens", || listens(&root.join("c.sock")))?;
                Some(child)
            }
        };
        let mut command = engine(kind, &directory, &world.container_parent())?;
        if containerd.is_some() {
            command.arg("--containerd").arg(directory.join("c/c.sock"));
        }
        let engine = world.spawn(&mut command, false)?;
        let stack = Self { kind, world, directory, engine, containerd, mounts: Vec::new() };
        let socket = stack.socket();
        until("the engine answers", || answers_ping(&socket)).with_context(|| stack.log_tail())?;
        Ok(stack)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("d.sock")
    }

    pub(crate) fn containerd_socket(&self) -> PathBuf {
        match self.kind {
            Kind::Ours => self.directory.join("run/containerd/containerd.sock"),
            Kind::Stock => self.directory.join("c/c.sock"),
        }
    }

    pub(crate) fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(&self.socket())
    }

    /// Stock's client, aimed at this stack.
    pub(crate) fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(peers().join("usr/bin/docker"));
        as_peer(&mut command);
        command.env("DOCKER_CONFIG", self.directory.join("client"));
        command.arg("-H").arg(format!("unix://{}", self.socket().display())).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Runs the client; its failure is ours.
    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let mut child = self.world.client(&mut self.docker(arguments))?;
        let mut errors = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut errors)?;
        }
        let status = child.wait()?;
        let took = started.elapsed();
        if !status.success() {
            bail!("{}: docker {}: {status}: {errors}", self.kind.name(), arguments.join(" "));
        }
        Ok(took)
    }

    /// The daemon that keeps containers: a child of ours, or of the engine.
    pub(crate) fn supervisor_pid(&self) -> anyhow::Result<i32> {
        if let Some(child) = &self.containerd {
            return Ok(i32::try_from(child.id())?);
        }
        self.find("containerd-rs").context("no containerd-rs runs")
    }

    pub(crate) fn engine_pid(&self) -> anyhow::Result<i32> {
        Ok(i32::try_from(self.engine.id())?)
    }

    fn find(&self, name: &str) -> Option<i32> {
        self.world.processes().into_iter().find(|pid| program_name(*pid).as_deref() == Some(name))
    }

    pub(crate) fn shims(&self) -> Vec<i32> {
        let shim = |pid: &i32| program_name(*pid).is_some_and(|n| n.starts_with("containerd-shim"));
        self.world.processes().into_iter().filter(shim).collect()
    }

    /// Starts a second engine with an empty root in a network of its own; the time to its first
    /// answer. With `supervisor` it uses the one that runs, else it starts its own.
    pub(crate) fn boot_engine(&self, work: &Path, supervisor: bool) -> anyhow::Result<Duration> {
        let directory = work.join(self.kind.name()).join("boot");
        fs::create_dir_all(&directory)?;
        let mut command = engine(self.kind, &directory, &self.world.container_parent())?;
        command.args(["--containerd-namespace", "boot"]);
        if supervisor {
            command.arg("--containerd").arg(self.containerd_socket());
        }
        let socket = directory.join("d.sock");
        let started = Instant::now();
        let mut child = self.world.spawn(&mut command, true)?;
        until("the engine answers", || answers_ping(&socket))?;
        let took = started.elapsed();
        end(&mut child)?;
        fs::remove_dir_all(&directory)?;
        Ok(took)
    }

    /// Starts a second supervisor with an empty root; the time until it speaks HTTP/2.
    pub(crate) fn boot_supervisor(&self, work: &Path) -> anyhow::Result<Duration> {
        let directory = work.join(self.kind.name()).join("boot-c");
        fs::create_dir_all(&directory)?;
        let mut command = supervisor(self.kind, &directory)?;
        let socket = directory.join("c.sock");
        let started = Instant::now();
        let mut child = self.world.spawn(&mut command, true)?;
        until("containerd answers", || answers_grpc(&socket))?;
        let took = started.elapsed();
        end(&mut child)?;
        fs::remove_dir_all(&directory)?;
        Ok(took)
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.directory.join("engine.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn stop(&mut self) {
        for child in [Some(&mut self.engine), self.containerd.as_mut()].into_iter().flatten() {
            drop(end(child));
        }
        self.world.stop();
    }
}

fn engine(kind: Kind, directory: &Path, cgroup_parent: &str) -> anyhow::Result<Command> {
    let mut command = match kind {
        Kind::Ours => Command::new(integration_tests::parts::ours("dockerd-rs")),
        Kind::Stock => Command::new(peers().join("usr/sbin/dockerd")),
    };
    if kind == Kind::Stock {
        as_peer(&mut command);
    }
    command
        .arg("--data-root")
        .arg(directory.join("data"))
        .arg("--exec-root")
        .arg(directory.join("run"))
        .arg("--pidfile")
        .arg(directory.join("engine.pid"))
        .arg("-H")
        .arg(format!("unix://{}", directory.join("d.sock").display()))
        .args(["--cgroup-parent", cgroup_parent]);
    logged(&mut command, &directory.join("engine.log"))?;
    Ok(command)
}

fn supervisor(kind: Kind, directory: &Path) -> anyhow::Result<Command> {
    fs::create_dir_all(directory)?;
    let config = directory.join("config.toml");
    let text = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\n[grpc]\naddress = {:?}\n",
        directory.join("root"),
        directory.join("state"),
        directory.join("c.sock"),
    );
    fs::write(&config, text)?;
    let mut command = match kind {
        Kind::Ours => Command::new(integration_tests::parts::ours("containerd-rs")),
        Kind::Stock => Command::new(peers().join("usr/bin/containerd")),
    };
    if kind == Kind::Stock {
        as_peer(&mut command);
    }
    command.arg("--config").arg(config);
    logged(&mut command, &directory.join("containerd.log"))?;
    Ok(command)
}

fn logged(command: &mut Command, path: &Path) -> anyhow::Result<()> {
    let log = File::options().create(true).append(true).open(path)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(())
}

/// Upstream's programs, unpacked and not installed: they find one another and their libraries there.
pub(crate) fn as_peer(command: &mut Command) {
    let peers = peers();
    let tables = peers.with_file_name("iptables");
    let library = |root: &Path| format!("{0}/usr/lib/{1}:{0}/lib/{1}", root.display(), triplet());
    let path = format!(
        "{0}/usr/bin:{0}/usr/sbin:{1}:{2}",
        peers.display(),
        tables.join("path").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    command
        .env("PATH", path)
        .env("LD_LIBRARY_PATH", format!("{}:{}", library(&peers), library(&tables)))
        .env("XTABLES_LIBDIR", tables.join("usr/lib").join(triplet()).join("xtables"));
}

fn triplet() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

fn peers() -> PathBuf {
    std::env::var_os("PEERS_DIR").map_or_else(|| crate::top().join(".cache/peers"), PathBuf::from)
}

pub(crate) fn program_name(pid: i32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(path.file_name()?.to_string_lossy().into_owned())
}

/// SIGTERM, and the end awaited.
fn end(child: &mut Child) -> anyhow::Result<()> {
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
    child.wait()?;
    Ok(())
}

/// Polls twice a millisecond: what is timed is a start-up of tens of milliseconds.
fn until(what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        if Instant::now() > deadline {
            bail!("timed out waiting until {what}");
        }
        thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

fn listens(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

fn answers_ping(socket: &Path) -> bool {
    let ping = || Connection::open(socket)?.request("GET", "/_ping", "");
    ping().is_ok()
}

/// HTTP/2's preface and an empty SETTINGS; a server that is up answers with its own.
fn answers_grpc(socket: &Path) -> bool {
    let hello = || -> std::io::Result<u8> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
        let mut header = [0; 9];
        stream.read_exact(&mut header)?;
        Ok(header[3])
    };
    const SETTINGS: u8 = 4;
    matches!(hello(), Ok(SETTINGS))
}
