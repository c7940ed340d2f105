//! Health checks: a probe is an exec; what its end means is a table without I/O; one task a running
//! container probes, and ends with the run. While the engine is away nobody probes; what was known stays.
//!
//! ```text
//!  starting ──0──► healthy ◄──0── unhealthy
//!      │              │               ▲
//!      └──────────────┴─ `retries` failures in a row (none counts in the start period)
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use docker_api::container::{Config, Health, HealthResult};
use docker_api::exec::ExecCreateRequest;
use proto::containerd::services::tasks::v1::KillRequest;
use tokio::io::AsyncWrite;
use tokio::task::JoinHandle;

use super::attach::{self, Wanted};
use super::lifecycle::Phase;
use super::{Container, ContainerError, create};
use crate::app::App;
use crate::exec::Exec;
use crate::store::Durability;

pub(super) const STARTING: &str = "starting";
const HEALTHY: &str = "healthy";
const UNHEALTHY: &str = "unhealthy";

/// What is to be asked, how often, and with how much patience.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

impl Plan {
    /// `None` where nothing is to be asked.
    fn of(config: &Config) -> Option<Self> {
        let health = config.healthcheck.as_ref()?;
        let (kind, words) = health.test.as_deref()?.split_first()?;
        let command = match kind.as_str() {
            "CMD" => words.to_vec(),
            "CMD-SHELL" => {
                let shell = config.shell.clone().filter(|shell| !shell.is_empty());
                let mut command =
                    shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
                command.extend_from_slice(words);
                command
            }
            // Compat: NONE, and whatever else nobody knows.
            _ => return None,
        };
        let time = |given: Option<i64>, default: u64| match u64::try_from(given.unwrap_or(0)) {
            Ok(nanoseconds @ 1..) => Duration::from_nanos(nanoseconds),
            _ => Duration::from_secs(default),
        };
        Some(Self {
            command,
            interval: time(health.interval, 30),
            timeout: time(health.timeout, 30),
            start_period: time(health.start_period, 0),
            start_interval: time(health.start_interval, 5),
            retries: health.retries.filter(|retries| *retries > 0).unwrap_or(3),
        })
    }

    /// The pause before the next probe.
    fn pause(&self, health: &Health, since_start: Duration) -> Duration {
        if health.status == STARTING && since_start < self.start_period {
            self.start_interval
        } else {
            self.interval
        }
    }

    /// What a probe's result makes of what was known.
    fn after(&self, mut health: Health, result: HealthResult, since_start: Duration) -> Health {
        if result.exit_code == 0 {
            health.failing_streak = 0;
            HEALTHY.clone_into(&mut health.status);
        } else if health.status != STARTING || since_start >= self.start_period {
            health.failing_streak += 1;
            if health.failing_streak >= self.retries {
                UNHEALTHY.clone_into(&mut health.status);
            }
        }
        let log = health.log.get_or_insert_default();
        log.push(result);
        log.drain(..log.len().saturating_sub(LOG));
        health
    }
}

/// What is known when a run begins. Compat: results of an earlier one stay to be seen.
pub(super) fn begin(config: &Config, before: Option<Health>) -> Option<Health> {
    Plan::of(config)?;
    let log = before.and_then(|health| health.log).unwrap_or_default();
    Some(Health { status: STARTING.to_owned(), failing_streak: 0, log: Some(log) })
}

/// Compat: nobody probes what stands still or has ended, and so it is not well.
pub(super) fn end(health: Option<Health>) -> Option<Health> {
    health.map(|health| Health { status: UNHEALTHY.to_owned(), ..health })
}

/// The probing of one run; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Probing(JoinHandle<()>);

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Probing {
    /// Begins, where there is something to ask.
    pub(super) fn start(app: &Arc<App>, container: &Arc<Container>) -> Option<Self> {
        let plan = Plan::of(&container.record().config)?;
        let (app, container) = (Arc::clone(app), Arc::clone(container));
        Some(Self(tokio::spawn(async move { probe_for_ever(&app, &container, &plan).await })))
    }
}

async fn probe_for_ever(app: &Arc<App>, container: &Arc<Container>, plan: &Plan) {
    loop {
        let (health, started) = {
            let state = &container.record().state;
            (state.health.clone().unwrap_or_default(), state.started_at.clone())
        };
        tokio::time::sleep(plan.pause(&health, since(&started))).await;
        let at = since(&started);
        let start = create::now();
        let (exit_code, output) = probe(app, container, plan).await;
        if container.phase() != Phase::Running {
            return;
        }
        let result = HealthResult { start, end: create::now(), exit_code, output };
        let now = plan.after(health.clone(), result, at);
        let changed = (now.status != health.status).then(|| now.status.clone());
        // What changes nothing need not outlive the engine.
        if changed.is_some() {
            container.note(Durability::Written, |record| record.state.health = Some(now));
        } else {
            container.record().state.health = Some(now);
        }
        if let Some(status) = changed {
            container.event(app, &format!("health_status: {status}"), &[]);
        }
    }
}

/// Time since a time of a record.
fn since(started: &str) -> Duration {
    let now = jiff::Timestamp::now();
    let (seconds, nanoseconds) = docker_api::time::parse_rfc3339(started).unwrap_or_default();
    let started = jiff::Timestamp::new(seconds, nanoseconds).unwrap_or(now);
    Duration::try_from(now.duration_since(started)).unwrap_or_default()
}

/// Runs the command to its end or out of patience: exit code and output.
async fn probe(app: &Arc<App>, container: &Arc<Container>, plan: &Plan) -> (i64, String) {
    let request = ExecCreateRequest {
        cmd: Some(plan.command.clone()),
        attach_stdout: true,
        attach_stderr: true,
        ..ExecCreateRequest::default()
    };
    let exec = app
        .execs
        .create(app, container, request)
        .and_then(|id| app.execs.get(&id))
        .and_then(|exec| exec.claim(container).map(|()| exec));
    let exec = match exec {
        Ok(exec) => exec,
        Err(error) => return (FAILED, error.to_string()),
    };
    let mut kept = Kept::default();
    let ended = tokio::time::timeout(plan.timeout, run(app, container, &exec, &mut kept)).await;
    let output = kept.text();
    match ended {
        Ok(Ok(code)) => (code, output),
        Ok(Err(error)) => (FAILED, error.to_string()),
        Err(_) => {
            kill(app, &exec).await;
            let mut text = format!("Health check exceeded timeout ({})", go_duration(plan.timeout));
            if !output.is_empty() {
                text = format!("{text}: {output}");
            }
            (FAILED, text)
        }
    }
}

async fn run(
    app: &Arc<App>,
    container: &Arc<Container>,
    exec: &Arc<Exec>,
    kept: &mut Kept,
) -> Result<i64, ContainerError> {
    let mut state = exec.state.subscribe();
    // The start is not to be left half-way when patience ends.
    let (own, of) = ((Arc::clone(app), Arc::clone(container)), Arc::clone(exec));
    let started = tokio::spawn(async move { of.start(&own.0, &own.1).await });
    let output = started.await.map_err(|_| ContainerError::OwnerGone)??;
    let wanted = Wanted { stdin: false, stdout: true, stderr: true };
    attach::session(Arc::clone(app), output, None, wanted, true, 0, tokio::io::empty(), kept).await;
    let ended = state.wait_for(|state| state.exit_code.is_some()).await;
    Ok(ended.ok().and_then(|state| state.exit_code).unwrap_or(FAILED))
}

/// Ends a probe, and waits for its end, so that they do not pile up.
async fn kill(app: &App, exec: &Exec) {
    let mut state = exec.state.subscribe();
    // A start that was late goes on, and only then there is something to end.
    drop(state.wait_for(|state| state.running || state.exit_code.is_some()).await);
    let request = KillRequest {
        container_id: exec.container_id.clone(),
        exec_id: exec.id.clone(),
        signal: 9,
        ..KillRequest::default()
    };
    if let Err(status) = app.containerd.tasks().kill(request).await {
        tracing::debug!(exec = exec.id, "end a probe: {}", status.message());
        return;
    }
    drop(state.wait_for(|state| state.exit_code.is_some()).await);
}

/// The first bytes of a probe's output.
#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    more: bool,
}

impl Kept {
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if self.more { format!("{text}...") } else { text.into_owned() }
    }
}

impl AsyncWrite for Kept {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let room = OUTPUT - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.more |= bytes.len() > room;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// As Go writes it: `1m30s`, `1.5s`, `250ms`.
fn go_duration(time: Duration) -> String {
    let trim = |text: String| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        }
    };
    if time < Duration::from_secs(1) {
        return format!("{}ms", trim(format!("{:.6}", time.as_secs_f64() * 1000.0)));
    }
    let (hours, minutes) = (time.as_secs() / 3600, time.as_secs() / 60 % 60);
    let rest = time.as_secs() % 60;
    let seconds = trim(format!("{rest}.{:09}", time.subsec_nanos()));
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Results that are kept.
const LOG: usize = 5;
/// Bytes of output that are kept.
const OUTPUT: usize = 4096;
/// Compat: the code of a probe that did not run to its end.
const FAILED: i64 = -1;

#[cfg(test)]
mod tests {
    use docker_api::container::HealthConfig;
    use proptest::prelude::*;

    use super::*;

    fn config(test: &[&str]) -> Config {
        let test = Some(test.iter().map(|&word| word.to_owned()).collect());
        let health = HealthConfig {
            test,
            start_period: Some(10_000_000_000),
            retries: Some(2),
            ..HealthConfig::default()
        };
        Config { healthcheck: Some(health), ..Config::default() }
    }

    fn result(exit_code: i64) -> HealthResult {
        HealthResult { exit_code, ..HealthResult::default() }
    }

    #[test]
    fn rows_of_the_table() {
        let plan = Plan::of(&config(&["CMD", "x"])).unwrap();
        let (early, late) = (Duration::from_secs(9), Duration::from_secs(10));
        let rows = [
            (STARTING, 0, 0, early, HEALTHY, 0),
            (STARTING, 0, 1, early, STARTING, 0),
            (STARTING, 0, 1, late, STARTING, 1),
            (STARTING, 1, 1, late, UNHEALTHY, 2),
            (HEALTHY, 0, 1, early, HEALTHY, 1),
            (HEALTHY, 1, -1, early, UNHEALTHY, 2),
            (UNHEALTHY, 2, 7, late, UNHEALTHY, 3),
            (UNHEALTHY, 3, 0, late, HEALTHY, 0),
        ];
        for row @ (status, streak, code, at, then, streak_then) in rows {
            let health = Health { status: status.to_owned(), failing_streak: streak, log: None };
            let after = plan.after(health, result(code), at);
            assert_eq!((&*after.status, after.failing_streak), (then, streak_then), "{row:?}");
            assert_eq!(after.log, Some(vec![result(code)]));
        }
    }

    #[test]
    fn five_results_are_kept() {
        let plan = Plan::of(&config(&["CMD", "x"])).unwrap();
        let all = (0..7).fold(Health::default(), |health, code| {
            plan.after(health, result(code), Duration::ZERO)
        });
        assert_eq!(all.log, Some((2..7).map(result).collect()));
    }

    #[test]
    fn commands_are_asked_directly_or_of_a_shell() {
        let command = |test: &[&str]| Plan::of(&config(test)).map(|plan| plan.command.join("|"));
        assert_eq!(command(&["CMD", "a", "b"]).as_deref(), Some("a|b"));
        assert_eq!(command(&["CMD-SHELL", "a b"]).as_deref(), Some("/bin/sh|-c|a b"));
        assert_eq!(command(&["NONE"]), None);
        assert_eq!(command(&[]), None);
    }

    #[test]
    fn pauses_are_shorter_while_it_starts() {
        let plan = Plan::of(&config(&["CMD", "x"])).unwrap();
        let health = |status: &str| Health { status: status.to_owned(), ..Health::default() };
        let (early, late) = (Duration::ZERO, Duration::from_secs(10));
        assert_eq!(plan.pause(&health(STARTING), early), Duration::from_secs(5));
        assert_eq!(plan.pause(&health(STARTING), late), Duration::from_secs(30));
        assert_eq!(plan.pause(&health(HEALTHY), early), Duration::from_secs(30));
    }

    #[test]
    fn output_is_cut_and_says_so() {
        let mut kept = Kept { bytes: vec![b'x'; OUTPUT], more: false };
        assert_eq!(kept.text().len(), OUTPUT);
        kept.more = true;
        assert!(kept.text().ends_with("x..."));
    }

    #[test]
    fn durations_read_as_go_writes_them() {
        let rows = [
            (250, "250ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
        ];
        for (milliseconds, text) in rows {
            assert_eq!(go_duration(Duration::from_millis(milliseconds)), text);
        }
    }

    proptest! {
        #[test]
        fn a_duration_reads_back(nanoseconds in 0_u64..(1 << 62), small in 0_u64..5_000_000_000) {
            for nanoseconds in [nanoseconds, small] {
                let text = go_duration(Duration::from_nanos(nanoseconds));
                prop_assert_eq!(docker_api::time::parse_duration(&text), i64::try_from(nanoseconds).ok(), "{}", text);
            }
        }

        #[test]
        fn whatever_is_asked_for_a_probe_comes_in_time(
            numbers in proptest::array::uniform5(proptest::option::of(any::<i64>())),
            test in proptest::option::of(proptest::collection::vec("(CMD|CMD-SHELL|NONE|\\PC{0,4})", 0..4)),
            codes in proptest::collection::vec(-1_i64..2, 0..12),
        ) {
            let [interval, timeout, start_period, start_interval, retries] = numbers;
            let health = HealthConfig { test: test.clone(), interval, timeout, start_period, start_interval, retries };
            let config = Config { healthcheck: Some(health), ..Config::default() };
            let Some(plan) = Plan::of(&config) else {
                prop_assert!(begin(&config, None).is_none());
                return Ok(());
            };
            let nothing = test.is_some_and(|test| test == ["CMD"]);
            prop_assert!((!plan.command.is_empty() || nothing) && plan.retries > 0);
            let mut health = begin(&config, None).unwrap();
            let mut bad = 0;
            for (at, code) in (0..).zip(codes) {
                let pause = plan.pause(&health, Duration::from_secs(at));
                prop_assert!(!pause.is_zero() && !plan.timeout.is_zero());
                health = plan.after(health, result(code), Duration::from_secs(at));
                let counts = health.status != STARTING || Duration::from_secs(at) >= plan.start_period;
                bad = if code == 0 { 0 } else { bad + i64::from(counts) };
                prop_assert_eq!(health.failing_streak, bad);
                let wanted = match bad {
                    0 if code == 0 => HEALTHY,
                    bad if bad >= plan.retries => UNHEALTHY,
                    _ => health.status.as_str(),
                };
                prop_assert_eq!(health.status.as_str(), wanted);
                prop_assert!(health.log.as_ref().is_some_and(|log| log.len() <= LOG && log.last() == Some(&result(code))));
            }
        }
    }
}
