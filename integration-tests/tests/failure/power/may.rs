//! What something may be after a cut. Pure.

use std::collections::BTreeSet;

/// One state when everything was acknowledged, several when an answer is missing or promises less.
#[derive(Debug, Clone)]
pub(crate) struct May<T>(BTreeSet<T>);

impl<T: Ord + Clone> May<T> {
    pub(crate) fn only(state: T) -> Self {
        Self(BTreeSet::from([state]))
    }

    /// Asked for and not acknowledged, or acknowledged without a promise for the next day.
    pub(crate) fn tried(&mut self, state: T) {
        self.0.insert(state);
    }

    /// Acknowledged, or seen.
    pub(crate) fn is(&mut self, state: T) {
        *self = Self::only(state);
    }

    pub(crate) fn may_be(&self, state: &T) -> bool {
        self.0.contains(state)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stand {
    Absent,
    Created,
    /// After a cut it has ended, with a code of nobody's; that it was started need not be known.
    Running,
    Exited(i64),
}

impl May<Stand> {
    /// Whether that is what a fresh engine may show, once it has come to rest.
    pub(crate) fn allows(&self, seen: Stand, auto_remove: bool) -> bool {
        let ran = self.may_be(&Stand::Running);
        match seen {
            // What has ended goes when the engine returns.
            Stand::Exited(_) if auto_remove => false,
            Stand::Absent if auto_remove && ran => true,
            Stand::Exited(_) if ran => true,
            Stand::Running => false,
            _ => self.may_be(&seen),
        }
    }
}

#[test]
fn only_what_was_promised_must_be() {
    let mut stand = May::only(Stand::Absent);
    stand.tried(Stand::Created);
    assert!(stand.allows(Stand::Absent, false) && stand.allows(Stand::Created, false));
    stand.is(Stand::Created);
    assert!(!stand.allows(Stand::Absent, false) && !stand.allows(Stand::Exited(255), false));
    stand.tried(Stand::Running);
    assert!(stand.allows(Stand::Created, false) && stand.allows(Stand::Exited(255), false));
    assert!(!stand.allows(Stand::Absent, false) && stand.allows(Stand::Absent, true));
    stand.is(Stand::Exited(3));
    assert!(stand.allows(Stand::Exited(3), false) && !stand.allows(Stand::Exited(255), false));
}
