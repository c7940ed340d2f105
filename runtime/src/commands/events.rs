//! `events`: what a container uses, again and again or once, and when its memory ran out; JSON lines.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use serde_json::Value;

use super::{Globals, parse_one, print};
use crate::args::{Flag, FlagError};
use crate::container::{Container, Status};
use crate::resctrl::Resctrl;
use crate::sys::clone::pidfd_open;

pub(super) const FLAGS: &[Flag] = &[("interval", "", true), ("stats", "", false)];

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let (parsed, id) = parse_one("events", arguments, FLAGS)?;
    let interval = match parsed.get("interval") {
        None => Duration::from_secs(5),
        Some(text) => duration(text).ok_or_else(|| FlagError::Invalid {
            name: "interval".to_owned(),
            value: text.to_owned(),
        })?,
    };
    let container = Container::load(&globals.root, &id)?;
    // Compat: runc's sentences.
    if interval.is_zero() {
        bail!("duration interval must be greater than 0");
    }
    if container.status() == Status::Stopped {
        bail!("container with id {id} is not running");
    }
    if parsed.is_set("stats") {
        tell_stats(&container, &stats(&container)?)?;
    } else {
        follow(globals, &container, interval)?;
    }
    Ok(0)
}

/// Until the container has no process left.
fn follow(globals: &Globals, container: &Container, interval: Duration) -> anyhow::Result<()> {
    let cgroup = container.cgroup();
    let mut oom = cgroup.watch_oom()?;
    // Gone already: then the loop ends by itself.
    let mut pidfd = pidfd_open(container.record.pid).ok();
    let mut next = Instant::now() + interval;
    loop {
        let mut fds = Vec::new();
        fds.extend(oom.as_ref().map(|oom| PollFd::from_borrowed_fd(oom.as_fd(), PollFlags::IN)));
        fds.extend(pidfd.as_ref().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
        let left = next.saturating_duration_since(Instant::now());
        match rustix::event::poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        let ended = pidfd.is_some() && fds.last().is_some_and(|fd| !fd.revents().is_empty());
        for _ in 0..oom.as_mut().map_or(0, crate::cgroup::OomWatch::take) {
            let id = &container.record.id;
            print(&format!("{{\"type\":\"oom\",\"id\":\"{id}\"}}\n"))?;
        }
        if ended {
            pidfd = None;
        }
        // Without a pid namespace of its own others may outlive the first process.
        if pidfd.is_none() && cgroup.pids(true).is_ok_and(|pids| pids.is_empty()) {
            return Ok(());
        }
        if Instant::now() >= next {
            // The next ones may be had again.
            match stats(container) {
                Ok(data) => tell_stats(container, &data)?,
                Err(error) => globals.log.error(&error.to_string()),
            }
            next += interval;
        }
    }
}

fn stats(container: &Container) -> anyhow::Result<Value> {
    let mut data = container.cgroup().stats();
    if let Some(group) = &container.record.resctrl
        && let Some(resctrl) = Resctrl::find()
    {
        let told = group.stats(&resctrl);
        data["intel_rdt"] =
            told.map_err(|error| anyhow!("unable to get container Intel RDT stats: {error}"))?;
    }
    Ok(data)
}

/// Compat: the fields in runc's order; its readers match the beginning.
fn tell_stats(container: &Container, data: &Value) -> anyhow::Result<()> {
    let id = &container.record.id;
    print(&format!("{{\"type\":\"stats\",\"id\":\"{id}\",\"data\":{data}}}\n"))
}

/// As Go writes one: `5s`, `1m30s`, `.5s`; no sign means what it says, a minus is nothing.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, scale) = UNITS.iter().find(|known| known.0 == unit)?;
        seconds += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    if text.is_empty() || negative {
        return (!text.is_empty()).then_some(Duration::ZERO);
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_written_as_go_writes_them() {
        for (text, milliseconds) in
            [("5s", 5000), ("100ms", 100), ("1m30s", 90_000), (".5s", 500), ("-1s", 0), ("0", 0)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "5x", "1.2.3s", "five"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
