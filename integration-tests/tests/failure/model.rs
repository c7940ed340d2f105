//! What a container may be, by what was asked and what was acknowledged. Pure: no engine, no clock.
//!
//! ```text
//!   asked          acknowledged          not acknowledged: as before, or
//!   create         created               created
//!   start          running               running; refused: 128 if it was to stay, gone with --rm
//!   a signal       running or its code   its code
//!   stop, kill     its code              its code
//!   rm -f          absent                absent, or killed
//! ```

use std::collections::BTreeSet;

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Absent,
    Created,
    Running,
    Exited(i64),
}

/// A request that changes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Create,
    Start,
    /// SIGUSR1, on which it ends with 6 when it gets to it.
    Signal,
    /// Answered when it has ended: SIGTERM with 7, SIGKILL with 137.
    End(i64),
    /// Answers when it has ended.
    Wait,
    Remove,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Acknowledged,
    Refused,
    /// The engine went away before it answered.
    None,
}

/// What one container may be now.
#[derive(Debug, Clone)]
pub(crate) struct Thing {
    auto_remove: bool,
    may: BTreeSet<State>,
    /// Codes with which this run may end by what was sent to it.
    codes: BTreeSet<i64>,
}

impl Thing {
    pub(crate) fn new(auto_remove: bool) -> Self {
        Self { auto_remove, may: BTreeSet::from([State::Absent]), codes: BTreeSet::new() }
    }

    pub(crate) fn asked(&mut self, request: Request, answer: Answer) {
        match request {
            Request::Signal => drop(self.codes.insert(6)),
            Request::End(code) => drop(self.codes.insert(code)),
            Request::Remove if self.may.contains(&State::Running) => drop(self.codes.insert(137)),
            _ => {}
        }
        let after: BTreeSet<State> = match request {
            Request::Create => BTreeSet::from([State::Created]),
            Request::Start if answer == Answer::Refused && self.auto_remove => {
                BTreeSet::from([State::Absent])
            }
            Request::Start if answer == Answer::Refused => BTreeSet::from([State::Exited(128)]),
            Request::Start => BTreeSet::from([State::Running]),
            Request::Signal if answer == Answer::Acknowledged => {
                self.ends().into_iter().chain([State::Running]).collect()
            }
            Request::Signal | Request::End(_) | Request::Wait => self.ends(),
            Request::Remove if answer == Answer::Acknowledged => BTreeSet::from([State::Absent]),
            Request::Remove => self.ends().into_iter().chain([State::Absent]).collect(),
        };
        if answer == Answer::Acknowledged {
            self.may = after;
        } else {
            self.may.extend(after);
        }
        if request == Request::Start && answer == Answer::Acknowledged {
            self.codes.clear();
        }
    }

    fn ends(&self) -> BTreeSet<State> {
        if self.auto_remove && !self.codes.is_empty() {
            return BTreeSet::from([State::Absent]);
        }
        self.codes.iter().map(|code| State::Exited(*code)).collect()
    }

    /// The one thing it can be, if there is one.
    pub(crate) fn is(&self) -> Option<State> {
        let mut states = self.may.iter();
        states.next().copied().filter(|_| states.next().is_none())
    }

    pub(crate) fn may_be(&self, state: State) -> bool {
        self.may.contains(&state)
    }

    /// A signal may be on its way to it.
    pub(crate) fn is_doomed(&self) -> bool {
        !self.codes.is_empty()
    }

    /// `--rm`.
    pub(crate) fn is_removed_by_itself(&self) -> bool {
        self.auto_remove
    }

    /// It was looked at.
    pub(crate) fn found(&mut self, state: State) {
        self.may = BTreeSet::from([state]);
        if state != State::Running {
            self.codes.clear();
        }
    }
}

#[test]
fn what_was_acknowledged_leaves_one_state() {
    let mut thing = Thing::new(false);
    assert_eq!(thing.is(), Some(State::Absent));
    let mut ask = |request, answer| {
        thing.asked(request, answer);
        thing.is()
    };
    assert_eq!(ask(Request::Create, Answer::Acknowledged), Some(State::Created));
    assert_eq!(ask(Request::Start, Answer::Acknowledged), Some(State::Running));
    assert_eq!(ask(Request::Signal, Answer::Acknowledged), None);
    assert_eq!(ask(Request::Wait, Answer::Acknowledged), Some(State::Exited(6)));
    assert_eq!(ask(Request::Start, Answer::Acknowledged), Some(State::Running));
    assert_eq!(ask(Request::End(7), Answer::Acknowledged), Some(State::Exited(7)));
    assert_eq!(ask(Request::Remove, Answer::Acknowledged), Some(State::Absent));
}

#[test]
fn what_was_not_acknowledged_may_have_happened() {
    let mut thing = Thing::new(false);
    thing.asked(Request::Create, Answer::None);
    assert!(thing.may_be(State::Absent) && thing.may_be(State::Created));
    thing.found(State::Created);
    thing.asked(Request::Start, Answer::None);
    assert!(thing.may_be(State::Created) && thing.may_be(State::Running));
    thing.found(State::Running);
    thing.asked(Request::End(7), Answer::None);
    assert!(thing.may_be(State::Running) && thing.may_be(State::Exited(7)) && thing.is_doomed());
    thing.asked(Request::End(137), Answer::Acknowledged);
    assert!(thing.may_be(State::Exited(7)) && thing.may_be(State::Exited(137)));
    assert!(!thing.may_be(State::Running));
    let mut brief = Thing::new(true);
    brief.found(State::Running);
    brief.asked(Request::End(7), Answer::Refused);
    assert!(brief.may_be(State::Running) && brief.may_be(State::Absent));
    assert!(!brief.may_be(State::Exited(7)));
}
