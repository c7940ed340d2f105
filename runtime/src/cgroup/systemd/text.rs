//! Annotations `org.systemd.property.NAME`: a property of the unit, its value in GLib's text format for
//! variants, as far as properties of units need it.

use std::collections::BTreeMap;

use super::wire::Value;

const PREFIX: &str = "org.systemd.property.";

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnnotationError {
    // Compat: runc's sentences.
    #[error("annotation {PREFIX}{name} name incorrect: {why}")]
    Name { name: String, why: &'static str },
    #[error("annotation {PREFIX}{name}={value} value parse error: {why}")]
    Value { name: String, value: String, why: &'static str },
}

/// The properties that the annotations ask for.
pub(super) fn properties(
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<(String, Value)>, AnnotationError> {
    let named =
        annotations.iter().filter_map(|(key, text)| Some((key.strip_prefix(PREFIX)?, text)));
    named.map(|(name, text)| property(name, text)).collect()
}

fn property(name: &str, text: &str) -> Result<(String, Value), AnnotationError> {
    let wrong_name = |why| AnnotationError::Name { name: name.to_owned(), why };
    if name.len() < 3 {
        return Err(wrong_name("too short"));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(wrong_name("contains non-alphabetic character"));
    }
    let wrong = |why| AnnotationError::Value { name: name.to_owned(), value: text.to_owned(), why };
    let value = parse(text).ok_or_else(|| wrong("not a value"))?;
    // Compat: seconds, which systemd's files have and its bus has not.
    if let Some(stem) = name.strip_suffix("Sec")
        && stem.ends_with(|letter: char| letter.is_ascii_lowercase())
    {
        let micros = microseconds(&value).ok_or_else(|| wrong("not a number"))?;
        return Ok((format!("{stem}USec"), Value::U64(micros)));
    }
    Ok((name.to_owned(), value))
}

fn microseconds(value: &Value) -> Option<u64> {
    const MILLION: u64 = 1_000_000;
    let whole = |number: i64| Some(u64::try_from(number).ok()?.saturating_mul(MILLION));
    match value {
        Value::Byte(number) => whole(i64::from(*number)),
        Value::I16(number) => whole(i64::from(*number)),
        Value::U16(number) => whole(i64::from(*number)),
        Value::I32(number) => whole(i64::from(*number)),
        Value::U32(number) => whole(i64::from(*number)),
        Value::I64(number) => whole(*number),
        Value::U64(number) => Some(number.saturating_mul(MILLION)),
        Value::F64(number) => {
            let micros = std::time::Duration::try_from_secs_f64(*number).ok()?.as_micros();
            u64::try_from(micros).ok()
        }
        _ => None,
    }
}

fn parse(text: &str) -> Option<Value> {
    let mut parser = Parser { rest: text };
    let value = parser.value(0)?;
    parser.skip();
    parser.rest.is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, text: &str) -> bool {
        self.skip();
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn word(&mut self) -> String {
        self.skip();
        let inside = |letter: char| letter.is_ascii_alphanumeric() || "_.+-".contains(letter);
        let end = self.rest.find(|letter| !inside(letter)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn value(&mut self, depth: u32) -> Option<Value> {
        self.skip();
        match self.rest.chars().next()? {
            _ if depth > 8 => None,
            quote @ ('\'' | '"') => self.text(quote).map(Value::Text),
            '[' => self.array(depth),
            '(' => self.tuple(depth),
            '@' => {
                self.rest = &self.rest[1..];
                let end = self.rest.find(char::is_whitespace)?;
                let (kind, rest) = self.rest.split_at(end);
                let kind = kind.to_owned();
                self.rest = rest;
                typed(self.value(depth + 1)?, &kind)
            }
            '<' => {
                self.rest = &self.rest[1..];
                let inner = self.value(depth + 1)?;
                self.eat(">").then(|| Value::Variant(Box::new(inner)))
            }
            _ => match self.word().as_str() {
                "true" => Some(Value::Bool(true)),
                "false" => Some(Value::Bool(false)),
                word => match keyword(word) {
                    Some(kind) => typed(self.value(depth + 1)?, kind),
                    None => number(word),
                },
            },
        }
    }

    fn text(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut letters = self.rest.char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            if letter == quote {
                self.rest = &self.rest[at + 1..];
                return Some(text);
            }
            if letter != '\\' {
                text.push(letter);
                continue;
            }
            text.push(match letters.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                plain @ ('\\' | '\'' | '"') => plain,
                _ => return None,
            });
        }
        None
    }

    fn list(&mut self, open: &str, close: &str, depth: u32) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        if !self.eat(open) {
            return None;
        }
        while !self.eat(close) {
            if !values.is_empty() && !self.eat(",") {
                return None;
            }
            if !values.is_empty() && self.eat(close) {
                break;
            }
            values.push(self.value(depth + 1)?);
        }
        Some(values)
    }

    fn array(&mut self, depth: u32) -> Option<Value> {
        let values = self.list("[", "]", depth)?;
        // An empty one says its type before.
        let kind = values.first().map_or_else(String::new, Value::signature);
        values.iter().all(|value| value.signature() == kind).then_some(Value::Array(kind, values))
    }

    fn tuple(&mut self, depth: u32) -> Option<Value> {
        let values = self.list("(", ")", depth)?;
        (!values.is_empty()).then_some(Value::Struct(values))
    }
}

fn keyword(word: &str) -> Option<&'static str> {
    Some(match word {
        "byte" => "y",
        "boolean" => "b",
        "int16" => "n",
        "uint16" => "q",
        "int32" => "i",
        "uint32" | "handle" => "u",
        "int64" => "x",
        "uint64" => "t",
        "double" => "d",
        "string" => "s",
        "objectpath" => "o",
        "signature" => "g",
        _ => return None,
    })
}

fn number(word: &str) -> Option<Value> {
    if let Some(digits) = word.strip_prefix("0x") {
        return i32::from_str_radix(digits, 16).ok().map(Value::I32);
    }
    if word.contains(['.', 'e', 'E']) || word.ends_with("inf") || word == "nan" {
        return word.parse().ok().map(Value::F64);
    }
    // One that a type stands before may be longer.
    match word.parse::<i32>() {
        Ok(number) => Some(Value::I32(number)),
        Err(_) => match word.parse::<i64>() {
            Ok(number) => Some(Value::I64(number)),
            Err(_) => word.parse::<u64>().ok().map(Value::U64),
        },
    }
}

/// The value as one of a given type.
fn typed(value: Value, kind: &str) -> Option<Value> {
    if value.signature() == kind {
        return Some(value);
    }
    if let Value::Array(_, values) = value {
        let kind = kind.strip_prefix('a')?;
        let values = values.into_iter().map(|value| typed(value, kind));
        return Some(Value::Array(kind.to_owned(), values.collect::<Option<_>>()?));
    }
    let wide = match value {
        Value::I32(number) => i128::from(number),
        Value::I64(number) => i128::from(number),
        Value::U64(number) => i128::from(number),
        Value::Text(text) if kind == "o" => return Some(Value::Path(text)),
        Value::Text(text) if kind == "g" => return Some(Value::Signature(text)),
        _ => return None,
    };
    Some(match kind {
        "y" => Value::Byte(wide.try_into().ok()?),
        "n" => Value::I16(wide.try_into().ok()?),
        "q" => Value::U16(wide.try_into().ok()?),
        "i" => Value::I32(wide.try_into().ok()?),
        "u" => Value::U32(wide.try_into().ok()?),
        "x" => Value::I64(wide.try_into().ok()?),
        "t" => Value::U64(wide.try_into().ok()?),
        "d" => Value::F64(f64::from(i32::try_from(wide).ok()?)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_glib_writes_them() {
        for (text, value) in [
            ("true", Value::Bool(true)),
            ("7", Value::I32(7)),
            ("-7", Value::I32(-7)),
            ("0x10", Value::I32(16)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("byte 255", Value::Byte(255)),
            ("@t 5", Value::U64(5)),
            ("1.5", Value::F64(1.5)),
            ("'a \\'b\\n'", Value::text("a 'b\n")),
            ("\"x\"", Value::text("x")),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("['a', 'b']", Value::array("s", ["a", "b"].map(Value::text))),
            ("@as []", Value::array("s", [])),
            ("@au [1, 2,]", Value::array("u", [1, 2].map(Value::U32))),
            (" ('a', 3) ", Value::Struct(vec![Value::text("a"), Value::I32(3)])),
            ("<true>", Value::Variant(Box::new(Value::Bool(true)))),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_value() {
        for text in [
            "",
            "hello",
            "'a",
            "[1, 'a']",
            "byte 256",
            "uint32 -1",
            "1 2",
            "@as [1]",
            "(",
            "()",
            "'\\q'",
            "string 5",
            "@",
            "@t",
            "<",
            "[,]",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&"(".repeat(10_000)), None);
        assert_eq!(parse(&"<".repeat(10_000)), None);
    }

    #[test]
    fn seconds_become_microseconds() {
        assert_eq!(
            property("TimeoutStopSec", "3"),
            Ok(("TimeoutStopUSec".into(), Value::U64(3_000_000)))
        );
        assert_eq!(
            property("RuntimeMaxSec", "0.5"),
            Ok(("RuntimeMaxUSec".into(), Value::U64(500_000)))
        );
        // No unit of time.
        assert_eq!(property("XXSec", "1"), Ok(("XXSec".into(), Value::I32(1))));
        let error = |name, text| property(name, text).unwrap_err().to_string();
        assert_eq!(
            error("XX", "1"),
            "annotation org.systemd.property.XX name incorrect: too short"
        );
        assert_eq!(
            error("Name with", "1"),
            "annotation org.systemd.property.Name with name incorrect: contains non-alphabetic character"
        );
        assert_eq!(
            error("StopSec", "'a'"),
            "annotation org.systemd.property.StopSec='a' value parse error: not a number"
        );
    }
}
