//! How tasks ended whose shims were lost. Task and shim are gone, and a client that was away meanwhile has
//! nobody else to ask: containerd tells it once, by an event.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::TaskKey;
use super::task::Exit;

/// The oldest are forgotten.
const KEPT: usize = 256;

#[derive(Default)]
pub(super) struct Ends(Mutex<VecDeque<(TaskKey, Exit)>>);

impl Ends {
    pub(super) fn note(&self, key: &TaskKey, exit: Exit) {
        let mut all = self.all();
        if all.len() >= KEPT {
            all.pop_front();
        }
        all.push_back((key.clone(), exit));
    }

    /// A new task has the name.
    pub(super) fn forget(&self, key: &TaskKey) {
        self.all().retain(|(of, _)| of != key);
    }

    pub(super) fn of(&self, key: &TaskKey) -> Option<Exit> {
        self.all().iter().rev().find(|(of, _)| of == key).map(|(_, exit)| *exit)
    }

    fn all(&self) -> MutexGuard<'_, VecDeque<(TaskKey, Exit)>> {
        // The queue is whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_end_is_told_until_the_name_is_used_again() {
        let ends = Ends::default();
        let key = |id: usize| TaskKey { namespace: "ns".to_owned(), id: id.to_string() };
        let exit = |status| Exit { pid: 1, status, at: None };
        ends.note(&key(1), exit(3));
        ends.note(&key(1), exit(4));
        assert_eq!(ends.of(&key(1)), Some(exit(4)));
        ends.forget(&key(1));
        assert_eq!(ends.of(&key(1)), None);
        for id in 0..=KEPT {
            ends.note(&key(id), exit(0));
        }
        assert_eq!((ends.of(&key(0)), ends.of(&key(1))), (None, Some(exit(0))));
    }
}
