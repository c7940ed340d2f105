//! The runtime's own log: to `--log` or standard error, in runc's two formats.
//!
//! Callers read the file as their error channel: the last object with level `error` is what they
//! report (`level`, `msg`, `time` in RFC 3339).

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use jiff::{Timestamp, Unit};
use rustix::fs::{Mode, OFlags};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<File>,
    format: Format,
    debug: bool,
}

impl Log {
    pub(crate) fn new(path: Option<&Path>, format: Format, debug: bool) -> io::Result<Self> {
        let file = match path {
            Some(path) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
                Some(File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?))
            }
            None => None,
        };
        Ok(Self { file, format, debug })
    }

    /// The error that ends the command. Compat: with a log file it goes to stderr too, bare.
    pub(crate) fn fatal(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() {
            drop(writeln!(io::stderr(), "{message}"));
        }
    }

    pub(crate) fn warn(&self, message: &str) {
        self.write("warning", message);
    }

    pub(crate) fn tells_debug(&self) -> bool {
        self.debug
    }

    pub(crate) fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
        }
    }

    fn write(&self, level: &str, message: &str) {
        let now = Timestamp::now().round(Unit::Second).unwrap_or_default();
        let line = render(self.format, level, message, &now.to_string());
        // A log that cannot be written has nowhere to be complained about.
        drop(match self.file.as_ref() {
            Some(mut file) => file.write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        });
    }
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
}
