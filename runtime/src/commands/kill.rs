//! `kill`: a signal to the first process, by pidfd, or to all.

use anyhow::{anyhow, bail};
use std::os::fd::AsFd;

use super::{Globals, Usage, each, ids, parse, print, program};
use crate::args::{Flag, Order};
use crate::container::{Container, Status};
use crate::sys::clone::{pidfd_open, pidfd_send_signal};

pub(super) const FLAGS: &[Flag] = &[("all", "a", false), ("regex", "r", false)];

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let parsed = parse(arguments, FLAGS, Order::Mixed)?;
    let (id, signal) = match parsed.words.as_slice() {
        [id] => (id, "SIGTERM"),
        [id, signal] => (id, signal.as_str()),
        [] => bail!(usage("a minimum of 1")),
        _ => bail!(usage("a maximum of 2")),
    };
    let ids = ids(globals, &parsed, id)?;
    let containers =
        ids.iter().map(|id| Container::load(&globals.root, id)).collect::<Result<Vec<_>, _>>()?;
    let signal = parse_signal(signal).ok_or_else(|| anyhow!("unknown signal {signal:?}"))?;
    each(containers, |container| {
        if parsed.is_set("all") && !container.cgroup().is_disabled() {
            // Compat: with nobody left there is nothing to do, and that is no error.
            container.cgroup().kill_all(signal)?;
            return Ok(());
        }
        if parsed.is_set("all") && container.status() == Status::Stopped {
            return Ok(());
        }
        send(&container, signal)
    })?;
    Ok(0)
}

fn usage(what: &str) -> Usage {
    Usage(format!("{}: \"kill\" requires {what} argument(s)", program()))
}

/// Compat: callers match `container not running`.
pub(crate) fn send(container: &Container, signal: i32) -> anyhow::Result<()> {
    let gone = || anyhow!("container not running");
    let cgroup = container.cgroup();
    if signal == libc::SIGKILL && !container.record.private_pids && !cgroup.is_disabled() {
        // Nothing ends the others: they are no children of a pid namespace's first process, and
        // may have outlived it.
        if cgroup.pids(true).is_ok_and(|pids| pids.is_empty()) {
            return Err(gone());
        }
        cgroup.kill_all(signal)?;
        return Ok(());
    }
    // Opened first, checked second: the number cannot come again while we hold the pidfd.
    let pidfd = pidfd_open(container.record.pid).map_err(|_| gone())?;
    if container.status() == Status::Stopped {
        return Err(gone());
    }
    match pidfd_send_signal(pidfd.as_fd(), signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(gone()),
        result => result?,
    }
    // On cgroup v1 what is frozen dies when it thaws.
    if signal == libc::SIGKILL && container.cgroup().is_frozen().unwrap_or(false) {
        container.cgroup().freeze(false)?;
    }
    Ok(())
}

/// `9`, `KILL`, `SIGKILL`, `RTMIN+3`.
pub(crate) fn parse_signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (0..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|known| known.0 == name) {
        return Some(*number);
    }
    let real_time = |rest: &str, base: i32| -> Option<i32> {
        let number = if rest.is_empty() { base } else { base + rest.parse::<i32>().ok()? };
        (34..=64).contains(&number).then_some(number)
    };
    name.strip_prefix("RTMIN")
        .and_then(|rest| real_time(rest, 34))
        .or_else(|| name.strip_prefix("RTMAX").and_then(|rest| real_time(rest, 64)))
}

const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", 16),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

pub(super) const PS_FLAGS: &[Flag] = &[("format", "f", true)];

/// `ps`: the container's processes, as a table of host pids or as JSON.
pub(crate) fn ps(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let parsed = parse(arguments, PS_FLAGS, Order::First)?;
    let Some(id) = parsed.words.first() else {
        bail!(Usage(format!("{}: \"ps\" requires a minimum of 1 argument(s)", program())));
    };
    let container = Container::load(&globals.root, id)?;
    let pids = match container.cgroup() {
        cgroup if cgroup.is_disabled() => in_pid_namespace(&container),
        cgroup => cgroup.pids(true)?,
    };
    match parsed.get("format").unwrap_or("table") {
        "json" => print(&format!("{}\n", serde_json::to_string(&pids)?))?,
        "table" => {
            let mut arguments = parsed.words[1..].to_vec();
            if arguments.is_empty() {
                arguments.push("-ef".to_owned());
            }
            let output = std::process::Command::new("ps")
                .args(&arguments)
                .output()
                .map_err(|error| anyhow!("exec: \"ps\": {error}"))?;
            if !output.status.success() {
                bail!("ps: {}", String::from_utf8_lossy(&output.stderr).trim_end());
            }
            print(&filter_ps(&String::from_utf8_lossy(&output.stdout), &pids)?)?;
        }
        _ => bail!("invalid format option"),
    }
    Ok(0)
}

/// All that are in the pid namespace of the first process, if it is the container's own.
fn in_pid_namespace(container: &Container) -> Vec<i32> {
    let first = container.record.pid;
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(first).filter(|_| container.is_alive()) else { return Vec::new() };
    if !container.record.private_pids {
        return vec![first];
    }
    let mut pids: Vec<i32> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| namespace(*pid).is_some_and(|other| other == own))
        .collect();
    pids.sort_unstable();
    pids
}

/// The lines of `ps` whose PID column is one of `pids`.
fn filter_ps(output: &str, pids: &[i32]) -> anyhow::Result<String> {
    let mut lines = output.lines();
    let head = lines.next().unwrap_or_default();
    let Some(column) = head.split_whitespace().position(|name| name == "PID") else {
        bail!("couldn't find PID field in ps output");
    };
    let ours = |line: &&str| {
        line.split_whitespace()
            .nth(column)
            .and_then(|pid| pid.parse().ok())
            .is_some_and(|pid: i32| pids.contains(&pid))
    };
    Ok([head].into_iter().chain(lines.filter(ours)).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+3", 37), ("RTMAX", 64)]
        {
            assert_eq!(parse_signal(text), Some(number), "{text}");
        }
        for text in ["", "SIG", "65", "-1", "NOPE", "RTMIN+99"] {
            assert_eq!(parse_signal(text), None, "{text}");
        }
    }

    #[test]
    fn ps_shows_only_the_containers_lines() {
        let output = "UID PID CMD\nroot 1 init\nroot 22 sleep\n";
        assert_eq!(filter_ps(output, &[22]).unwrap(), "UID PID CMD\nroot 22 sleep\n");
    }
}
