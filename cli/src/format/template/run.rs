//! Runs a parsed template over a value.

use super::functions;
use super::parse::{Kind, Node, Operand, Pipe};
use super::value::{HIDDEN, Value};

/// What could not be done; the text is whole when the place is told with it.
pub(super) struct Failure(pub(super) String);

/// A value, and the name of the member it was, which decides how nothing is printed.
pub(super) struct Found {
    pub(super) value: Value,
    name: Option<String>,
}

impl Found {
    fn plain(value: Value) -> Self {
        Self { value, name: None }
    }
}

enum Flow {
    On,
    Break,
    Continue,
}

pub(super) struct Run<'a> {
    pub(super) source: &'a str,
    /// What Go calls the type of the outermost value; with none, it is a map.
    pub(super) type_name: &'a str,
    /// What the template is called in errors.
    pub(super) template: &'a str,
    pub(super) out: String,
    variables: Vec<(String, Value)>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        source: &'a str,
        template: &'a str,
        type_name: &'a str,
        root: &Value,
    ) -> Self {
        let variables = vec![("$".to_owned(), root.clone())];
        Self { source, type_name, template, out: String::new(), variables }
    }

    pub(super) fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), Failure> {
        self.block(nodes, dot).map(drop)
    }

    fn block(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Failure> {
        let scope = self.variables.len();
        for node in nodes {
            match self.node(node, dot)? {
                Flow::On => {}
                flow => {
                    self.variables.truncate(scope);
                    return Ok(flow);
                }
            }
        }
        self.variables.truncate(scope);
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, Failure> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let found = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    self.out.push_str(&found.value.print(found.name.as_deref()));
                }
            }
            Node::If(pipe, then, otherwise) => {
                let scope = self.variables.len();
                let value = self.pipe(pipe, dot)?.value;
                let flow = self.block(if value.is_true() { then } else { otherwise }, dot);
                self.variables.truncate(scope);
                return flow;
            }
            Node::With(pipe, then, otherwise) => {
                let scope = self.variables.len();
                let value = self.pipe(pipe, dot)?.value;
                let flow = if value.is_true() {
                    self.block(then, &value)
                } else {
                    self.block(otherwise, dot)
                };
                self.variables.truncate(scope);
                return flow;
            }
            Node::Range(pipe, body, otherwise) => return self.range(pipe, body, otherwise, dot),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        pipe: &Pipe,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, Failure> {
        let scope = self.variables.len();
        let value = self.commands(pipe, dot)?.value;
        let items: Box<dyn Iterator<Item = (Value, Value)>> = match value {
            Value::List(items) => Box::new(
                items.into_iter().enumerate().map(|(at, item)| (Value::Number(at.into()), item)),
            ),
            Value::Map(mut members) => {
                members.sort_by(|one, other| one.0.cmp(&other.0));
                members.retain(|(key, _)| key != HIDDEN);
                Box::new(members.into_iter().map(|(key, item)| (Value::Text(key), item)))
            }
            Value::Number(number) => Box::new(
                (0..number.as_i64().unwrap_or(0))
                    .map(|at| (Value::Number(at.into()), Value::Number(at.into()))),
            ),
            Value::Missing | Value::Null => Box::new(std::iter::empty()),
            other => {
                let place = pipe.commands.first().and_then(|command| command.first());
                return Err(self.failed(place, &format!("range can't iterate over {other}")));
            }
        };
        let mut items = items.peekable();
        if items.peek().is_none() {
            return self.block(otherwise, dot);
        }
        for (key, item) in items {
            match pipe.variables.as_slice() {
                [one] => self.set(one, item.clone(), pipe.assigns),
                [one, other] => {
                    self.set(one, key, pipe.assigns);
                    self.set(other, item.clone(), pipe.assigns);
                }
                _ => {}
            }
            let flow = self.block(body, &item)?;
            self.variables.truncate(scope);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set(&mut self, name: &str, value: Value, assigns: bool) {
        let known = self.variables.iter_mut().rfind(|(known, _)| known == name);
        match known {
            Some((_, old)) if assigns => *old = value,
            _ => self.variables.push((name.to_owned(), value)),
        }
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Found, Failure> {
        let found = self.commands(pipe, dot)?;
        for name in &pipe.variables {
            self.set(name, found.value.clone(), pipe.assigns);
        }
        Ok(found)
    }

    fn commands(&mut self, pipe: &Pipe, dot: &Value) -> Result<Found, Failure> {
        let mut last: Option<Found> = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last.map(|found| found.value))?);
        }
        Ok(last.unwrap_or_else(|| Found::plain(Value::Null)))
    }

    fn command(
        &mut self,
        command: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Found, Failure> {
        let Some((first, rest)) = command.split_first() else {
            return Ok(Found::plain(last.unwrap_or_default()));
        };
        if let Kind::Function(name) = &first.kind {
            return self.call(name, first, rest, dot, last).map(Found::plain);
        }
        if let Kind::Nil = first.kind {
            return Err(self.failed(Some(first), "nil is not a command"));
        }
        if rest.is_empty() && last.is_none() {
            return self.operand(first, dot);
        }
        // Compat: a container's row has a method, `.Label "name"`.
        if let Kind::Field(fields) = &first.kind
            && let [method] = fields.as_slice()
            && method == "Label"
            && let Some(labels) = dot.get(HIDDEN)
        {
            let name = match rest.first() {
                Some(operand) => self.operand(operand, dot)?.value,
                None => last.unwrap_or_default(),
            };
            return Ok(Found::plain(label(labels, &name.to_string())));
        }
        let text = format!("can't give argument to non-function {}", first.text);
        Err(self.failed(Some(first), &text))
    }

    fn call(
        &mut self,
        name: &str,
        place: &Operand,
        rest: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Failure> {
        let mut arguments = Vec::new();
        for operand in rest {
            let value = self.operand(operand, dot)?.value;
            // Compat: `and` and `or` look no further than they must.
            let enough = (name == "and" && !value.is_true()) || (name == "or" && value.is_true());
            if enough {
                return Ok(value);
            }
            arguments.push(value);
        }
        arguments.extend(last);
        functions::call(name, &arguments)
            .map_err(|why| self.failed(Some(place), &format!("error calling {name}: {why}")))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Found, Failure> {
        Ok(match &operand.kind {
            Kind::Dot => Found { value: dot.clone(), name: Some(String::new()) },
            Kind::Nil => Found::plain(Value::Null),
            Kind::Bool(value) => Found::plain(Value::Bool(*value)),
            Kind::Number(number) => Found::plain(Value::Number(number.clone())),
            Kind::Text(text) => Found::plain(Value::text(text)),
            Kind::Field(fields) => self.fields(dot, fields, operand)?,
            Kind::Variable(name, fields) => {
                let value = self.variables.iter().rfind(|(known, _)| known == name);
                let value = value.map(|(_, value)| value.clone()).unwrap_or_default();
                self.fields(&value, fields, operand)?
            }
            Kind::Pipe(pipe, fields) => {
                let value = self.pipe(pipe, dot)?.value;
                self.fields(&value, fields, operand)?
            }
            Kind::Function(name) => Found::plain(self.call(name, operand, &[], dot, None)?),
        })
    }

    fn fields(&self, start: &Value, fields: &[String], place: &Operand) -> Result<Found, Failure> {
        let mut value = start;
        let mut inside: Option<&str> = None;
        for name in fields {
            let found = value.get(name);
            value = match (value, found) {
                (_, Some(found)) => found,
                (Value::Map(_), None) if inside.is_some_and(Value::is_map) => {
                    return Ok(Found::plain(Value::Missing));
                }
                (Value::Map(_), None) if inside.is_none() && !self.type_name.is_empty() => {
                    let why = format!("can't evaluate field {name} in type {}", self.type_name);
                    return Err(self.failed(Some(place), &why));
                }
                (Value::Map(_), None) => {
                    let why = format!("map has no entry for key {name:?}");
                    return Err(self.failed(Some(place), &why));
                }
                (Value::Missing | Value::Null, None) => {
                    let why = format!("nil pointer evaluating interface {{}}.{name}");
                    return Err(self.failed(Some(place), &why));
                }
                (_, None) => {
                    let why = format!("can't evaluate field {name} in type interface {{}}");
                    return Err(self.failed(Some(place), &why));
                }
            };
            inside = Some(name);
        }
        Ok(Found { value: value.clone(), name: inside.map(str::to_owned) })
    }

    fn failed(&self, place: Option<&Operand>, why: &str) -> Failure {
        let (position, at) = place.map_or((0, ""), |place| (place.position, place.text.as_str()));
        let before = self.source.get(..position).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        let column = before.rsplit('\n').next().map_or(0, str::len);
        let name = self.template;
        Failure(format!("template: {name}:{line}:{column}: executing {name:?} at <{at}>: {why}"))
    }
}

/// A label's value; above a table, its heading.
fn label(labels: &Value, name: &str) -> Value {
    match labels {
        Value::Map(_) => labels.get(name).cloned().unwrap_or_else(|| Value::text("")),
        _ => {
            let last = name.rsplit('.').next().unwrap_or_default();
            Value::Text(last.replace(['-', '_'], " "))
        }
    }
}
