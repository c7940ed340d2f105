//! D-Bus messages, read into JSON and written from a few types: the D-Bus Specification.

use std::io::Read;

use serde_json::{Value, json};

/// What a client called.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) serial: u32,
    pub(crate) interface: String,
    pub(crate) member: String,
    pub(crate) body: Vec<Value>,
}

/// The next message; `None` once the client is gone.
pub(crate) fn read(from: &mut impl Read) -> Option<Call> {
    let mut head = [0; 16];
    from.read_exact(&mut head).ok()?;
    assert_eq!((head[0], head[1], head[3]), (b'l', 1, 1), "a call, little-endian, version 1");
    let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
    let (body, serial, fields) = (number(4), number(8), number(12));
    let mut rest = vec![0; fields.next_multiple_of(8) as usize + body as usize];
    from.read_exact(&mut rest).ok()?;
    let whole = [&head[..], &rest].concat();
    let mut reader = Reader { bytes: &whole, at: 12 };
    let fields = reader.value(&mut "a(yv)");
    let field = |code: u64| {
        let found = fields.as_array().unwrap().iter().find(|field| field[0] == json!(code));
        found.map(|field| field[1].as_str().unwrap().to_owned()).unwrap_or_default()
    };
    reader.pad(8);
    let signature = field(8);
    let mut kinds = signature.as_str();
    let mut body = Vec::new();
    while !kinds.is_empty() {
        body.push(reader.value(&mut kinds));
    }
    assert_eq!(reader.at, whole.len(), "nothing follows the body");
    Some(Call { serial, interface: field(2), member: field(3), body })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn pad(&mut self, to: usize) {
        let end = self.at.next_multiple_of(to);
        assert!(self.bytes[self.at..end].iter().all(|byte| *byte == 0), "padding is zero");
        self.at = end;
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        self.pad(N);
        self.at += N;
        self.bytes[self.at - N..self.at].try_into().unwrap()
    }

    fn text(&mut self, length: usize) -> String {
        let text = &self.bytes[self.at..self.at + length];
        assert_eq!(self.bytes[self.at + length], 0, "text ends with a zero");
        self.at += length + 1;
        String::from_utf8(text.to_vec()).unwrap()
    }

    /// One value; its type is taken from the front of `kinds`.
    fn value(&mut self, kinds: &mut &str) -> Value {
        let kind = kinds.as_bytes()[0];
        *kinds = &kinds[1..];
        match kind {
            b'y' => json!(self.bytes::<1>()[0]),
            b'b' => json!(u32::from_le_bytes(self.bytes()) == 1),
            b'i' => json!(i32::from_le_bytes(self.bytes())),
            b'u' => json!(u32::from_le_bytes(self.bytes())),
            b'x' => json!(i64::from_le_bytes(self.bytes())),
            b't' => json!(u64::from_le_bytes(self.bytes())),
            b'd' => json!(f64::from_le_bytes(self.bytes())),
            b's' | b'o' => {
                let length = u32::from_le_bytes(self.bytes());
                json!(self.text(length as usize))
            }
            b'g' => {
                let length = usize::from(self.bytes::<1>()[0]);
                json!(self.text(length))
            }
            b'v' => {
                let length = usize::from(self.bytes::<1>()[0]);
                let inner = self.text(length);
                self.value(&mut inner.as_str())
            }
            b'(' => {
                self.pad(8);
                let mut fields = Vec::new();
                while !kinds.starts_with(')') {
                    fields.push(self.value(kinds));
                }
                *kinds = &kinds[1..];
                json!(fields)
            }
            b'a' => {
                let length = u32::from_le_bytes(self.bytes()) as usize;
                let element = element(kinds);
                *kinds = &kinds[element.len()..];
                if element.starts_with(['(', 'x', 't', 'd']) {
                    self.pad(8);
                }
                let end = self.at + length;
                let mut values = Vec::new();
                while self.at < end {
                    values.push(self.value(&mut &*element));
                }
                json!(values)
            }
            other => panic!("type {:?}", char::from(other)),
        }
    }
}

fn element(kinds: &str) -> String {
    let mut depth = 0;
    for (at, kind) in kinds.char_indices() {
        match kind {
            '(' => depth += 1,
            ')' => depth -= 1,
            'a' => continue,
            _ => {}
        }
        if depth == 0 {
            return kinds[..=at].to_owned();
        }
    }
    panic!("type {kinds:?}");
}

/// A value of an answer.
pub(crate) enum Told<'a> {
    Text(&'a str),
    Path(&'a str),
    Number(u32),
    /// A variant that holds a text.
    Variant(&'a str),
}

pub(crate) fn answer(to: u32, body: &[Told<'_>]) -> Vec<u8> {
    message(2, &[(5, Told::Number(to))], body)
}

pub(crate) fn error(to: u32, name: &str, text: &str) -> Vec<u8> {
    message(3, &[(4, Told::Text(name)), (5, Told::Number(to))], &[Told::Text(text)])
}

pub(crate) fn signal(member: &str, body: &[Told<'_>]) -> Vec<u8> {
    let fields = [
        (1, Told::Path("/org/freedesktop/systemd1")),
        (2, Told::Text("org.freedesktop.systemd1.Manager")),
        (3, Told::Text(member)),
    ];
    message(4, &fields, body)
}

fn message(kind: u8, fields: &[(u8, Told<'_>)], body: &[Told<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    body.iter().for_each(|value| write(&mut bytes, value));
    let mut head = vec![b'l', kind, 1, 1];
    head.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
    head.extend(1_u32.to_le_bytes());
    let mut all = Vec::new();
    let mut field = |code: u8, kind: &str, value: &Told<'_>| {
        pad(&mut all, 8);
        all.extend([code, u8::try_from(kind.len()).unwrap()]);
        all.extend(kind.as_bytes());
        all.push(0);
        // The array starts at a multiple of eight, so positions in it are those in the message.
        write(&mut all, value);
    };
    fields.iter().for_each(|(code, value)| field(*code, letter(value), value));
    let signature: String = body.iter().map(letter).collect();
    if !signature.is_empty() {
        pad(&mut all, 8);
        all.extend([8, 1, b'g', 0, u8::try_from(signature.len()).unwrap()]);
        all.extend(signature.as_bytes());
        all.push(0);
    }
    head.extend(u32::try_from(all.len()).unwrap().to_le_bytes());
    head.extend(all);
    pad(&mut head, 8);
    [head, bytes].concat()
}

fn letter(value: &Told<'_>) -> &'static str {
    match value {
        Told::Text(_) => "s",
        Told::Path(_) => "o",
        Told::Number(_) => "u",
        Told::Variant(_) => "v",
    }
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn write(bytes: &mut Vec<u8>, value: &Told<'_>) {
    match value {
        Told::Text(text) | Told::Path(text) => {
            pad(bytes, 4);
            bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
            bytes.extend(text.as_bytes());
            bytes.push(0);
        }
        Told::Number(number) => {
            pad(bytes, 4);
            bytes.extend(number.to_le_bytes());
        }
        Told::Variant(text) => {
            bytes.extend([1, b's', 0]);
            write(bytes, &Told::Text(text));
        }
    }
}
