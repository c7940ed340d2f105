//! Which programs ran: path, version and digest; of a stack, read from `/proc/PID/exe` while they did.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::peers::Peers;
use crate::samples::Side;
use crate::stack::Stack;
use crate::world::World;

#[derive(Debug)]
pub(crate) struct Program {
    side: Side,
    path: PathBuf,
    version: String,
    sha256: String,
}

impl Program {
    pub(crate) fn line(&self) -> String {
        format!(
            "{:<6} {} {} sha256:{}",
            self.side.name(),
            self.path.display(),
            self.version,
            &self.sha256[..16.min(self.sha256.len())]
        )
    }
}

/// Starts containers until every kind of program was seen running. A runtime lives for a few
/// milliseconds, so it may take some.
pub(crate) fn census(stack: &Stack) -> anyhow::Result<Vec<Program>> {
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    for _ in 0..50 {
        let mut command = stack.docker(&["run", "--rm", "--network", "none", "busybox", "true"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        stack.world.charge(|| {
            let (mut child, _) = stack.world.spawn(&mut command, false)?;
            while child.try_wait()?.is_none() {
                let processes = stack.world.processes().into_iter();
                seen.extend(
                    processes.filter_map(|pid| fs::read_link(format!("/proc/{pid}/exe")).ok()),
                );
            }
            Ok(())
        })?;
        let found = |start: &str| {
            seen.iter().filter_map(|path| path.file_name()).any(|name| {
                let name = name.to_string_lossy();
                name.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest == "-rs")
                    || (start == "containerd-shim" && name.starts_with(start))
            })
        };
        if ["docker", "dockerd", "containerd", "containerd-shim", "runc"].into_iter().all(found) {
            break;
        }
    }
    // The container's own program is not the stack's.
    let paths = seen.into_iter().filter(|path| fs::metadata(path).is_ok() && !foreign(path));
    paths.map(|path| describe(stack.side, path, &stack.peers, &stack.world)).collect()
}

fn foreign(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name == "busybox" || name == "true" || name == "bash")
        || path.to_string_lossy().contains("/deps/")
}

pub(crate) fn describe(
    side: Side,
    path: PathBuf,
    peers: &Peers,
    world: &World,
) -> anyhow::Result<Program> {
    let output = Command::new("sha256sum").arg(&path).output().context("sha256sum")?;
    let sha256 = String::from_utf8_lossy(&output.stdout);
    let sha256 = sha256.split_whitespace().next().unwrap_or_default().to_owned();
    let mut command = Command::new(&path);
    peers.environment(&mut command);
    let shim = path.to_string_lossy().contains("shim");
    command.arg(if shim { "-v" } else { "--version" });
    let text = world.output(&mut command).unwrap_or_default();
    // Stock's shim says its name first and its version below.
    let below = text.lines().map(str::trim).find_map(|line| line.strip_prefix("Version:"));
    let first = text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit()));
    let version = below.or(first).unwrap_or_default().trim().replace(',', "");
    Ok(Program { side, path, version, sha256 })
}

pub(crate) fn write_csv(programs: &[Program], directory: &Path) -> anyhow::Result<()> {
    let mut text = "side,path,version,sha256\n".to_owned();
    for program in programs {
        writeln!(
            text,
            "{},{},{},{}",
            program.side.name(),
            program.path.display(),
            program.version,
            program.sha256
        )?;
    }
    let path = directory.join("programs.csv");
    fs::write(&path, text).with_context(|| path.display().to_string())
}
