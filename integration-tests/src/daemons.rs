//! The daemons of a stack: started, killed, stopped, started again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::parts;
use crate::sandbox::{Ended, until};
use crate::stack::Stack;

impl Stack {
    /// The engine's pid inside.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn engine(&self) -> i32 {
        self.engine.lock().expect("no panic holds it").expect("the engine runs")
    }

    /// containerd's pid inside.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn containerd(&self) -> i32 {
        if let Some(own) = &self.containerd {
            return own.lock().expect("no panic holds it").expect("containerd runs");
        }
        let file = self.sandbox().path(self.exec_root()).join("containerd/containerd.pid");
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        text.trim().parse().expect("a pid")
    }

    /// Sends the engine a signal, as SIGSTOP, SIGCONT or SIGHUP.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal_engine(&self, signal: i32) {
        self.sandbox().signal(self.engine(), signal);
    }

    /// # Panics
    /// When it does not run.
    pub fn signal_containerd(&self, signal: i32) {
        self.sandbox().signal(self.containerd(), signal);
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_engine(&self) {
        let ended = self.end_engine(libc::SIGKILL);
        assert_eq!(ended, Ended::Signal(libc::SIGKILL));
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When it does not run, or does not end.
    pub fn stop_engine(&self) -> Ended {
        self.end_engine(libc::SIGTERM)
    }

    fn end_engine(&self, signal: i32) -> Ended {
        let pid = self.engine();
        self.sandbox().signal(pid, signal);
        let ended = self.sandbox().wait(pid);
        *self.engine.lock().expect("no panic holds it") = None;
        ended
    }

    /// kill -9 of containerd, and waits until it is gone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_containerd(&self) {
        self.end_containerd(libc::SIGKILL);
    }

    /// SIGTERM for containerd, and waits until it is gone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop_containerd(&self) {
        self.end_containerd(libc::SIGTERM);
    }

    fn end_containerd(&self, signal: i32) {
        let pid = self.containerd();
        // The engine reaps its own, init reaps ours and orphans; and a process whose main thread is
        // gone may hold its socket yet. A pidfd knows when all of it has ended.
        let outside = rustix::process::Pid::from_raw(self.sandbox().outside(pid)).expect("a pid");
        let process = pidfd_open(outside, PidfdFlags::empty()).expect("pidfd_open");
        self.sandbox().signal(pid, signal);
        let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience));
        assert_eq!(ended, Ok(1), "containerd goes on");
        if let Some(own) = &self.containerd {
            *own.lock().expect("no panic holds it") = None;
        }
    }

    /// Whether containerd is started by the harness and not by the engine, which starts it again.
    #[must_use]
    pub fn has_own_containerd(&self) -> bool {
        self.containerd.is_some()
    }

    /// Starts the engine again as it was, or as a builder's further arguments say.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_engine(&self) {
        self.start_engine_with(&[]);
    }

    /// # Panics
    /// When it does not come up.
    pub fn start_engine_with(&self, further: &[&str]) {
        let root = self.root();
        let log = root.join("log/engine");
        let mut command = vec![
            self.program(if self.is_stock() { "dockerd" } else { "dockerd-rs" }),
            format!("--data-root={}", self.data_root().display()),
            format!("--exec-root={}", self.exec_root().display()),
            "--pidfile=/run/e.pid".to_owned(),
            format!("--host=unix://{}", self.socket().display()),
        ];
        if let Some(socket) = self.containerd_socket() {
            command.push(format!("--containerd={}", socket.display()));
        }
        if self.is_stock() {
            command.push(format!("--config-file={}", root.join("no-daemon.json").display()));
            fs::write(root.join("no-daemon.json"), "{}").expect("daemon.json");
            if !has("iptables") {
                command.push("--iptables=false".to_owned());
            }
        }
        command.extend(self.parts.arguments.iter().cloned());
        command.extend(further.iter().map(|&word| word.to_owned()));
        let pid = self.sandbox().spawn(&log, &self.environment(), &command);
        *self.engine.lock().expect("no panic holds it") = Some(pid);
        let api = self.api();
        until("the engine answers", || {
            if let Some(ended) = self.sandbox().ended(pid) {
                panic!("the engine ended: {ended:?}\n{}", self.log("engine"));
            }
            api.answers()
        });
    }

    /// Starts whichever daemon does not run; a containerd of the engine's is the engine's to start.
    ///
    /// # Panics
    /// When one does not come up.
    pub fn start_what_is_gone(&self) {
        let runs = |pid: &Mutex<Option<i32>>| pid.lock().expect("no panic holds it").is_some();
        if self.containerd.as_ref().is_some_and(|own| !runs(own)) {
            self.start_containerd();
        }
        if !runs(&self.engine) {
            self.start_engine();
        }
    }

    /// Whether somebody listens on containerd's socket.
    #[must_use]
    pub fn containerd_listens(&self) -> bool {
        let socket = self.containerd_socket().unwrap_or_else(|| {
            self.sandbox().path(self.exec_root()).join("containerd/containerd.sock")
        });
        std::os::unix::net::UnixStream::connect(socket).is_ok()
    }

    /// Starts the harness's own containerd again.
    ///
    /// # Panics
    /// When there is none, or it does not come up.
    pub fn start_containerd(&self) {
        let own = self.containerd.as_ref().expect("a containerd of the harness");
        let directory = self.root().join("c");
        let config = directory.join("config.toml");
        let socket = directory.join("c.sock");
        let text = format!(
            "version = 2\nroot = \"{top}/root\"\nstate = \"/run/c\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {socket:?}\n",
            top = directory.display(),
        );
        fs::write(&config, text).expect("config.toml");
        let name = if self.stock_containerd() { "containerd" } else { "containerd-rs" };
        let command = [self.program(name), "--config".to_owned(), config.display().to_string()];
        let log = self.root().join("log/containerd");
        let pid = self.sandbox().spawn(&log, &self.environment(), &command);
        *own.lock().expect("no panic holds it") = Some(pid);
        until("containerd listens", || {
            if let Some(ended) = self.sandbox().ended(pid) {
                panic!("containerd ended: {ended:?}\n{}", self.log("containerd"));
            }
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }

    pub(crate) fn program(&self, name: &str) -> String {
        self.root().join("bin").join(name).display().to_string()
    }

    pub(crate) fn stock_containerd(&self) -> bool {
        let path = self.parts.containerd.as_ref();
        path.is_some_and(|path| path.file_name().is_some_and(|name| name == "containerd"))
    }

    /// Whether the harness starts containerd; otherwise the engine does, or it runs already.
    pub(crate) fn own_containerd(&self) -> bool {
        if !self.parts.has_containerd() {
            return false;
        }
        let named = self.parts.containerd.as_ref();
        let socket = named.is_some_and(|path| is_socket(path));
        (named.is_some() || self.is_stock() || !self.parts.has_engine()) && !socket
    }

    pub(crate) fn containerd_socket(&self) -> Option<PathBuf> {
        if self.containerd.is_some() {
            return Some(self.root().join("c/c.sock"));
        }
        self.parts.containerd.clone().filter(|path| is_socket(path))
    }

    /// Binds the parts under the names by which they are looked for.
    pub(crate) fn lay_out_programs(&self) {
        let parts = &self.parts;
        let mut programs = vec![];
        let engine = if self.is_stock() { "dockerd" } else { "dockerd-rs" };
        programs.push((engine, parts.engine_path()));
        let containerd = parts.containerd.clone().filter(|path| !is_socket(path));
        let name = if self.stock_containerd() { "containerd" } else { "containerd-rs" };
        programs.push((name, containerd.unwrap_or_else(|| parts::ours("containerd-rs"))));
        let shim = parts.shim.clone().unwrap_or_else(|| parts::ours("containerd-shim-runc-rs-v2"));
        programs.push(("containerd-shim-runc-v2", shim.clone()));
        // Our containerd announces what our shim can do by this name.
        if shim.file_name().is_some_and(|name| name == "containerd-shim-runc-rs-v2") {
            programs.push(("containerd-shim-runc-rs-v2", shim));
        }
        let runtime = parts.runtime.clone().unwrap_or_else(|| parts::ours("runc-rs"));
        programs.push(("runc-rs", runtime.clone()));
        programs.push(("runc", runtime));
        if self.is_stock() {
            programs.push(("docker-proxy", parts.upstream().program("docker-proxy")));
            // Only `--init` needs it, and it comes from a package of its own.
            let init = parts.upstream().directory().join("usr/bin/docker-init");
            if let Ok(init) = fs::canonicalize(init) {
                programs.push(("docker-init", init));
            }
        }
        for (newer, place) in parts.upstream().c_library() {
            self.sandbox().bind(&newer, &place);
        }
        for (name, path) in programs {
            let place = self.root().join("bin").join(name);
            let path =
                fs::canonicalize(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            if parts.copies {
                fs::copy(&path, &place).expect("a copy of a program");
                continue;
            }
            // runc executes itself through an overlay of its directory, which no bind mount shows in.
            if path.ends_with("runc") {
                std::os::unix::fs::symlink(&path, &place).expect("a link to a program");
                continue;
            }
            fs::write(&place, "").expect("a place for a program");
            self.sandbox().bind(&path, &place);
        }
    }

    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut all = vec![
            ("PATH".to_owned(), format!("{}:{path}:/usr/sbin:/sbin", self.program(""))),
            ("LD_LIBRARY_PATH".to_owned(), self.parts.upstream().libraries()),
            ("HOME".to_owned(), self.root().join("home").display().to_string()),
        ];
        all.extend(self.parts.environment.iter().cloned());
        all
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::metadata(path).is_ok_and(|data| data.file_type().is_socket())
}

fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}
