//! Tables of answers, below `golden`: taken down from stock Docker, and ours where they differ.
//!
//! ```text
//! ## protocol                                      a chapter
//!
//! a version that is too new                        the row's name
//!   GET /v1.99/containers/json                     the request, if the name does not say it all
//!   stock 400 client version 1.99 is too new. …    what stock 20.10 answers
//!   ours 400 client version 1.99 is too new. …     what we answer where that is something else,
//!   why current                                    and the reason
//! ```
//!
//! The reasons are those of engine/README, "Differs on purpose" and "Not yet":
//!
//! - `current`: words or status of current releases
//! - `client`: 400 for what the client did wrong, also where upstream says 500
//! - `parser`: our JSON parser's words, and nothing after the first document
//! - `early`: refused at create; stock finds out at the start, or never
//! - `words`: ours say more, or leave out what Go and runc add
//! - `load`: an archive's error is a status, and nothing of a broken one is kept or put elsewhere
//! - `kept`: stock has forgotten what we still know
//! - `order`: of two mistakes the other is told
//! - `absent`: not there yet, and says so

use crate::world::World;

const REASONS: [&str; 9] =
    ["current", "client", "parser", "early", "words", "load", "kept", "order", "absent"];

#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Option<String>,
    /// The body's media type.
    pub(crate) kind: Option<String>,
    stock: String,
    ours: Option<String>,
}

impl Row {
    /// The answer of the engine under test.
    pub(crate) fn expected(&self, world: &World) -> &str {
        match &self.ours {
            Some(ours) if !world.is_stock() => ours,
            _ => &self.stock,
        }
    }
}

/// The rows of a table, each with its chapter.
pub(crate) fn read(table: &str) -> Vec<(String, Row)> {
    let mut rows = Vec::new();
    let mut chapter = String::new();
    for block in table.split("\n\n") {
        let lines: Vec<&str> = block.lines().filter(|line| !line.starts_with("# ")).collect();
        match lines.as_slice() {
            [] => {}
            [title] if title.starts_with("## ") => chapter = title[3..].to_owned(),
            [name, lines @ ..] => rows.push((chapter.clone(), row(name, lines))),
        }
    }
    rows
}

fn row(name: &str, lines: &[&str]) -> Row {
    let mut row = Row { name: name.to_owned(), ..Row::default() };
    let mut why = None;
    for line in lines {
        let (word, rest) = line.trim_start().split_once(' ').unwrap_or((line.trim_start(), ""));
        match word {
            "stock" => row.stock = rest.to_owned(),
            "ours" => row.ours = Some(rest.to_owned()),
            "why" => why = Some(rest.to_owned()),
            "type" => row.kind = Some(rest.to_owned()),
            "RUN" | "EXEC" => {
                row.method = word.to_owned();
                row.body = Some(rest.to_owned());
            }
            method => {
                row.method = method.to_owned();
                let (path, body) = rest
                    .split_once(' ')
                    .map_or((rest, None), |(path, body)| (path, Some(body.to_owned())));
                row.path = path.to_owned();
                row.body = body;
            }
        }
    }
    assert!(!row.stock.is_empty(), "half a row: {row:?}");
    assert_eq!(row.ours.is_some(), why.is_some(), "a difference has a reason: {row:?}");
    assert_ne!(row.ours.as_ref(), Some(&row.stock), "a difference is one: {row:?}");
    assert!(why.as_deref().is_none_or(|why| REASONS.contains(&why)), "no reason: {why:?}, {row:?}");
    row
}
