//! One row, one request, one answer: `golden/answers.txt`.
//!
//! ```text
//! ## protocol                                      a chapter, which is one test
//!
//! a version that is too new                        the row's name
//!   GET /v1.99/containers/json                     the request; a body follows the path
//!   type text/plain                                the body's; JSON where none is given
//! ```
//!
//! `RUN BODY` creates a container and starts it, `EXEC BODY` makes an exec in the running container
//! and starts it; their answers end with the exit code. In paths, quotes and brackets are escaped on
//! the way. What else may stand in a row is told in `table`.

use std::fmt::Write;

use http::Method;
use integration_tests::client::Answer;
use serde_json::Value;

use crate::table::{self, Row};
use crate::world::World;

const TABLE: &str = include_str!("../golden/answers.txt");

#[test]
fn paths_versions_and_the_daemon() {
    chapter("protocol");
}

#[test]
fn documents_that_are_none() {
    chapter("json");
}

#[test]
fn containers_that_cannot_be() {
    chapter("create");
}

#[test]
fn containers_that_cannot_start() {
    chapter("start");
}

#[test]
fn verbs_of_containers() {
    chapter("containers");
}

#[test]
fn execs() {
    chapter("execs");
}

#[test]
fn images() {
    chapter("images");
}

#[test]
fn networks_and_volumes() {
    chapter("networks and volumes");
}

#[test]
fn the_table_is_well_formed() {
    let rows = table::read(TABLE);
    let mut names: Vec<&str> = rows.iter().map(|(_, row)| &*row.name).collect();
    assert!(names.len() >= 500, "{} rows", names.len());
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "a name stands for one row");
}

/// Asks all of a chapter's questions of one stack, and fails with the rows that differ.
fn chapter(name: &str) {
    let mut world = World::new();
    let mut wrong = String::new();
    let rows = table::read(TABLE);
    let rows: Vec<&Row> =
        rows.iter().filter(|(chapter, _)| chapter == name).map(|(_, row)| row).collect();
    // To look at everything after each would take longer than to ask.
    for some in rows.chunks(20) {
        for row in some {
            let expected = row.expected(&world);
            let answer = ask(&world, row);
            if answer != expected {
                writeln!(wrong, "{}\n  wanted  {expected}\n  answer  {answer}", row.name).unwrap();
            }
            // Some questions are good enough for one engine or the other.
            if answer.starts_with('2') {
                world.sweep();
            }
        }
        // Stock forgets temporary directories here and there; this is about ours.
        if let Err(changed) = if world.is_stock() { Ok(()) } else { world.unchanged() } {
            let (first, last) = (&some[0].name, &some[some.len() - 1].name);
            let changed = changed.replace('\n', "\n          ");
            writeln!(wrong, "from {first:?} to {last:?}\n  leaves  {changed}").unwrap();
            world.settle();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Status and sentence.
fn ask(world: &World, row: &Row) -> String {
    let (path, body) = (&row.path, row.body.as_deref().unwrap_or_default());
    let answer = match row.method.as_str() {
        "RUN" => run(world, body),
        "EXEC" => exec(world, body),
        method => {
            let path = escape(&world.fill(path));
            let kind = row.kind.as_deref().unwrap_or("application/json");
            let body = row.body.as_deref().map(|body| (kind, world.fill(body).into_bytes()));
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            tell(&world.api().call(method, &path, body))
        }
    };
    world.veil(&answer, path)
}

fn tell(answer: &Answer) -> String {
    let mut told = answer.status.to_string();
    let failed =
        answer.lines().iter().rev().find_map(|line| line["error"].as_str().map(str::to_owned));
    if let Some(error) = failed {
        told += &format!(" in the stream: {error}");
    } else if answer.status >= 300 && !answer.body.is_empty() {
        told += &format!(" {}", answer.message());
    }
    told.trim_end().replace('\r', "\\r").replace('\n', "\\n").replace('\0', "\\0")
}

/// Create, start, how it ended, remove.
fn run(world: &World, body: &str) -> String {
    let api = world.api();
    let body: Value = serde_json::from_str(&world.fill(body)).unwrap();
    let made = api.post_json("/containers/create?name=row", &body);
    if made.status != 201 {
        return format!("create: {}", tell(&made));
    }
    let id = made.json()["Id"].as_str().unwrap().to_owned();
    let started = api.post(&format!("/containers/{id}/start"));
    let code = if started.status == 204 {
        api.wait(&id)
    } else {
        api.inspect(&id)["State"]["ExitCode"].as_i64().unwrap()
    };
    api.delete(&format!("/containers/{id}?force=1&v=1")).expect(204);
    format!("{} (exit {code})", tell(&started)).replace(&id, "{id}")
}

/// Exec create, start, what the stream says, the exit code.
fn exec(world: &World, body: &str) -> String {
    let api = world.api();
    let body: Value = serde_json::from_str(body).unwrap();
    let made = api.post_json("/containers/running/exec", &body);
    if made.status != 201 {
        return format!("create: {}", tell(&made));
    }
    let id = made.json()["Id"].as_str().unwrap().to_owned();
    let start = serde_json::json!({"Detach": false, "Tty": false});
    let mut stream = api.hijack(&format!("/exec/{id}/start"), Some(&start), true);
    let status = stream.status;
    let said = if status == 101 {
        let (out, err) = stream.frames();
        format!("{out}{err}").trim_end().to_owned()
    } else {
        String::from_utf8_lossy(&stream.all()).trim_end().to_owned()
    };
    let code = api.get(&format!("/exec/{id}/json")).expect(200).json()["ExitCode"].clone();
    format!("{status} {said} (exit {code})").replace('\r', "\\r").replace('\n', "\\n")
}

fn escape(path: &str) -> String {
    let mut escaped = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_graphic() && !b"\"{}[]<>^|\\`".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").unwrap();
        }
    }
    escaped
}
