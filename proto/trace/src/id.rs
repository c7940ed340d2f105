//! Names of traces and spans.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A trace; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

/// A span of a trace; 0 is nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SpanId(u64);

/// Who calls: a span of a trace that is being recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    pub trace: TraceId,
    pub span: SpanId,
}

impl TraceId {
    /// 32 digits of lower-case hexadecimal.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = u128::from_str_radix(digits(text, 32)?, 16).ok()?;
        (number != 0).then_some(Self(number))
    }
}

impl SpanId {
    /// One that no other program of this host gives out.
    #[must_use]
    pub fn fresh() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Time and pid tell programs apart, also those of several pid namespaces; the rest mixes
        // them over all digits (the finalizer of splitmix64, which takes no two to the same).
        let pid = u64::from(std::process::id());
        let mut number = crate::now() ^ pid.rotate_left(40) ^ count.rotate_left(52);
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((number ^ (number >> 31)).max(1))
    }

    /// 16 digits of lower-case hexadecimal.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        u64::from_str_radix(digits(text, 16)?, 16).ok().map(Self)
    }
}

impl Caller {
    /// Reads a `traceparent`. A trace that is not being recorded is none, and so is anything that the
    /// specification calls invalid; what later versions append is passed over, as it wants it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '-');
        let version = digits(parts.next()?, 2)?;
        let (trace, span) = (TraceId::parse(parts.next()?)?, SpanId::parse(parts.next()?)?);
        let rest = parts.next()?;
        let (flags, more) = (digits(rest.get(..2)?, 2)?, rest.get(2..)?);
        let whole = match version {
            "ff" => false,
            "00" => more.is_empty(),
            _ => more.is_empty() || more.starts_with('-'),
        };
        let recorded = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        (whole && recorded && span != SpanId(0)).then_some(Self { trace, span })
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-01", self.trace, self.span)
    }
}

fn digits(text: &str, count: usize) -> Option<&str> {
    let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == count && text.bytes().all(hexadecimal)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_caller_is_read_and_written_alike() {
        assert_eq!(Caller::parse(GOOD).unwrap().to_string(), GOOD);
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-09-what-else";
        assert_eq!(Caller::parse(later), Caller::parse(GOOD));
    }

    #[test]
    fn what_is_no_recorded_trace_is_none() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-../../../../../../../../../../etc-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ö1",
        ] {
            assert_eq!(Caller::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn fresh_names_differ() {
        let mut all: Vec<String> = (0..1000).map(|_| SpanId::fresh().to_string()).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 1000);
    }

    proptest! {
        #[test]
        fn whatever_is_taken_for_a_caller_means_what_is_written_for_it(text in "\\PC{0,80}") {
            if let Some(caller) = Caller::parse(&text) {
                prop_assert_eq!(Caller::parse(&caller.to_string()), Some(caller));
            }
        }

        #[test]
        fn what_is_nearly_a_caller_never_gives_a_name_that_is_a_path(
            text in "[0-9a-f.]{2}-[0-9a-fA-F./+]{31,33}-[0-9a-f]{15,17}-[0-9a-f]{1,3}"
        ) {
            if let Some(caller) = Caller::parse(&text) {
                let name = caller.trace.to_string();
                prop_assert!(name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit()));
                prop_assert!(text.contains(&name));
            }
        }

        #[test]
        fn every_caller_comes_back(trace in 1..=u128::MAX, span in 1..=u64::MAX) {
            let caller = Caller { trace: TraceId(trace), span: SpanId(span) };
            prop_assert_eq!(Caller::parse(&caller.to_string()), Some(caller));
        }
    }
}
