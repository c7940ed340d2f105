//! From a reaped process to the news of its exit: drain, hold, tell once.

use std::time::{Duration, Instant};

use proto::containerd::events as ev;

use crate::container::{Exit, Process, ProcessId};
use crate::io::link::{Command, Notice};
use crate::machine::State;
use crate::serve::Server;
use crate::task::wait_response;

impl Server {
    /// The process was reaped: what it left is read before anybody is told.
    pub(crate) fn exited(&mut self, target: &ProcessId, exit: Exit) {
        let Ok(container) = self.container_mut(&target.container) else { return };
        let shares_pids = target.exec.is_empty() && !container.has_own_pid_namespace;
        let Ok(process) = container.process_mut(&target.exec) else { return };
        process.reaped = Some(exit);
        process.drained = process.io.is_none();
        if let Some(key) = process.io {
            // Without its thread nothing can be drained; then nothing is waited for.
            self.link.send(Command::Exited(key)).ok();
        }
        if shares_pids {
            // The kernel ends the others only with a pid namespace of their own.
            self.begin_kill(target.clone(), None, libc::SIGKILL, true).ok();
        }
        self.holds.push((Instant::now() + HOLD, target.clone()));
        let waiter = self.process_mut(target).ok().and_then(|found| found.waiters.first().copied());
        let ending = self.trace_below(waiter, "drain", target);
        if let Ok(process) = self.process_mut(target) {
            process.ending = ending;
        }
        self.settle(target, false);
    }

    /// Tells of an exit as soon as it may be told; with `force` also when output or execs hold it back.
    pub(crate) fn settle(&mut self, target: &ProcessId, force: bool) {
        let Ok(container) = self.container_mut(&target.container) else { return };
        let execs_run = container.execs.values().any(Process::is_running);
        let Ok(process) = container.process_mut(&target.exec) else { return };
        let Some(exit) = process.reaped else { return };
        let deleting = process.state == State::Deleting && process.deleting.is_some();
        if process.told || !process.state.tells_exit() {
            return;
        }
        if !force && (!process.drained || target.exec.is_empty() && execs_run) {
            return;
        }
        process.told = true;
        process.ending = None;
        if !deleting {
            process.state = State::Stopped;
        }
        let pid = process.pid;
        let waiters = std::mem::take(&mut process.waiters);
        self.holds.retain(|(_, held)| held != target);
        self.publisher.publish(
            "/tasks/exit",
            &ev::TaskExit {
                container_id: target.container.clone(),
                id: target.event_id().to_owned(),
                pid,
                exit_status: exit.status,
                exited_at: Some(exit.at.into()),
            },
        );
        for waiter in waiters {
            self.reply(Some(waiter), Ok(wait_response(Some(exit))));
        }
        if deleting {
            self.delete_part_done(target, |_| ());
        }
        if !target.exec.is_empty() {
            self.settle(&ProcessId::init(&target.container), false);
        }
    }

    pub(crate) fn take_notices(&mut self) {
        for notice in self.link.notices().take() {
            match notice {
                Notice::Drained(key) => {
                    let Some(target) = self.streams.get(&key).cloned() else { continue };
                    if let Ok(process) = self.process_mut(&target) {
                        process.drained = true;
                    }
                    self.settle(&target, false);
                }
                Notice::Closed(key) => {
                    let Some(target) = self.streams.remove(&key) else { continue };
                    if let Ok(process) = self.process_mut(&target) {
                        process.io = None;
                        process.master = None;
                        process.drained = true;
                    }
                    self.settle(&target, false);
                    self.delete_part_done(&target, |deleting| deleting.io_closed = true);
                }
                Notice::Warning(key, message) => {
                    if let Some(target) = self.streams.get(&key) {
                        self.complain(&target.container, &message);
                    }
                }
            }
        }
    }
}

/// How long output that cannot be read, or execs that do not end, may hold back the news of an exit.
const HOLD: Duration = Duration::from_secs(3);
