//! What every client sees of every stack.

use std::process::Command;

use integration_tests::Output;
use integration_tests::image::digest;
use integration_tests::terminal::Terminal;

use crate::client::{Running, Stdin, feed};
use crate::row::World;

pub(crate) fn output(world: &World) {
    let output = said(world, "echo hi", (1, 0), |stdin, script| world.client().run(stdin, script));
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, "hi\n", ""));
}

pub(crate) fn exit_codes(world: &World) {
    assert_eq!(feed(world.client().run(Stdin::Closed, "exit 7"), b"").code, 7);
    assert_eq!(
        feed(world.client().run(Stdin::Closed, "sh -c 'kill -9 $$'; exit $?"), b"").code,
        137
    );
}

pub(crate) fn streams(world: &World) {
    let run = |stdin, script: &str| world.client().run(stdin, script);
    let output = said(world, "echo out; echo err >&2", (1, 1), run);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
}

pub(crate) fn stdin(world: &World) {
    let input = "0123456789".repeat(20_000);
    let output = counted(world, &input, |script| world.client().run(Stdin::Open, script));
    assert_eq!((output.code, output.stdout.trim()), (0, "200000"));
}

pub(crate) fn bytes(world: &World) {
    let wanted: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    let run = |stdin, script: &str| world.client().run(stdin, script);
    let output = said(world, "seq 200000", (200_000, 0), run);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let ends = format!("{} bytes", output.stdout.len());
    assert_eq!(digest(output.stdout.as_bytes()), digest(wanted.as_bytes()), "{ends}");
}

pub(crate) fn terminal(world: &World) {
    on_a_terminal(world, |script| world.client().run(Stdin::Terminal, script));
}

pub(crate) fn exec(world: &World) {
    let client = world.client();
    client.start("work", "sleep 1000");
    let run = |stdin, script: &str| client.exec("work", stdin, script);
    let output = said(world, "echo in; echo err >&2; exit 3", (1, 1), run);
    assert_eq!(
        (output.code, &*output.stdout, output.stderr.lines().next().unwrap_or_default()),
        (3, "in\n", "err")
    );
    let output = counted(world, "12345", |script| client.exec("work", Stdin::Open, script));
    assert_eq!((output.code, output.stdout.trim()), (0, "5"));
    on_a_terminal(world, |script| client.exec("work", Stdin::Terminal, script));
    client.kill("work");
}

/// What a script without input says. Where output is lost at the exit, the script waits until this
/// many lines of stdout and stderr were read.
pub(crate) fn said(
    world: &World,
    script: &str,
    lines: (usize, usize),
    command: impl Fn(Stdin, &str) -> Command,
) -> Output {
    if !world.loses_output_at_the_exit() {
        return feed(command(Stdin::Closed, script), b"");
    }
    let script = format!("({script}); code=$?; cat >/dev/null; exit $code");
    Running::start(command(Stdin::Open, &script)).end_after(lines)
}

/// What `wc -c` says of an input that comes to an end.
fn counted(world: &World, input: &str, command: impl Fn(&str) -> Command) -> Output {
    if !world.loses_output_at_the_exit() {
        return feed(command("wc -c"), input.as_bytes());
    }
    let script = format!("head -c {} | wc -c; cat >/dev/null", input.len());
    let mut running = Running::start(command(&script));
    running.send(input);
    running.end_after((1, 0))
}

fn on_a_terminal(world: &World, command: impl Fn(&str) -> Command) {
    let waits = if world.loses_output_at_the_exit() { "read -r x; " } else { "" };
    let script = format!("test -t 0 && test -t 1 && echo ye''s; {waits}exit 4");
    let mut terminal = Terminal::of(&command(&script), 30, 100);
    let seen = terminal.until("yes\r");
    if !waits.is_empty() {
        terminal.send(b"\r");
    }
    let (_, code) = terminal.until_end();
    assert_eq!((seen.as_str(), code), ("yes\r", 4));
}

pub(crate) fn killed(world: &World) {
    let client = world.client();
    client.start("victim", "sleep 1000");
    assert_eq!(client.state("victim"), "RUNNING");
    assert_eq!(client.kill("victim"), 137);
    assert_eq!(client.state("victim"), "");
    world.is_quiet();
}
