//! Messages of the D-Bus protocol as bytes: the D-Bus Specification, "Type System" and "Message
//! Protocol". Written in the machine's order, read in either.

/// What a message carries.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(String),
    Path(String),
    Signature(String),
    /// Of one type, which an empty one has too.
    Array(String, Vec<Self>),
    Struct(Vec<Self>),
    /// A pair of a dictionary; in arrays only.
    Entry(Box<(Self, Self)>),
    Variant(Box<Self>),
}

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn array(kind: &str, values: impl IntoIterator<Item = Self>) -> Self {
        Self::Array(kind.to_owned(), values.into_iter().collect())
    }

    pub(super) fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".to_owned(),
            Self::Bool(_) => "b".to_owned(),
            Self::I16(_) => "n".to_owned(),
            Self::U16(_) => "q".to_owned(),
            Self::I32(_) => "i".to_owned(),
            Self::U32(_) => "u".to_owned(),
            Self::I64(_) => "x".to_owned(),
            Self::U64(_) => "t".to_owned(),
            Self::F64(_) => "d".to_owned(),
            Self::Text(_) => "s".to_owned(),
            Self::Path(_) => "o".to_owned(),
            Self::Signature(_) => "g".to_owned(),
            Self::Array(kind, _) => format!("a{kind}"),
            Self::Struct(fields) => {
                format!("({})", fields.iter().map(Self::signature).collect::<String>())
            }
            Self::Entry(pair) => format!("{{{}{}}}", pair.0.signature(), pair.1.signature()),
            Self::Variant(_) => "v".to_owned(),
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Path(text) => Some(text),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    #[default]
    Call,
    Return,
    Error,
    Signal,
    /// To be passed over.
    Other,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) serial: u32,
    /// The call that is answered.
    pub(super) reply_to: Option<u32>,
    pub(super) path: String,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) destination: String,
    pub(super) body: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("no D-Bus message")]
    NoMessage,
    #[error("a message of {0} bytes")]
    TooLong(u64),
    #[error("a message that ends too early")]
    Short,
    #[error("text that is none")]
    NotText,
    #[error("a type that does not exist: {0:?}")]
    Type(String),
    #[error("values nested too deep")]
    Depth,
}

/// Nothing that systemd tells us comes near.
const LONGEST: u64 = 1 << 20;
const DEEPEST: usize = 32;
const FIXED: usize = 16;

impl Message {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Writer::default();
        self.body.iter().for_each(|value| body.value(value));
        let kind = match self.kind {
            Kind::Call => 1,
            Kind::Return => 2,
            Kind::Error => 3,
            Kind::Signal | Kind::Other => 4,
        };
        let mut head = Writer::default();
        head.0.extend([if cfg!(target_endian = "little") { b'l' } else { b'B' }, kind, 0, 1]);
        head.number(length(body.0.len()));
        head.number(self.serial);
        let signature: String = self.body.iter().map(Value::signature).collect();
        let text = |code, value: &str, make: fn(String) -> Value| {
            (!value.is_empty()).then(|| (code, make(value.to_owned())))
        };
        let fields = [
            text(1, &self.path, Value::Path),
            text(2, &self.interface, Value::Text),
            text(3, &self.member, Value::Text),
            text(4, &self.error, Value::Text),
            self.reply_to.map(|serial| (5, Value::U32(serial))),
            text(6, &self.destination, Value::Text),
            text(8, &signature, Value::Signature),
        ];
        let fields = fields.into_iter().flatten().map(|(code, value)| {
            Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
        });
        head.value(&Value::array("(yv)", fields));
        head.pad(8);
        head.0.extend(body.0);
        head.0
    }

    /// How long the message is whose first bytes these are; `None`: more are needed.
    pub(super) fn length(start: &[u8]) -> Result<Option<usize>, WireError> {
        let Some(start) = start.get(..FIXED) else { return Ok(None) };
        let mut reader = Reader::of(start)?;
        reader.at = 4;
        let body = u64::from(reader.number()?);
        reader.at = 12;
        let fields = u64::from(reader.number()?);
        let whole = (FIXED as u64 + fields).next_multiple_of(8) + body;
        if whole > LONGEST {
            return Err(WireError::TooLong(whole));
        }
        Ok(usize::try_from(whole).ok())
    }

    /// A whole message.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::of(bytes)?;
        let kind = match bytes.get(1) {
            Some(1) => Kind::Call,
            Some(2) => Kind::Return,
            Some(3) => Kind::Error,
            Some(4) => Kind::Signal,
            Some(0) | None => return Err(WireError::NoMessage),
            Some(_) => Kind::Other,
        };
        if bytes.get(3) != Some(&1) {
            return Err(WireError::NoMessage);
        }
        reader.at = 8;
        let mut message = Self { kind, serial: reader.number()?, ..Self::default() };
        let mut signature = String::new();
        let Value::Array(_, fields) = reader.value("a(yv)", 0)? else {
            return Err(WireError::NoMessage);
        };
        for field in fields {
            let Value::Struct(field) = field else { continue };
            let [Value::Byte(code), Value::Variant(value)] = field.as_slice() else { continue };
            match (code, value.as_ref()) {
                (1, Value::Path(text)) => message.path.clone_from(text),
                (2, Value::Text(text)) => message.interface.clone_from(text),
                (3, Value::Text(text)) => message.member.clone_from(text),
                (4, Value::Text(text)) => message.error.clone_from(text),
                (5, Value::U32(serial)) => message.reply_to = Some(*serial),
                (6, Value::Text(text)) => message.destination.clone_from(text),
                (8, Value::Signature(text)) => signature.clone_from(text),
                _ => {}
            }
        }
        reader.pad(8)?;
        let mut rest = signature.as_str();
        while !rest.is_empty() {
            let (first, others) = split_type(rest, 0)?;
            message.body.push(reader.value(first, 0)?);
            rest = others;
        }
        Ok(message)
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The first complete type of a signature, and what follows.
fn split_type(signature: &str, depth: usize) -> Result<(&str, &str), WireError> {
    let wrong = || WireError::Type(signature.to_owned());
    if depth > DEEPEST {
        return Err(WireError::Depth);
    }
    let end = match signature.as_bytes().first().ok_or_else(wrong)? {
        b'a' => {
            let (element, _) = split_type(&signature[1..], depth + 1)?;
            1 + element.len()
        }
        open @ (b'(' | b'{') => {
            let close = if *open == b'(' { b')' } else { b'}' };
            let mut at = 1;
            while *signature.as_bytes().get(at).ok_or_else(wrong)? != close {
                at += split_type(signature.get(at..).ok_or_else(wrong)?, depth + 1)?.0.len();
            }
            at + 1
        }
        letter if b"ybnqiuxtdsogvh".contains(letter) => 1,
        _ => return Err(wrong()),
    };
    signature.split_at_checked(end).ok_or_else(wrong)
}

/// Where a value of the type begins.
fn alignment(kind: &str) -> usize {
    match kind.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a' | b'h') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

#[derive(Debug, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn pad(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.pad(4);
        self.0.extend(number.to_ne_bytes());
    }

    fn value(&mut self, value: &Value) {
        self.pad(alignment(&value.signature()));
        match value {
            Value::Byte(byte) => self.0.push(*byte),
            Value::Bool(flag) => self.number(u32::from(*flag)),
            Value::I16(number) => self.0.extend(number.to_ne_bytes()),
            Value::U16(number) => self.0.extend(number.to_ne_bytes()),
            Value::I32(number) => self.0.extend(number.to_ne_bytes()),
            Value::U32(number) => self.number(*number),
            Value::I64(number) => self.0.extend(number.to_ne_bytes()),
            Value::U64(number) => self.0.extend(number.to_ne_bytes()),
            Value::F64(number) => self.0.extend(number.to_ne_bytes()),
            Value::Text(text) | Value::Path(text) => {
                self.number(length(text.len()));
                self.0.extend(text.as_bytes());
                self.0.push(0);
            }
            Value::Signature(text) => {
                self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                self.0.extend(text.as_bytes());
                self.0.push(0);
            }
            Value::Array(kind, values) => {
                let at = self.0.len();
                self.number(0);
                // Between the length and the first element, not counted.
                self.pad(alignment(kind));
                let start = self.0.len();
                values.iter().for_each(|value| self.value(value));
                let bytes = length(self.0.len() - start).to_ne_bytes();
                self.0[at..at + 4].copy_from_slice(&bytes);
            }
            Value::Struct(fields) => fields.iter().for_each(|field| self.value(field)),
            Value::Entry(pair) => {
                self.value(&pair.0);
                self.value(&pair.1);
            }
            Value::Variant(inner) => {
                self.value(&Value::Signature(inner.signature()));
                self.value(inner);
            }
        }
    }
}

#[derive(Debug)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    little: bool,
}

impl<'a> Reader<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, WireError> {
        match bytes.first() {
            Some(b'l') => Ok(Self { bytes, at: 0, little: true }),
            Some(b'B') => Ok(Self { bytes, at: 0, little: false }),
            _ => Err(WireError::NoMessage),
        }
    }

    fn pad(&mut self, to: usize) -> Result<(), WireError> {
        self.at = self.at.next_multiple_of(to);
        if self.at > self.bytes.len() { Err(WireError::Short) } else { Ok(()) }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(count).ok_or(WireError::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(WireError::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.pad(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        if self.little != cfg!(target_endian = "little") {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_ne_bytes(self.bytes()?))
    }

    fn text(&mut self, count: usize) -> Result<String, WireError> {
        let text = self.take(count)?.to_vec();
        if self.take(1)? != [0] || text.contains(&0) {
            return Err(WireError::NotText);
        }
        String::from_utf8(text).map_err(|_| WireError::NotText)
    }

    fn value(&mut self, kind: &str, depth: usize) -> Result<Value, WireError> {
        if depth > DEEPEST {
            return Err(WireError::Depth);
        }
        self.pad(alignment(kind))?;
        Ok(match kind.as_bytes().first() {
            Some(b'y') => Value::Byte(self.take(1)?[0]),
            Some(b'b') => Value::Bool(self.number()? != 0),
            Some(b'n') => Value::I16(i16::from_ne_bytes(self.bytes()?)),
            Some(b'q') => Value::U16(u16::from_ne_bytes(self.bytes()?)),
            Some(b'i') => Value::I32(i32::from_ne_bytes(self.bytes()?)),
            // A descriptor's number is one.
            Some(b'u' | b'h') => Value::U32(self.number()?),
            Some(b'x') => Value::I64(i64::from_ne_bytes(self.bytes()?)),
            Some(b't') => Value::U64(u64::from_ne_bytes(self.bytes()?)),
            Some(b'd') => Value::F64(f64::from_ne_bytes(self.bytes()?)),
            Some(b's' | b'o') => {
                let count = self.number()?;
                let text = self.text(usize::try_from(count).map_err(|_| WireError::Short)?)?;
                if kind == "s" { Value::Text(text) } else { Value::Path(text) }
            }
            Some(b'g') => Value::Signature(self.signature()?),
            Some(b'v') => {
                let kind = self.signature()?;
                let (first, rest) = split_type(&kind, depth)?;
                if !rest.is_empty() {
                    return Err(WireError::Type(kind));
                }
                Value::Variant(Box::new(self.value(first, depth + 1)?))
            }
            Some(b'a') => self.array(&kind[1..], depth)?,
            Some(b'(') => Value::Struct(self.values(&kind[1..kind.len() - 1], depth)?),
            Some(b'{') => {
                let mut pair = self.values(&kind[1..kind.len() - 1], depth)?.into_iter();
                match (pair.next(), pair.next(), pair.next()) {
                    (Some(key), Some(value), None) => Value::Entry(Box::new((key, value))),
                    _ => return Err(WireError::Type(kind.to_owned())),
                }
            }
            _ => return Err(WireError::Type(kind.to_owned())),
        })
    }

    fn array(&mut self, kind: &str, depth: usize) -> Result<Value, WireError> {
        let count = usize::try_from(self.number()?).map_err(|_| WireError::Short)?;
        self.pad(alignment(kind))?;
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(WireError::Short)?;
        let mut values = Vec::new();
        while self.at < end {
            let before = self.at;
            values.push(self.value(kind, depth + 1)?);
            // An empty structure would go on for ever.
            if self.at == before {
                return Err(WireError::Type(kind.to_owned()));
            }
        }
        Ok(Value::Array(kind.to_owned(), values))
    }

    fn values(&mut self, mut kinds: &str, depth: usize) -> Result<Vec<Value>, WireError> {
        let mut values = Vec::new();
        while !kinds.is_empty() {
            let (first, rest) = split_type(kinds, depth)?;
            values.push(self.value(first, depth + 1)?);
            kinds = rest;
        }
        Ok(values)
    }

    fn signature(&mut self) -> Result<String, WireError> {
        let count = usize::from(self.take(1)?[0]);
        self.text(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        let property = |name: &str, value: Value| {
            Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value))])
        };
        Message {
            serial: 7,
            path: "/org/freedesktop/systemd1".into(),
            interface: "org.freedesktop.systemd1.Manager".into(),
            member: "StartTransientUnit".into(),
            destination: "org.freedesktop.systemd1".into(),
            body: vec![
                Value::text("a.scope"),
                Value::array(
                    "(sv)",
                    [
                        property("Delegate", Value::Bool(true)),
                        property("PIDs", Value::array("u", [Value::U32(5)])),
                        property("TasksMax", Value::U64(u64::MAX)),
                        property("AllowedCPUs", Value::array("y", [1, 2].map(Value::Byte))),
                        property("Nothing", Value::array("(ss)", [])),
                        property("Small", Value::Struct(vec![Value::I16(-2), Value::F64(0.5)])),
                    ],
                ),
                Value::array(
                    "{sv}",
                    [Value::Entry(Box::new((
                        Value::text("k"),
                        Value::Variant(Box::new(Value::Path("/x".into()))),
                    )))],
                ),
            ],
            ..Message::default()
        }
    }

    #[test]
    fn a_message_comes_back_as_it_was_written() {
        let bytes = message().to_bytes();
        assert_eq!(Message::length(&bytes).unwrap(), Some(bytes.len()));
        assert_eq!(Message::length(&bytes[..15]).unwrap(), None);
        assert_eq!(Message::parse(&bytes).unwrap(), message());
    }

    #[test]
    fn a_message_in_the_other_order_is_read_too() {
        let bytes = [
            &[b'B', 2, 0, 1, 0, 0, 0, 4, 0, 0, 0, 9, 0, 0, 0, 15][..],
            &[5, 1, b'u', 0, 0, 0, 0, 3, 8, 1, b'g', 0, 1, b'u', 0, 0],
            &[0, 0, 1, 2],
        ]
        .concat();
        let read = Message::parse(&bytes).unwrap();
        assert_eq!((read.kind, read.serial, read.reply_to), (Kind::Return, 9, Some(3)));
        assert_eq!(read.body, [Value::U32(258)]);
    }

    #[test]
    fn every_beginning_of_a_message_is_an_error() {
        let bytes = message().to_bytes();
        for end in 0..bytes.len() {
            assert!(Message::parse(&bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn whatever_byte_is_wrong_nothing_breaks() {
        let bytes = message().to_bytes();
        for at in 0..bytes.len() {
            for wrong in [0, 1, 7, b'a', b'(', b'v', 0x7f, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = wrong;
                // Either is right, as long as it ends.
                drop((Message::length(&bytes), Message::parse(&bytes)));
            }
        }
    }

    #[test]
    fn lengths_and_depths_have_a_limit() {
        let mut bytes = message().to_bytes();
        bytes[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(matches!(Message::length(&bytes), Err(WireError::TooLong(_))));
        assert_eq!(Message::length(b"HTTP/1.1 200 OK\r\n"), Err(WireError::NoMessage));
        assert_eq!(split_type(&"a".repeat(99), 0), Err(WireError::Depth));
        assert_eq!(split_type(&"(".repeat(99), 0), Err(WireError::Depth));
        assert_eq!(split_type("a(", 0), Err(WireError::Type("(".into())));
        let mut deep = Value::Byte(1);
        for _ in 0..40 {
            deep = Value::Variant(Box::new(deep));
        }
        let bytes = Message { body: vec![deep], ..message() }.to_bytes();
        assert_eq!(Message::parse(&bytes), Err(WireError::Depth));
        let empty = Message { body: vec![Value::array("y", [])], ..message() };
        assert_eq!(Message::parse(&empty.to_bytes()).unwrap(), empty);
    }
}
