//! The life of a container as a table; no I/O, no clock.
//!
//! ```text
//!            start                    exit
//!  created ─────────► running ───────────────► exited ──remove──► removing ──► (gone)
//!     │               │  ▲  │ pause             ▲  │ start
//!     │        pause  ▼  │  └────── restarting ◄┘  └────► running
//!     └─remove      paused                 (policy; start when due)
//! ```

use serde::{Deserialize, Serialize};

/// Where a container stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    #[default]
    Created,
    Running,
    Paused,
    /// Waits for its next start by policy.
    Restarting,
    Exited,
    Removing,
    /// Removal failed half-way; only another removal is possible.
    Dead,
}

impl Phase {
    /// The word of inspect and ps.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }

    /// A process exists.
    pub(crate) fn has_process(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// Compat: `State.Running` is true while a restart is due.
    pub(crate) fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// What is wanted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Start,
    Stop,
    Kill,
    Pause,
    Unpause,
    Remove { force: bool },
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Do it.
    Go,
    /// Nothing to do: 304.
    Already,
    /// Only the pending restart has to be forgotten.
    CancelRestart,
    /// End the process, then remove.
    KillFirst,
    /// 409, for this reason.
    Refuse(Refusal),
}

/// Reasons to refuse; the texts are in `ContainerError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    StartPaused,
    StartRemoving,
    NotRunning,
    AlreadyPaused,
    NotPaused,
    IsRestarting,
    RemoveRunning,
    RemovePaused,
    RemoveInProgress,
}

/// The table.
pub(crate) fn decide(phase: Phase, wish: Wish) -> Decision {
    use Decision::{Already, CancelRestart, Go, KillFirst, Refuse};
    match (phase, wish) {
        (Phase::Created | Phase::Exited, Wish::Start) => Go,
        // Compat: a start while a restart is pending is "already started".
        (Phase::Running | Phase::Restarting, Wish::Start) => Already,
        (Phase::Paused, Wish::Start) => Refuse(Refusal::StartPaused),
        (Phase::Removing | Phase::Dead, Wish::Start) => Refuse(Refusal::StartRemoving),

        (Phase::Running | Phase::Paused, Wish::Stop | Wish::Kill) => Go,
        (Phase::Restarting, Wish::Stop | Wish::Kill) => CancelRestart,
        (_, Wish::Stop) => Already,
        (_, Wish::Kill) => Refuse(Refusal::NotRunning),

        (Phase::Running, Wish::Pause) => Go,
        (Phase::Paused, Wish::Pause) => Refuse(Refusal::AlreadyPaused),
        (Phase::Restarting, Wish::Pause) => Refuse(Refusal::IsRestarting),
        (_, Wish::Pause) => Refuse(Refusal::NotRunning),

        (Phase::Paused, Wish::Unpause) => Go,
        (_, Wish::Unpause) => Refuse(Refusal::NotPaused),

        (Phase::Created | Phase::Exited | Phase::Dead, Wish::Remove { .. }) => Go,
        (Phase::Removing, Wish::Remove { .. }) => Refuse(Refusal::RemoveInProgress),
        (_, Wish::Remove { force: true }) => KillFirst,
        (Phase::Paused, Wish::Remove { force: false }) => Refuse(Refusal::RemovePaused),
        (_, Wish::Remove { force: false }) => Refuse(Refusal::RemoveRunning),
    }
}

/// Whether to start again after an exit.
pub(crate) fn restarts(
    policy: &str,
    max_retries: i64,
    exit_code: i64,
    restart_count: i64,
    stopped_by_user: bool,
) -> bool {
    if stopped_by_user {
        return false;
    }
    match policy {
        "always" | "unless-stopped" => true,
        "on-failure" => exit_code != 0 && (max_retries == 0 || restart_count < max_retries),
        _ => false,
    }
}

/// The pause before a restart: 100 ms, doubled up to a minute, fresh after ten seconds of running.
pub(crate) fn backoff(previous: u64, ran_for_seconds: i64) -> u64 {
    if ran_for_seconds >= 10 || previous == 0 { 100 } else { (previous * 2).min(60_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_table() {
        use Decision::{Already, CancelRestart, Go, KillFirst, Refuse};
        let rows = [
            (Phase::Created, Wish::Start, Go),
            (Phase::Running, Wish::Start, Already),
            (Phase::Paused, Wish::Start, Refuse(Refusal::StartPaused)),
            (Phase::Removing, Wish::Start, Refuse(Refusal::StartRemoving)),
            (Phase::Exited, Wish::Stop, Already),
            (Phase::Restarting, Wish::Stop, CancelRestart),
            (Phase::Exited, Wish::Kill, Refuse(Refusal::NotRunning)),
            (Phase::Paused, Wish::Pause, Refuse(Refusal::AlreadyPaused)),
            (Phase::Running, Wish::Unpause, Refuse(Refusal::NotPaused)),
            (Phase::Running, Wish::Remove { force: false }, Refuse(Refusal::RemoveRunning)),
            (Phase::Running, Wish::Remove { force: true }, KillFirst),
            (Phase::Removing, Wish::Remove { force: true }, Refuse(Refusal::RemoveInProgress)),
            (Phase::Dead, Wish::Remove { force: false }, Go),
        ];
        for (phase, wish, decision) in rows {
            assert_eq!(decide(phase, wish), decision, "{phase:?} {wish:?}");
        }
    }

    #[test]
    fn policies_restart_as_documented() {
        assert!(restarts("always", 0, 0, 99, false));
        assert!(!restarts("always", 0, 0, 0, true));
        assert!(restarts("on-failure", 0, 1, 99, false));
        assert!(!restarts("on-failure", 0, 0, 0, false));
        assert!(restarts("on-failure", 2, 1, 1, false));
        assert!(!restarts("on-failure", 2, 1, 2, false));
        assert!(!restarts("no", 0, 1, 0, false) && !restarts("", 0, 1, 0, false));
    }

    #[test]
    fn backoff_doubles_to_a_minute_and_starts_fresh() {
        assert_eq!((backoff(0, 0), backoff(100, 0), backoff(50_000, 0)), (100, 200, 60_000));
        assert_eq!(backoff(60_000, 10), 100);
    }
}
