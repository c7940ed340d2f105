//! A process's input and output: fifos that the shim opens, copied to and from our own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::oneshot;

/// What a task is given as its three streams.
pub(crate) struct Streams {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
    /// Removed with us, unless the process outlives this program.
    directory: Option<PathBuf>,
}

impl Streams {
    /// One log URI for both outputs, no input.
    pub(crate) fn log(uri: &str, terminal: bool) -> Self {
        let stderr = if terminal { String::new() } else { uri.to_owned() };
        Self::existing(String::new(), uri.to_owned(), stderr, terminal)
    }

    /// Everything to /dev/null.
    pub(crate) fn null(terminal: bool) -> Self {
        Self::existing(String::new(), String::new(), String::new(), terminal)
    }

    pub(crate) fn fifos(below: &Path, id: &str, terminal: bool) -> Result<Self> {
        if terminal {
            // Asked before anything is made that would have to go again.
            tcgetattr(io::stdin().as_fd()).context("provided file is not a console")?;
        }
        let directory = below.join(unique()?);
        fs::create_dir_all(&directory)
            .with_context(|| format!("create {}", directory.display()))?;
        let make = |name: &str| -> Result<String> {
            let path = directory.join(format!("{id}-{name}"));
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
                .with_context(|| format!("make fifo {}", path.display()))?;
            Ok(path.to_string_lossy().into_owned())
        };
        let stderr = if terminal { String::new() } else { make("stderr")? };
        let (stdin, stdout) = (make("stdin")?, make("stdout")?);
        Ok(Self { stdin, stdout, stderr, terminal, directory: Some(directory) })
    }

    /// Streams that someone else made.
    pub(crate) fn existing(stdin: String, stdout: String, stderr: String, terminal: bool) -> Self {
        Self { stdin, stdout, stderr, terminal, directory: None }
    }

    /// Leaves the fifos to whoever attaches later.
    pub(crate) fn keep(mut self) {
        self.directory = None;
    }

    /// Starts copying. Opening waits for the shim, so each stream has a thread.
    pub(crate) fn copy(&self) -> Copying {
        let mut outputs = Vec::new();
        for (path, to) in [(&self.stdout, Output::Out), (&self.stderr, Output::Error)] {
            if path.starts_with('/') {
                let (done, ended) = oneshot::channel();
                let opened = Arc::new(AtomicBool::new(false));
                let output = Copied { path: path.clone(), opened: opened.clone(), ended };
                let path = path.clone();
                thread::spawn(move || {
                    copy_out(&path, to, &opened).unwrap_or_default();
                    done.send(()).unwrap_or_default();
                });
                outputs.push(output);
            }
        }
        let (done, input) = oneshot::channel();
        if self.stdin.starts_with('/') {
            let path = self.stdin.clone();
            thread::spawn(move || {
                copy_in(&path).unwrap_or_default();
                done.send(()).unwrap_or_default();
            });
        } else {
            drop(done);
        }
        Copying { outputs, input: Some(input) }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            // Best effort: the directory is on a tmpfs and has a name of its own.
            fs::remove_dir_all(directory).unwrap_or_default();
        }
    }
}

/// An output that a thread copies.
struct Copied {
    path: String,
    opened: Arc<AtomicBool>,
    ended: oneshot::Receiver<()>,
}

pub(crate) struct Copying {
    outputs: Vec<Copied>,
    input: Option<oneshot::Receiver<()>>,
}

impl Copying {
    /// When our input has ended; never where there is none.
    pub(crate) async fn input_ended(&mut self) {
        if let Some(input) = &mut self.input {
            let ended = input.await.is_ok();
            self.input = None;
            if ended {
                return;
            }
        }
        std::future::pending().await
    }

    /// After the process's end: until the shim closed the outputs, and all is copied.
    pub(crate) async fn drain(self) {
        for output in self.outputs {
            if !output.opened.load(Ordering::Acquire) {
                // A shim may open a stream only when there is output: nobody will come any more.
                // A writer that comes and goes lets the thread through.
                let mut writer = OpenOptions::new();
                writer.write(true).custom_flags(libc::O_NONBLOCK);
                writer.open(&output.path).map(drop).unwrap_or_default();
            }
            // A sender that is gone without a word has ended too.
            output.ended.await.unwrap_or_default();
        }
    }
}

#[derive(Clone, Copy)]
enum Output {
    Out,
    Error,
}

fn copy_out(path: &str, to: Output, opened: &AtomicBool) -> io::Result<()> {
    let mut from = File::open(path)?;
    opened.store(true, Ordering::Release);
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = from.read(&mut buffer)?;
        let Some(data) = buffer.get(..count).filter(|data| !data.is_empty()) else {
            return Ok(());
        };
        match to {
            Output::Out => io::stdout().write_all(data).and_then(|()| io::stdout().flush())?,
            Output::Error => io::stderr().write_all(data)?,
        }
    }
}

fn copy_in(path: &str) -> io::Result<()> {
    let mut to = OpenOptions::new().write(true).open(path)?;
    // Unbuffered: what is typed goes on at once.
    let mut from = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    io::copy(&mut from, &mut to).map(drop)
}

/// A terminal in raw mode, put back at the end.
pub(crate) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    pub(crate) fn enter() -> Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd()).context("provided file is not a console")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let stdin = io::stdin();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &self.before).unwrap_or_default();
    }
}

/// Columns and rows of our terminal.
pub(crate) fn terminal_size() -> Option<(u32, u32)> {
    let size = tcgetwinsize(io::stdin().as_fd()).ok()?;
    Some((u32::from(size.ws_col), u32::from(size.ws_row)))
}

/// A name nobody else has.
pub(crate) fn unique() -> Result<String> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("random name: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
