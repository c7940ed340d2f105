//! The functions of templates: Go's own and those the stock client adds.

use std::cmp::Ordering;

use super::value::Value;

const NAMES: &[&str] = &[
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "html", "js",
    "urlquery", "eq", "ne", "lt", "le", "gt", "ge", "json", "join", "split", "title", "lower",
    "upper", "pad", "truncate", "call",
];

pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls `name`; the error says what is wrong with the arguments.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let text = |at: usize| match arguments.get(at) {
        Some(Value::Text(text)) => Ok(text.as_str()),
        Some(other) => Err(format!("wrong type for value; expected string; got {other}")),
        None => Err(format!("not enough arguments for {name}")),
    };
    let number = |at: usize| match arguments.get(at) {
        Some(Value::Number(number)) => number
            .as_i64()
            .and_then(|number| usize::try_from(number).ok())
            .ok_or_else(|| "out of range".to_owned()),
        _ => Err("expected integer".to_owned()),
    };
    let first = || arguments.first().ok_or_else(|| format!("not enough arguments for {name}"));
    Ok(match name {
        "and" | "or" => arguments.last().cloned().ok_or("missing argument")?,
        "not" => Value::Bool(!first()?.is_true()),
        "len" => Value::Number(length(first()?)?.into()),
        "index" => index(first()?, arguments.get(1..).unwrap_or_default())?,
        "slice" => slice(
            first()?,
            if arguments.len() > 1 { number(1)? } else { 0 },
            if arguments.len() > 2 { Some(number(2)?) } else { None },
        )?,
        "print" => Value::Text(print(arguments)),
        "println" => {
            let parts: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            Value::Text(format!("{}\n", parts.join(" ")))
        }
        "printf" => Value::Text(printf(text(0)?, arguments.get(1..).unwrap_or_default())),
        "html" => Value::Text(
            print(arguments)
                .replace('&', "&amp;")
                .replace('\'', "&#39;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&#34;"),
        ),
        "js" => Value::Text(
            print(arguments).replace('\\', "\\\\").replace('\'', "\\'").replace('"', "\\\""),
        ),
        "urlquery" => Value::Text(crate::client::escape(&print(arguments)).replace("%20", "+")),
        "eq" => {
            let one = first()?;
            Value::Bool(
                arguments.get(1..).unwrap_or_default().iter().any(|other| equal(one, other)),
            )
        }
        "ne" => Value::Bool(!equal(first()?, arguments.get(1).ok_or("missing argument")?)),
        "lt" | "le" | "gt" | "ge" => {
            let order = order(first()?, arguments.get(1).ok_or("missing argument")?)?;
            Value::Bool(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            })
        }
        // Compat: a row of a table escapes `<`, everything else does not.
        "json" => Value::Text(first()?.to_json(first()?.get(super::ROW).is_some())),
        "join" => match first()? {
            Value::List(items) => {
                let parts: Vec<String> = items.iter().map(ToString::to_string).collect();
                Value::Text(parts.join(text(1)?))
            }
            Value::Null | Value::Missing => Value::text(""),
            _ => return Err("wrong type for value; expected []string".to_owned()),
        },
        "split" => Value::List(text(0)?.split(text(1)?).map(Value::text).collect()),
        "title" => Value::Text(title(text(0)?)),
        "lower" => Value::Text(text(0)?.to_lowercase()),
        "upper" => Value::Text(text(0)?.to_uppercase()),
        "pad" if text(0)?.is_empty() => Value::text(""),
        "pad" => {
            let (before, after) = (number(1)?, number(2)?);
            if before.max(after) > WIDTH {
                return Err("out of range".to_owned());
            }
            Value::Text(format!("{}{}{}", " ".repeat(before), text(0)?, " ".repeat(after)))
        }
        "truncate" => Value::Text(text(0)?.chars().take(number(1)?).collect()),
        _ => return Err("not supported in --format".to_owned()),
    })
}

fn length(value: &Value) -> Result<usize, String> {
    match value {
        Value::Text(text) => Ok(text.len()),
        Value::List(items) => Ok(items.len()),
        Value::Map(members) => Ok(members.len()),
        Value::Null => Ok(0),
        Value::Missing => Err("len of nil pointer".to_owned()),
        other => Err(format!("len of type {}", type_of(other))),
    }
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, String> {
    let mut value = value.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Map(members), Value::Text(key)) => {
                // Compat: what a map of texts does not have is an empty text.
                let texts = members.iter().all(|(_, value)| matches!(value, Value::Text(_)));
                let found = members.iter().find(|(name, _)| name == key);
                match found {
                    Some((_, value)) => value.clone(),
                    None if texts => Value::text(""),
                    None => Value::Null,
                }
            }
            (Value::List(items), Value::Number(number)) => number
                .as_i64()
                .and_then(|at| usize::try_from(at).ok())
                .and_then(|at| items.get(at).cloned())
                .ok_or_else(|| {
                    format!("error calling index: reflect: slice index out of range: {number}")
                })?,
            (Value::Null | Value::Missing, Value::Text(_)) => Value::text(""),
            (Value::Null | Value::Missing, _) => {
                return Err("index of untyped nil".to_owned());
            }
            (other, _) => return Err(format!("can't index item of type {}", type_of(other))),
        };
    }
    Ok(value)
}

fn slice(value: &Value, from: usize, to: Option<usize>) -> Result<Value, String> {
    let out = |to: usize| format!("index out of range: {to}");
    match value {
        Value::Text(text) => {
            let to = to.unwrap_or(text.len());
            text.get(from..to).map(Value::text).ok_or_else(|| out(to))
        }
        Value::List(items) => {
            let to = to.unwrap_or(items.len());
            items.get(from..to).map(|items| Value::List(items.to_vec())).ok_or_else(|| out(to))
        }
        other => Err(format!("can't slice item of type {}", type_of(other))),
    }
}

fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        _ => one == other,
    }
}

fn order(one: &Value, other: &Value) -> Result<Ordering, String> {
    let order = match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64().partial_cmp(&other.as_f64()),
        (Value::Text(one), Value::Text(other)) => Some(one.cmp(other)),
        _ => None,
    };
    order.ok_or_else(|| "incompatible types for comparison".to_owned())
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Missing | Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::Text(_) => "string",
        Value::List(_) => "slice",
        Value::Map(_) => "map",
    }
}

/// A blank stands between two that are not texts.
fn print(arguments: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in arguments.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| arguments.get(at));
        let texts = matches!(value, Value::Text(_)) || matches!(before, Some(Value::Text(_)));
        if before.is_some() && !texts {
            out.push(' ');
        }
        out.push_str(&value.to_string());
    }
    out
}

fn printf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut specification = String::new();
        while let Some(next) = letters.next_if(|c| "+-# 0123456789.".contains(*c)) {
            specification.push(next);
        }
        let verb = letters.next().filter(|_| !is_beyond_measure(&specification));
        let Some(verb) = verb else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        match arguments.next() {
            None => out.push_str(&format!("%!{verb}(MISSING)")),
            Some(value) => {
                out.push_str(&pad(&specification, &verbatim(verb, &specification, value)))
            }
        }
    }
    let extra: Vec<String> = arguments.map(|value| format!("{}={value}", type_of(value))).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

/// Compat: Go reads no further in a width or precision whose digits so far are more than a million.
fn is_beyond_measure(specification: &str) -> bool {
    specification.split(|letter: char| !letter.is_ascii_digit()).any(|digits| {
        !digits.is_empty() && digits.parse::<usize>().map_or(true, |number| number > WIDTH)
    })
}

const WIDTH: usize = 10_000_009;

fn verbatim(verb: char, specification: &str, value: &Value) -> String {
    let precision = specification.split_once('.').and_then(|(_, digits)| digits.parse().ok());
    match (verb, value) {
        ('v' | 's', Value::Text(text)) => match precision {
            Some(most) => text.chars().take(most).collect(),
            None => text.clone(),
        },
        ('v', other) => other.to_string(),
        ('s', Value::List(_) | Value::Map(_)) => value.to_string(),
        ('q', Value::Text(text)) => format!("{text:?}"),
        ('d', Value::Number(number)) if !number.is_f64() => number.to_string(),
        ('x', Value::Number(number)) if number.is_i64() => {
            format!("{:x}", number.as_i64().unwrap_or_default())
        }
        ('x', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('f', Value::Number(number)) => {
            let wanted: usize = precision.unwrap_or(6);
            // No number has more digits.
            let digits = wanted.min(1100);
            let text = format!("{:.*}", digits, number.as_f64().unwrap_or_default());
            text + &"0".repeat(wanted - digits)
        }
        ('t', Value::Bool(value)) => value.to_string(),
        (verb, other) => format!("%!{verb}({}={other})", type_of(other)),
    }
}

fn pad(specification: &str, text: &str) -> String {
    let (left, rest) = match specification.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, specification),
    };
    let zero = !left && rest.starts_with('0');
    let width: usize = rest
        .split('.')
        .next()
        .unwrap_or_default()
        .trim_matches(['+', ' ', '#'])
        .parse()
        .unwrap_or(0);
    let missing = width.saturating_sub(text.chars().count());
    let fill = if zero { "0" } else { " " }.repeat(missing);
    if left { format!("{text}{fill}") } else { format!("{fill}{text}") }
}

/// A capital letter first in each word.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for letter in text.chars() {
        if inside {
            out.push(letter);
        } else {
            out.extend(letter.to_uppercase());
        }
        inside = letter.is_alphanumeric() || letter == '_' || letter == '\'';
    }
    out
}
