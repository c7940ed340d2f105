//! containerd's filter language, for lists and event subscriptions.
//!
//! ```text
//! filter    := selector ( "," selector )*            all must hold
//! selector  := fieldpath ( operator value )?         without operator: presence
//! fieldpath := field ( "." field )*                  field: word or quoted
//! operator  := "==" | "!=" | "~="
//! value     := word | quoted                         quoted: "…" with escapes, or after ~= also |…| /…/
//! ```
//! White space may stand before a field, an operator and a value, and nowhere else.
//! A list takes several filters, of which one must match; no filter matches everything.

use std::borrow::Cow;

use crate::error::{Error, Result};

/// Something with fields that filters ask for.
pub(crate) trait Fields {
    /// The field's value, if the path names one that is present.
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>>;
}

/// Alternatives: one of them must match.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filters(Vec<Vec<Selector>>);

#[derive(Debug, Clone)]
struct Selector {
    path: Vec<String>,
    operator: Operator,
}

#[derive(Debug, Clone)]
enum Operator {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(regex::Regex),
}

impl Filters {
    pub(crate) fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self> {
        let mut patterns = PATTERNS;
        let parse = |filter: &S| parse(filter.as_ref(), &mut patterns);
        filters.iter().map(parse).collect::<Result<_>>().map(Self)
    }

    #[cfg(test)]
    pub(crate) fn all() -> Self {
        Self::default()
    }

    pub(crate) fn matches(&self, object: &dyn Fields) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|all| all.iter().all(|selector| selector.matches(object)))
    }
}

impl Selector {
    fn matches(&self, object: &dyn Fields) -> bool {
        let found = object.field(&self.path);
        match &self.operator {
            Operator::Present => found.is_some(),
            Operator::Equal(value) => found.is_some_and(|found| found == value.as_str()),
            // Compat: an absent field is not equal to anything.
            Operator::NotEqual(value) => found.is_none_or(|found| found != value.as_str()),
            Operator::Matches(pattern) => found.is_some_and(|found| pattern.is_match(&found)),
        }
    }
}

/// Looks a label up under `labels."name"`; a name with dots may also come as several fields.
pub(crate) fn label<'a>(
    labels: &'a crate::store::record::Labels,
    rest: &[String],
) -> Option<Cow<'a, str>> {
    if rest.is_empty() {
        return None;
    }
    labels.get(&rest.join(".")).map(|value| Cow::Borrowed(value.as_str()))
}

fn parse(filter: &str, patterns: &mut usize) -> Result<Vec<Selector>> {
    let mut parser = Parser { filter, rest: filter, patterns };
    let mut selectors = Vec::new();
    if filter.is_empty() {
        return Ok(selectors);
    }
    loop {
        selectors.push(parser.selector()?);
        match parser.rest.chars().next() {
            None => return Ok(selectors),
            Some(',') => parser.skip(1),
            Some(_) => return Err(parser.error("expected a comma or the end")),
        }
    }
}

struct Parser<'a> {
    filter: &'a str,
    rest: &'a str,
    /// How many more may be compiled.
    patterns: &'a mut usize,
}

impl Parser<'_> {
    /// Compat: containerd shows the place as `[before >|here|< after]`.
    fn error(&self, what: &str) -> Error {
        let (before, rest) = self.filter.split_at(self.filter.len() - self.rest.len());
        let mut rest = rest.chars();
        let here = rest.next().map(String::from).unwrap_or_default();
        let after = rest.as_str();
        Error::invalid(format!("filters: parse error: [{before} >|{here}|< {after}]: {what}"))
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn selector(&mut self) -> Result<Selector> {
        let mut path = vec![self.field()?];
        while self.rest.starts_with('.') {
            self.skip(1);
            path.push(self.field()?);
        }
        let before = self.rest;
        self.skip_space();
        if self.rest.len() < before.len() && !self.rest.starts_with(OPERATOR) {
            return Err(self.error("expected an operator"));
        }
        let end = self.rest.find(|c| !OPERATOR.contains(&c)).unwrap_or(self.rest.len());
        let operator = match &self.rest[..end] {
            "" => Operator::Present,
            "==" => {
                self.skip(2);
                Operator::Equal(self.value(false)?)
            }
            "!=" => {
                self.skip(2);
                Operator::NotEqual(self.value(false)?)
            }
            "~=" => {
                self.skip(2);
                let pattern = self.value(true)?;
                *self.patterns =
                    self.patterns.checked_sub(1).ok_or_else(|| self.error("too many patterns"))?;
                let pattern =
                    regex::RegexBuilder::new(&pattern).size_limit(REGEX_LIMIT).build().map_err(
                        |error| Error::invalid(format!("filter [{}]: {error}", self.filter)),
                    )?;
                Operator::Matches(pattern)
            }
            other => return Err(self.error(&format!("unsupported operator {other:?}"))),
        };
        Ok(Selector { path, operator })
    }

    fn field(&mut self) -> Result<String> {
        self.skip_space();
        if self.rest.starts_with('"') {
            return self.quoted('"');
        }
        let end = self
            .rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-'))
            .unwrap_or(self.rest.len());
        // `a-b` is no word to containerd, but no operator begins with a dash either.
        if end == 0 {
            return Err(self.error("expected a field or a quoted field"));
        }
        let (field, rest) = self.rest.split_at(end);
        let field = field.to_owned();
        self.rest = rest;
        Ok(field)
    }

    fn value(&mut self, pattern: bool) -> Result<String> {
        self.skip_space();
        match self.rest.chars().next() {
            Some('"') => self.quoted('"'),
            Some(quote @ ('|' | '/')) if pattern => self.quoted(quote),
            _ => {
                let end = |c: char| c == ',' || c == '"' || c.is_whitespace();
                let end = self.rest.find(end).unwrap_or(self.rest.len());
                if end == 0 {
                    return Err(self.error("expected a value or a quoted value"));
                }
                let (value, rest) = self.rest.split_at(end);
                let value = value.to_owned();
                self.rest = rest;
                Ok(value)
            }
        }
    }

    /// `"…"` knows Go's usual escapes; the pattern quotes only escape themselves.
    fn quoted(&mut self, quote: char) -> Result<String> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            if character == quote {
                self.skip(at + 1);
                return Ok(text);
            }
            if character != '\\' {
                text.push(character);
                continue;
            }
            let Some((_, escaped)) = characters.next() else { break };
            match escaped {
                _ if escaped == quote => text.push(quote),
                _ if quote != '"' => text.extend(['\\', escaped]),
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                '\\' => text.push('\\'),
                'x' => {
                    let hex: String = characters.by_ref().take(2).map(|(_, c)| c).collect();
                    let code = u8::from_str_radix(&hex, 16)
                        .ok()
                        .filter(|_| !hex.starts_with('+'))
                        .ok_or_else(|| self.error("invalid escape in quoted text"))?;
                    text.push(char::from(code));
                }
                _ => return Err(self.error("invalid escape in quoted text")),
            }
        }
        Err(self.error("unterminated quote"))
    }
}

/// What operators are made of; a run of these is one operator.
const OPERATOR: [char; 5] = ['=', '!', '~', '<', '>'];
/// Memory a client's pattern may take when compiled.
const REGEX_LIMIT: usize = 1 << 20;
/// Patterns in the filters of one request.
const PATTERNS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Sample;

    impl Fields for Sample {
        fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
            match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["name"] => Some("docker.io/library/busybox:latest".into()),
                ["topic"] => Some("/tasks/exit".into()),
                ["labels", "a.b/c"] => Some("1,2".into()),
                _ => None,
            }
        }
    }

    fn matches(filter: &str) -> bool {
        Filters::parse(&[filter]).unwrap().matches(&Sample)
    }

    #[test]
    fn each_operator_does_what_its_row_says() {
        for (filter, expected) in [
            ("", true),
            ("name", true),
            ("missing", false),
            ("name==docker.io/library/busybox:latest", true),
            ("name==other", false),
            ("name!=other", true),
            ("missing!=other", true),
            ("name~=busybox", true),
            ("name~=^busybox", false),
            ("topic~=|^/tasks/|", true),
            ("topic~=/exit$/", true),
            (r#"labels."a.b/c"=="1,2""#, true),
            (r#"labels."a.b/c""#, true),
            (r#"topic=="/tasks/exit",name~=busybox"#, true),
            (r#"topic=="/tasks/exit",name==x"#, false),
            // As ctr 2.x writes it.
            ("name~=busybox, name~=latest", true),
            (" name ~= busybox", true),
            (r#"name != "a", name ~= |other|"#, false),
        ] {
            assert_eq!(matches(filter), expected, "{filter}");
        }
    }

    #[test]
    fn one_of_several_filters_is_enough() {
        let filters = Filters::parse(&["name==x", "topic==/tasks/exit"]).unwrap();
        assert!(filters.matches(&Sample));
        assert!(!Filters::parse(&["name==x", "topic==y"]).unwrap().matches(&Sample));
    }

    #[test]
    fn malformed_filters_are_refused() {
        for bad in [
            "==x",
            "name==",
            "name===",
            "name<x",
            "name~=(",
            r#"name=="x"#,
            "name,,",
            "name==a\"b\"",
            "a.",
            " ",
            "name ",
            "name, ",
            "name , topic",
            "name . x",
            "name~=busybox ",
            "name~=busybox , topic",
            "name!=a b",
            r#"name~="busybox" , topic"#,
        ] {
            assert!(Filters::parse(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_take_a_bounded_sum_of_memory() {
        let large = r"name~=|\pL{8}|,".repeat(2000);
        let error = Filters::parse(&[large.trim_end_matches(',')]).unwrap_err().to_string();
        assert!(error.contains("too many patterns"), "{error}");
        let few = r"name~=|\pL{8}|,".repeat(10);
        assert!(Filters::parse(&[few.trim_end_matches(','); 3]).is_ok());
        assert!(Filters::parse(&[few.trim_end_matches(','); 50]).is_err());
    }

    proptest! {
        #[test]
        fn a_filter_holds_if_each_of_its_selectors_does(given in proptest::collection::vec(
            ("(name|topic|missing|labels)", 0_usize..3, "(/tasks/exit|1,2|\\PC{0,6})", any::<bool>()), 1..4,
        )) {
            let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let selector = |(field, operator, value, blank): &(String, usize, String, bool)| {
                let field = if field == "labels" { r#"labels."a.b/c""# } else { field.as_str() };
                let operator = ["==", "!=", "~="][*operator];
                let value = if operator == "~=" { regex::escape(value) } else { value.clone() };
                let blank = if *blank { " " } else { "" };
                format!("{blank}{field}{blank}{operator}{blank}{}", quote(&value))
            };
            let text = given.iter().map(selector).collect::<Vec<_>>().join(",");
            let wanted = given.iter().all(|(field, operator, value, _)| {
                let found = match field.as_str() {
                    "name" => Some("docker.io/library/busybox:latest"),
                    "topic" => Some("/tasks/exit"),
                    "labels" => Some("1,2"),
                    _ => None,
                };
                match operator {
                    0 => found == Some(value.as_str()),
                    1 => found != Some(value.as_str()),
                    _ => found.is_some_and(|found| found.contains(value.as_str())),
                }
            });
            prop_assert_eq!(matches(&text), wanted, "{}", text);
        }

        #[test]
        fn broken_filters_are_refused(filter in r#"[a."\\x0n+=!~|/, <é]{0,24}"#) {
            if let Err(error) = Filters::parse(&[&filter]) {
                prop_assert!(error.to_string().len() <= 8 * filter.len() + 200);
            }
        }

        #[test]
        fn no_input_panics(filter in ".{0,60}") {
            drop(Filters::parse(&[filter]));
        }
    }
}
