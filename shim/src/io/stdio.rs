//! Opens a process's streams as the URIs of its request name them.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::process::{Command, Stdio};

use container_log::uri::LogUri;
use container_log::{Stream, Writer};

use super::attach::Listener;
use super::logger;
use crate::error::{TaskError, call_error, path_error};
use crate::sys;

/// What a request says about a process's streams.
#[derive(Debug, Clone, Default)]
pub(crate) struct StdioSpec {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// The shim's side of a process's streams.
#[derive(Default)]
pub(crate) struct ProcessIo {
    pub(crate) stdin: Option<StdinIo>,
    pub(crate) outputs: Vec<OutputIo>,
    pub(crate) log: Option<LogIo>,
}

/// Input that is not yet connected: the fifo is opened when the process starts. A client whose input ends
/// at once can tell us so only after Create was answered.
pub(crate) struct StdinIo {
    path: String,
    /// Set when the runtime has sent the terminal, or at once for a pipe.
    target: Option<OwnedFd>,
    terminal: bool,
    /// CloseIO came first.
    pub(crate) closed: bool,
}

/// Connected input.
pub(crate) struct OpenStdin {
    pub(crate) source: File,
    /// A write end of the same fifo, so that a client that leaves does not end the stream.
    pub(crate) keep: Option<File>,
    pub(crate) target: File,
    pub(crate) terminal: bool,
}

impl StdinIo {
    pub(crate) fn open(self) -> Result<Option<OpenStdin>, TaskError> {
        let (path, Some(target)) = (self.path, self.target) else { return Ok(None) };
        let source = nonblocking().read(true).open(&path).map_err(path_error("open", &path))?;
        let keep = nonblocking().write(true).open(&path).map_err(path_error("open", &path))?;
        let keep = (!self.closed).then_some(keep);
        Ok(Some(OpenStdin { source, keep, target: target.into(), terminal: self.terminal }))
    }
}

pub(crate) struct OutputIo {
    pub(crate) source: Option<OwnedFd>,
    pub(crate) stream: Stream,
    pub(crate) sink: SinkIo,
    pub(crate) terminal: bool,
}

pub(crate) enum SinkIo {
    /// Both ends, non-blocking: while we hold the reading one, a reader that leaves does not break it.
    Fifo {
        writer: File,
        reader: File,
    },
    File(File),
    Log,
}

/// The log we write ourselves, and the live socket beside it.
pub(crate) struct LogIo {
    pub(crate) writer: Option<Writer>,
    pub(crate) attach: Option<Listener>,
}

/// The process's own ends; what is missing becomes /dev/null.
#[derive(Default)]
pub(crate) struct ChildStdio {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl ChildStdio {
    pub(crate) fn apply(self, command: &mut Command) {
        let or_null = |fd: Option<OwnedFd>| fd.map_or_else(Stdio::null, Stdio::from);
        command
            .stdin(or_null(self.stdin))
            .stdout(or_null(self.stdout))
            .stderr(or_null(self.stderr));
    }
}

/// Whom the streams belong to.
pub(crate) struct Owner<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) container: &'a str,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Opens everything, but what [`listen_early`] has opened. With a terminal the ends stay open-ended until
/// [`ProcessIo::set_master`].
pub(crate) fn open(
    spec: &StdioSpec,
    owner: &Owner<'_>,
    live: Option<Listener>,
) -> Result<(ChildStdio, ProcessIo), TaskError> {
    let mut child = ChildStdio::default();
    let mut io = ProcessIo::default();
    if !spec.stdin.is_empty() {
        let path = spec.stdin.strip_prefix("fifo://").unwrap_or(&spec.stdin);
        let mut target = None;
        if !spec.terminal {
            let (read, write) = pipe(owner)?;
            set_nonblocking(&write)?;
            child.stdin = Some(read);
            target = Some(write);
        }
        let (path, terminal) = (path.to_owned(), spec.terminal);
        io.stdin = Some(StdinIo { path, target, terminal, closed: false });
    }
    let scheme = spec.stdout.split_once("://").map_or("fifo", |(scheme, _)| scheme);
    if matches!(scheme, "binary" | "binary-v2") {
        let [out, err] = logger::spawn(&spec.stdout, owner.namespace, owner.container)?;
        if spec.terminal {
            io.outputs.push(OutputIo {
                source: None,
                stream: Stream::Stdout,
                sink: SinkIo::File(File::from(out)),
                terminal: true,
            });
        } else {
            (child.stdout, child.stderr) = (Some(out), Some(err));
        }
        return Ok((child, io));
    }
    if scheme == container_log::uri::SCHEME {
        io.log = Some(open_log(&spec.stdout, live)?);
    }
    for (stream, uri) in [(Stream::Stdout, &spec.stdout), (Stream::Stderr, &spec.stderr)] {
        // Compat: a terminal has one output; stderr's path is ignored.
        if uri.is_empty() || spec.terminal && stream == Stream::Stderr {
            continue;
        }
        let sink = if io.log.is_some() { SinkIo::Log } else { open_sink(uri)? };
        let mut source = None;
        if !spec.terminal {
            let (read, write) = pipe(owner)?;
            set_nonblocking(&read)?;
            if matches!(sink, SinkIo::Log) {
                sys::set_pipe_size(&read, LOG_PIPE_SIZE);
            }
            source = Some(read);
            match stream {
                Stream::Stdout => child.stdout = Some(write),
                Stream::Stderr => child.stderr = Some(write),
            }
        }
        io.outputs.push(OutputIo { source, stream, sink, terminal: spec.terminal });
    }
    Ok((child, io))
}

impl ProcessIo {
    pub(crate) fn is_empty(&self) -> bool {
        self.stdin.is_none() && self.outputs.is_empty() && self.log.is_none()
    }

    /// The runtime sent the terminal: it is the source of all output and the target of stdin.
    pub(crate) fn set_master(&mut self, master: &OwnedFd) -> Result<(), TaskError> {
        set_nonblocking(master)?;
        if let Some(stdin) = &mut self.stdin {
            stdin.target = Some(master.try_clone().map_err(call_error("dup"))?);
        }
        for output in &mut self.outputs {
            output.source = Some(master.try_clone().map_err(call_error("dup"))?);
        }
        Ok(())
    }
}

fn open_sink(uri: &str) -> Result<SinkIo, TaskError> {
    match uri.split_once("://") {
        Some(("file", path)) => {
            let path = path.split_once('?').map_or(path, |(path, _)| path);
            // What is a fifo by either name must keep nobody waiting.
            match std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
                true => open_sink(path),
                false => append(path).map(SinkIo::File),
            }
        }
        None | Some(("fifo", _)) => {
            let path = uri.strip_prefix("fifo://").unwrap_or(uri);
            let kind = std::fs::metadata(path).map_err(path_error("open", path))?.file_type();
            if !kind.is_fifo() {
                return append(path).map(SinkIo::File);
            }
            // In this order neither waits for the client.
            let reader = nonblocking().read(true).open(path).map_err(path_error("open", path))?;
            let writer = nonblocking().write(true).open(path).map_err(path_error("open", path))?;
            Ok(SinkIo::Fifo { writer, reader })
        }
        Some((scheme, _)) => Err(TaskError::Unimplemented(format!("log scheme {scheme:?}"))),
    }
}

/// Listens beside the log before the process is started, where the log is ours.
pub(crate) fn listen_early(spec: &StdioSpec) -> Result<Option<Listener>, TaskError> {
    if !spec.stdout.starts_with(&format!("{}://", container_log::uri::SCHEME)) {
        return Ok(None);
    }
    parse(&spec.stdout)?.attach.as_deref().map(Listener::bind).transpose()
}

fn parse(text: &str) -> Result<LogUri, TaskError> {
    LogUri::parse(text).map_err(|error| TaskError::Invalid(error.to_string()))
}

fn open_log(text: &str, live: Option<Listener>) -> Result<LogIo, TaskError> {
    let uri = parse(text)?;
    let writer = if uri.discard {
        None
    } else {
        let opened = Writer::open(&uri.path, uri.rotation, &uri.attrs);
        Some(opened.map_err(|error| TaskError::Runtime(error.to_string()))?)
    };
    let attach = match live {
        Some(live) => Some(live),
        None => uri.attach.as_deref().map(Listener::bind).transpose()?,
    };
    Ok(LogIo { writer, attach })
}

fn append(path: &str) -> Result<File, TaskError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)
        .map_err(path_error("open", path))
}

fn nonblocking() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(libc::O_NONBLOCK);
    options
}

/// A pipe that the container's user may reopen through /proc.
fn pipe(owner: &Owner<'_>) -> Result<(OwnedFd, OwnedFd), TaskError> {
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(call_error("pipe2"))?;
    if (owner.uid, owner.gid) != (0, 0) {
        for end in [&read, &write] {
            std::os::unix::fs::fchown(end, Some(owner.uid), Some(owner.gid))
                .map_err(call_error("fchown"))?;
        }
    }
    Ok((read, write))
}

fn set_nonblocking(fd: &OwnedFd) -> Result<(), TaskError> {
    rustix::io::ioctl_fionbio(fd, true).map_err(call_error("ioctl FIONBIO"))
}

/// Room for a burst while the disk is busy; the kernel allocates it only as it fills.
const LOG_PIPE_SIZE: i32 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use proptest::prelude::*;

    fn kind(uri: &str) -> Result<&'static str, String> {
        match open_sink(uri) {
            Ok(SinkIo::Fifo { .. }) => Ok("fifo"),
            Ok(SinkIo::File(_)) => Ok("file"),
            Ok(SinkIo::Log) => Ok("log"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_fifo_that_nobody_reads_keeps_nobody_waiting_whatever_it_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        let path = path.display().to_string();
        std::thread::spawn(move || {
            for uri in [path.clone(), format!("fifo://{path}"), format!("file://{path}?a=b")] {
                told.send(kind(&uri)).unwrap();
            }
        });
        for _ in 0..3 {
            let kind = heard.recv_timeout(std::time::Duration::from_secs(20)).expect("an answer");
            assert_eq!(kind.as_deref(), Ok("fifo"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, ..ProptestConfig::default() })]

        #[test]
        fn a_sink_is_what_lies_where_its_uri_says(
            scheme in "(|fifo://|file://|http://|json-file:/|[a-z]{1,4}://)", name in "(f|x|missing|d|[^/?\u{0}]{1,5})", query in "(\\?a=b)?",
        ) {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            nix::unistd::mkfifo(&at("f"), Mode::S_IRWXU).unwrap();
            std::fs::write(at("x"), "").unwrap();
            std::fs::create_dir(at("d")).unwrap();
            let known = ["", "fifo://", "file://"].contains(&scheme.as_str());
            let is_file = scheme == "file://";
            let query = if is_file { query } else { String::new() };
            prop_assume!(known || !scheme.is_empty());
            match kind(&format!("{scheme}{}{query}", at(&name).display())) {
                Ok("fifo") => prop_assert!(known && name == "f"),
                Ok(kind) => prop_assert!(known && kind == "file" && at(&name).is_file() && (is_file || name == "x")),
                Err(error) => {
                    let there = at(&name).exists() && name != "d" && name != "." && name != "..";
                    prop_assert!(!known || !there, "{}", error);
                    prop_assert!(!error.is_empty());
                }
            }
        }
    }
}
