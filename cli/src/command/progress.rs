//! The progress the daemon reports while it pulls, loads and imports.

use std::io::Write;

use docker_api::progress::Message;
use http_body_util::BodyExt;

use super::Context;
use crate::client::Lines;
use crate::error::CliError;
use crate::format::units;
use crate::terminal;

/// Prints progress messages: in place on a terminal, without the bars elsewhere.
pub(super) async fn show(
    mut body: hyper::body::Incoming,
    quiet: bool,
    to_stderr: bool,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let in_place = if to_stderr { context.ui.err_terminal } else { context.ui.terminal };
    let width = terminal::size().map_or(200, |(_, columns)| columns);
    let mut display = Display { in_place, width, lines: Vec::new() };
    let mut lines = Lines::default();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(CliError::Http)?.into_data() else { continue };
        lines.push(&piece)?;
        while let Some(line) = lines.next_line() {
            tell(&line, &mut display, quiet, to_stderr, context)?;
        }
    }
    tell(&lines.rest(), &mut display, quiet, to_stderr, context)
}

fn tell(
    line: &[u8],
    display: &mut Display,
    quiet: bool,
    to_stderr: bool,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    if line.trim_ascii().is_empty() {
        return Ok(());
    }
    let message: Message = docker_api::from_json(line).map_err(CliError::Answer)?;
    if let Some(error) = message.error {
        return Err(CliError::Usage(error));
    }
    let out = if to_stderr { &mut context.ui.err } else { &mut context.ui.out };
    if quiet { Ok(()) } else { display.show(&message, out) }
}

struct Display {
    in_place: bool,
    width: u16,
    /// What has a line of its own below the last plain line, the topmost first.
    lines: Vec<String>,
}

impl Display {
    fn show(&mut self, message: &Message, out: &mut dyn Write) -> Result<(), CliError> {
        if let Some(stream) = &message.stream {
            write!(out, "{stream}")?;
            return Ok(());
        }
        let Some(status) = &message.status else { return Ok(()) };
        let id = message.id.as_deref().filter(|id| !id.is_empty());
        let head = id.map(|id| format!("{id}: ")).unwrap_or_default();
        let Some(detail) = &message.progress_detail else {
            self.lines.clear();
            writeln!(out, "{head}{status}")?;
            return Ok(());
        };
        let bar = self.bar(detail.current, detail.total);
        if !self.in_place {
            if bar.is_empty() {
                writeln!(out, "{head}{status}")?;
            }
            return Ok(());
        }
        let up = match id.map(|id| (id, self.lines.iter().position(|line| line == id))) {
            None => 0,
            Some((_, Some(line))) => self.lines.len() - line,
            Some((id, None)) => {
                self.lines.push(id.to_owned());
                writeln!(out)?;
                1
            }
        };
        if up > 0 {
            write!(out, "\x1b[{up}A")?;
        }
        write!(out, "\x1b[2K\r{head}{status} {bar}\r")?;
        if up > 0 {
            write!(out, "\x1b[{up}B")?;
        }
        out.flush()?;
        Ok(())
    }

    /// Compat: numbers of four digits, and before them a bar where the line is long enough.
    fn bar(&self, current: i64, total: i64) -> String {
        if current <= 0 && total <= 0 {
            return String::new();
        }
        let done = units::size_of(current, 4);
        if total <= 0 {
            return format!("{done:>8}");
        }
        let mut text = String::new();
        if self.width > 110 {
            let filled = i128::from(current.min(total)) * 50 / i128::from(total);
            let filled = usize::try_from(filled).unwrap_or(0);
            text = format!("[{}>{}] ", "=".repeat(filled), " ".repeat(50 - filled.min(50)));
        }
        text.push_str(&format!("{done:>8}"));
        if current <= total {
            text.push_str(&format!("/{}", units::size_of(total, 4)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(in_place: bool, width: u16) -> String {
        let messages = [
            r#"{"status":"Pulling from lib/bb","id":"1"}"#,
            r#"{"status":"Pulling fs layer","progressDetail":{},"id":"abc"}"#,
            r#"{"status":"Downloading","progressDetail":{"current":36450,"total":3001000},"id":"abc"}"#,
            r#"{"status":"Pull complete","progressDetail":{},"id":"abc"}"#,
            r#"{"status":"Done"}"#,
        ];
        let mut out = Vec::new();
        let mut display = Display { in_place, width, lines: Vec::new() };
        for message in messages {
            display.show(&docker_api::from_json(message.as_bytes()).unwrap(), &mut out).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    // Compat: byte for byte as docker 28.5 writes it.
    #[test]
    fn layers_change_in_place_on_a_terminal_only() {
        assert_eq!(
            run(false, 200),
            "1: Pulling from lib/bb\nabc: Pulling fs layer\nabc: Pull complete\nDone\n"
        );
        assert_eq!(
            run(true, 140),
            "1: Pulling from lib/bb\n\n\x1b[1A\x1b[2K\rabc: Pulling fs layer \r\x1b[1B\
             \x1b[1A\x1b[2K\rabc: Downloading [>                                                  ]  36.45kB/3.001MB\r\x1b[1B\
             \x1b[1A\x1b[2K\rabc: Pull complete \r\x1b[1BDone\n"
        );
        assert!(run(true, 100).contains("\rabc: Downloading  36.45kB/3.001MB\r"));
    }

    proptest! {
        #[test]
        fn any_progress_is_a_line(current: i64, total: i64, width: u16, in_place: bool) {
            let mut display = Display { in_place, width, lines: Vec::new() };
            prop_assert!(display.bar(current, total).len() < 120);
            let message = Message::layer("id", "text", current, total);
            let mut out = Vec::new();
            display.show(&message, &mut out).unwrap();
            prop_assert!(out.len() < 200);
        }
    }
}
