//! What must not be left a second after the last container: interfaces, mounts, cgroups, processes.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::stack::Stack;

/// What is still there when the second is over.
pub(crate) fn wait_until_clean(stack: &Stack) -> anyhow::Result<Vec<String>> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        let left = left(stack)?;
        if left.is_empty() || Instant::now() > deadline {
            return Ok(left);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The mount points the engine sees.
pub(crate) fn mounts(stack: &Stack) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{}/mountinfo", stack.engine_pid()?))?;
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect())
}

fn left(stack: &Stack) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    let engine = stack.engine_pid()?;
    let daemons = [engine, stack.supervisor_pid()?];
    for line in fs::read_to_string(format!("/proc/{engine}/net/dev"))?.lines() {
        let Some((name, _)) = line.split_once(':') else { continue };
        if name.trim().starts_with("veth") {
            left.push(format!("interface {}", name.trim()));
        }
    }
    for mount in mounts(stack)? {
        if !stack.mounts.contains(&mount) {
            left.push(format!("mount {mount}"));
        }
    }
    for group in stack.world.container_groups() {
        left.push(format!("cgroup {}", group.display()));
    }
    for pid in stack.world.processes() {
        if !daemons.contains(&pid) {
            let name = crate::stack::program_name(pid).unwrap_or_default();
            left.push(format!("process {pid} {name}"));
        }
    }
    Ok(left)
}
