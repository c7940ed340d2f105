//! What every client sees of every stack.

use integration_tests::Output;
use integration_tests::image::digest;

use crate::client::{Running, Stdin, feed, on_terminal};
use crate::row::World;

pub(crate) fn output(world: &World) {
    let output = feed(world.client().run(Stdin::Closed, "echo hi"), b"");
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
    let output = feed(world.client().run(Stdin::Closed, "echo out; echo err >&2"), b"");
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
}

pub(crate) fn stdin(world: &World) {
    let input = "0123456789".repeat(20_000);
    let output = feed(world.client().run(Stdin::Open, "wc -c"), input.as_bytes());
    assert_eq!((output.code, output.stdout.trim()), (0, "200000"));
}

pub(crate) fn bytes(world: &World) {
    let wanted: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    let output = if world.loses_output_at_the_exit() {
        let mut running = Running::start(world.client().run(Stdin::Open, "seq 200000; read -r x"));
        let lines: String = (0..200_000).map(|_| running.line() + "\n").collect();
        running.send("\n");
        let rest = running.end();
        Output { stdout: lines + &rest.stdout, ..rest }
    } else {
        feed(world.client().run(Stdin::Closed, "seq 200000"), b"")
    };
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let ends = format!("{} bytes", output.stdout.len());
    assert_eq!(digest(output.stdout.as_bytes()), digest(wanted.as_bytes()), "{ends}");
}

pub(crate) fn terminal(world: &World) {
    let command =
        world.client().run(Stdin::Terminal, "test -t 0 && test -t 1 && echo ye''s; exit 4");
    let (seen, code) = on_terminal(&command);
    assert!(seen.starts_with("yes\r"), "{seen:?}");
    assert_eq!(code, 4);
}

pub(crate) fn exec(world: &World) {
    let client = world.client();
    client.start("work", "sleep 1000");
    let output = feed(client.exec("work", Stdin::Closed, "echo in; echo err >&2; exit 3"), b"");
    assert_eq!(
        (output.code, &*output.stdout, output.stderr.lines().next().unwrap_or_default()),
        (3, "in\n", "err")
    );
    let output = feed(client.exec("work", Stdin::Open, "wc -c"), b"12345");
    assert_eq!((output.code, output.stdout.trim()), (0, "5"));
    let command =
        client.exec("work", Stdin::Terminal, "test -t 0 && test -t 1 && echo ye''s; exit 4");
    let (seen, code) = on_terminal(&command);
    assert!(seen.starts_with("yes\r"), "{seen:?}");
    assert_eq!(code, 4);
    client.kill("work");
}

pub(crate) fn killed(world: &World) {
    let client = world.client();
    client.start("victim", "sleep 1000");
    assert_eq!(client.state("victim"), "RUNNING");
    assert_eq!(client.kill("victim"), 137);
    assert_eq!(client.state("victim"), "");
    world.is_quiet();
}
