//! A hundred containers, ten at once, over the API: all started, then all removed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::http::Connection;
use crate::samples::Sample;
use crate::sections::{LONG, Run};
use crate::stack::Stack;

pub(super) const HERD: usize = 100;
const AT_ONCE: usize = 10;

pub(super) fn section(run: &mut Run) -> anyhow::Result<()> {
    let rounds = run.rounds.min(LONG);
    // Its CPU is that of whole lives: what is started is also removed until it is quiet.
    run.interleave("parallel", "start-100", rounds, |stack, samples| {
        let took = start_herd(stack)?;
        stack.world.quiet()?;
        let removed = remove_herd(stack)?;
        samples.add("parallel", "remove-100", stack.side, Sample::time(removed));
        Ok(took)
    })
}

pub(super) fn start_herd(stack: &Stack) -> anyhow::Result<Duration> {
    ten_at_once(stack, |connection, number| {
        let body = r#"{"Image":"busybox","Cmd":["sleep","10000"]}"#;
        let id = connection.create(&format!("/containers/create?name=herd{number}"), body)?;
        connection.request("POST", &format!("/containers/{id}/start"), "")?;
        Ok(())
    })
}

pub(super) fn remove_herd(stack: &Stack) -> anyhow::Result<Duration> {
    ten_at_once(stack, |connection, number| {
        connection.request("DELETE", &format!("/containers/herd{number}?force=1"), "")?;
        Ok(())
    })
}

fn ten_at_once(
    stack: &Stack,
    work: impl Fn(&mut Connection, usize) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Duration> {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    let one = || -> anyhow::Result<()> {
        let mut connection = stack.connect()?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= HERD {
                return Ok(());
            }
            work(&mut connection, number)?;
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(one)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    Ok(started.elapsed())
}
