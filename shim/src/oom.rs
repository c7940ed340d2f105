//! Tells when the kernel killed in a container's memory cgroup: by eventfd on v1, by inotify on v2.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::inotify;

use crate::cgroup::Cgroup;

/// Readable when there may be news.
pub(crate) enum OomWatch {
    V1 { event: File, _control: File, directory: PathBuf },
    V2 { inotify: OwnedFd, events: PathBuf, kills: u64 },
}

impl OomWatch {
    /// `None` where the host cannot tell.
    pub(crate) fn new(cgroup: &Cgroup) -> Option<Self> {
        let directory = cgroup.directory("memory")?.to_owned();
        match cgroup {
            Cgroup::V1(_) => {
                let flags = nix::sys::eventfd::EfdFlags::EFD_CLOEXEC
                    | nix::sys::eventfd::EfdFlags::EFD_NONBLOCK;
                let event = nix::sys::eventfd::EventFd::from_value_and_flags(0, flags).ok()?;
                let event = File::from(OwnedFd::from(event));
                let control = File::open(directory.join("memory.oom_control")).ok()?;
                let mut register = OpenOptions::new()
                    .write(true)
                    .open(directory.join("cgroup.event_control"))
                    .ok()?;
                // In one write: the kernel reads each as a registration of its own.
                let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
                register.write_all(line.as_bytes()).ok()?;
                Some(Self::V1 { event, _control: control, directory })
            }
            Cgroup::V2(_) => {
                let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
                let inotify = inotify::init(flags).ok()?;
                let events = directory.join("memory.events");
                inotify::add_watch(&inotify, &events, inotify::WatchFlags::MODIFY).ok()?;
                let kills = kills(&events);
                Some(Self::V2 { inotify, events, kills })
            }
        }
    }

    /// Takes the news: whether the kernel killed. `None`: the cgroup is gone, watch no longer.
    pub(crate) fn take(&mut self) -> Option<bool> {
        match self {
            Self::V1 { event, directory, .. } => {
                event.read_exact(&mut [0; 8]).ok();
                // The event also comes when the cgroup is removed.
                directory.exists().then_some(true)
            }
            Self::V2 { inotify, events, kills: known } => {
                let mut buffer = [0; 512];
                while rustix::io::read(&*inotify, &mut buffer).is_ok_and(|count| count > 0) {}
                if !events.exists() {
                    return None;
                }
                let now = kills(events);
                let news = now > *known;
                *known = now;
                Some(news)
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::V1 { event, .. } => event.as_fd(),
            Self::V2 { inotify, .. } => inotify.as_fd(),
        }
    }
}

fn kills(events: &std::path::Path) -> u64 {
    let text = fs::read_to_string(events).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kill_is_news_on_v2() {
        let directory = tempfile::tempdir().unwrap();
        let events = directory.path().join("memory.events");
        let write = |kills: u64, max: u64| {
            fs::write(&events, format!("low 0\nmax {max}\noom {kills}\noom_kill {kills}\n"))
                .unwrap();
        };
        write(1, 0);
        let mut watch = OomWatch::new(&Cgroup::V2(directory.path().into())).unwrap();
        write(1, 7);
        assert_eq!(watch.take(), Some(false), "reclaim is no kill");
        write(2, 7);
        assert_eq!(watch.take(), Some(true));
        assert_eq!(watch.take(), Some(false), "told once");
        fs::remove_file(&events).unwrap();
        assert_eq!(watch.take(), None);
    }
}
