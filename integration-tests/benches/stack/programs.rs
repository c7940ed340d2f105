//! Which programs ran: path, version and digest, read from `/proc/PID/exe` while they did.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::stack::{Kind, Stack};

#[derive(Debug)]
pub(crate) struct Program {
    kind: Kind,
    path: PathBuf,
    version: String,
    sha256: String,
}

impl Program {
    pub(crate) fn line(&self) -> String {
        format!(
            "{:<6} {} {} sha256:{}",
            self.kind.name(),
            self.path.display(),
            self.version,
            &self.sha256[..16.min(self.sha256.len())]
        )
    }
}

/// Starts containers until every kind of program was seen running. A runtime lives for a few
/// milliseconds, so it may take some.
pub(crate) fn census(stack: &Stack) -> anyhow::Result<Vec<Program>> {
    let mut seen: BTreeMap<PathBuf, i32> = BTreeMap::new();
    for _ in 0..50 {
        let command = &mut stack.docker(&["run", "--rm", "--network", "none", "busybox", "true"]);
        let mut child = stack.world.client(command)?;
        while child.try_wait()?.is_none() {
            for pid in stack.world.processes() {
                if let Ok(path) = fs::read_link(format!("/proc/{pid}/exe")) {
                    seen.insert(path, pid);
                }
            }
        }
        let found = |start: &str| {
            let name = |path: &PathBuf| path.file_name().map(|name| name.to_owned());
            seen.keys().filter_map(name).any(|name| name.to_string_lossy().starts_with(start))
        };
        if ["docker", "containerd", "containerd-shim", "runc"].iter().all(|start| found(start)) {
            break;
        }
    }
    // The container's own program is not the stack's.
    let paths = seen.into_keys().filter(|path| fs::metadata(path).is_ok() && !foreign(path));
    paths.map(|path| describe(stack, path)).collect()
}

fn foreign(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name == "busybox" || name == "true" || name == "stack")
        || path.to_string_lossy().contains("/deps/")
}

fn describe(stack: &Stack, path: PathBuf) -> anyhow::Result<Program> {
    let output = Command::new("sha256sum").arg(&path).output().context("sha256sum")?;
    let sha256 = String::from_utf8_lossy(&output.stdout);
    let sha256 = sha256.split_whitespace().next().unwrap_or_default().to_owned();
    let mut command = Command::new(&path);
    crate::stack::as_peer(&mut command);
    let shim = path.to_string_lossy().contains("shim");
    let output = command.arg(if shim { "-v" } else { "--version" }).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    // Stock's shim says its name first and its version below.
    let below = text.lines().map(str::trim).find_map(|line| line.strip_prefix("Version:"));
    let first = text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit()));
    let version = below.or(first).unwrap_or_default().trim().replace(',', "");
    Ok(Program { kind: stack.kind, path, version, sha256 })
}

pub(crate) fn write_csv(programs: &[Program], directory: &Path) -> anyhow::Result<()> {
    let mut text = "stack,path,version,sha256\n".to_owned();
    for program in programs {
        writeln!(
            text,
            "{},{},{},{}",
            program.kind.name(),
            program.path.display(),
            program.version,
            program.sha256
        )?;
    }
    let path = directory.join("programs.csv");
    fs::write(&path, text).with_context(|| path.display().to_string())
}
