//! The two queues between the control thread and the pump.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::pump;
use super::stdio::{OpenStdin, ProcessIo};

/// Names the streams of one process for as long as the shim lives.
pub(crate) type Key = u64;

/// From the control thread.
pub(crate) enum Command {
    Add(Key, Box<ProcessIo>),
    Stdin(Key, Box<OpenStdin>),
    /// The client asked for the end of stdin: nothing holds it open any more but other writers.
    CloseStdin(Key),
    /// The process ended: read what it left, then say `Drained`.
    Exited(Key),
    /// Give up the streams, delivering what is left for a moment, then say `Closed`.
    Remove(Key),
    /// A rotated log was compressed.
    Compressed(Key),
}

/// To the control thread.
pub(crate) enum Notice {
    Drained(Key),
    Closed(Key),
    Warning(Key, String),
}

/// A queue with a descriptor that is readable while something waits.
pub(crate) struct Queue<T> {
    items: Mutex<Vec<T>>,
    wake: EventFd,
}

impl<T> Queue<T> {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self { items: Mutex::default(), wake: EventFd::from_value_and_flags(0, flags)? })
    }

    pub(crate) fn push(&self, item: T) {
        self.items.lock().unwrap_or_else(PoisonError::into_inner).push(item);
        // Fails only when the counter is full, and then the other side is awake anyway.
        self.wake.write(1).ok();
    }

    pub(crate) fn take(&self) -> Vec<T> {
        self.wake.read().ok();
        std::mem::take(&mut *self.items.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> AsFd for Queue<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// The control thread's side. The pump's thread starts with the first process that has streams.
pub(crate) struct Link {
    commands: Arc<Queue<Command>>,
    notices: Arc<Queue<Notice>>,
    started: bool,
}

impl Link {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            commands: Arc::new(Queue::new()?),
            notices: Arc::new(Queue::new()?),
            started: false,
        })
    }

    pub(crate) fn send(&mut self, command: Command) -> io::Result<()> {
        if !self.started {
            pump::spawn(Arc::clone(&self.commands), Arc::clone(&self.notices))?;
            self.started = true;
        }
        self.commands.push(command);
        Ok(())
    }

    pub(crate) fn notices(&self) -> &Queue<Notice> {
        &self.notices
    }
}
