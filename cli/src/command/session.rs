//! What goes on beside an attached stream: waiting for the exit, signals, the size of the terminal.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use docker_api::container::WaitResponse;
use futures_util::future::select_all;
use http::Method;
use http_body_util::BodyExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::client::{Client, empty, escape};
use crate::error::CliError;
use crate::terminal;

/// A wait that the daemon has accepted, so that no exit is missed.
pub(super) struct Wait {
    answer: hyper::Response<hyper::body::Incoming>,
}

impl Wait {
    /// Asks before the container is started; the headers say that the daemon watches.
    pub(super) async fn begin(
        client: &Client,
        id: &str,
        condition: &str,
    ) -> Result<Self, CliError> {
        let path = format!("/containers/{}/wait?condition={condition}", escape(id));
        Ok(Self { answer: client.send(Method::POST, &path, empty()).await? })
    }

    /// The container's exit code, once there is one.
    pub(super) async fn exit_code(self) -> Result<u8, CliError> {
        let text = self.answer.into_body().collect().await.map_err(CliError::Http)?.to_bytes();
        let answer: WaitResponse = serde_json::from_slice(&text).map_err(CliError::Answer)?;
        if let Some(error) = answer.error {
            return Err(CliError::Daemon { status: 500, message: error.message });
        }
        Ok(u8::try_from(answer.status_code).unwrap_or(u8::MAX))
    }
}

/// Whose signals and terminal it is about.
pub(super) enum Target {
    Container(String),
    Exec(String),
}

impl Target {
    fn path(&self) -> String {
        match self {
            Self::Container(id) => format!("/containers/{id}"),
            Self::Exec(id) => format!("/exec/{id}"),
        }
    }
}

/// What a signal for the client means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// The container gets it, too.
    Proxied(i32),
    Resized,
    /// The client ends, and leaves the user's terminal as it found it.
    Ends(i32),
}

/// What is to be asked of the daemon.
enum Errand {
    Signal(i32),
    Size,
}

/// How many errands may wait; a container that takes no signals gets no more of them later.
const ERRANDS: usize = 64;

/// How many times a user asks before the client gives up on a container.
const PATIENCE: usize = 3;

/// About the client itself, and not passed on. Those of job control stop it, as they should: a
/// client in the background that caught them would try to read again and again.
const OWN: [i32; 5] = [libc::SIGCHLD, libc::SIGPIPE, libc::SIGURG, libc::SIGTTIN, libc::SIGTTOU];

/// Those that cannot be caught, or mean that the client is broken.
const UNCAUGHT: [i32; 5] =
    [libc::SIGKILL, libc::SIGSTOP, libc::SIGILL, libc::SIGFPE, libc::SIGSEGV];

/// Which signals mean something beside a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// The stream is that of a terminal.
    pub(super) tty: bool,
    /// The user's terminal is in raw mode meanwhile.
    pub(super) raw: bool,
    /// Signals are passed on to the container.
    pub(super) proxy: bool,
}

/// Catches signals, and runs the errands they lead to.
pub(super) struct Signals {
    target: Target,
    ears: Ears,
    errands: mpsc::Receiver<Errand>,
}

struct Ears {
    caught: Vec<(Meaning, Signal)>,
    interrupts: usize,
    errands: mpsc::Sender<Errand>,
}

impl Signals {
    pub(super) fn of(target: Target, wanted: Wanted) -> Result<Self, CliError> {
        let mut caught = Vec::new();
        for number in (1..=libc::SIGSYS).chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
            let Some(meaning) = meaning(number, wanted) else { continue };
            let signal = signal(SignalKind::from_raw(number))
                .map_err(|source| CliError::io(format!("watch signal {number}"), source))?;
            caught.push((meaning, signal));
        }
        let (sender, errands) = mpsc::channel(ERRANDS);
        let ears = Ears { caught, interrupts: 0, errands: sender };
        if wanted.tty {
            ears.send(Errand::Size);
        }
        Ok(Self { target, ears, errands })
    }

    /// Does `what`. Signals for a container that has not started yet wait until it has.
    pub(super) async fn kept<T>(
        &mut self,
        what: impl Future<Output = Result<T, CliError>>,
    ) -> Result<T, CliError> {
        tokio::select! {
            done = what => done,
            reason = self.ears.hear() => Err(reason),
        }
    }

    /// Does `what`, and meanwhile passes signals and sizes on.
    pub(super) async fn passed_on<T>(
        mut self,
        client: &Client,
        what: impl Future<Output = Result<T, CliError>>,
    ) -> Result<T, CliError> {
        let Self { target, ears, errands } = &mut self;
        tokio::select! {
            done = what => done,
            reason = ears.hear() => Err(reason),
            never = run(errands, target, client) => match never {},
        }
    }
}

impl Ears {
    /// Listens until there is a reason to leave.
    async fn hear(&mut self) -> CliError {
        loop {
            match self.next().await {
                Meaning::Resized => self.send(Errand::Size),
                Meaning::Ends(number) => return CliError::Signal(number),
                Meaning::Proxied(number) => {
                    self.interrupts += usize::from(matches!(number, libc::SIGINT | libc::SIGTERM));
                    if self.interrupts >= PATIENCE {
                        return CliError::Impatient;
                    }
                    self.send(Errand::Signal(number));
                }
            }
        }
    }

    async fn next(&mut self) -> Meaning {
        if self.caught.is_empty() {
            return std::future::pending().await;
        }
        let waits = self.caught.iter_mut().map(|(meaning, signal)| {
            let meaning = *meaning;
            Box::pin(async move {
                signal.recv().await;
                meaning
            })
        });
        select_all(waits).await.0
    }

    fn send(&self, errand: Errand) {
        drop(self.errands.try_send(errand));
    }
}

fn meaning(number: i32, wanted: Wanted) -> Option<Meaning> {
    if OWN.contains(&number) || UNCAUGHT.contains(&number) {
        return None;
    }
    match number {
        libc::SIGWINCH if wanted.tty => Some(Meaning::Resized),
        _ if wanted.proxy => Some(Meaning::Proxied(number)),
        libc::SIGHUP | libc::SIGINT | libc::SIGTERM if wanted.raw => Some(Meaning::Ends(number)),
        _ => None,
    }
}

/// Runs errands one after the other, so that signals arrive in their order.
async fn run(errands: &mut mpsc::Receiver<Errand>, target: &Target, client: &Client) -> Infallible {
    let path = target.path();
    // A process that has ended a moment ago takes neither signals nor sizes; the stream tells.
    while let Some(errand) = errands.recv().await {
        match errand {
            Errand::Signal(number) => {
                drop(client.act(&format!("{path}/kill?signal={}", name(number))).await);
            }
            Errand::Size => resize(&path, client).await,
        }
    }
    std::future::pending().await
}

/// A process that has hardly begun may have no terminal yet.
async fn resize(path: &str, client: &Client) {
    for attempt in 1..=10 {
        let Some((rows, columns)) = terminal::size() else { return };
        if client.act(&format!("{path}/resize?h={rows}&w={columns}")).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10 * attempt)).await;
    }
}

/// As the daemon's log and events show it.
fn name(number: i32) -> String {
    let name = match number {
        libc::SIGHUP => "HUP",
        libc::SIGINT => "INT",
        libc::SIGQUIT => "QUIT",
        libc::SIGTRAP => "TRAP",
        libc::SIGABRT => "ABRT",
        libc::SIGUSR1 => "USR1",
        libc::SIGUSR2 => "USR2",
        libc::SIGALRM => "ALRM",
        libc::SIGTERM => "TERM",
        libc::SIGCONT => "CONT",
        libc::SIGTSTP => "TSTP",
        libc::SIGWINCH => "WINCH",
        other => return other.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_signal_means_depends_on_the_stream() {
        let pipes = Wanted { tty: false, raw: false, proxy: true };
        let terminal = Wanted { tty: true, raw: true, proxy: false };
        let quiet = Wanted { tty: false, raw: false, proxy: false };
        for (number, wanted, expected) in [
            (libc::SIGINT, pipes, Some(Meaning::Proxied(libc::SIGINT))),
            (libc::SIGWINCH, pipes, Some(Meaning::Proxied(libc::SIGWINCH))),
            (libc::SIGCHLD, pipes, None),
            (libc::SIGKILL, pipes, None),
            (libc::SIGWINCH, terminal, Some(Meaning::Resized)),
            (libc::SIGTERM, terminal, Some(Meaning::Ends(libc::SIGTERM))),
            (libc::SIGUSR1, terminal, None),
            (libc::SIGTERM, quiet, None),
            (libc::SIGWINCH, quiet, None),
        ] {
            assert_eq!(meaning(number, wanted), expected, "{number} {wanted:?}");
        }
    }

    #[test]
    fn signals_without_a_name_go_by_number() {
        assert_eq!((name(libc::SIGINT), name(libc::SIGRTMIN() + 1)), ("INT".into(), "35".into()));
    }
}
