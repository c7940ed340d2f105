//! What must not be left a second after a section: interfaces, mounts, cgroups, processes.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::stack::{Stack, program_name};

/// What is still there when the second is over.
pub(crate) fn wait_until_clean(stack: &Stack) -> anyhow::Result<Vec<String>> {
    within_a_second(|| left(stack))
}

pub(crate) fn within_a_second(
    mut left: impl FnMut() -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<Vec<String>> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        let left = left()?;
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
    let daemons = [stack.engine_pid()?, stack.supervisor_pid()?];
    let interfaces = stack.world.interfaces()?;
    left.extend(
        interfaces.iter().filter(|name| name.starts_with("veth")).map(|n| format!("interface {n}")),
    );
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
            left.push(format!("process {pid} {}", program_name(pid).unwrap_or_default()));
        }
    }
    Ok(left)
}
