//! Points in time as dockerd writes them: RFC 3339 in UTC, the fraction without trailing zeros.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds of the Unix clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

/// The text is not an RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time: {0:?}")]
pub struct ParseTimeError(String);

impl Timestamp {
    pub fn new(seconds: i64, nanos: u32) -> Self {
        Self { seconds, nanos: nanos.min(999_999_999) }
    }

    pub fn now() -> Self {
        SystemTime::now().into()
    }

    pub fn seconds(self) -> i64 {
        self.seconds
    }

    pub fn nanos(self) -> u32 {
        self.nanos
    }

    /// Reads RFC 3339 with any offset and up to nine digits of fraction (more are cut).
    pub fn parse(text: &str) -> Result<Self, ParseTimeError> {
        parse(text.as_bytes()).ok_or_else(|| ParseTimeError(text.to_owned()))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => {
                Self::new(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
            }
            // Before 1970 nothing of ours has happened.
            Err(_) => Self::default(),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.seconds.div_euclid(86_400);
        let second = self.seconds.rem_euclid(86_400);
        let (year, month, day) = date_of(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if self.nanos != 0 {
            let digits = format!("{:09}", self.nanos);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

fn parse(text: &[u8]) -> Option<Timestamp> {
    let number = |from: usize, to: usize| -> Option<i64> {
        text.get(from..to)?.iter().try_fold(0_i64, |sum, digit| {
            digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'))
        })
    };
    let at = |index: usize, wanted: &[u8]| text.get(index).is_some_and(|b| wanted.contains(b));
    if !(at(4, b"-") && at(7, b"-") && at(10, b"Tt ") && at(13, b":") && at(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 24
        || minute > 59
        || second > 60
    {
        return None;
    }
    let mut index = 19;
    let mut nanos = 0_u32;
    if at(index, b".,") {
        index += 1;
        let mut scale = 100_000_000;
        let start = index;
        while let Some(digit) = text.get(index).filter(|b| b.is_ascii_digit()) {
            nanos += u32::from(digit - b'0') * scale;
            scale /= 10;
            index += 1;
        }
        if index == start {
            return None;
        }
    }
    let offset = if at(index, b"Zz") {
        index += 1;
        0
    } else {
        let sign = if at(index, b"-") { -1 } else { 1 };
        if !at(index, b"+-") || !at(index + 3, b":") {
            return None;
        }
        let offset = number(index + 1, index + 3)? * 3600 + number(index + 4, index + 6)? * 60;
        index += 6;
        sign * offset
    };
    if index != text.len() {
        return None;
    }
    let seconds = days_of(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(Timestamp::new(seconds, nanos))
}

/// Days since 1970 to a date of the Gregorian calendar, counted in eras of 400 years from a March.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_look_as_dockerd_writes_them() {
        let table = [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_700_000_000, 120_000_000, "2023-11-14T22:13:20.12Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (4_107_542_399, 999_999_999, "2100-02-28T23:59:59.999999999Z"),
        ];
        for (seconds, nanos, text) in table {
            assert_eq!(Timestamp::new(seconds, nanos).to_string(), text);
            assert_eq!(Timestamp::parse(text).unwrap(), Timestamp::new(seconds, nanos));
        }
        let east = Timestamp::parse("2023-11-15T00:13:20.12+02:00").unwrap();
        assert_eq!(east, Timestamp::new(1_700_000_000, 120_000_000));
        for bad in [
            "",
            "2023-11-15",
            "2023-13-15T00:13:20Z",
            "2023-11-15T00:13:20",
            "2023-11-15T00:13:20.Z",
        ] {
            assert!(Timestamp::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_time_survives_its_text(
            seconds in -2_000_000_000_i64..60_000_000_000,
            nanos in 0_u32..1_000_000_000,
        ) {
            let time = Timestamp::new(seconds, nanos);
            prop_assert_eq!(Timestamp::parse(&time.to_string()).unwrap(), time);
        }

        #[test]
        fn any_time_has_a_text(seconds: i64, nanos: u32) {
            prop_assert!(Timestamp::new(seconds, nanos).to_string().ends_with('Z'));
        }

        #[test]
        fn what_reads_as_a_time_is_one(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9]([.,][0-9]{0,12})?([Zz]|[-+][0-9]{2}:[0-9]{2})?",
        ) {
            if let Ok(time) = Timestamp::parse(&text) {
                let shown = time.to_string();
                // An offset may lead out of the four digits of a year.
                if shown.find('-') == Some(4) {
                    prop_assert_eq!(Timestamp::parse(&shown).unwrap(), time);
                }
            }
        }
    }
}
