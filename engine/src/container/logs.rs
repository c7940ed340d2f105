//! Reading a container's log back: from the file only, whoever wrote it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use container_log::{Entry, Reader, Stream, Timestamp};
use tokio::sync::mpsc;

use super::record::Record;
use super::{Container, ContainerError};

/// What `logs` was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) follow: bool,
    pub(crate) timestamps: bool,
    pub(crate) details: bool,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) tail: Option<usize>,
    /// Unframed.
    pub(crate) tty: bool,
}

/// Starts reading; the chunks come through the channel, which ends with the log.
pub(crate) async fn read(
    container: &Arc<Container>,
    options: Options,
) -> Result<mpsc::Receiver<Bytes>, ContainerError> {
    let (kind, path) = {
        let record = container.record();
        (record.host_config.log_config.kind.clone(), container.paths.log(&record.id))
    };
    if kind == "none" {
        // Compat: dockerd's words.
        return Err(ContainerError::NotImplemented(
            "configured logging driver does not support reading".to_owned(),
        ));
    }
    let (sender, receiver) = mpsc::channel(4);
    let container = Arc::clone(container);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = pump(&container, &path, &options, &sender) {
            tracing::warn!(container = container.id, "logs: {error}");
        }
    });
    Ok(receiver)
}

/// The log as it stands, for `attach` with `logs`; answers the offset where live output joins.
pub(crate) fn replay(
    container: &Container,
    options: &Options,
) -> Result<(Vec<u8>, u64), ContainerError> {
    let path = container.paths.log(&container.id);
    if !path.exists() {
        return Ok((Vec::new(), 0));
    }
    let mut reader = open(&path, options)?;
    let mut buffer = BytesMut::new();
    let mut line = LineState::default();
    while let Some(entry) = reader.next_entry().map_err(read_error)? {
        render(&entry, options, &mut line, &mut buffer);
    }
    Ok((buffer.to_vec(), reader.position()))
}

fn read_error(error: container_log::ReadError) -> ContainerError {
    ContainerError::Io { step: "read log".to_owned(), source: std::io::Error::other(error) }
}

fn open(path: &std::path::Path, options: &Options) -> Result<Reader, ContainerError> {
    let mut reader = Reader::open(path).map_err(read_error)?;
    if let Some(since) = options.since {
        reader = reader.since(since);
    }
    if let Some(until) = options.until {
        reader = reader.until(until);
    }
    if !options.follow {
        reader = reader.until_now().map_err(read_error)?;
    }
    if let Some(count) = options.tail {
        reader.tail(count).map_err(read_error)?;
    }
    Ok(reader)
}

fn pump(
    container: &Container,
    path: &std::path::Path,
    options: &Options,
    sender: &mpsc::Sender<Bytes>,
) -> Result<(), ContainerError> {
    let ended = |container: &Container| {
        let now = container.state.borrow();
        now.removed || (!now.phase.is_running() && now.clean)
    };
    // Following a container that was never started waits for its log.
    while !path.exists() {
        if !options.follow || sender.is_closed() || container.state.borrow().removed {
            return Ok(());
        }
        if container.state.borrow().exits > 0 && ended(container) {
            return Ok(());
        }
        std::thread::sleep(IDLE);
    }
    let mut reader = open(path, options)?;
    let mut buffer = BytesMut::with_capacity(CHUNK);
    let mut line = LineState::default();
    let mut pause = Duration::from_millis(5);
    loop {
        // Looked at before the log: what was written until the end is then read below.
        let over = ended(container);
        while let Some(entry) = reader.next_entry().map_err(read_error)? {
            pause = Duration::from_millis(5);
            render(&entry, options, &mut line, &mut buffer);
            if buffer.len() >= CHUNK && sender.blocking_send(buffer.split().freeze()).is_err() {
                return Ok(());
            }
        }
        if !buffer.is_empty() && sender.blocking_send(buffer.split().freeze()).is_err() {
            return Ok(());
        }
        if !options.follow || over || reader.is_past_until() || sender.is_closed() {
            return Ok(());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(IDLE);
    }
}

/// Whether the last record of a stream ended its line.
#[derive(Debug, Default)]
struct LineState {
    inside: [bool; 2],
}

fn render(entry: &Entry, options: &Options, line: &mut LineState, out: &mut BytesMut) {
    let (stream, index, wanted) = match entry.stream {
        Stream::Stdout => (docker_api::frame::Stream::Stdout, 0, options.stdout),
        Stream::Stderr => (docker_api::frame::Stream::Stderr, 1, options.stderr),
    };
    if !wanted {
        return;
    }
    let mut prefix = String::new();
    if !line.inside[index] {
        if options.details {
            let words: Vec<String> = entry
                .attrs
                .iter()
                .map(|(key, value)| format!("{}={}", escape(key), escape(value)))
                .collect();
            prefix = format!("{} ", words.join(","));
        }
        if options.timestamps {
            let nanos = i32::try_from(entry.time.nanos()).unwrap_or_default();
            let time = docker_api::time::rfc3339_nano_fixed(entry.time.seconds(), nanos);
            prefix = format!("{time} {prefix}");
        }
    }
    line.inside[index] = entry.log.last() != Some(&b'\n');
    let length = prefix.len() + entry.log.len();
    if !options.tty {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        out.extend_from_slice(&docker_api::frame::header(stream, length));
    }
    out.extend_from_slice(prefix.as_bytes());
    out.extend_from_slice(&entry.log);
}

/// As Go's `url.QueryEscape`.
fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b' ' => out.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

/// What `--log-opt labels=… env=… tag=…` adds to every record.
pub(super) fn attributes(record: &Record) -> BTreeMap<String, String> {
    let options = &record.host_config.log_config.config;
    let option = |key: &str| options.get(key).map(String::as_str).filter(|text| !text.is_empty());
    let mut attributes = BTreeMap::new();
    let labels = record.config.labels.clone().unwrap_or_default();
    let env = record.config.env.iter().flatten().filter_map(|pair| pair.split_once('='));
    let env: BTreeMap<String, String> =
        env.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    for (all, names, pattern) in [(labels, "labels", "labels-regex"), (env, "env", "env-regex")] {
        let names: Vec<&str> = option(names).into_iter().flat_map(|list| list.split(',')).collect();
        let pattern = option(pattern).and_then(|pattern| regex::Regex::new(pattern).ok());
        attributes.extend(all.into_iter().filter(|(key, _)| {
            names.contains(&key.as_str())
                || pattern.as_ref().is_some_and(|pattern| pattern.is_match(key))
        }));
    }
    if let Some(template) = option("tag") {
        attributes.insert("tag".to_owned(), tag(record, template));
    }
    attributes
}

/// The log option `tag`; what is not one of dockerd's fields stays as it is.
pub(super) fn tag(record: &Record, template: &str) -> String {
    let image = record.image_id.trim_start_matches("sha256:");
    let short = |id: &str| id.get(..12).unwrap_or(id).to_owned();
    [
        ("{{.ID}}", short(&record.id)),
        ("{{.FullID}}", record.id.clone()),
        ("{{.Name}}", record.name.clone()),
        ("{{.ImageID}}", short(image)),
        ("{{.ImageFullID}}", record.image_id.clone()),
        ("{{.ImageName}}", record.config.image.clone()),
        ("{{.DaemonName}}", "docker".to_owned()),
    ]
    .iter()
    .fold(template.to_owned(), |text, (field, value)| text.replace(field, value))
}

const CHUNK: usize = 64 << 10;
const IDLE: Duration = Duration::from_millis(100);
