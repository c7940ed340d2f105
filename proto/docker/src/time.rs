//! Times as Go writes them.

use jiff::Timestamp;

/// Go's zero time, which stands for "never".
pub const ZERO: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 in UTC with as many of nine fractional digits as are needed, Go's `RFC3339Nano`.
#[must_use]
pub fn rfc3339_nano(seconds: i64, nanoseconds: i32) -> String {
    Timestamp::new(seconds, nanoseconds).map_or_else(|_| ZERO.to_owned(), |at| at.to_string())
}

/// Always nine digits: the prefix of `logs --timestamps`.
#[must_use]
pub fn rfc3339_nano_fixed(seconds: i64, nanoseconds: i32) -> String {
    Timestamp::new(seconds, nanoseconds).map_or_else(|_| ZERO.to_owned(), |at| format!("{at:.9}"))
}

/// Reads RFC 3339, with any offset.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<(i64, i32)> {
    let at: Timestamp = text.parse().ok()?;
    Some((at.as_second(), at.subsec_nanosecond()))
}

/// Unix seconds with an optional fraction of up to nine digits, the form of `since` and `until`.
#[must_use]
pub fn parse_unix(text: &str) -> Option<(i64, i32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = seconds.parse().ok()?;
    if fraction.is_empty() {
        return Some((seconds, 0));
    }
    if fraction.len() > 9 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some((seconds, format!("{fraction:0<9}").parse().ok()?))
}

/// A Go duration such as `1h30m`, `10s`, `1.5h`, in nanoseconds.
#[must_use]
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        if !whole.is_empty() {
            total = total.checked_add(whole.parse::<i64>().ok().map(i128::from)? * scale)?;
        }
        if !fraction.is_empty() {
            let digits: String = fraction.chars().take(18).collect();
            let power = 10_i128.pow(u32::try_from(digits.len()).ok()?);
            total = total.checked_add(digits.parse::<i128>().ok()? * scale / power)?;
        }
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_trimmed_or_fixed() {
        assert_eq!(rfc3339_nano(0, 120_000_000), "1970-01-01T00:00:00.12Z");
        assert_eq!(rfc3339_nano(1, 0), "1970-01-01T00:00:01Z");
        assert_eq!(rfc3339_nano_fixed(0, 5), "1970-01-01T00:00:00.000000005Z");
    }

    #[test]
    fn unix_times_take_up_to_nine_digits() {
        assert_eq!(parse_unix("12"), Some((12, 0)));
        assert_eq!(parse_unix("12.5"), Some((12, 500_000_000)));
        assert_eq!(parse_unix("12.0000000005"), None);
        assert_eq!(parse_unix("x"), None);
    }

    #[test]
    fn durations_are_go_durations() {
        assert_eq!(parse_duration("1h30m"), Some(5_400_000_000_000));
        assert_eq!(parse_duration("1.5s"), Some(1_500_000_000));
        assert_eq!(parse_duration("10"), None);
        assert_eq!(parse_duration("-2ms"), Some(-2_000_000));
    }
}
