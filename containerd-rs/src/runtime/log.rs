//! A shim's own log: a fifo in its bundle, read here line by line into tracing.
//!
//! We hold the fifo open for reading and writing, so the shim never sees it without a reader, and the reader
//! never sees an end; it ends with its task.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tracing::{debug, error, info, warn};

use super::TaskKey;

/// Longer lines are cut.
const LINE: usize = 4096;
/// Read at once: there is a reader for each container, and seldom a line.
const PIECE: usize = 512;
/// What a container can make its shim say is limited.
const LINES_PER_SECOND: u32 = 100;

/// Reads until the future is dropped. `fifo` must exist.
pub(crate) async fn copy(fifo: &Path, key: &TaskKey) {
    let opened = pipe::OpenOptions::new().read_write(true).open_receiver(fifo);
    let receiver = match opened {
        Ok(receiver) => receiver,
        Err(error) => {
            warn!(namespace = key.namespace, container = key.id, %error, "open shim log");
            return;
        }
    };
    let mut reader = BufReader::with_capacity(PIECE, receiver);
    let mut line = Line::default();
    let mut second = Instant::now();
    let mut lines = 0_u32;
    loop {
        let Ok(chunk) = reader.fill_buf().await else { return };
        if chunk.is_empty() {
            return;
        }
        let (read, text) = line.take(chunk);
        reader.consume(read);
        let Some(text) = text else { continue };
        if second.elapsed() > Duration::from_secs(1) {
            second = Instant::now();
            lines = 0;
        }
        lines = lines.saturating_add(1);
        if lines <= LINES_PER_SECOND {
            tell(key, text.trim_end());
        } else if lines == LINES_PER_SECOND + 1 {
            warn!(namespace = key.namespace, container = key.id, "shim log is cut for a second");
        }
    }
}

/// What there is of a line.
#[derive(Default)]
struct Line(Vec<u8>);

impl Line {
    /// Takes the chunk up to its first newline: how many bytes, and the line if it is whole.
    fn take(&mut self, chunk: &[u8]) -> (usize, Option<String>) {
        let newline = chunk.iter().position(|byte| *byte == b'\n');
        let end = newline.unwrap_or(chunk.len());
        self.0.extend_from_slice(&chunk[..end.min(LINE.saturating_sub(self.0.len()))]);
        let Some(at) = newline else { return (end, None) };
        let text = String::from_utf8_lossy(&self.0).into_owned();
        self.0.clear();
        (at + 1, Some(text))
    }
}

/// Shims log in logrus' text form; its level becomes ours.
fn tell(key: &TaskKey, line: &str) {
    let (namespace, container) = (key.namespace.as_str(), key.id.as_str());
    let level = line.split("level=").nth(1).and_then(|rest| rest.split(' ').next());
    match level {
        Some("debug" | "trace") => debug!(namespace, container, "shim: {line}"),
        Some("warning" | "warn") => warn!(namespace, container, "shim: {line}"),
        Some("error" | "fatal" | "panic") => error!(namespace, container, "shim: {line}"),
        _ => info!(namespace, container, "shim: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_come_whole_or_cut_however_they_arrive(
            lines in proptest::collection::vec(("[a\"=é\u{0} ]{0,12}", 0_usize..1200), 1..5), cut in 1_usize..700,
        ) {
            let lines: Vec<String> = lines.into_iter().map(|(text, times)| text.repeat(times)).collect();
            let bytes = lines.join("\n") + "\n";
            let (mut line, mut found) = (Line::default(), Vec::new());
            for mut chunk in bytes.as_bytes().chunks(cut) {
                while !chunk.is_empty() {
                    let (read, text) = line.take(chunk);
                    chunk = &chunk[read..];
                    found.extend(text);
                    prop_assert!(line.0.len() <= LINE);
                }
            }
            let wanted: Vec<String> = lines
                .iter()
                .map(|line| String::from_utf8_lossy(&line.as_bytes()[..line.len().min(LINE)]).into_owned())
                .collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
