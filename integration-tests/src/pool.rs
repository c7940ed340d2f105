//! Stacks that the tests of one process hand on to one another.
//!
//! Starting a stack takes a good part of a second; most tests can do with one that others have used
//! before, as long as those left nothing. That is checked at each return, so it is the test that
//! left something that fails. A stack whose test failed is not handed on.

use std::ops::Deref;
use std::sync::Mutex;

use crate::stack::Stack;

static IDLE: Mutex<Vec<Stack>> = Mutex::new(Vec::new());

/// A stack with busybox, nobody else's until it is dropped.
pub struct Lease(Option<Stack>);

/// Takes an idle stack or starts one, of the parts that the environment asks for.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn lease() -> Lease {
    let idle = IDLE.lock().expect("no panic holds it").pop();
    Lease(Some(idle.unwrap_or_else(|| Stack::from_environment().with_busybox().start())))
}

impl Deref for Lease {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        self.0.as_ref().expect("held until dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(stack) = self.0.take() else { return };
        if std::thread::panicking() {
            return;
        }
        stack.check();
        IDLE.lock().expect("no panic holds it").push(stack);
    }
}
