//! The swap matrix: `swap.toml` says which programs stand in which row, the same scenarios run over
//! all of them, and the closing table says which programs really ran. See README.md.
//!
//! `SMOKE=1` runs one row a seam, `ONLY=TEXT` those whose title has it; `JOBS` at once (2).
#![allow(clippy::unwrap_used, reason = "tests")]

mod basics;
mod census;
mod client;
mod containerd;
mod engine;
mod matrix;
mod neighbours;
mod podman;
mod restarts;
mod row;
mod sdk;

use std::cell::RefCell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use census::Seen;
use matrix::Row;
use row::World;

thread_local! {
    /// Row and scenario, for what a failure says.
    static CURRENT: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() -> ExitCode {
    let rows = match matrix::read() {
        Ok(rows) => rows,
        Err(problem) => {
            say(&format!("{problem:#}"));
            return ExitCode::FAILURE;
        }
    };
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (smoke, only) = (set("SMOKE").is_some(), set("ONLY").unwrap_or_default());
    let rows: Vec<Row> = rows
        .into_iter()
        .filter(|row| (row.smoke || !smoke) && row.title().contains(&only))
        .collect();
    let jobs = set("JOBS").and_then(|jobs| jobs.parse().ok()).unwrap_or(2);
    std::panic::set_hook(Box::new(|panic| {
        let place = CURRENT.with_borrow(Clone::clone);
        drop(writeln!(std::io::stderr(), "{place}: {panic}"));
    }));
    let tables = run_all(&rows, jobs);
    print_table(&tables);
    let failed = tables.iter().filter(|table| table.is_none()).count();
    say(&format!("{} rows, {failed} failed", tables.len()));
    if failed == 0 && tables.len() == rows.len() && !rows.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What each row met, in the order of the rows; nothing for one that failed.
fn run_all(rows: &[Row], jobs: usize) -> Vec<Option<Vec<Seen>>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(vec![None; rows.len()]);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(row) = rows.get(place) else { return };
                    let begun = Instant::now();
                    let seen = run(row);
                    let word = if seen.is_some() { "ok    " } else { "FAILED" };
                    let seconds = begun.elapsed().as_secs_f32();
                    say(&format!("{word}  {:>2} {} ({seconds:.1} s)", place + 1, row.title()));
                    done.lock().unwrap()[place] = seen;
                }
            });
        }
    });
    done.into_inner().unwrap()
}

/// All scenarios of a row on one stack, each whatever became of those before it.
fn run(row: &Row) -> Option<Vec<Seen>> {
    let now = |word: &str| CURRENT.set(format!("{}: {word}", row.title()));
    let whole = AssertUnwindSafe(|| {
        now("start");
        let world = World::start(row);
        let mut failed = Vec::new();
        now("census");
        let seen = catch_unwind(AssertUnwindSafe(|| census::take(&world)));
        if seen.is_err() {
            failed.push("census");
        }
        for name in &row.scenarios {
            let scenario = row::scenario(name).unwrap();
            now(name);
            let begun = Instant::now();
            if catch_unwind(AssertUnwindSafe(|| scenario(&world))).is_err() {
                failed.push(name);
            }
            if std::env::var_os("TIMES").is_some() {
                say(&format!("        {name} {:.2} s", begun.elapsed().as_secs_f32()));
            }
        }
        now("end");
        // Unwinding tells the end of the daemons' logs.
        assert!(failed.is_empty(), "failed: {}", failed.join(", "));
        world.stack.end();
        seen.ok()
    });
    catch_unwind(whole).ok().flatten()
}

/// Every program that took part, as the running processes told, with the rows it was met in.
fn print_table(tables: &[Option<Vec<Seen>>]) {
    let mut programs: Vec<(&Seen, Vec<String>)> = Vec::new();
    for (number, seen) in tables.iter().enumerate() {
        for part in seen.iter().flatten() {
            let row = (number + 1).to_string();
            match programs.iter_mut().find(|(other, _)| *other == part) {
                Some((_, rows)) => rows.push(row),
                None => programs.push((part, vec![row])),
            }
        }
    }
    programs.sort_by_key(|(part, _)| (part.place, &part.path));
    say(&format!("{:<10} {:<15} {:<16} program; rows", "place", "process", "version"));
    for (Seen { place, comm, version, path }, rows) in programs {
        let (path, rows) = (path.display(), rows.join(" "));
        say(&format!("{:<10} {comm:<15} {version:<16} {path}; {rows}", place.word()));
    }
}

/// One line in one write: rows run side by side.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}
