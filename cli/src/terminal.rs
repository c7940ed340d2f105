//! The user's terminal: raw mode, its size, and the keys that leave a container running.

use std::io::{self, IsTerminal};

use rustix::termios::{self, OptionalActions, Termios};

use crate::error::CliError;

/// Raw mode; the old mode comes back when this is dropped.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Switches standard input, if it is a terminal.
    pub(crate) fn enter() -> Result<Option<Self>, CliError> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let read = |source: rustix::io::Errno| CliError::io("terminal mode", source.into());
        let before = termios::tcgetattr(io::stdin()).map_err(read)?;
        let mut raw = before.clone();
        raw.make_raw();
        // Output keeps its newline handling as the stock client has it: off.
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(read)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing is left to do for a terminal that has gone.
        let restored = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
        debug_assert!(restored.is_ok() || !io::stdin().is_terminal());
    }
}

/// Rows and columns of the terminal on standard output.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Finds the detach sequence in what the user types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    sequence: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q` and the like.
    pub(crate) fn parse(text: &str) -> Result<Self, CliError> {
        let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
        let mut sequence = Vec::new();
        for key in text.split(',') {
            let code = match key.strip_prefix("ctrl-") {
                Some(letter) => match letter.as_bytes() {
                    [letter @ b'a'..=b'z'] => letter - b'a' + 1,
                    [b'@'] => 0,
                    [b'['] => 27,
                    [b'\\'] => 28,
                    [b']'] => 29,
                    [b'^'] => 30,
                    [b'_'] => 31,
                    _ => return Err(Self::unknown(key)),
                },
                None => match key.as_bytes() {
                    [byte] => *byte,
                    _ => return Err(Self::unknown(key)),
                },
            };
            sequence.push(code);
        }
        Ok(Self { sequence, matched: 0 })
    }

    fn unknown(key: &str) -> CliError {
        CliError::Usage(format!("Unknown character: '{key}'"))
    }

    /// What to pass on of `typed`, and whether the sequence is complete. The beginning of a
    /// sequence is held back until it turns out to be something else.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len());
        for &byte in typed {
            if self.sequence.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    self.matched = 0;
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(self.sequence.get(..self.matched).unwrap_or_default());
            self.matched = 0;
            if self.sequence.first() == Some(&byte) {
                self.matched = 1;
            } else {
                out.push(byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_sequence_detaches_also_when_it_comes_in_pieces() {
        let mut keys = DetachKeys::parse("").unwrap();
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"\x11cd"), (Vec::new(), true));
    }

    #[test]
    fn half_a_sequence_is_passed_on() {
        let mut keys = DetachKeys::parse("ctrl-p,ctrl-q").unwrap();
        assert_eq!(keys.filter(b"\x10x"), (b"\x10x".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10\x11"), (b"\x10".to_vec(), true));
    }

    #[test]
    fn other_keys_can_be_chosen() {
        assert_eq!(DetachKeys::parse("a,ctrl-]").unwrap().sequence, vec![b'a', 29]);
        assert!(DetachKeys::parse("ctrl-ä").is_err());
    }

    proptest! {
        #[test]
        fn what_is_typed_is_passed_on_or_held_back(
            sequence in proptest::collection::vec(0_u8..3, 1..4),
            typed in proptest::collection::vec(proptest::collection::vec(0_u8..4, 0..6), 0..6),
        ) {
            let mut keys = DetachKeys { sequence: sequence.clone(), matched: 0 };
            let (mut passed, mut whole) = (Vec::new(), Vec::new());
            for piece in typed {
                whole.extend_from_slice(&piece);
                let (bytes, detached) = keys.filter(&piece);
                passed.extend_from_slice(&bytes);
                if detached {
                    passed.extend_from_slice(&sequence);
                    prop_assert!(whole.starts_with(&passed));
                    return Ok(());
                }
            }
            passed.extend_from_slice(&sequence[..keys.matched]);
            prop_assert_eq!(passed, whole);
        }

        #[test]
        fn broken_keys_are_refused(text in "(ctrl-)?[a-zA-Z@^_\\[,é-]{0,8}") {
            if let Ok(keys) = DetachKeys::parse(&text) {
                prop_assert_eq!(keys.sequence.len(), if text.is_empty() { 2 } else { text.split(',').count() });
            }
        }
    }
}
