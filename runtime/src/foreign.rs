//! What nobody should send, as strategies for the properties of this crate: words and lines, numbers
//! that overflow, documents with other values in them, bytes that are no document any more.

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

/// Letters and words of `pieces`, up to `most` of them.
pub(crate) fn text(
    pieces: &'static [&'static str],
    most: usize,
) -> impl Strategy<Value = String> + Clone {
    vec(select(pieces), 0..=most).prop_map(|pieces| pieces.concat())
}

/// Lines of fields as the kernel or an administrator might write them, some of them broken.
pub(crate) fn lines(pieces: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    let line = (text(pieces, 8), select(&["\n", "\n", "\r\n", ""]));
    vec(line.prop_map(|(line, end)| line + end), 0..=6).prop_map(|lines| lines.concat())
}

/// A number near one of those that overflow.
pub(crate) fn number() -> impl Strategy<Value = u64> + Clone {
    let edge = select(&[0, 1, 1 << 16, 1 << 31, 1 << 32, 1 << 53, 1 << 63, u64::MAX]);
    (edge, 0_u64..4).prop_map(|(edge, near)| edge.wrapping_add(near).wrapping_sub(2))
}

/// Bytes that a failure shows as text.
#[derive(Clone)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// The text, ended early or with other bytes in it.
pub(crate) fn torn(text: impl Strategy<Value = String>) -> impl Strategy<Value = Bytes> {
    (text, vec(tear(), 1..=4)).prop_map(|(text, tears)| tear_all(text.into_bytes(), &tears))
}

/// The document with some values changed: others, none, twice, or in another's place. One in four
/// is no document any more.
pub(crate) fn damaged(whole: impl Strategy<Value = Value>) -> impl Strategy<Value = Bytes> {
    let changes = vec((any::<Index>(), change()), 1..=4);
    let tears = prop_oneof![3 => Just(Vec::new()), 1 => vec(tear(), 1..=4)];
    (whole, changes, tears).prop_map(|(whole, changes, tears)| {
        let mut document = whole.clone();
        for (at, change) in changes {
            let at = at.index(size(&document));
            change.apply(place(&mut document, at), &whole);
        }
        tear_all(document.to_string().into_bytes(), &tears)
    })
}

/// For properties that write files.
pub(crate) fn fewer() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases / 2, ..usual }
}

/// An error that a person can read.
pub(crate) fn assert_sentence(text: &str) {
    assert!(!text.is_empty() && !text.contains("panic") && text.trim() == text, "{text:?}");
}

#[derive(Clone, Debug)]
enum Tear {
    End(Index),
    Word(Index, &'static str),
    Byte(Index, u8),
}

fn tear() -> impl Strategy<Value = Tear> {
    prop_oneof![
        any::<Index>().prop_map(Tear::End),
        (any::<Index>(), select(WORDS)).prop_map(|(at, word)| Tear::Word(at, word)),
        any::<(Index, u8)>().prop_map(|(at, byte)| Tear::Byte(at, byte)),
    ]
}

fn tear_all(mut bytes: Vec<u8>, tears: &[Tear]) -> Bytes {
    let end = |bytes: &Vec<u8>| bytes.len() + 1;
    for tear in tears {
        match tear {
            Tear::End(at) => bytes.truncate(at.index(end(&bytes))),
            Tear::Word(at, word) => {
                let from = at.index(end(&bytes));
                drop(bytes.splice(from..(from + 3).min(bytes.len()), word.bytes()));
            }
            Tear::Byte(at, byte) => {
                let at = at.index(end(&bytes));
                bytes.iter_mut().skip(at).take(1).for_each(|place| *place = *byte);
            }
        }
    }
    Bytes(bytes)
}

/// What happens to one value of a document.
#[derive(Clone, Debug)]
enum Change {
    Become(Value),
    BecomeThatOf(Index),
    Remove(Index),
    Repeat(Index, usize),
    Insert(Index, &'static str),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => odd().prop_map(Change::Become),
        2 => any::<Index>().prop_map(Change::BecomeThatOf),
        2 => any::<Index>().prop_map(Change::Remove),
        1 => (any::<Index>(), 1_usize..=4).prop_map(|(at, times)| Change::Repeat(at, times)),
        2 => (any::<Index>(), select(WORDS)).prop_map(|(at, word)| Change::Insert(at, word)),
    ]
}

impl Change {
    /// What cannot happen to a value of this kind makes it another's.
    fn apply(self, value: &mut Value, whole: &Value) {
        match (self, value) {
            (Self::Become(other), value) => *value = other,
            (Self::Remove(at), Value::Array(list)) if !list.is_empty() => {
                drop(list.remove(at.index(list.len())));
            }
            (Self::Remove(at), Value::Object(map)) if !map.is_empty() => {
                let name = at.get(&map.keys().cloned().collect::<Vec<_>>()).clone();
                map.remove(&name);
            }
            (Self::Repeat(at, times), Value::Array(list)) if !list.is_empty() => {
                let again = at.get(list).clone();
                list.extend(vec![again; times]);
            }
            (Self::Insert(at, word), Value::String(text)) => {
                let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
                text.insert_str(if starts.is_empty() { 0 } else { *at.get(&starts) }, word);
            }
            (
                Self::BecomeThatOf(at)
                | Self::Remove(at)
                | Self::Repeat(at, _)
                | Self::Insert(at, _),
                value,
            ) => *value = place(&mut whole.clone(), at.index(size(whole))).take(),
        }
    }
}

/// What somebody might put in the place of a value.
fn odd() -> impl Strategy<Value = Value> {
    let plain = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number().prop_map(Value::from),
        number().prop_map(|number| number.cast_signed().into()),
        Just(json!(1.5)),
        select(WORDS).prop_map(Value::from),
        (select(WORDS), 0_usize..300).prop_map(|(word, times)| word.repeat(times).into()),
    ];
    plain.prop_recursive(3, 9, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..=3).prop_map(Value::from),
            (select(WORDS), inner).prop_map(|(name, value)| json!({name: value})),
        ]
    })
}

fn children(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(map) => map.values_mut().collect(),
        _ => Vec::new(),
    }
}

/// How many values the document has, itself among them.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(size).sum(),
        Value::Object(map) => map.values().map(size).sum(),
        _ => 0,
    }
}

/// One of so many.
fn place(value: &mut Value, at: usize) -> &mut Value {
    let Some(mut at) = at.checked_sub(1) else { return value };
    for child in children(value) {
        match at.checked_sub(size(child)) {
            Some(beyond) => at = beyond,
            None => return place(child, at),
        }
    }
    unreachable!("an index below the size")
}

/// Words that mean something to somebody.
const WORDS: &[&str] = &[
    "",
    "/",
    "..",
    "../../..",
    "/proc/self/ns/net",
    "/dev/null",
    "\0",
    "\n",
    "a",
    "é",
    "\u{fffd}",
    "=",
    ":",
    "-1",
    "0",
    "4294967295",
    "1e99",
    "null",
    "[[[[",
    "\"",
    "\\",
    "{",
    "%s",
    "rbind",
    "ro",
    "idmap",
    "user",
    "mount",
    "SCMP_ACT_ALLOW",
    "SCMP_ARCH_X32",
    "CAP_CHOWN",
    "RLIMIT_NOFILE",
    "0-8191",
];
