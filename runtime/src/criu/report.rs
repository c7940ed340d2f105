//! What criu wrote into its own log, where it failed.

use std::path::Path;

use crate::log::Log;
use crate::sys::file;
use crate::sys::{errno_of, errno_text};

/// Lines before one that tells of an error.
const BEFORE: usize = 5;

/// Quotes the lines that tell of errors, and those just before. Compat: the same that runc shows.
pub(crate) fn quote_errors(log: &Log, path: &Path) {
    let bytes = match file::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            log.warn(&format!("open {}: {}", path.display(), errno_text(errno_of(&error))));
            return;
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let quoted = quoted(&text);
    if quoted.is_empty() {
        return;
    }
    log.warn(&format!("--- Quoting {path:?}"));
    quoted.iter().for_each(|line| log.warn(line));
    log.warn("---");
}

fn quoted(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut quoted = Vec::new();
    let mut next = 0;
    for (number, _) in lines.iter().enumerate().filter(|(_, line)| line.contains("Error")) {
        let first = next.max(number.saturating_sub(BEFORE));
        if !quoted.is_empty() && first > next {
            quoted.push("...".to_owned());
        }
        for at in (first..=number).filter(|at| !lines[*at].is_empty()) {
            quoted.push(format!("{}:{}", at + 1, lines[at]));
        }
        next = number + 1;
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_quoted_with_what_was_before_them_once() {
        let mut lines: Vec<String> = (1..=20).map(|number| format!("line {number}")).collect();
        lines[7] = "Error (8)".into();
        lines[9] = "Error (10)".into();
        lines[19] = "Error (20)".into();
        let quoted = quoted(&lines.join("\n"));
        let first: Vec<&str> = quoted[..8].iter().map(String::as_str).collect();
        assert_eq!(first[..2], ["3:line 3", "4:line 4"]);
        assert_eq!(first[5..], ["8:Error (8)", "9:line 9", "10:Error (10)"]);
        assert_eq!(quoted[8..10], ["...", "15:line 15"]);
        assert_eq!(quoted.last().unwrap(), "20:Error (20)");
        assert!(super::quoted("all is well\n").is_empty());
    }
}
