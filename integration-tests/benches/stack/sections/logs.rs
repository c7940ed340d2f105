//! A container that writes 100-byte lines as fast as it can into json-file; then `docker logs`.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use crate::sections::{LONG, Run};

const BYTES: usize = 200_000_000;

pub(super) fn section(run: &mut Run) -> anyhow::Result<()> {
    let rounds = run.rounds.min(LONG);
    let lines = run.work.join("lines");
    write_lines(&lines)?;
    let bind = format!("{}:/lines:ro", lines.display());
    let body = serde_json::json!({
        "Image": "busybox", "Cmd": ["cat", "/lines"],
        "HostConfig": {"NetworkMode": "none", "Binds": [bind]},
    })
    .to_string();
    run.interleave("logs", "log-write-200MB", rounds, |stack, _| {
        let mut connection = stack.connect()?;
        let id = connection.create("/containers/create", &body)?;
        let started = Instant::now();
        connection.request("POST", &format!("/containers/{id}/start"), "")?;
        connection.request("POST", &format!("/containers/{id}/wait"), "")?;
        let took = started.elapsed();
        connection.request("DELETE", &format!("/containers/{id}"), "")?;
        Ok(took)
    })?;
    for stack in &run.stacks {
        let mut words = vec!["run", "--name", "lines", "--network", "none", "-v", &bind];
        words.extend(["busybox", "cat", "/lines"]);
        stack.run(&words)?;
    }
    run.interleave("logs", "log-read-200MB", rounds, |stack, _| stack.run(&["logs", "lines"]))?;
    for stack in &run.stacks {
        stack.run(&["rm", "lines"])?;
    }
    fs::remove_file(&lines)?;
    Ok(())
}

fn write_lines(path: &Path) -> anyhow::Result<()> {
    let block: String = (0..10_000).map(|number| format!("{number:099}\n")).collect();
    let mut file = File::options().write(true).create_new(true).open(path)?;
    for _ in 0..BYTES / block.len() {
        file.write_all(block.as_bytes())?;
    }
    Ok(())
}
