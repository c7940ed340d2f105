//! What clients ask again and again, with a hundred containers there: milliseconds a request, on one
//! kept connection and on four. A round is as many requests as go into a tenth of a second.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};

use crate::http::Connection;
use crate::samples::Sample;
use crate::sections::parallel::{HERD, remove_herd, start_herd};
use crate::sections::{Run, WARM_UP};
use crate::stack::Stack;

const WINDOW: Duration = Duration::from_millis(100);
/// `ping` costs an engine nothing: it shows what of the others is the bench's own.
const REQUESTS: [(&str, &str); 4] = [
    ("ping", "/_ping"),
    ("list-100", "/containers/json"),
    ("version", "/version"),
    ("info", "/info"),
];

pub(super) fn section(run: &mut Run) -> anyhow::Result<()> {
    for stack in &run.stacks {
        start_herd(stack)?;
        let listed = stack.connect()?.json("GET", "/containers/json", "")?;
        let count = listed.as_array().map_or(0, Vec::len);
        ensure!(count == HERD, "{count} containers are listed");
        stack.world.quiet()?;
    }
    for (name, path) in REQUESTS {
        for connections in [1, 4] {
            let measure =
                if connections == 1 { name.to_owned() } else { format!("{name} x{connections}") };
            for round in 0..run.rounds + WARM_UP {
                for turn in 0..2 {
                    let stack = &run.stacks[(round + turn) % 2];
                    let sample = ask(stack, path, connections)?;
                    if round >= WARM_UP {
                        run.samples.add("list", &measure, stack.side, sample);
                    }
                }
            }
        }
    }
    for stack in &run.stacks {
        remove_herd(stack)?;
    }
    Ok(())
}

fn ask(stack: &Stack, path: &str, connections: usize) -> anyhow::Result<Sample> {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(stack.connect()?);
    }
    let before = stack.world.cpu()?;
    let started = Instant::now();
    let one = |mut connection: Connection| {
        let mut count = 0_u32;
        while started.elapsed() < WINDOW {
            connection.request("GET", path, "")?;
            count += 1;
        }
        anyhow::Ok(count)
    };
    let count: u32 = thread::scope(|scope| {
        let threads: Vec<_> =
            open.into_iter().map(|connection| scope.spawn(|| one(connection))).collect();
        let counts = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?);
        counts.sum::<anyhow::Result<u32>>()
    })?;
    let took = started.elapsed();
    let cpu = stack.world.cpu()?.saturating_sub(before);
    Ok(Sample::time(took / count).with_cpu(cpu / count))
}
