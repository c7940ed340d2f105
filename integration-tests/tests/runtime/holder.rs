//! Namespaces that a caller has prepared before it calls the runtime: those of a thread, which ends
//! with the test.

use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use nix::sched::CloneFlags;

use crate::bundle::Bundle;

pub(crate) struct Holder {
    jobs: Option<Sender<(Command, Sender<Output>)>>,
    thread: Option<JoinHandle<()>>,
    id: i32,
}

impl Holder {
    pub(crate) fn network(prepare: impl FnOnce() + Send + 'static) -> Self {
        Self::new(CloneFlags::CLONE_NEWNET, prepare)
    }

    /// Nothing of it is seen outside.
    pub(crate) fn mounts(prepare: impl FnOnce() + Send + 'static) -> Self {
        use rustix::mount::{MountPropagationFlags, mount_change};
        Self::new(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS, || {
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            prepare();
        })
    }

    fn new(kind: CloneFlags, prepare: impl FnOnce() + Send + 'static) -> Self {
        let (jobs, work): (_, Receiver<(Command, Sender<Output>)>) = channel();
        let (ready, prepared) = channel();
        let thread = std::thread::spawn(move || {
            nix::sched::unshare(kind).unwrap();
            prepare();
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            for (mut command, done) in work {
                done.send(command.output().unwrap()).unwrap();
            }
        });
        let id = prepared.recv().expect("namespaces that are prepared");
        Self { jobs: Some(jobs), thread: Some(thread), id }
    }

    /// By the name it has in procfs.
    pub(crate) fn namespace(&self, name: &str) -> String {
        format!("/proc/{}/task/{}/ns/{name}", std::process::id(), self.id)
    }

    pub(crate) fn output(&self, command: Command) -> Output {
        let (done, output) = channel();
        self.jobs.as_ref().unwrap().send((command, done)).unwrap();
        output.recv().unwrap()
    }

    /// Runs the runtime in there.
    pub(crate) fn run(&self, bundle: &Bundle) -> Output {
        let path = bundle.path().to_str().unwrap();
        self.output(bundle.command(&["run", "-b", path, &bundle.id]))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_some_and(|end| end.is_ok()) || std::thread::panicking());
    }
}
