//! What an engine of ours tells of a traced run: `GET /rs/trace/{id}`. An addition; upstream has none.

use serde::{Deserialize, Serialize};

/// The header that names a trace and the span that asks (W3C Trace Context).
pub const CALLER_HEADER: &str = "traceparent";

/// The spans of one trace, in no order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Timeline {
    pub spans: Vec<Span>,
}

/// What a program did from when to when, in nanoseconds of the engine's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Span {
    pub program: String,
    pub name: String,
    /// 16 hexadecimal digits, as in the header.
    #[serde(rename = "ID")]
    pub id: String,
    pub parent: String,
    pub start: u64,
    pub end: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_reads_as_it_is_written() {
        let text =
            r#"{"Spans":[{"Program":"p","Name":"n","ID":"a","Parent":"b","Start":1,"End":2}]}"#;
        let timeline: Timeline = crate::from_json(text.as_bytes()).unwrap();
        assert_eq!(timeline.spans[0].name, "n");
        assert_eq!(serde_json::to_string(&timeline).unwrap(), text);
    }
}
