//! `--format`: Go templates over JSON, the `table` directive, and the words for what is wrong.

mod functions;
mod parse;
mod run;
mod value;

use self::run::Run;
pub(crate) use self::value::{HIDDEN, Value};
use super::table;
use crate::error::CliError;

/// Marks a row of a list: its JSON is escaped.
const ROW: &str = HIDDEN;

/// How a command tells of a wrong template.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    /// What the template is called.
    pub(crate) name: &'static str,
    /// Before what is wrong with its text.
    pub(crate) parsing: &'static str,
    /// Before what is wrong with its fields.
    pub(crate) executing: &'static str,
    /// The exit code for a wrong text.
    pub(crate) code: u8,
    /// What the stock client's value is called in Go; empty for a document.
    pub(crate) type_name: &'static str,
}

/// A parsed `--format`.
pub(crate) struct Format {
    source: String,
    nodes: Vec<parse::Node>,
    table: bool,
    words: Words,
}

impl Format {
    /// Parses the option's value. `json` stands for `{{json .}}`.
    pub(crate) fn parse(text: &str, words: Words) -> Result<Self, CliError> {
        // Compat: only lists know tables, and `\\t` and `\\n` for the characters they stand for.
        let list = words.type_name.ends_with("Context");
        let (text, table) = match text {
            "json" => ("{{json .}}", false),
            other => match other.strip_prefix("table") {
                Some(rest) if list => (rest, true),
                _ => (text, false),
            },
        };
        let source = if list {
            text.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n")
        } else {
            text.to_owned()
        };
        let nodes = parse::parse(&source, &functions::is_known).map_err(|mistake| {
            let text = format!(
                "{}template: {}:{}: {}",
                words.parsing, words.name, mistake.line, mistake.text
            );
            CliError::Template { text, code: words.code }
        })?;
        Ok(Self { source, nodes, table, words })
    }

    /// One value, without a newline.
    pub(crate) fn one(&self, value: &Value) -> Result<String, CliError> {
        let mut run = Run::new(&self.source, self.words.name, self.words.type_name, value);
        run.nodes(&self.nodes, value).map_err(|failure| CliError::Template {
            text: format!("{}{}", self.words.executing, failure.0),
            code: if self.words.executing == "Error parsing format: " { 64 } else { 1 },
        })?;
        Ok(run.out)
    }

    /// One line a value; with `table`, below the headings and in columns.
    pub(crate) fn many(&self, values: &[Value], headings: &Value) -> Result<String, CliError> {
        let mut out = String::new();
        for value in values {
            out.push_str(&self.one(value)?);
            out.push('\n');
        }
        if !self.table {
            return Ok(out);
        }
        Ok(table::align(&format!("{}\n{out}", self.one(headings)?)))
    }
}

/// A row of a list.
pub(crate) fn row<'a>(members: impl IntoIterator<Item = (&'a str, Value)>, labels: Value) -> Value {
    let mut members: Vec<(String, Value)> =
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    members.sort_by(|one, other| one.0.cmp(&other.0));
    members.push((HIDDEN.to_owned(), labels));
    Value::Map(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WORDS: Words = Words {
        name: "",
        parsing: "template parsing error: ",
        executing: "template parsing error: ",
        code: 64,
        type_name: "",
    };

    fn render(template: &str) -> Result<String, String> {
        let value = Value::from_json(
            br#"{"Id":"abc","Name":"/x","State":{"Status":"running","Running":true,"Pid":7},
                "Config":{"Env":["A=1","B=2"],"Labels":{"b":"2","a.b":"1"},"Cmd":["a","b"],"Entrypoint":null},
                "Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8081"}]}}"#,
        )
        .unwrap();
        Format::parse(template, WORDS)
            .and_then(|format| format.one(&value))
            .map_err(|problem| problem.to_string())
    }

    // Compat: each expectation was printed by docker 28.5.
    #[test]
    fn templates_say_what_they_say_in_go() {
        for (template, expected) in [
            ("{{.Name}}", "/x"),
            ("{{.ID}}", "abc"),
            ("{{.State.Pid}} {{.State.Running}}", "7 true"),
            ("{{json .Config.Cmd}}{{json \"<&>\"}}", "[\"a\",\"b\"]\"<&>\""),
            ("{{json .State}}", "{\"Status\":\"running\",\"Running\":true,\"Pid\":7}"),
            (
                "{{.Config.Labels}} {{.Config.Cmd}} {{.Config.Entrypoint}}",
                "map[a.b:1 b:2] [a b] []",
            ),
            ("{{.Config.Labels.b}} {{.Config.Labels.nope}}", "2 <no value>"),
            ("{{index .Config.Labels \"a.b\"}}{{index .Config.Labels \"zz\"}}|", "1|"),
            ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8081"),
            ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
            ("{{range $i, $e := .Config.Env}}{{$i}}{{$e}};{{end}}", "0A=1;1B=2;"),
            ("{{range $k, $v := .Ports}}{{$k}}={{len $v}}{{end}}", "80/tcp=1"),
            ("{{range .Config.Entrypoint}}x{{else}}none{{end}}", "none"),
            ("{{with .State}}{{.Status}}{{else}}no{{end}}", "running"),
            (
                "{{if and .State.Running (eq .State.Status \"running\")}}up{{else if true}}x{{end}}",
                "up",
            ),
            ("{{if not .State.Running}}a{{else if true}}x{{else}}y{{end}}", "x"),
            (
                "{{printf \"%s %d %v %q %-5s|\" .Name .State.Pid .State.Running .Name \"a\"}}",
                "/x 7 true \"/x\" a    |",
            ),
            (
                "{{len .Ports}} {{slice .Id 0 2 | len}} {{.Name | upper}} {{title \"ab cd\"}} {{pad \"x\" 1 2}}|",
                "1 2 /X Ab Cd  x  |",
            ),
            (
                "{{truncate .Name 1}} {{split \"a,b\" \",\"}} {{join .Config.Cmd \"-\"}}",
                "/ [a b] a-b",
            ),
            ("{{- /* c */ -}} a {{- \" b \" -}} c", "a b c"),
            ("{{$x := 3}}{{$x}}{{$x = 4}}{{$x}}", "34"),
            (
                "{{html \"<a>\"}}{{urlquery \"a b\"}}{{not true}}{{ne 1 2}}{{lt 1 2}}{{or \"\" \"x\"}}{{1.5}}",
                "&lt;a&gt;a+bfalsetruetruex1.5",
            ),
            ("{{print 1 2 \"a\" \"b\" 3}}", "1 2ab3"),
            ("{{range .Config.Env}}{{if eq . \"B=2\"}}{{break}}{{end}}{{.}}{{end}}", "A=1"),
        ] {
            assert_eq!(render(template), Ok(expected.to_owned()), "{template}");
        }
    }

    #[test]
    fn mistakes_are_told_in_gos_words() {
        for (template, expected) in [
            ("{{.Id", ":1: unclosed action"),
            ("{{nofunc .}}", ":1: function \"nofunc\" not defined"),
            ("{{if}}", ":1: missing value for if"),
            ("{{end}}", ":1: unexpected {{end}}"),
            ("{{range .Config.Env}}x", ":1: unexpected EOF"),
            ("{{\"abc}}", ":1: unterminated quoted string"),
            ("{{$x}}", ":1: undefined variable \"$x\""),
            ("{{.Nope}}", ":1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\""),
            (
                "{{.State.Nope}}",
                ":1:8: executing \"\" at <.State.Nope>: map has no entry for key \"Nope\"",
            ),
            (
                "{{.State.Running.Foo}}",
                ":1:8: executing \"\" at <.State.Running.Foo>: can't evaluate field Foo in type interface {}",
            ),
            ("{{nil}}", ":1:2: executing \"\" at <nil>: nil is not a command"),
        ] {
            assert_eq!(
                render(template),
                Err(format!("template parsing error: template: {expected}")),
                "{template}"
            );
        }
    }

    #[test]
    fn table_prints_headings_in_columns() {
        let words = Words { type_name: "*formatter.ContainerContext", ..WORDS };
        let format = Format::parse("table {{.ID}}\\t{{.Label \"com.x-y.my_key\"}}", words).unwrap();
        let headings = row([("ID", Value::text("CONTAINER ID"))], Value::Null);
        let labels = Value::Map(vec![("com.x-y.my_key".to_owned(), Value::text("va"))]);
        let rows = [row([("ID", Value::text("abc"))], labels)];
        assert_eq!(
            format.many(&rows, &headings).unwrap(),
            "CONTAINER ID   my key\nabc            va\n"
        );
    }

    #[test]
    fn the_json_of_a_row_is_escaped() {
        let format = Format::parse("{{json .}} {{json .Tag}}", WORDS).unwrap();
        let row = row([("Tag", Value::text("<none>"))], Value::Null);
        assert_eq!(format.one(&row).unwrap(), "{\"Tag\":\"\\u003cnone\\u003e\"} \"<none>\"");
    }

    fn shown(text: &str) -> Result<String, String> {
        let words = Words { name: "t", parsing: "", executing: "", code: 1, type_name: "" };
        let value = Value::from_json(DOCUMENT.as_bytes()).unwrap();
        let format = Format::parse(text, words).map_err(|problem| problem.to_string())?;
        format.one(&value).map_err(|problem| problem.to_string())
    }

    const DOCUMENT: &str = r#"{"Name":"n é","Labels":{"a":"b"},"List":[1,2.5,null,"x",{"Y":[]}],"Big":9223372036854775807,"Null":null,"On":true}"#;

    #[test]
    fn numbers_without_measure_are_refused() {
        // Compat: what Go's printf takes for a width, and what it says of more.
        assert_eq!(shown(r#"{{printf "%9999999d" 1}}"#).unwrap().len(), 9_999_999);
        assert_eq!(shown(r#"{{printf "%.70000f" 1.5}}"#).unwrap().len(), 70_002);
        assert_eq!(
            shown(r#"{{printf "%-99999999s|" "a"}}"#).unwrap(),
            "%!(NOVERB)%!(EXTRA string=a)"
        );
        assert!(shown(r#"{{pad "x" 9223372036854775807 0}}"#).is_err());
        assert!(shown(r#"{{pad "x" 0 1000000000000}}"#).is_err());
        assert_eq!(shown("{{range .Big}}{{break}}{{end}}y").unwrap(), "y");
    }

    #[test]
    fn what_is_nested_without_end_is_refused() {
        let deep = |open: &str, close: &str, count: usize| {
            format!("{}1{}", open.repeat(count), close.repeat(count))
        };
        assert_eq!(shown(&format!("{{{{{}}}}}", deep("(", ")", 100))).unwrap(), "1");
        assert_eq!(shown(&deep("{{if 1}}", "{{end}}", 100)).unwrap(), "1");
        for text in [
            format!("{{{{{}}}}}", deep("(", ")", 50_000)),
            deep("{{if 1}}", "{{end}}", 10_000),
            "{{if 0}}{{else if 0}}".repeat(10_000),
            format!("{{{{if 0}}}}{}{{{{end}}}}", "{{else if 0}}".repeat(10_000)),
        ] {
            let problem = shown(&text).unwrap_err();
            assert!(problem.ends_with("nested too deeply"), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn any_template_is_refused_or_run(
            pieces in proptest::collection::vec(
                (0..TOKENS.len(), any::<bool>(), any::<bool>()),
                0..14,
            ),
            text in "\\PC{0,4}",
        ) {
            let mut template = text;
            let mut open = false;
            for (token, blank, turn) in pieces {
                if turn || !open {
                    template.push_str(if open { "}}" } else { "{{" });
                    open = !open;
                }
                template.push_str(TOKENS[token]);
                template.push_str(if blank { " " } else { "" });
            }
            template.push_str(if open { "}}" } else { "" });
            if let Ok(out) = shown(&template) {
                prop_assert!(out.len() < 100_000);
            }
        }

        #[test]
        fn printf_says_what_is_wrong(format in "[%+# 0-9.vsqdxftz*-]{0,10}", value in 0_usize..6) {
            let value = [".Name", ".List", ".Big", "1.5", ".Null", "true"][value];
            let quoted = format.replace('"', "");
            let out = shown(&format!("{{{{printf \"{quoted}\" {value}}}}}")).unwrap();
            prop_assert!(out.len() <= 20_000_000);
        }
    }

    const TOKENS: &[&str] = &[
        "if",
        "else",
        "end",
        "range",
        "with",
        "break",
        "continue",
        "define",
        ".",
        ".Name",
        ".List",
        ".Labels",
        ".Labels.a",
        ".Big",
        ".Null",
        ".X.Y",
        "$",
        "$x",
        ":=",
        "=",
        ",",
        "|",
        "(",
        ")",
        "\"s\"",
        "\"\\u00\"",
        "`r`",
        "'c'",
        "'",
        "3",
        "-1",
        "0x1f",
        "1e9",
        "1.",
        "true",
        "nil",
        "and",
        "or",
        "not",
        "len",
        "index",
        "slice",
        "print",
        "printf",
        "\"%5.2v%\"",
        "json",
        "join",
        "split",
        "title",
        "pad",
        "truncate",
        "eq",
        "lt",
        "html",
        "urlquery",
        "call",
        "/*",
        "*/",
        "-",
        "é",
        "\\",
    ];
}
