//! The life of a process, init or exec, as a table without effects.
//!
//! ```text
//!  Creating ──► Created ──► Starting ──► Running ◄──► Paused
//!      │           │            │           │            │
//!      └ gone      ├────────────┴───────────┴────────────┤   reaped and drained
//!                  ▼                                     ▼
//!               Deleting ◄────────────────────────── Stopped
//! ```
//! An exit that is reaped while the runtime still reports a start is held back until the start is answered,
//! so that clients always see start before exit.

use crate::error::TaskError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Creating,
    Created,
    Starting,
    Running,
    Paused,
    Stopped,
    Deleting,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    Exec,
    Kill,
    Pause,
    Resume,
    Update,
    Delete,
    Resize,
}

impl State {
    /// Whether the request may go on.
    pub(crate) fn admit(self, verb: Verb) -> Result<(), TaskError> {
        use Verb as V;
        let allowed = match (self, verb) {
            (Self::Creating, _) => return Err(TaskError::NotCreated),
            (Self::Created, V::Start | V::Kill | V::Delete | V::Update | V::Resize | V::Exec) => {
                true
            }
            (Self::Starting, V::Kill | V::Resize) => true,
            (Self::Running, V::Exec | V::Kill | V::Pause | V::Update | V::Resize) => true,
            (Self::Paused, V::Kill | V::Resume | V::Update | V::Resize) => true,
            (Self::Stopped | Self::Deleting, V::Kill) => return Err(TaskError::Finished),
            (Self::Stopped, V::Delete) => true,
            // The terminal may be gone; that is not the client's fault.
            (Self::Stopped, V::Resize) => true,
            _ => false,
        };
        if allowed {
            Ok(())
        } else {
            Err(TaskError::State { verb: verb.name(), state: self.name() })
        }
    }

    /// Whether an exit that was reaped now can be told, or must wait for the answer to a start.
    pub(crate) fn tells_exit(self) -> bool {
        !matches!(self, Self::Creating | Self::Starting)
    }

    pub(crate) fn is_alive(self) -> bool {
        matches!(self, Self::Created | Self::Starting | Self::Running | Self::Paused)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Deleting => "deleting",
        }
    }

    /// containerd's number of this state.
    pub(crate) fn to_wire(self) -> i32 {
        use proto::containerd::v1::types::Status;
        let status = match self {
            Self::Creating | Self::Created | Self::Starting => Status::Created,
            Self::Running => Status::Running,
            Self::Paused => Status::Paused,
            Self::Stopped | Self::Deleting => Status::Stopped,
        };
        status.into()
    }
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Exec => "exec in",
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Resize => "resize",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_deleted_only_before_its_start_and_after_its_end() {
        let table = [
            (State::Creating, false),
            (State::Created, true),
            (State::Starting, false),
            (State::Running, false),
            (State::Paused, false),
            (State::Stopped, true),
            (State::Deleting, false),
        ];
        for (state, allowed) in table {
            assert_eq!(state.admit(Verb::Delete).is_ok(), allowed, "{state:?}");
        }
    }

    #[test]
    fn kill_of_a_finished_process_says_so() {
        for state in [State::Stopped, State::Deleting] {
            let error = state.admit(Verb::Kill).unwrap_err();
            // Compat: dockerd and ctr match this text.
            assert_eq!(error.to_string(), "process already finished: not found");
        }
        for state in [State::Created, State::Starting, State::Running, State::Paused] {
            assert!(state.admit(Verb::Kill).is_ok(), "{state:?}");
        }
    }

    #[test]
    fn an_exit_during_a_start_waits() {
        assert!(!State::Starting.tells_exit());
        assert!(State::Created.tells_exit() && State::Running.tells_exit());
    }

    #[test]
    fn pause_and_resume_alternate() {
        assert!(State::Running.admit(Verb::Pause).is_ok());
        assert!(State::Running.admit(Verb::Resume).is_err());
        assert!(State::Paused.admit(Verb::Resume).is_ok());
        assert!(State::Paused.admit(Verb::Exec).is_err());
    }
}
