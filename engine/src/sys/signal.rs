//! Signal names and numbers.

use nix::sys::signal::Signal;

/// `9`, `KILL`, `SIGKILL`, `RTMIN+3`; any case.
pub(crate) fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| {
        let digits = rest.strip_prefix(sign)?;
        digits.parse::<u8>().ok().filter(|_| !digits.starts_with('+')).map(i32::from)
    };
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
    use proptest::prelude::*;

    #[test]
    fn names_and_numbers_are_understood() {
        let rows = [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+3", 37), ("RTMAX", 64)];
        for (text, number) in rows {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        assert_eq!((parse("0"), parse("NOPE"), parse("65")), (None, None, None));
    }

    proptest! {
        #[test]
        fn whatever_is_typed_it_is_a_signal_or_nothing(
            text in "(SIG|sig)?(RTMIN|RTMAX|rtmin|[A-Z]{1,5}|[-+]?[0-9]{1,5})([-+]{0,2}[0-9]{1,11})?",
        ) {
            prop_assert!(parse(&text).is_none_or(|number| (1..=64).contains(&number)), "{text}");
        }

        #[test]
        fn a_signal_has_a_number_and_a_name(number in 1_i32..=64) {
            prop_assert_eq!(parse(&number.to_string()), Some(number));
            match Signal::try_from(number) {
                Ok(signal) => prop_assert_eq!(parse(&signal.to_string().to_lowercase()), Some(number)),
                Err(_) if number >= 34 => {
                    prop_assert_eq!(parse(&format!("RTMIN+{}", number - 34)), Some(number));
                    prop_assert_eq!(parse(&format!("RTMAX-{}", 64 - number)), Some(number));
                }
                Err(_) => {}
            }
        }
    }
}
