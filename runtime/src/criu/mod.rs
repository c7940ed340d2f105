//! criu, which freezes processes into files and brings them back: `criu swrk 3`, one request a process,
//! over a socket that keeps message boundaries. See criu's `images/rpc.proto` for the numbers.
//!
//! ```text
//!   runtime                      criu
//!     |-------- request ---------->|
//!     |<------- notification ------|   where it is, and what we could do about it; some carry a descriptor
//!     |-------- done ------------->|
//!     |<------- response ----------|   ends
//! ```

mod child;
pub(crate) mod options;
mod report;
pub(crate) mod wire;

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};

use crate::log::Log;
use crate::sys::{self, errno_of, errno_text};
pub(crate) use child::Child;
pub(crate) use report::quote_errors;
use wire::{Message, Value, fields};

/// What is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Dump,
    Restore,
    PreDump,
    Notify,
    FeatureCheck,
    Version,
}

impl Task {
    fn number(self) -> u64 {
        match self {
            Self::Dump => 1,
            Self::Restore => 2,
            Self::PreDump => 4,
            Self::Notify => 6,
            Self::FeatureCheck => 9,
            Self::Version => 10,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Dump => "DUMP",
            Self::Restore => "RESTORE",
            Self::PreDump => "PRE_DUMP",
            Self::Notify => "NOTIFY",
            Self::FeatureCheck => "FEATURE_CHECK",
            Self::Version => "VERSION",
        }
    }
}

/// Where it is on its way.
#[derive(Debug)]
pub(crate) struct Notice {
    pub(crate) script: String,
    /// Of the first process.
    pub(crate) pid: i32,
    pub(crate) descriptor: Option<OwnedFd>,
}

#[derive(Debug, Default)]
struct Response {
    kind: u64,
    success: bool,
    errno: u64,
    notice: Option<(String, u64)>,
    features: Vec<u64>,
    version: u32,
}

/// The program, and its version: 40201 is 4.2.1.
#[derive(Debug)]
pub(crate) struct Criu<'a> {
    log: &'a Log,
    program: PathBuf,
    pub(crate) version: u32,
}

/// What can be asked for with `--pre-dump` and `--lazy-pages`; the numbers of criu's features.
pub(crate) const MEMORY_TRACKING: (u32, &str) = (1, "MemTrack");
pub(crate) const LAZY_PAGES: (u32, &str) = (2, "LazyPages");

impl<'a> Criu<'a> {
    /// Compat: runc's sentence before whatever is wrong with it.
    pub(crate) fn find(log: &'a Log) -> anyhow::Result<Self> {
        let asked = || -> anyhow::Result<Self> {
            let mut criu = Self { log, program: child::program()?, version: 0 };
            let response = criu.ask(Task::Version, &request(Task::Version), Child::quiet())?;
            criu.version = response.version;
            Ok(criu)
        };
        let criu = asked().context("CRIU version check failed")?;
        if criu.version < OLDEST {
            bail!("CRIU version {} must be {OLDEST} or higher", criu.version);
        }
        log.debug(&format!("Using CRIU {}", criu.version));
        Ok(criu)
    }

    pub(crate) fn require(&self, (field, name): (u32, &str)) -> anyhow::Result<()> {
        let mut features = Message::default();
        features.flag(field, true);
        let mut request = request(Task::FeatureCheck);
        request.message(REQUEST_FEATURES, &features);
        let response = self
            .ask(Task::FeatureCheck, &request, Child::quiet())
            .context("CRIU feature check failed")?;
        if !response.features.contains(&u64::from(field)) {
            bail!("criu is missing features: [{name}]");
        }
        Ok(())
    }

    fn ask(&self, task: Task, request: &Message, child: Child<'_>) -> anyhow::Result<Response> {
        let running = child.spawn(&self.program)?;
        self.converse(task, request, running, &mut |_| Ok(()))
    }

    pub(crate) fn spawn(&self, child: Child<'_>) -> anyhow::Result<Running> {
        child.spawn(&self.program)
    }

    /// Sees a dump or a restore to its end.
    pub(crate) fn perform(
        &self,
        task: Task,
        options: &Message,
        running: Running,
        each: &mut dyn FnMut(Notice) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut request = request(task);
        request.message(REQUEST_OPTIONS, options);
        self.log.debug(&format!("Using CRIU in {} mode", task.name()));
        self.converse(task, &request, running, each).map(drop)
    }

    fn converse(
        &self,
        task: Task,
        request: &Message,
        mut running: Running,
        each: &mut dyn FnMut(Notice) -> anyhow::Result<()>,
    ) -> anyhow::Result<Response> {
        running.send(request)?;
        loop {
            let (bytes, descriptor) = running.receive()?;
            let response = decode(&bytes).context("unable to parse the response of criu")?;
            if !response.success {
                // Compat: runc's sentence. The first error of its log comes along, which need not be
                // the one that mattered.
                bail!("criu failed: type {} errno {}", name_of(response.kind), response.errno);
            }
            if response.kind == Task::Notify.number() {
                let (script, pid) = response.notice.context("a notification without a name")?;
                self.log.debug(&format!("notify: {script}"));
                let pid = i32::try_from(pid).unwrap_or(0);
                each(Notice { script, pid, descriptor })?;
                let mut done = self::request(Task::Notify);
                done.flag(REQUEST_NOTIFY_SUCCESS, true);
                running.send(&done)?;
                continue;
            }
            if response.kind != task.number() {
                bail!("unable to parse the response of criu: {} to {}", response.kind, task.name());
            }
            running.close()?;
            let status = running.end()?;
            // After a dump of memory alone criu waits for more, and does not like to be left.
            if status != child::GOOD && task != Task::PreDump {
                bail!("criu failed: {status}");
            }
            return Ok(response);
        }
    }
}

/// A criu that waits for its request; it is killed if it gets no answer.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    socket: OwnedFd,
    ended: bool,
}

impl Running {
    fn send(&self, message: &Message) -> anyhow::Result<()> {
        match sys::socket::send(&self.socket, message.as_bytes()) {
            // It is dead; why comes out of the next receive.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            result => {
                result.map_err(|error| anyhow!("send to criu: {}", errno_text(errno_of(&error))))
            }
        }
    }

    fn receive(&mut self) -> anyhow::Result<(Vec<u8>, Option<OwnedFd>)> {
        let (bytes, descriptor) =
            sys::socket::receive_with_fd(self.socket.as_fd()).context("receive")?;
        if let Some((0, text)) = bytes.split_first() {
            // Ours, before it became criu: a message never starts so.
            bail!("{}", String::from_utf8_lossy(text));
        }
        if bytes.is_empty() {
            bail!("unexpected EOF: criu swrk {}", self.end()?);
        }
        Ok((bytes, descriptor))
    }

    /// What its preparation hands back.
    pub(crate) fn handed(&mut self) -> anyhow::Result<OwnedFd> {
        self.receive()?.1.context("criu was prepared without a descriptor")
    }

    /// Nothing more comes from us.
    fn close(&self) -> anyhow::Result<()> {
        match rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write) {
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error).context("shut down the socket of criu"),
        }
    }

    /// Waits for it; how it ended, as Go tells it.
    fn end(&mut self) -> anyhow::Result<String> {
        self.ended = true;
        let ended = sys::clone::wait(self.pid, true).context("wait for criu")?;
        Ok(child::ending(ended.map_or(0, |(_, status)| status)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            drop(sys::process::kill(self.pid, libc::SIGKILL));
            drop(sys::clone::wait(self.pid, true));
        }
    }
}

fn request(task: Task) -> Message {
    let mut message = Message::default();
    message.number(REQUEST_TYPE, task.number());
    message
}

fn decode(bytes: &[u8]) -> Option<Response> {
    let mut response = Response::default();
    for field in fields(bytes)? {
        match field {
            (1, Value::Number(kind)) => response.kind = kind,
            (2, Value::Number(success)) => response.success = success != 0,
            (5, Value::Bytes(notice)) => response.notice = Some(decode_notice(notice)?),
            (7, Value::Number(errno)) => response.errno = errno,
            (8, Value::Bytes(features)) => {
                let found = fields(features)?;
                let has = |field: &(u64, Value<'_>)| match field.1 {
                    Value::Number(1) => Some(field.0),
                    _ => None,
                };
                response.features = found.iter().filter_map(has).collect();
            }
            (10, Value::Bytes(version)) => response.version = decode_version(version)?,
            _ => {}
        }
    }
    Some(response)
}

fn decode_notice(bytes: &[u8]) -> Option<(String, u64)> {
    let mut notice = (String::new(), 0);
    for field in fields(bytes)? {
        match field {
            (1, Value::Bytes(script)) => notice.0 = String::from_utf8_lossy(script).into_owned(),
            (2, Value::Number(pid)) => notice.1 = pid,
            _ => {}
        }
    }
    Some(notice)
}

/// As one number; one between releases counts as the next.
fn decode_version(bytes: &[u8]) -> Option<u32> {
    let (mut version, mut between) = (0, false);
    for field in fields(bytes)? {
        match field {
            (1, Value::Number(major)) => version += major.checked_mul(10_000)?,
            (2, Value::Number(minor)) => version += minor.checked_mul(100)?,
            (3, Value::Bytes(commit)) => between = !commit.is_empty(),
            (4, Value::Number(level)) => version += level,
            _ => {}
        }
    }
    let version = if between { version - version % 100 + 100 } else { version };
    u32::try_from(version).ok()
}

fn name_of(kind: u64) -> String {
    use Task::{Dump, FeatureCheck, Notify, PreDump, Restore, Version};
    [Dump, Restore, PreDump, Notify, FeatureCheck, Version]
        .into_iter()
        .find(|task| task.number() == kind)
        .map_or_else(|| kind.to_string(), |task| task.name().to_owned())
}

/// The one that can be asked for its version.
const OLDEST: u32 = 30_000;
const REQUEST_TYPE: u32 = 1;
const REQUEST_OPTIONS: u32 = 2;
const REQUEST_NOTIFY_SUCCESS: u32 = 3;
const REQUEST_FEATURES: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_one_number() {
        let version = |numbers: [u64; 3], commit: &str| {
            let mut message = Message::default();
            message.number(1, numbers[0]).number(2, numbers[1]).number(4, numbers[2]);
            message.text(3, commit);
            decode_version(message.as_bytes())
        };
        assert_eq!(version([4, 2, 1], ""), Some(40_201));
        assert_eq!(version([3, 17, 1], "v3.17-5-g123"), Some(31_800));
        assert_eq!(version([u64::MAX, 0, 0], ""), None);
    }

    #[test]
    fn an_answer_is_read_whatever_else_it_says() {
        let mut notice = Message::default();
        notice.text(1, "post-dump").number(2, 7);
        let mut answer = Message::default();
        answer.number(1, 6).flag(2, true).message(5, &notice).text(99, "new");
        let response = decode(answer.as_bytes()).unwrap();
        assert_eq!(response.notice, Some(("post-dump".to_owned(), 7)));
        assert!(response.success);
        assert!(decode(b"garbage").is_none());
        assert_eq!((name_of(1), name_of(77)), ("DUMP".to_owned(), "77".to_owned()));
    }
}
