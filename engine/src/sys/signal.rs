//! Signal names and numbers.

use nix::sys::signal::Signal;

/// `9`, `KILL`, `SIGKILL`, `RTMIN+3`; any case.
pub(crate) fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| rest.strip_prefix(sign)?.parse::<i32>().ok();
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return match rest {
            "" => Some(34),
            rest => offset(rest, '+').map(|more| 34 + more),
        }
        .filter(|number| *number <= 64);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return match rest {
            "" => Some(64),
            rest => offset(rest, '-').map(|less| 64 - less),
        }
        .filter(|number| *number >= 34);
    }
    match name {
        "CLD" => Some(Signal::SIGCHLD as i32),
        "POLL" => Some(Signal::SIGIO as i32),
        name => format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_understood() {
        let rows = [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+3", 37), ("RTMAX", 64)];
        for (text, number) in rows {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        assert_eq!((parse("0"), parse("NOPE"), parse("65")), (None, None, None));
    }
}
