//! From a template's text to its nodes. Document: Go's package `text/template`; what `--format`
//! is used with is there, definitions of templates within the template are not.

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If(Pipe, Vec<Self>, Vec<Self>),
    With(Pipe, Vec<Self>, Vec<Self>),
    Range(Pipe, Vec<Self>, Vec<Self>),
    Break,
    Continue,
}

/// `$a, $b := one | two`.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) variables: Vec<String>,
    pub(super) assigns: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

/// A word of a command, and where it stands.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) kind: Kind,
    pub(super) position: usize,
    pub(super) text: String,
}

#[derive(Debug)]
pub(super) enum Kind {
    Dot,
    Nil,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Function(String),
    Pipe(Box<Pipe>, Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
struct Token {
    kind: Lexeme,
    text: String,
    position: usize,
    /// Whether it follows the one before without a blank.
    joined: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Lexeme {
    Field,
    Dot,
    Variable,
    Word,
    Number,
    Text,
    Pipe,
    Open,
    Close,
    Declare,
    Assign,
    Comma,
}

/// What is wrong, and in which line.
pub(super) struct Mistake {
    pub(super) line: usize,
    pub(super) text: String,
}

enum Piece {
    Text(String),
    Action { tokens: Vec<Token>, line: usize },
}

/// Which word ended a block.
#[derive(Debug, PartialEq)]
enum Stop {
    End,
    Else(Vec<Token>, usize),
    Over,
}

struct Parser<'a> {
    pieces: std::vec::IntoIter<Piece>,
    line: usize,
    variables: Vec<String>,
    known: &'a dyn Fn(&str) -> bool,
    loops: usize,
    /// Blocks and parentheses that are open.
    depth: usize,
}

/// Each takes a part of the stack, here and when it is run.
const DEPTH: usize = 200;

/// Parses `text`; `known` tells which functions there are.
pub(super) fn parse(text: &str, known: &dyn Fn(&str) -> bool) -> Result<Vec<Node>, Mistake> {
    let pieces = split(text)?;
    let mut parser = Parser {
        pieces: pieces.into_iter(),
        line: 1,
        variables: vec!["$".to_owned()],
        known,
        loops: 0,
        depth: 0,
    };
    match parser.block()? {
        (nodes, Stop::Over) => Ok(nodes),
        (_, Stop::End) => Err(parser.wrong("unexpected {{end}}")),
        (_, Stop::Else(..)) => Err(parser.wrong("unexpected {{else}}")),
    }
}

/// Takes text and actions apart, with the trimming of `{{-` and `-}}`.
fn split(text: &str) -> Result<Vec<Piece>, Mistake> {
    let mut pieces = Vec::new();
    let (mut at, mut trim) = (0, false);
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let Some(open) = rest.find("{{") else {
            let rest = if trim { rest.trim_start() } else { rest };
            pieces.push(Piece::Text(rest.to_owned()));
            return Ok(pieces);
        };
        let before = rest.get(..open).unwrap_or_default();
        let before = if trim { before.trim_start() } else { before };
        let mut start = at + open + 2;
        let after = text.get(start..).unwrap_or_default();
        let trims_before = after.starts_with('-') && after.get(1..).is_some_and(starts_blank);
        if trims_before {
            start += 1;
        }
        pieces.push(Piece::Text(if trims_before { before.trim_end() } else { before }.to_owned()));
        let line = 1 + text.get(..start).unwrap_or_default().matches('\n').count();
        let body = text.get(start..).unwrap_or_default();
        if body.trim_start().starts_with("/*") {
            let end = body.find("*/").ok_or(Mistake { line, text: "unclosed comment".into() })?;
            let tail = body.get(end + 2..).unwrap_or_default();
            let close = tail
                .find("}}")
                .ok_or(Mistake { line, text: "comment ends before closing delimiter".into() })?;
            trim = tail.get(..close).is_some_and(|between| between.ends_with('-'));
            at = start + end + 2 + close + 2;
            continue;
        }
        let (tokens, end, trims_after) = lex(text, start).map_err(|text| Mistake { line, text })?;
        pieces.push(Piece::Action { tokens, line });
        (at, trim) = (end, trims_after);
    }
}

fn starts_blank(text: &str) -> bool {
    text.starts_with([' ', '\t', '\r', '\n'])
}

/// The tokens from `start` to the closing braces; where the text goes on; whether it is trimmed.
fn lex(text: &str, start: usize) -> Result<(Vec<Token>, usize, bool), String> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut at = start;
    let mut depth = 0_usize;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let blank = rest.len() - rest.trim_start().len();
        if blank > 0 && rest.get(blank..).is_some_and(|rest| rest.starts_with("-}}")) {
            return Ok((tokens, at + blank + 3, true));
        }
        at += blank;
        let rest = text.get(at..).unwrap_or_default();
        if rest.starts_with("}}") {
            return if depth > 0 {
                Err("unclosed left paren".into())
            } else {
                Ok((tokens, at + 2, false))
            };
        }
        let Some(first) = rest.chars().next() else { return Err("unclosed action".into()) };
        let word = |skip: usize| {
            let tail = rest.get(skip..).unwrap_or_default();
            let end = tail.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(tail.len());
            skip + end
        };
        let (kind, length) = match first {
            '.' if rest
                .get(1..)
                .is_some_and(|r| r.starts_with(|c: char| c.is_alphabetic() || c == '_')) =>
            {
                (Lexeme::Field, word(1))
            }
            '.' if !rest.get(1..).is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit())) => {
                (Lexeme::Dot, 1)
            }
            '$' => (Lexeme::Variable, word(1)),
            '|' => (Lexeme::Pipe, 1),
            '(' => (Lexeme::Open, 1),
            ')' => (Lexeme::Close, 1),
            ',' => (Lexeme::Comma, 1),
            ':' if rest.starts_with(":=") => (Lexeme::Declare, 2),
            '=' => (Lexeme::Assign, 1),
            '"' => (Lexeme::Text, quoted(rest, '"').ok_or("unterminated quoted string")?),
            '`' => (
                Lexeme::Text,
                rest.get(1..).and_then(|r| r.find('`')).ok_or("unterminated raw quoted string")?
                    + 2,
            ),
            '\'' => (Lexeme::Number, quoted(rest, '\'').ok_or("unterminated character constant")?),
            '+' | '-' | '.' | '0'..='9' => {
                let end = rest
                    .get(1..)
                    .unwrap_or_default()
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_');
                (Lexeme::Number, 1 + end.unwrap_or(rest.len() - 1))
            }
            c if c.is_alphabetic() || c == '_' => (Lexeme::Word, word(0)),
            other => {
                return Err(format!(
                    "unrecognized character in action: U+{:04X} '{other}'",
                    u32::from(other)
                ));
            }
        };
        match kind {
            Lexeme::Open => depth += 1,
            Lexeme::Close if depth == 0 => return Err("unexpected right paren".into()),
            Lexeme::Close => depth -= 1,
            _ => {}
        }
        let token = rest.get(..length).unwrap_or_default().to_owned();
        tokens.push(Token { kind, text: token, position: at, joined: blank == 0 && at > start });
        at += length;
    }
}

/// The length of a quoted text at the start of `rest`.
fn quoted(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '\n' => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + c.len_utf8()),
            _ => {}
        }
    }
    None
}

impl Parser<'_> {
    fn wrong(&self, text: impl Into<String>) -> Mistake {
        Mistake { line: self.line, text: text.into() }
    }

    fn deeper<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, Mistake>,
    ) -> Result<T, Mistake> {
        if self.depth == DEPTH {
            return Err(self.wrong("nested too deeply"));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn block(&mut self) -> Result<(Vec<Node>, Stop), Mistake> {
        let mut nodes = Vec::new();
        let scope = self.variables.len();
        while let Some(piece) = self.pieces.next() {
            let (tokens, line) = match piece {
                Piece::Text(text) => {
                    if !text.is_empty() {
                        nodes.push(Node::Text(text));
                    }
                    continue;
                }
                Piece::Action { tokens, line } => (tokens, line),
            };
            self.line = line;
            let word = tokens.first().filter(|token| token.kind == Lexeme::Word);
            let rest = tokens.get(1..).unwrap_or_default();
            match word.map(|token| token.text.as_str()) {
                Some("end") => {
                    self.variables.truncate(scope);
                    return Ok((nodes, Stop::End));
                }
                Some("else") => {
                    self.variables.truncate(scope);
                    return Ok((nodes, Stop::Else(rest.to_vec(), line)));
                }
                Some(word @ ("if" | "with" | "range")) => {
                    let node = self.deeper(|own| own.control(word, rest))?;
                    nodes.push(node);
                }
                Some(word @ ("break" | "continue")) if self.loops == 0 => {
                    return Err(self.wrong(format!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
                Some("break") => nodes.push(Node::Break),
                Some("continue") => nodes.push(Node::Continue),
                Some(word @ ("define" | "template" | "block")) => {
                    return Err(self.wrong(format!("{{{{{word}}}}} is not supported in --format")));
                }
                _ => nodes.push(Node::Action(self.whole(&tokens, "command")?)),
            }
        }
        Ok((nodes, Stop::Over))
    }

    fn control(&mut self, word: &str, tokens: &[Token]) -> Result<Node, Mistake> {
        let scope = self.variables.len();
        let pipe = self.whole(tokens, word)?;
        if word == "range" {
            self.loops += 1;
        }
        let (then, stop) = self.block()?;
        if word == "range" {
            self.loops -= 1;
        }
        let otherwise = match stop {
            Stop::End => Vec::new(),
            Stop::Over => return Err(self.wrong("unexpected EOF")),
            Stop::Else(tokens, line) => match tokens.split_first() {
                // `else if` and `else with` share their `end` with the block they are in.
                Some((first, rest))
                    if matches!(first.text.as_str(), "if" | "with") && word == first.text =>
                {
                    self.line = line;
                    vec![self.deeper(|own| own.control(word, rest))?]
                }
                Some((first, _)) => {
                    return Err(self.wrong(format!("unexpected <{}> in else", first.text)));
                }
                None => match self.block()? {
                    (nodes, Stop::End) => nodes,
                    (_, Stop::Over) => return Err(self.wrong("unexpected EOF")),
                    (_, Stop::Else(..)) => return Err(self.wrong("expected end; found {{else}}")),
                },
            },
        };
        self.variables.truncate(scope);
        Ok(match word {
            "if" => Node::If(pipe, then, otherwise),
            "with" => Node::With(pipe, then, otherwise),
            _ => Node::Range(pipe, then, otherwise),
        })
    }

    /// A pipeline that takes all tokens.
    fn whole(&mut self, tokens: &[Token], context: &str) -> Result<Pipe, Mistake> {
        let mut tokens = tokens;
        let pipe = self.pipe(&mut tokens, context)?;
        match tokens.first() {
            None => Ok(pipe),
            Some(token) => Err(self.wrong(format!("unexpected <{}> in {context}", token.text))),
        }
    }

    fn pipe(&mut self, tokens: &mut &[Token], context: &str) -> Result<Pipe, Mistake> {
        let mut pipe = Pipe { variables: Vec::new(), assigns: false, commands: Vec::new() };
        let kinds: Vec<Lexeme> = tokens.iter().take(4).map(|token| token.kind).collect();
        let count = match kinds.as_slice() {
            [Lexeme::Variable, Lexeme::Declare | Lexeme::Assign, ..] => 1,
            [
                Lexeme::Variable,
                Lexeme::Comma,
                Lexeme::Variable,
                Lexeme::Declare | Lexeme::Assign,
            ] => 2,
            _ => 0,
        };
        if count > 0 {
            let taken = count * 2;
            for token in tokens.iter().take(taken).step_by(2) {
                pipe.variables.push(token.text.clone());
            }
            pipe.assigns = tokens.get(taken - 1).is_some_and(|token| token.kind == Lexeme::Assign);
            *tokens = tokens.get(taken..).unwrap_or_default();
        }
        let mut command = Vec::new();
        loop {
            match tokens.first() {
                Some(token) if token.kind == Lexeme::Pipe => {
                    if command.is_empty() {
                        return Err(self.wrong(format!("missing value for {context}")));
                    }
                    pipe.commands.push(std::mem::take(&mut command));
                    *tokens = tokens.get(1..).unwrap_or_default();
                    if tokens.is_empty() {
                        return Err(self.wrong(format!("missing value for {context}")));
                    }
                }
                None => break,
                Some(token) if token.kind == Lexeme::Close => break,
                Some(_) => command.push(self.operand(tokens)?),
            }
        }
        if !command.is_empty() {
            pipe.commands.push(command);
        }
        if pipe.commands.is_empty() {
            return Err(self.wrong(format!("missing value for {context}")));
        }
        if !pipe.assigns {
            self.variables.extend(pipe.variables.iter().cloned());
        }
        Ok(pipe)
    }

    fn operand(&mut self, tokens: &mut &[Token]) -> Result<Operand, Mistake> {
        let Some((token, rest)) = tokens.split_first() else {
            return Err(self.wrong("unexpected EOF"));
        };
        *tokens = rest;
        let mut text = token.text.clone();
        let mut position = token.position;
        let mut fields = Vec::new();
        let mut base = None;
        match token.kind {
            Lexeme::Field => fields.push(token.text.trim_start_matches('.').to_owned()),
            Lexeme::Dot => base = Some(Kind::Dot),
            Lexeme::Variable => {
                if !self.variables.contains(&token.text) {
                    return Err(self.wrong(format!("undefined variable {:?}", token.text)));
                }
            }
            Lexeme::Open => {
                let pipe = self.deeper(|own| own.pipe(tokens, "parenthesized pipeline"))?;
                *tokens = tokens.get(1..).unwrap_or_default();
                base = Some(Kind::Pipe(Box::new(pipe), Vec::new()));
            }
            Lexeme::Word => {
                base = Some(match token.text.as_str() {
                    "true" => Kind::Bool(true),
                    "false" => Kind::Bool(false),
                    "nil" => Kind::Nil,
                    name if (self.known)(name) => Kind::Function(name.to_owned()),
                    name => return Err(self.wrong(format!("function {name:?} not defined"))),
                })
            }
            Lexeme::Number => {
                base =
                    Some(Kind::Number(number(&token.text).ok_or_else(|| {
                        self.wrong(format!("bad number syntax: {:?}", token.text))
                    })?))
            }
            Lexeme::Text => base = Some(Kind::Text(unquote(&token.text))),
            _ => return Err(self.wrong(format!("unexpected {:?} in operand", token.text))),
        }
        let mut first = true;
        while let Some(next) =
            tokens.first().filter(|next| next.joined && next.kind == Lexeme::Field)
        {
            fields.push(next.text.trim_start_matches('.').to_owned());
            text.push_str(&next.text);
            if first {
                position = next.position;
                first = false;
            }
            *tokens = tokens.get(1..).unwrap_or_default();
        }
        let kind = match (token.kind, base) {
            (Lexeme::Variable, _) => Kind::Variable(token.text.clone(), fields),
            (_, Some(Kind::Pipe(pipe, _))) => Kind::Pipe(pipe, fields),
            (_, Some(_)) if !fields.is_empty() => {
                return Err(self.wrong(format!("unexpected . after term {:?}", token.text)));
            }
            (_, Some(kind)) => kind,
            (_, None) => Kind::Field(fields),
        };
        Ok(Operand { kind, position, text })
    }
}

fn number(text: &str) -> Option<serde_json::Number> {
    if let Some(character) = text.strip_prefix('\'') {
        let inner = unquote(&format!("\"{}\"", character.trim_end_matches('\'')));
        return inner.chars().next().map(|c| u32::from(c).into());
    }
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return i64::from_str_radix(hexadecimal, 16).ok().map(Into::into);
    }
    if let Ok(whole) = text.trim_start_matches('+').parse::<i64>() {
        return Some(whole.into());
    }
    text.parse::<f64>().ok().and_then(serde_json::Number::from_f64)
}

/// What stands between quotes, with Go's escapes undone.
fn unquote(text: &str) -> String {
    let mut letters = text.chars();
    let raw = letters.next() == Some('`');
    letters.next_back();
    let inner = letters.as_str();
    if raw {
        return inner.to_owned();
    }
    let mut out = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('v') => out.push('\u{b}'),
            Some(kind @ ('x' | 'u' | 'U')) => {
                let count = match kind {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let digits: String = letters.by_ref().take(count).collect();
                out.extend(u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}
