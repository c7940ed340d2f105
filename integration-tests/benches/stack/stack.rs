//! One of the two stacks: how its daemons start, and how the client reaches it.

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
use crate::peers::Peers;
use crate::samples::Side;
use crate::world::World;

#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) side: Side,
    pub(crate) world: World,
    pub(crate) peers: Peers,
    pub(crate) directory: PathBuf,
    engine: Child,
    /// Started by us; ours is started by its engine.
    containerd: Option<Child>,
    /// The engine's mounts before the first container.
    pub(crate) mounts: Vec<String>,
}

impl Stack {
    pub(crate) fn start(side: Side, peers: &Peers, work: &Path) -> anyhow::Result<Self> {
        let directory = work.join(side.name());
        fs::create_dir_all(&directory)?;
        let world = World::new(work, side.name(), &peers.c_library())?;
        let start = || {
            let containerd = match side {
                Side::Ours => None,
                _ => {
                    let root = directory.join("c");
                    let (child, _) = world.spawn(&mut supervisor(side, peers, &root)?, false)?;
                    until("containerd listens", || listens(&root.join("c.sock")))?;
                    Some(child)
                }
            };
            let mut command = engine(side, peers, &directory, &world.container_parent())?;
            if containerd.is_some() {
                command.arg("--containerd").arg(directory.join("c/c.sock"));
            }
            let (engine, _) = world.spawn(&mut command, false)?;
            until("the engine answers", || answers_ping(&directory.join("d.sock")))
                .with_context(|| log_tail(&directory))?;
            Ok((engine, containerd))
        };
        let (engine, containerd) = world.charge(start)?;
        let peers = peers.clone();
        Ok(Self { side, world, peers, directory, engine, containerd, mounts: Vec::new() })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("d.sock")
    }

    pub(crate) fn containerd_socket(&self) -> PathBuf {
        match self.side {
            Side::Ours => self.directory.join("run/containerd/containerd.sock"),
            _ => self.directory.join("c/c.sock"),
        }
    }

    /// The bundle of a running container.
    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        let state = match self.side {
            Side::Ours => self.directory.join("run/containerd"),
            _ => self.directory.join("c/state"),
        };
        state.join("io.containerd.runtime.v2.task/moby").join(id)
    }

    pub(crate) fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(&self.socket())
    }

    /// Stock's client, aimed at this stack.
    pub(crate) fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = self.peers.command("docker");
        command.env("DOCKER_CONFIG", self.directory.join("client"));
        command.arg("-H").arg(format!("unix://{}", self.socket().display())).args(arguments);
        command
    }

    /// Runs the client; its failure is ours.
    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<Duration> {
        self.world.run(&mut self.docker(arguments)).context(self.side.name())
    }

    /// The daemon that keeps containers: a child of ours, or of the engine.
    pub(crate) fn supervisor_pid(&self) -> anyhow::Result<i32> {
        if let Some(child) = &self.containerd {
            return Ok(i32::try_from(child.id())?);
        }
        let named = |pid: &i32| program_name(*pid).as_deref() == Some("containerd-rs");
        self.world.processes().into_iter().find(named).context("no containerd-rs runs")
    }

    pub(crate) fn engine_pid(&self) -> anyhow::Result<i32> {
        Ok(i32::try_from(self.engine.id())?)
    }

    pub(crate) fn shims(&self) -> Vec<i32> {
        let shim = |pid: &i32| program_name(*pid).is_some_and(|n| n.starts_with("containerd-shim"));
        self.world.processes().into_iter().filter(shim).collect()
    }

    /// A second engine with a root of its own.
    pub(crate) fn another_engine(&self, directory: &Path) -> anyhow::Result<Command> {
        let mut command =
            engine(self.side, &self.peers, directory, &self.world.container_parent())?;
        command.args(["--containerd-namespace", "boot"]);
        Ok(command)
    }

    /// A second supervisor with a root of its own.
    pub(crate) fn another_supervisor(&self, directory: &Path) -> anyhow::Result<Command> {
        supervisor(self.side, &self.peers, directory)
    }

    pub(crate) fn stop(&mut self) {
        for child in [Some(&mut self.engine), self.containerd.as_mut()].into_iter().flatten() {
            drop(end(child, Signal::SIGTERM));
        }
        self.world.stop();
    }
}

fn engine(
    side: Side,
    peers: &Peers,
    directory: &Path,
    cgroup_parent: &str,
) -> anyhow::Result<Command> {
    let mut command = match side {
        Side::Ours => Command::new(integration_tests::parts::ours("dockerd-rs")),
        _ => peers.command("dockerd"),
    };
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

fn supervisor(side: Side, peers: &Peers, directory: &Path) -> anyhow::Result<Command> {
    fs::create_dir_all(directory)?;
    let config = directory.join("config.toml");
    let text = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\n[grpc]\naddress = {:?}\n",
        directory.join("root"),
        directory.join("state"),
        directory.join("c.sock"),
    );
    fs::write(&config, text)?;
    let mut command = match side {
        Side::Ours => Command::new(integration_tests::parts::ours("containerd-rs")),
        _ => peers.command("containerd"),
    };
    command.arg("--config").arg(config);
    logged(&mut command, &directory.join("containerd.log"))?;
    Ok(command)
}

pub(crate) fn logged(command: &mut Command, path: &Path) -> anyhow::Result<()> {
    let log = File::options().create(true).append(true).open(path)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(())
}

fn log_tail(directory: &Path) -> String {
    let text = fs::read_to_string(directory.join("engine.log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(10).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

pub(crate) fn program_name(pid: i32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(path.file_name()?.to_string_lossy().into_owned())
}

/// A signal, and the end awaited.
pub(crate) fn end(child: &mut Child, signal: Signal) -> anyhow::Result<()> {
    kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
    child.wait()?;
    Ok(())
}

/// Polls twice a millisecond: what is timed is a start-up of tens of milliseconds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
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

pub(crate) fn answers_ping(socket: &Path) -> bool {
    let ping = || Connection::open(socket)?.request("GET", "/_ping", "");
    ping().is_ok()
}

/// HTTP/2's preface and an empty SETTINGS; a server that is up answers with its own.
pub(crate) fn answers_grpc(socket: &Path) -> bool {
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
