//! One record of a json-file log: a JSON object on a line of its own.
//!
//! The writer's bytes equal dockerd's: order of keys, escaping (`<`, `>`, `&` as `\u00XX`, a tab too),
//! one `\ufffd` for each byte that is not UTF-8. The reader takes any JSON object with these keys.

use std::collections::BTreeMap;

use crate::Timestamp;
use crate::scan::find;

/// Which of the container's outputs a record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// The stream's number on the wire, as in Docker's multiplexed format.
    pub fn to_wire(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    pub fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// A record as read. `log` ends with a newline unless the line goes on in the next record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub stream: Stream,
    pub time: Timestamp,
    pub log: Vec<u8>,
    pub attrs: BTreeMap<String, String>,
}

/// Appends one record. `newline` ends the line inside the record; `time` is RFC 3339; `attrs` is a JSON
/// object, or empty for none.
pub fn encode(
    out: &mut Vec<u8>,
    stream: Stream,
    time: &str,
    line: &[u8],
    newline: bool,
    attrs: &str,
) {
    out.reserve(line.len() + 80 + attrs.len());
    out.push(b'{');
    if !line.is_empty() || newline {
        out.extend_from_slice(b"\"log\":\"");
        escape(out, line);
        if newline {
            out.extend_from_slice(b"\\n");
        }
        out.extend_from_slice(b"\",");
    }
    out.extend_from_slice(b"\"stream\":\"");
    out.extend_from_slice(stream.as_str().as_bytes());
    out.push(b'"');
    if !attrs.is_empty() {
        out.extend_from_slice(b",\"attrs\":");
        out.extend_from_slice(attrs.as_bytes());
    }
    out.extend_from_slice(b",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// Reads one line, with or without its newline. `None`: not a record.
pub fn decode(line: &[u8]) -> Option<Entry> {
    decode_own(line).or_else(|| decode_json(line))
}

/// Whether a byte cannot stand for itself inside a JSON string. Written without branches, for `find`.
fn is_special(byte: u8) -> bool {
    !(0x20..0x80).contains(&byte)
        | (byte == b'"')
        | (byte == b'\\')
        | (byte == b'<')
        | (byte == b'>')
        | (byte == b'&')
}

fn escape(out: &mut Vec<u8>, mut text: &[u8]) {
    while !text.is_empty() {
        let plain = find(text, is_special).unwrap_or(text.len());
        out.extend_from_slice(&text[..plain]);
        text = &text[plain..];
        let Some(byte) = text.first().copied() else { return };
        if byte < 0x80 {
            escape_ascii(out, byte);
            text = &text[1..];
        } else {
            let foreign = text.iter().position(u8::is_ascii).unwrap_or(text.len());
            escape_utf8(out, &text[..foreign]);
            text = &text[foreign..];
        }
    }
}

fn escape_ascii(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        // Compat: dockerd has no short form for tab, backspace and form feed.
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    }
}

fn escape_utf8(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.find(['\u{2028}', '\u{2029}']) {
            out.extend_from_slice(&rest.as_bytes()[..at]);
            let line = rest.as_bytes()[at + 2] == 0xa8;
            out.extend_from_slice(if line { b"\\u2028" } else { b"\\u2029" });
            rest = &rest[at + 3..];
        }
        out.extend_from_slice(rest.as_bytes());
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// The fast path: exactly the shape that [`encode`] writes without attributes.
fn decode_own(line: &[u8]) -> Option<Entry> {
    let rest = line.strip_prefix(b"{\"log\":\"")?;
    let mut log = Vec::with_capacity(rest.len());
    let mut rest = rest;
    loop {
        let stop = find(rest, |b| (b == b'"') | (b == b'\\'))?;
        log.extend_from_slice(&rest[..stop]);
        if rest[stop] == b'"' {
            rest = &rest[stop + 1..];
            break;
        }
        let escaped = *rest.get(stop + 1)?;
        rest = &rest[stop + 2..];
        match escaped {
            b'n' => log.push(b'\n'),
            b'r' => log.push(b'\r'),
            b'"' | b'\\' => log.push(escaped),
            b'u' => {
                let digits = std::str::from_utf8(rest.get(..4)?).ok()?;
                let code = u32::from_str_radix(digits, 16).ok()?;
                // Surrogate pairs are left to the slow path.
                let mut utf8 = [0; 4];
                log.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut utf8).as_bytes());
                rest = &rest[4..];
            }
            _ => return None,
        }
    }
    let rest = rest.strip_prefix(b",\"stream\":\"std")?;
    let stream = if rest.starts_with(b"out") { Stream::Stdout } else { Stream::Stderr };
    let rest = rest.strip_prefix(&stream.as_str().as_bytes()[3..])?;
    let rest = rest.strip_prefix(b"\",\"time\":\"")?;
    let rest = rest.strip_suffix(b"\n").unwrap_or(rest).strip_suffix(b"\"}")?;
    let time = Timestamp::parse(std::str::from_utf8(rest).ok()?).ok()?;
    Some(Entry { stream, time, log, attrs: BTreeMap::new() })
}

fn decode_json(line: &[u8]) -> Option<Entry> {
    #[derive(serde::Deserialize)]
    struct Wire {
        #[serde(default)]
        log: String,
        #[serde(default)]
        stream: String,
        time: String,
        #[serde(default)]
        attrs: BTreeMap<String, String>,
    }
    let wire: Wire = serde_json::from_slice(line).ok()?;
    Some(Entry {
        stream: if wire.stream == "stderr" { Stream::Stderr } else { Stream::Stdout },
        time: Timestamp::parse(&wire.time).ok()?,
        log: wire.log.into_bytes(),
        attrs: wire.attrs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(line: &[u8], newline: bool, attrs: &str) -> String {
        let mut out = Vec::new();
        encode(&mut out, Stream::Stderr, "2023-11-14T22:13:20.12Z", line, newline, attrs);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn records_equal_dockerds_bytes() {
        let tail = "\"stream\":\"stderr\",\"time\":\"2023-11-14T22:13:20.12Z\"}\n";
        let table: [(&[u8], &str); 7] = [
            (b"hello", "hello"),
            (b"", ""),
            (b"\t\x00\x1b\x7f\r", "\\u0009\\u0000\\u001b\x7f\\r"),
            (b"<a href=\"b\\\">&", "\\u003ca href=\\\"b\\\\\\\"\\u003e\\u0026"),
            ("grün \u{2028}\u{2029}\u{fffd}".as_bytes(), "grün \\u2028\\u2029\u{fffd}"),
            (b"\xff\xfea", "\\ufffd\\ufffda"),
            (b"\xe2\x82a\xe2\x82", "\\ufffd\\ufffda\\ufffd\\ufffd"),
        ];
        for (line, escaped) in table {
            assert_eq!(text(line, true, ""), format!("{{\"log\":\"{escaped}\\n\",{tail}"));
        }
        assert_eq!(text(b"part", false, ""), format!("{{\"log\":\"part\",{tail}"));
        assert_eq!(
            text(b"x", true, "{\"a\":\"b\"}"),
            "{\"log\":\"x\\n\",\"stream\":\"stderr\",\"attrs\":{\"a\":\"b\"},\"time\":\"2023-11-14T22:13:20.12Z\"}\n"
        );
    }

    #[test]
    fn foreign_json_is_read_too() {
        let line = br#"{"time":"2023-11-14T22:13:20Z","log":"\ud83d\ude00\t\/\n","attrs":{"k":"v"},"x":1}"#;
        let entry = decode(line).unwrap();
        assert_eq!(entry.log, "😀\t/\n".as_bytes());
        assert_eq!(entry.attrs["k"], "v");
        for bad in [&b"{\"log\":\"to"[..], b"", b"\n", b"{}", b"\0\0\0\0"] {
            assert_eq!(decode(bad), None);
        }
    }

    proptest! {
        #[test]
        fn text_survives_a_record(line in ".*", newline: bool) {
            let line = line.replace('\n', " ");
            let record = text(line.as_bytes(), newline, "");
            let entry = decode(record.as_bytes()).unwrap();
            let mut wanted = line.into_bytes();
            if newline { wanted.push(b'\n'); }
            prop_assert_eq!(&entry.log, &wanted);
            prop_assert_eq!(Some(entry), decode_json(record.as_bytes()));
        }

        #[test]
        fn any_bytes_make_valid_json(line in proptest::collection::vec(any::<u8>(), 0..100)) {
            let record = text(&line, true, "{\"k\":\"v\"}");
            prop_assert!(decode(record.as_bytes()).is_some());
            prop_assert_eq!(record.matches('\n').count(), 1);
        }

        #[test]
        fn foreign_bytes_never_panic(line in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut framed = b"{\"log\":\"".to_vec();
            framed.extend(&line);
            decode(&line);
            decode(&framed);
        }
    }

    proptest! {
        #[test]
        fn both_readers_read_the_same(
            line in "\\PC{0,12}",
            edits in proptest::collection::vec((any::<usize>(), "[ -~\\n]{0,2}"), 0..3),
        ) {
            let mut text = text(line.as_bytes(), true, "").into_bytes();
            for (at, word) in edits {
                let at = at % (text.len() + 1);
                text.splice(at..(at + 1).min(text.len()), word.bytes());
            }
            if let (Some(own), Some(json)) = (decode_own(&text), decode_json(&text)) {
                prop_assert_eq!(own, json);
            }
        }
    }
}
