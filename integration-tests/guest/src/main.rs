//! A static program that plays the container where no distribution's tools are at hand:
//! `guest echo WORD…`, `guest env`, `guest lines COUNT`, `guest exit CODE`, `guest pause`.
//!
//! It is also the floor that a private stack stands on: `guest sandbox` and `guest init`, see
//! `sandbox`. And it measures: `guest time`, see `stopwatch`, and `guest floor`, see `floor`; and tells
//! labels: `guest label`.

mod cgroup;
mod floor;
mod label;
mod sandbox;
mod stopwatch;
mod sys;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match play(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            drop(writeln!(io::stderr(), "guest: {problem}"));
            ExitCode::FAILURE
        }
    }
}

fn play(arguments: &[String]) -> io::Result<u8> {
    let mut out = BufWriter::new(io::stdout().lock());
    match arguments {
        [verb, words @ ..] if verb == "echo" => writeln!(out, "{}", words.join(" "))?,
        [verb] if verb == "env" => {
            for (name, value) in std::env::vars() {
                writeln!(out, "{name}={value}")?;
            }
        }
        [verb, count] if verb == "lines" => {
            let count: u64 = number(count)?;
            for line in 0..count {
                writeln!(out, "{line:012} {}", "x".repeat(80))?;
            }
        }
        [verb, name, root, layout] if verb == "sandbox" => {
            drop(out);
            return sandbox::outer(name, root, layout);
        }
        [verb, name, layout] if verb == "init" => {
            drop(out);
            return sandbox::init(name, layout);
        }
        [verb, words @ ..] if verb == "time" => stopwatch::time(&mut out, words)?,
        [verb, plan] if verb == "floor" => {
            drop(out);
            return floor::floor(plan);
        }
        [verb, paths @ ..] if verb == "label" => label::tell(&mut out, paths)?,
        [verb, code] if verb == "exit" => return number(code),
        [verb] if verb == "pause" => loop {
            std::thread::park();
        },
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "usage: guest echo WORD… | env | lines COUNT | exit CODE | pause | \
                 sandbox NAME ROOT LAYOUT | time COMMAND… | floor PLAN | label PATH…",
            ));
        }
    }
    out.flush()?;
    Ok(0)
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} is not a number in range"))
    })
}
