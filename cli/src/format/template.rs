//! `--format`: Go templates over JSON values, with Docker's functions, and the `table` directive.

use std::collections::HashMap;

use gtmpl_ng::{Context, Func, FuncError, Template, Value};
use serde_json::Value as Json;

use super::table;
use crate::error::CliError;

/// A parsed `--format`.
pub(crate) struct Format {
    template: Template,
    table: bool,
}

impl Format {
    /// Parses the option's value. `json` stands for `{{json .}}`.
    pub(crate) fn parse(text: &str) -> Result<Self, CliError> {
        let (text, table) = match text.trim() {
            "json" => ("{{json .}}", false),
            other => match other.strip_prefix("table ") {
                Some(rest) => (rest, true),
                None => (text, false),
            },
        };
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut template = Template::default();
        template.add_funcs(&FUNCTIONS);
        template.parse(text).map_err(|problem| CliError::Template(problem.to_string()))?;
        Ok(Self { template, table })
    }

    /// One value, without a newline.
    pub(crate) fn one(&self, value: &Json) -> Result<String, CliError> {
        self.template
            .render(&Context::from(to_value(value)))
            .map_err(|problem| CliError::Template(problem.to_string()))
    }

    /// One line a value; with `table`, below the headings and in columns.
    pub(crate) fn many(&self, values: &[Json], headings: &Json) -> Result<String, CliError> {
        let mut out = String::new();
        if self.table {
            out.push_str(&self.one(headings)?);
            out.push('\n');
        }
        for value in values {
            out.push_str(&self.one(value)?);
            out.push('\n');
        }
        Ok(if self.table { table::align(&out) } else { out })
    }
}

fn to_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Value::from(value),
            (None, Some(value)) => Value::from(value),
            (None, None) => Value::Nil,
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => Value::Array(items.iter().map(to_value).collect()),
        Json::Object(members) => Value::Map(
            members
                .iter()
                .map(|(key, value)| (key.clone(), to_value(value)))
                .collect::<HashMap<_, _>>(),
        ),
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Bool(value) => Json::Bool(*value),
        Value::String(text) => Json::String(text.clone()),
        Value::Array(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Map(members) | Value::Object(members) => {
            Json::Object(members.iter().map(|(key, value)| (key.clone(), to_json(value))).collect())
        }
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Json::from(value),
            (None, Some(value)) => Json::from(value),
            (None, None) => Json::Null,
        },
        _ => Json::Null,
    }
}

const FUNCTIONS: [(&str, Func); 6] = [
    ("json", json as Func),
    ("join", join as Func),
    ("split", split as Func),
    ("upper", upper as Func),
    ("lower", lower as Func),
    ("truncate", truncate as Func),
];

fn json(arguments: &[Value]) -> Result<Value, FuncError> {
    let [value] = arguments else { return Err(FuncError::Generic("json takes one value".into())) };
    let text = to_json(value).to_string();
    // Go escapes these in JSON.
    let text = text.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e");
    Ok(Value::String(text))
}

fn text(value: Option<&Value>) -> Result<&str, FuncError> {
    match value {
        Some(Value::String(text)) => Ok(text),
        _ => Err(FuncError::Generic("a string was expected".into())),
    }
}

fn join(arguments: &[Value]) -> Result<Value, FuncError> {
    let Some(Value::Array(items)) = arguments.first() else {
        return Err(FuncError::Generic("join takes a list and a separator".into()));
    };
    let parts: Vec<String> = items
        .iter()
        .map(|item| match item {
            Value::String(text) => text.clone(),
            other => to_json(other).to_string(),
        })
        .collect();
    Ok(Value::String(parts.join(text(arguments.get(1))?)))
}

fn split(arguments: &[Value]) -> Result<Value, FuncError> {
    let (whole, separator) = (text(arguments.first())?, text(arguments.get(1))?);
    Ok(Value::Array(whole.split(separator).map(|part| Value::String(part.to_owned())).collect()))
}

fn upper(arguments: &[Value]) -> Result<Value, FuncError> {
    Ok(Value::String(text(arguments.first())?.to_uppercase()))
}

fn lower(arguments: &[Value]) -> Result<Value, FuncError> {
    Ok(Value::String(text(arguments.first())?.to_lowercase()))
}

fn truncate(arguments: &[Value]) -> Result<Value, FuncError> {
    let length = match arguments.get(1) {
        Some(Value::Number(number)) => {
            number.as_i64().and_then(|length| usize::try_from(length).ok())
        }
        _ => None,
    };
    let length = length.ok_or_else(|| FuncError::Generic("truncate takes a length".into()))?;
    Ok(Value::String(text(arguments.first())?.chars().take(length).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_functions_and_json_work() {
        let value = serde_json::json!({"Name": "/x", "State": {"Pid": 7, "Running": true}, "L": ["a", "b"]});
        for (format, expected) in [
            ("{{.Name}}", "/x"),
            ("{{.State.Pid}} {{.State.Running}}", "7 true"),
            ("{{json .L}}", "[\"a\",\"b\"]"),
            ("{{join .L \",\"}}", "a,b"),
            ("{{upper .Name}}", "/X"),
        ] {
            assert_eq!(Format::parse(format).unwrap().one(&value).unwrap(), expected, "{format}");
        }
    }

    #[test]
    fn table_prints_headings_in_columns() {
        let format = Format::parse("table {{.ID}}\\t{{.Name}}").unwrap();
        let headings = serde_json::json!({"ID": "CONTAINER ID", "Name": "NAMES"});
        let rows = [serde_json::json!({"ID": "abc", "Name": "n"})];
        assert_eq!(
            format.many(&rows, &headings).unwrap(),
            "CONTAINER ID   NAMES\nabc            n\n"
        );
    }

    #[test]
    fn a_broken_template_is_an_error() {
        assert!(Format::parse("{{.Name").is_err());
    }
}
