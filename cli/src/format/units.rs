//! Sizes and spans of time in Docker's words.

/// Bytes with three significant digits and decimal units.
pub(crate) fn size(bytes: i64) -> String {
    size_of(bytes, 3)
}

/// The same, with as many digits as wanted.
pub(crate) fn size_of(bytes: i64, digits: usize) -> String {
    const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
    #[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
    let mut value = bytes.max(0) as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let whole = if value >= 100.0 {
        3
    } else if value >= 10.0 {
        2
    } else {
        1
    };
    let mut number = format!("{value:.*}", digits.saturating_sub(whole));
    if number.contains('.') {
        number = trim(&number);
    }
    format!("{number}{}", UNITS.get(unit).unwrap_or(&"B"))
}

fn trim(digits: &str) -> String {
    digits.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A span of seconds.
pub(crate) fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds.saturating_add(1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago a unix time was.
pub(crate) fn ago(unix: i64) -> String {
    if unix == NEVER {
        return "N/A".to_owned();
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX));
    format!("{} ago", duration(now.saturating_sub(unix)))
}

/// Go's time of nothing, the first second of the year 1.
const NEVER: i64 = -62_135_596_800;

/// A number of bytes with an optional binary unit: `512m`, `1g`, `64kb`.
pub(crate) fn parse_bytes(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = lower.get(digits.len()..)?.trim_end_matches("ib").trim_end_matches('b');
    let factor: f64 = match unit {
        "" => 1.0,
        "k" => 1024.0,
        "m" => 1_048_576.0,
        "g" => 1_073_741_824.0,
        "t" => 1_099_511_627_776.0,
        "p" => 1_125_899_906_842_624.0,
        _ => return None,
    };
    let value: f64 = digits.trim().parse().ok()?;
    let bytes = value * factor;
    if !(0.0..9.0e18).contains(&bytes) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
    Some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_239_820, "1.24MB"),
            (77_800_000, "77.8MB"),
            (123_456_789, "123MB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn durations_are_in_dockers_words() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86400 * 3, "3 days"),
            (86400 * 15, "2 weeks"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn amounts_of_memory_are_binary() {
        assert_eq!(parse_bytes("64m"), Some(64 << 20));
        assert_eq!(parse_bytes("1.5g"), Some(3 << 29));
        assert_eq!(parse_bytes("10KB"), Some(10 << 10));
        assert_eq!(parse_bytes("12"), Some(12));
        assert_eq!(parse_bytes("-1"), None);
        assert_eq!(parse_bytes("1x"), None);
    }

    proptest! {
        #[test]
        fn any_number_has_a_text(number: i64, digits in 0_usize..6) {
            prop_assert!(size_of(number, digits).len() < 20);
            prop_assert!(!duration(number).is_empty());
            prop_assert!(ago(number) == "N/A" || ago(number).ends_with(" ago"));
        }

        #[test]
        fn bytes_are_their_number_of_units(
            number in 0_i64..1 << 20,
            unit in 0_usize..6,
            spelled in 0_usize..3,
            blank: bool,
        ) {
            let name = ["", "k", "m", "g", "t", "p"][unit];
            let suffix = ["", "b", "ib"][if name.is_empty() { 0 } else { spelled }];
            let text = format!("{number}{}{}", if blank { " " } else { "" }, format!("{name}{suffix}").to_uppercase());
            let wanted = number.checked_mul(1 << (10 * unit)).filter(|bytes| *bytes < 9_000_000_000_000_000_000);
            prop_assert_eq!(parse_bytes(&text), wanted);
        }

        #[test]
        fn broken_numbers_of_bytes_are_refused(text in "[-+0-9.einfa]{0,8}[kmgbix ]{0,4}") {
            prop_assert!(parse_bytes(&text).is_none_or(|bytes| bytes >= 0));
        }
    }
}
