//! `start`: writes the byte that init waits for, then the poststart hooks.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use rustix::fs::{Mode, OFlags};

use super::{Globals, parse_one};
use crate::container::{Container, Status};
use crate::hooks;
use crate::notify::Notify;
use crate::sys;
use crate::trace::Laps;

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let (_, id) = parse_one("start", arguments, &[])?;
    let (container, lock) = Container::load_locked(&globals.root, &id)?;
    let mut laps =
        Laps::new("start", globals.started, &container.record.annotations, &globals.timings);
    // Compat: runc's sentences for the other states.
    match container.status() {
        Status::Created => {}
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Running => bail!("cannot start an already running container"),
        status => bail!("cannot start a container in the {} state", status.name()),
    }
    laps.lap("load");
    let notify = Notify::listen(&container)?;
    release(&container)?;
    laps.lap("release");
    drop((laps, lock));
    if let Some(notify) = notify {
        notify.connect()?.wait(&globals.log, container.record.pid)?;
    }
    Ok(0)
}

/// Lets init go; the caller holds the lock and has seen the container created.
pub(crate) fn release(container: &Container) -> anyhow::Result<()> {
    let path = container.fifo_path();
    open_and_write(&path)?;
    std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    let state = container.record.hook_state("running", container.record.pid);
    if let Err(error) = hooks::run_all(&container.record.hooks.poststart, "poststart", &state) {
        drop(sys::process::kill(container.record.pid, libc::SIGKILL));
        return Err(anyhow!("{error}"));
    }
    Ok(())
}

fn open_and_write(path: &Path) -> anyhow::Result<()> {
    // Not blocking: without a reader init is dead, and the open says so.
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(std::fs::File::from(fd).write_all(b"0").context("write exec fifo")?),
        Err(rustix::io::Errno::NXIO) => bail!("container process is already dead"),
        Err(error) => Err(error).context("open exec fifo"),
    }
}
