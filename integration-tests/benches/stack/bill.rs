//! CPU time of everything that ran in a world, read from a cgroup of its own.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// v1's cpuacct, else the unified hierarchy.
#[derive(Debug)]
pub(crate) struct Bill {
    pub(crate) directory: PathBuf,
    unified: bool,
    /// What the bench itself spent while it was a member.
    own: Mutex<Duration>,
}

impl Bill {
    /// `group` is below the hierarchy's root.
    pub(crate) fn open(group: &str) -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
        let find = |kind: &str, option: &str| {
            mounts.lines().find_map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                (fields[2] == kind
                    && (option.is_empty() || fields[3].split(',').any(|o| o == option)))
                .then(|| PathBuf::from(fields[1]).join(group))
            })
        };
        let found = find("cgroup", "cpuacct").map(|directory| (directory, false));
        let Some((directory, unified)) = found.or_else(|| Some((find("cgroup2", "")?, true)))
        else {
            bail!("no cgroup hierarchy is mounted");
        };
        let bill = Self { directory, unified, own: Mutex::default() };
        let members = bill.members();
        fs::create_dir_all(&members).with_context(|| members.display().to_string())?;
        Ok(bill)
    }

    /// With the bench itself as a member, so that what it starts is born there. Moving it takes up to
    /// fifteen milliseconds now and then, and keeps others from forking: not while something is timed.
    pub(crate) fn charge<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        fs::write(self.members().join("cgroup.procs"), "0").context("enter a cgroup")?;
        let before = own()?;
        let result = work();
        let spent = own()?.saturating_sub(before);
        *self.own.lock().unwrap_or_else(|held| held.into_inner()) += spent;
        let root = self.directory.ancestors().nth(2).context("the root of the hierarchy")?;
        fs::write(root.join("cgroup.procs"), "0").context("leave a cgroup")?;
        result
    }

    /// All that was spent so far, the bench's part aside.
    pub(crate) fn read(&self) -> anyhow::Result<Duration> {
        let file = self.directory.join(if self.unified { "cpu.stat" } else { "cpuacct.usage" });
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let all = if self.unified {
            let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
            Duration::from_micros(line.context("no usage_usec")?.trim().parse()?)
        } else {
            Duration::from_nanos(text.trim().parse()?)
        };
        Ok(all.saturating_sub(*self.own.lock().unwrap_or_else(|held| held.into_inner())))
    }

    fn members(&self) -> PathBuf {
        self.directory.join("programs")
    }
}

fn own() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let duration = |time: TimeVal| -> anyhow::Result<Duration> {
        Ok(Duration::new(u64::try_from(time.tv_sec())?, u32::try_from(time.tv_usec())? * 1000))
    };
    Ok(duration(usage.user_time())? + duration(usage.system_time())?)
}
