//! Our own containerd-rs: started detached, found again by pid file and socket, restarted when it
//! dies. It outlives the engine, and the containers outlive it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::sys;

/// Makes sure one runs; returns its socket.
pub(super) async fn ensure(config: &Config) -> anyhow::Result<PathBuf> {
    let dir = config.exec_root.join("containerd");
    let address = dir.join("containerd.sock");
    if living(&dir).is_none() {
        spawn(config, &dir)?;
    }
    Ok(address)
}

/// Starts it again whenever it is gone.
pub(super) async fn watch(config: Config, shutdown: CancellationToken) {
    let dir = config.exec_root.join("containerd");
    let mut failures: u32 = 0;
    loop {
        if let Some(pid) = living(&dir) {
            let since = tokio::time::Instant::now();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = end_of(pid) => {}
            }
            if since.elapsed() > Duration::from_secs(10) {
                failures = 0;
            }
            continue;
        }
        tracing::warn!("containerd-rs is gone, starting it again");
        if let Err(error) = spawn(&config, &dir) {
            tracing::error!("containerd-rs: {error:#}");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(250 << failures.min(5))) => {}
        }
        failures += 1;
    }
}

/// Returns when the process has ended.
async fn end_of(pid: i32) {
    match sys::pidfd::open(pid) {
        Some(end) => drop(end.readable().await),
        // It has just ended, or there is no telling: look again soon.
        None => tokio::time::sleep(Duration::from_millis(100)).await,
    }
}

/// Ends it and waits.
pub(super) async fn stop(config: &Config) {
    let dir = config.exec_root.join("containerd");
    let Some(pid) = living(&dir) else { return };
    let pid = nix::unistd::Pid::from_raw(pid);
    if nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).is_err() {
        return;
    }
    for _ in 0..500 {
        if living(&dir).is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if let Err(error) = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL) {
        tracing::debug!("kill containerd-rs: {error}");
    }
}

fn living(dir: &Path) -> Option<i32> {
    let pid: i32 = std::fs::read_to_string(dir.join("containerd.pid")).ok()?.trim().parse().ok()?;
    // The pid may be someone else's by now, or a zombie's.
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let config = dir.join("containerd.toml");
    let config = config.as_os_str().as_encoded_bytes();
    command.split(|byte| *byte == 0).any(|word| word == config).then_some(pid)
}

fn spawn(config: &Config, dir: &Path) -> anyhow::Result<()> {
    sys::dirs::make(dir, 0o711)?;
    let address = dir.join("containerd.sock");
    let root = config.data_root.join("containerd");
    let state = dir.join("daemon");
    let text = format!(
        "version = 2\nroot = {root:?}\nstate = {state:?}\n\n[grpc]\naddress = {address:?}\n",
    );
    let file = dir.join("containerd.toml");
    std::fs::write(&file, text).with_context(|| file.display().to_string())?;
    let level = if config.debug { "debug" } else { config.log_level.as_str() };
    let log = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(dir.join("containerd.log"))
        .context("open containerd.log")?;
    let program = sys::spawn::sibling("containerd-rs");
    let mut command = Command::new(&program);
    command
        .arg("--config")
        .arg(&file)
        .arg("--pidfile")
        .arg(dir.join("containerd.pid"))
        .args(["--log-level", level])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let mut child = sys::spawn::detach(&mut command)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    // Until it has written it, the pid file would say that nobody is there.
    std::fs::write(dir.join("containerd.pid"), child.id().to_string())?;
    std::thread::Builder::new()
        .name("reap".to_owned())
        .stack_size(64 << 10)
        .spawn(move || child.wait())?;
    Ok(())
}
