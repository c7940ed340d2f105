//! `binary://`: a logging program that reads the container's output itself.
//!
//! It gets stdout as 3, stderr as 4, and 5 to close (or, by `binary-v2`, to write a byte on) when it is ready.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::error::{TaskError, call_error, path_error};
use crate::sys;

/// Starts the program of `uri` and answers the write ends for the container.
pub(crate) fn spawn(uri: &str, namespace: &str, id: &str) -> Result<[OwnedFd; 2], TaskError> {
    let invalid = || TaskError::Invalid(format!("log uri {uri:?}"));
    let (scheme, rest) = uri.split_once("://").ok_or_else(invalid)?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') {
        return Err(invalid());
    }
    let pipe =
        || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(call_error("pipe2"));
    let ((out_read, out_write), (err_read, err_write), (wait_read, wait_write)) =
        (pipe()?, pipe()?, pipe()?);
    let mut command = Command::new(path);
    command
        .args(arguments(query))
        .env("CONTAINER_ID", id)
        .env("CONTAINER_NAMESPACE", namespace)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    sys::pass_three(&mut command, [out_read, err_read, wait_write]);
    sys::unblock_signals(&mut command);
    command.spawn().map_err(path_error("exec", path))?;
    // Our copy of the program's ends lives in the command.
    drop(command);
    wait_ready(&wait_read, scheme == "binary-v2").map_err(path_error("start logger", path))?;
    Ok([out_write, err_write])
}

fn wait_ready(wait: &OwnedFd, needs_byte: bool) -> io::Result<()> {
    let mut fds = [PollFd::new(wait, PollFlags::IN)];
    let limit = Timespec::try_from(READY_WITHIN).map_err(|_| io::ErrorKind::InvalidInput)?;
    if rustix::event::poll(&mut fds, Some(&limit))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let count = rustix::io::read(wait, &mut [0; 1])?;
    if needs_byte && count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// Each key and each value that there is.
fn arguments(query: &str) -> Vec<String> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let words = pairs
        .filter(|pair| *pair != ("", ""))
        .flat_map(|(key, value)| [Some(key), Some(value).filter(|value| !value.is_empty())]);
    words.flatten().map(unescape).collect()
}

fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let hex = (*byte == b'%').then(|| tail.get(..2)).flatten();
        let value = hex
            .filter(|hex| hex.iter().all(u8::is_ascii_hexdigit))
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match value {
            Some(value) => {
                out.push(value);
                rest = &tail[2..];
            }
            None => out.push(if *byte == b'+' { b' ' } else { *byte }),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

const READY_WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(arguments("a=%41+b&%+1=%zz&c&&=v"), ["a", "A b", "% 1", "%zz", "c", "", "v"]);
    }

    proptest! {
        #[test]
        fn arguments_survive_their_uri(
            pairs in proptest::collection::vec(("\\PC{1,6}", "\\PC{0,6}", any::<bool>()), 0..4),
        ) {
            let escaped = |text: &str, all: bool| {
                text.bytes().fold(String::new(), |text, byte| match byte {
                    b' ' if !all => text + "+",
                    _ if all || !byte.is_ascii_alphanumeric() => text + &format!("%{byte:02x}"),
                    _ => text + &char::from(byte).to_string(),
                })
            };
            let query: Vec<String> = pairs
                .iter()
                .map(|(key, value, all)| match value.is_empty() {
                    true => escaped(key, *all),
                    false => format!("{}={}", escaped(key, *all), escaped(value, *all)),
                })
                .collect();
            let wanted: Vec<&str> = pairs
                .iter()
                .flat_map(|(key, value, _)| [key.as_str(), value.as_str()])
                .filter(|word| !word.is_empty())
                .collect();
            prop_assert_eq!(arguments(&query.join("&")), wanted);
        }

        #[test]
        fn a_broken_uri_starts_nothing(text in "(binary(-v2)?)?(:/?/?)?([^/\u{0}]\\PC{0,8})?") {
            let error = spawn(&text, "ns", "id").unwrap_err();
            prop_assert!(error.to_string().contains("log uri"), "{}", error);
        }

        #[test]
        fn no_argument_is_longer_than_its_text(query in "[a%+=&4g1é]{0,20}") {
            let length: usize = arguments(&query).iter().map(|word| word.chars().count()).sum();
            prop_assert!(length <= query.chars().count());
        }
    }
}
