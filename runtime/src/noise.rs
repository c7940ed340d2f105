//! Bytes, words and documents that nobody should send, for the properties of this crate.
//!
//! `make unit` tries the same cases each time (`PROPTEST_RNG_SEED`), `make fuzz` new ones and more of
//! them (`PROPTEST_CASES`); a case that fails tells how to have it again.

use serde_json::{Map, Value};

/// Tests that are to hold whatever the noise is: `fn name(noise) { … }`, in one block.
macro_rules! properties {
    ($($(#[$attribute:meta])* fn $name:ident($noise:ident) $body:block)*) => {$(
        $(#[$attribute])*
        fn $name() {
            $crate::noise::cases(|$noise: &mut $crate::noise::Noise| $body);
        }
    )*};
}

pub(crate) fn cases(mut property: impl FnMut(&mut Noise)) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("PROPTEST_RNG_SEED").unwrap_or_else(trace_log::now);
    for case in 0..number("PROPTEST_CASES").unwrap_or(100) {
        property(&mut Noise { state: seed.wrapping_add(case << 32), seed, case });
    }
}

pub(crate) struct Noise {
    state: u64,
    seed: u64,
    case: u64,
}

impl Drop for Noise {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { seed, case, .. } = self;
            eprintln!("case {case} of PROPTEST_RNG_SEED={seed} PROPTEST_CASES={}", *case + 1);
        }
    }
}

impl Noise {
    /// splitmix64.
    pub(crate) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.state;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.bits() >> 1).unwrap_or(0) % end.max(1)
    }

    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn list<T>(&mut self, most: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| one(self)).collect()
    }

    /// Letters and words of `pieces`, up to `most` of them.
    pub(crate) fn text(&mut self, pieces: &[&str], most: usize) -> String {
        self.list(most, |noise| noise.pick(pieces)).concat()
    }

    /// Lines of fields as the kernel or an administrator might write them, some of them broken.
    pub(crate) fn lines(&mut self, pieces: &[&str]) -> String {
        let line = |noise: &mut Self| noise.text(pieces, 8) + noise.pick(&["\n", "\n", "\r\n", ""]);
        self.list(6, line).concat()
    }

    /// A number near one of those that overflow.
    pub(crate) fn number(&mut self) -> u64 {
        let edges = [0, 1, 1 << 16, 1 << 31, 1 << 32, 1 << 53, 1 << 63, u64::MAX];
        let edge = self.pick(&edges);
        edge.wrapping_add(self.below(4) as u64).wrapping_sub(2)
    }

    /// What somebody might put in the place of a value.
    fn odd(&mut self) -> Value {
        match self.below(9) {
            0 => Value::Null,
            1 => Value::Bool(self.one_in(2)),
            2 => self.number().into(),
            3 => self.number().cast_signed().into(),
            4 => 1.5.into(),
            5 => Value::Array(self.list(3, Self::odd)),
            6 => [(self.pick(WORDS).to_owned(), self.odd())]
                .into_iter()
                .collect::<Map<_, _>>()
                .into(),
            7 => self.pick(WORDS).repeat(self.below(300)).into(),
            _ => self.pick(WORDS).into(),
        }
    }

    /// Changes some values of the document: others, none, twice, or in another's place.
    pub(crate) fn damage(&mut self, document: &mut Value) {
        let whole = document.clone();
        for _ in 0..=self.below(4) {
            let place = self.place(document);
            match (self.below(6), place) {
                (0, Value::Array(list)) if !list.is_empty() => {
                    let at = self.below(list.len());
                    let again = list[at].clone();
                    (0..=self.below(3)).for_each(|_| list.push(again.clone()));
                }
                (1, Value::Array(list)) if !list.is_empty() => {
                    drop(list.remove(self.below(list.len())))
                }
                (0 | 1, Value::Object(map)) if !map.is_empty() => {
                    let name = map.keys().nth(self.below(map.len())).cloned().unwrap_or_default();
                    map.remove(&name);
                }
                (2, place) => {
                    let mut other = whole.clone();
                    *place = self.place(&mut other).take();
                }
                (3, Value::String(text)) => {
                    let at = text.char_indices().nth(self.below(text.chars().count()));
                    text.insert_str(at.map_or(0, |(at, _)| at), self.pick(WORDS));
                }
                (_, place) => *place = self.odd(),
            }
        }
    }

    /// A value anywhere in the document.
    fn place<'a>(&mut self, document: &'a mut Value) -> &'a mut Value {
        let length = match document {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        };
        if length == 0 || self.one_in(8) {
            return document;
        }
        let at = self.below(length);
        let next = match document {
            Value::Array(list) => list.get_mut(at),
            Value::Object(map) => map.values_mut().nth(at),
            _ => None,
        };
        self.place(next.expect("one of so many"))
    }

    /// The document as bytes; one in four is no document any more.
    pub(crate) fn document(&mut self, whole: &Value) -> Vec<u8> {
        let mut document = whole.clone();
        self.damage(&mut document);
        let mut bytes = document.to_string().into_bytes();
        if self.one_in(4) {
            self.tear(&mut bytes);
        }
        bytes
    }

    /// Ends it early, or puts other bytes into it.
    pub(crate) fn tear(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let (from, to) = (self.below(bytes.len() + 1), self.below(bytes.len() + 1));
            match self.below(3) {
                0 => bytes.truncate(from),
                1 => {
                    drop(bytes.splice(from..(from + 3).min(bytes.len()), self.pick(WORDS).bytes()))
                }
                _ => {
                    let byte = self.bits().to_le_bytes()[0];
                    if let Some(at) = bytes.get_mut(to) {
                        *at = byte;
                    }
                }
            }
        }
    }
}

/// An error that a person can read.
pub(crate) fn assert_sentence(text: &str) {
    assert!(!text.is_empty() && !text.contains("panic") && text.trim() == text, "{text:?}");
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
