//! Live output and input of a process: the shim's attach socket, the stdin fifo.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use container_log::attach::{HEADER_LEN, Header};
use proto::containerd::services::tasks::v1::CloseIoRequest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::{Container, ContainerError};
use crate::app::App;

/// What a client wants of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

/// The output, now or when the container starts.
#[derive(Debug)]
pub(crate) enum Output {
    Now(UnixStream),
    AtStart(oneshot::Receiver<UnixStream>),
}

impl Output {
    /// Connects to a running container, or lines up for the next start.
    pub(crate) async fn of(container: &Container) -> Result<Self, ContainerError> {
        if container.phase().has_process() {
            let path = &container.paths.attach;
            match UnixStream::connect(path).await {
                Ok(stream) => return Ok(Self::Now(stream)),
                Err(error) if container.phase().has_process() => {
                    return Err(ContainerError::io(format!("attach {}", path.display()))(error));
                }
                Err(_) => {}
            }
        }
        Ok(Self::AtStart(container.wait_for_start()))
    }

    async fn stream(self) -> Option<UnixStream> {
        match self {
            Self::Now(stream) => Some(stream),
            Self::AtStart(waiting) => waiting.await.ok(),
        }
    }
}

/// Where a process takes its input.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) fifo: PathBuf,
    pub(crate) container_id: String,
    pub(crate) exec_id: String,
    /// The client's end of input is the process's.
    pub(crate) close: bool,
    /// Sequence that detaches; empty without a terminal.
    pub(crate) detach_keys: Vec<u8>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Output,
    Detached,
}

/// Copies until the output ends, the client leaves, or it types the detach keys. Output before
/// `skip` (an offset of the log) is left out.
#[expect(clippy::too_many_arguments, reason = "one stream, each side with its own")]
pub(crate) async fn session<R, W>(
    app: Arc<App>,
    output: Output,
    input: Option<Input>,
    wanted: Wanted,
    tty: bool,
    skip: u64,
    reader: R,
    mut writer: W,
) -> End
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin,
{
    let Some(stream) = output.stream().await else { return End::Output };
    let (detached, mut when_detached) = oneshot::channel::<()>();
    let feeder = input.map(|input| tokio::spawn(feed(app, input, reader, detached)));
    let end = tokio::select! {
        () = copy_output(stream, wanted, tty, skip, &mut writer) => End::Output,
        Ok(()) = &mut when_detached => End::Detached,
    };
    if let Some(feeder) = feeder {
        feeder.abort();
    }
    drop(writer.shutdown().await);
    end
}

async fn copy_output(
    stream: UnixStream,
    wanted: Wanted,
    tty: bool,
    skip: u64,
    writer: &mut (impl AsyncWrite + Unpin),
) {
    let mut stream = tokio::io::BufReader::with_capacity(64 << 10, stream);
    let mut frame = Vec::new();
    loop {
        let mut head = [0_u8; HEADER_LEN];
        if stream.read_exact(&mut head).await.is_err() {
            return;
        }
        let Some(header) = Header::from_bytes(head) else { return };
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        frame.clear();
        let (code, wanted_here) = match header.stream {
            container_log::Stream::Stdout => (docker_api::frame::Stream::Stdout, wanted.stdout),
            container_log::Stream::Stderr => (docker_api::frame::Stream::Stderr, wanted.stderr),
        };
        if !tty {
            frame.extend_from_slice(&docker_api::frame::header(code, header.length));
        }
        let start = frame.len();
        frame.resize(start + length, 0);
        if stream.read_exact(&mut frame[start..]).await.is_err() {
            return;
        }
        if !wanted_here || header.offset < skip {
            continue;
        }
        if writer.write_all(&frame).await.is_err() {
            return;
        }
        if stream.buffer().is_empty() && writer.flush().await.is_err() {
            return;
        }
    }
}

/// Copies the client's input to the fifo.
async fn feed(
    app: Arc<App>,
    input: Input,
    mut reader: impl AsyncRead + Unpin,
    detached: oneshot::Sender<()>,
) {
    let Some(mut fifo) = open_fifo(&input.fifo).await else { return };
    let mut buffer = vec![0_u8; 32 << 10];
    let mut keys = DetachKeys::new(&input.detach_keys);
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                let (bytes, detach) = keys.filter(&buffer[..count]);
                if fifo.write_all(&bytes).await.is_err() {
                    break;
                }
                if detach {
                    // Nobody listens any more when the output has ended.
                    detached.send(()).ok();
                    return;
                }
            }
        }
    }
    drop(fifo);
    if input.close {
        let request = CloseIoRequest {
            container_id: input.container_id,
            exec_id: input.exec_id,
            stdin: true,
        };
        if let Err(status) = app.containerd.tasks().close_io(request).await {
            tracing::debug!("close stdin: {}", status.message());
        }
    }
    // The channel stays open until the output ends: dropping it is not a detach.
    std::future::pending::<()>().await;
}

/// The reader is the shim; it may be a moment late.
async fn open_fifo(path: &Path) -> Option<pipe::Sender> {
    for _ in 0..500 {
        match pipe::OpenOptions::new().open_sender(path) {
            Ok(sender) => return Some(sender),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            Err(error) => {
                tracing::debug!("open {}: {error}", path.display());
                return None;
            }
        }
    }
    None
}

/// Finds the detach sequence in typed input; a started sequence is held back.
#[derive(Debug)]
struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    fn new(keys: &[u8]) -> Self {
        Self { keys: keys.to_vec(), matched: 0 }
    }

    /// What goes on to the process, and whether the sequence is complete.
    fn filter(&mut self, typed: &[u8]) -> (Bytes, bool) {
        if self.keys.is_empty() {
            return (Bytes::copy_from_slice(typed), false);
        }
        let mut out = Vec::with_capacity(typed.len());
        for &byte in typed {
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (out.into(), true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if byte == self.keys[0] {
                self.matched = 1;
            } else {
                out.push(byte);
            }
        }
        (out.into(), false)
    }
}

/// `ctrl-p,ctrl-q`, `a,b`; empty gives the default.
pub(crate) fn detach_keys(text: &str) -> Result<Vec<u8>, ContainerError> {
    if text.is_empty() {
        return Ok(vec![16, 17]);
    }
    text.split(',')
        .map(|word| {
            let code = match word.strip_prefix("ctrl-") {
                Some("@") => Some(0),
                Some("[") => Some(27),
                Some("\\") => Some(28),
                Some("]") => Some(29),
                Some("^") => Some(30),
                Some("_") => Some(31),
                Some(letter) => match letter.as_bytes() {
                    [byte] if byte.is_ascii_lowercase() => Some(byte - b'a' + 1),
                    _ => None,
                },
                None => match word.as_bytes() {
                    [byte] => Some(*byte),
                    _ => None,
                },
            };
            code.ok_or_else(|| {
                ContainerError::Invalid(format!(
                    "Invalid detach keys ({text}) provided: Unknown character: '{word}'"
                ))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_sequence_detaches_and_its_start_is_not_lost() {
        let mut keys = DetachKeys::new(&[16, 17]);
        assert_eq!(keys.filter(b"ab\x10"), (Bytes::from_static(b"ab"), false));
        assert_eq!(keys.filter(b"c\x10"), (Bytes::from_static(b"\x10c"), false));
        assert_eq!(keys.filter(b"\x11d"), (Bytes::new(), true));
    }

    #[test]
    fn keys_are_letters_or_controls() {
        assert_eq!(detach_keys("").unwrap(), [16, 17]);
        assert_eq!(detach_keys("ctrl-a,b").unwrap(), [1, b'b']);
        assert!(detach_keys("ctrl-A").is_err());
    }

    proptest! {
        #[test]
        fn what_is_typed_is_passed_on_or_held_back(
            keys in proptest::collection::vec(0_u8..3, 0..4),
            typed in proptest::collection::vec(proptest::collection::vec(0_u8..4, 0..6), 0..6),
        ) {
            let mut filter = DetachKeys::new(&keys);
            let (mut passed, mut whole) = (Vec::new(), Vec::new());
            for piece in typed {
                whole.extend_from_slice(&piece);
                let (bytes, detach) = filter.filter(&piece);
                passed.extend_from_slice(&bytes);
                if detach {
                    passed.extend_from_slice(&keys);
                    prop_assert!(whole.starts_with(&passed));
                    return Ok(());
                }
            }
            passed.extend_from_slice(&keys[..filter.matched]);
            prop_assert_eq!(passed, whole);
        }

        #[test]
        fn broken_detach_keys_are_refused(text in "(ctrl-)?[a-zA-Z@^_\\[,é-]{0,8}") {
            if let Ok(keys) = detach_keys(&text) {
                prop_assert_eq!(keys.len(), if text.is_empty() { 2 } else { text.split(',').count() });
            }
        }
    }
}
