//! The runtime's own log: to `--log` or standard error, in runc's two formats; or to the journal or
//! the system's log, line by line.
//!
//! Callers read the file as their error channel: the last object with level `error` is what they
//! report (`level`, `msg`, `time` in RFC 3339).

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;

use jiff::{Timestamp, Unit};
use rustix::fs::{Mode, OFlags};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

/// The numbers are syslog's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Error = 3,
    #[default]
    Warning = 4,
    Debug = 7,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Debug => "debug",
        }
    }
}

#[derive(Debug, Default)]
enum Target {
    #[default]
    Stderr,
    File(File),
    /// Datagrams of fields, under this identifier: systemd's native protocol.
    Journal(UnixDatagram, String),
    /// RFC 3164, as syslog(3) writes it.
    Syslog(UnixDatagram, String),
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    target: Target,
    format: Format,
    most: Level,
}

impl Log {
    /// `target` is a path (`file:` may stand before it), `journald:NAME`, `syslog:NAME`, or "".
    pub(crate) fn new(
        target: &str,
        format: Format,
        most: Level,
    ) -> Result<Self, (String, io::Error)> {
        let socket = |path: &str| -> Result<UnixDatagram, (String, io::Error)> {
            let connected =
                UnixDatagram::unbound().and_then(|socket| socket.connect(path).map(|()| socket));
            connected.map_err(|error| (path.to_owned(), error))
        };
        let target = if target.is_empty() {
            Target::Stderr
        } else if let Some(name) = target.strip_prefix("journald:") {
            Target::Journal(socket("/run/systemd/journal/socket")?, name.to_owned())
        } else if let Some(name) = target.strip_prefix("syslog:") {
            Target::Syslog(socket("/dev/log")?, name.to_owned())
        } else {
            let path = target.strip_prefix("file:").unwrap_or(target);
            // Commands change their directory.
            let path = std::path::absolute(path).map_err(|error| (path.to_owned(), error))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
            let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644))
                .map_err(|error| (path.display().to_string(), error.into()))?;
            Target::File(File::from(file))
        };
        Ok(Self { target, format, most })
    }

    /// The error that ends the command. Compat: with a log elsewhere it goes to stderr too, bare.
    pub(crate) fn fatal(&self, message: &str) {
        self.write(Level::Error, message);
        if !matches!(self.target, Target::Stderr) {
            drop(writeln!(io::stderr(), "{message}"));
        }
    }

    /// One that the command outlives.
    pub(crate) fn error(&self, message: &str) {
        self.write(Level::Error, message);
    }

    pub(crate) fn warn(&self, message: &str) {
        self.write(Level::Warning, message);
    }

    pub(crate) fn tells_debug(&self) -> bool {
        self.most == Level::Debug
    }

    pub(crate) fn debug(&self, message: &str) {
        self.write(Level::Debug, message);
    }

    fn write(&self, level: Level, message: &str) {
        if level > self.most {
            return;
        }
        let line = || {
            let now = Timestamp::now().round(Unit::Second).unwrap_or_default();
            render(self.format, level.name(), message, &now.to_string())
        };
        // A log that cannot be written has nowhere to be complained about.
        drop(match &self.target {
            Target::Stderr => io::stderr().write_all(line().as_bytes()),
            Target::File(file) => {
                let mut file = file;
                file.write_all(line().as_bytes())
            }
            Target::Journal(socket, name) => {
                socket.send(&journal_entry(level, name, message)).map(drop)
            }
            Target::Syslog(socket, name) => {
                // Of the facility "user".
                let priority = (1 << 3) | level as u8;
                let text = format!("<{priority}>{name}[{}]: {message}", std::process::id());
                socket.send(text.as_bytes()).map(drop)
            }
        });
    }
}

/// A value of several lines carries its length.
fn journal_entry(level: Level, name: &str, message: &str) -> Vec<u8> {
    let mut entry = format!("PRIORITY={}\nSYSLOG_IDENTIFIER={name}\n", level as u8).into_bytes();
    if message.contains('\n') {
        entry.extend(b"MESSAGE\n");
        entry.extend((message.len() as u64).to_le_bytes());
        entry.extend(message.as_bytes());
    } else {
        entry.extend(b"MESSAGE=");
        entry.extend(message.as_bytes());
    }
    entry.push(b'\n');
    entry
}

fn render(format: Format, level: &str, message: &str, time: &str) -> String {
    let quoted = serde_json::Value::from(message).to_string();
    match format {
        Format::Json => {
            format!("{{\"level\":\"{level}\",\"msg\":{quoted},\"time\":\"{time}\"}}\n")
        }
        Format::Text => {
            let plain = !message.is_empty()
                && message.chars().all(|c| c.is_ascii_alphanumeric() || "-._/@^+".contains(c));
            let message = if plain { message } else { quoted.as_str() };
            format!("time=\"{time}\" level={level} msg={message}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::text;
    use proptest::prelude::*;

    #[test]
    fn both_formats_are_logrus() {
        let time = "2026-01-02T03:04:05Z";
        assert_eq!(
            render(Format::Text, "error", "say \"x\"", time),
            "time=\"2026-01-02T03:04:05Z\" level=error msg=\"say \\\"x\\\"\"\n"
        );
        assert_eq!(
            render(Format::Json, "error", "say \"x\"", time),
            "{\"level\":\"error\",\"msg\":\"say \\\"x\\\"\",\"time\":\"2026-01-02T03:04:05Z\"}\n"
        );
        assert!(render(Format::Text, "warning", "plain", time).ends_with("msg=plain\n"));
    }

    #[test]
    fn a_journal_entry_of_several_lines_tells_its_length() {
        let one = journal_entry(Level::Error, "web", "no");
        assert_eq!(one, b"PRIORITY=3\nSYSLOG_IDENTIFIER=web\nMESSAGE=no\n");
        let two = journal_entry(Level::Warning, "web", "a\nb");
        let wanted = b"PRIORITY=4\nSYSLOG_IDENTIFIER=web\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n";
        assert_eq!(two, wanted);
    }

    proptest! {
        #[test]
        fn any_message_is_one_line_that_says_it(
            message in text(&["a", " ", "\n", "\"", "\\", "\0", "é", "\u{1b}[0m", "level=fatal", "="], 8),
        ) {
            let time = "2026-01-02T03:04:05Z";
            let line = render(Format::Json, "error", &message, time);
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1), "{:?}", line);
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(&value["msg"], message.as_str());
            let line = render(Format::Text, "error", &message, time);
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1), "{:?}", line);
            let told = line.trim_end().split_once(" msg=").unwrap().1;
            prop_assert!(told.starts_with('"') || !told.contains(' '), "{:?}", line);
            let plain = serde_json::from_str(told).unwrap_or_else(|_| told.to_owned());
            prop_assert_eq!(&plain, &message, "{:?}", line);
            let entry = journal_entry(Level::Error, "web", &message);
            let head = b"PRIORITY=3\nSYSLOG_IDENTIFIER=web\nMESSAGE".len();
            let length = message.len() as u64;
            let told = match message.contains('\n') {
                true => [b"\n", length.to_le_bytes().as_slice(), message.as_bytes(), b"\n"].concat(),
                false => format!("={message}\n").into_bytes(),
            };
            prop_assert_eq!(&entry[head..], told);
        }
    }
}
