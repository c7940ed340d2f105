//! A containerd shim (protocol v2): stays with one container, or one pod, from creation to deletion, so that
//! containerd and the engine can come and go.
//!
//! `start` binds the socket, forks the server and prints its address; `delete` cleans up after a server that
//! died. The server is one control thread on epoll, which never waits, and one thread that moves output.

mod args;
mod bootstrap;
mod bundle;
mod cgroup;
mod cleanup;
mod container;
mod error;
mod exit;
mod info;
mod io;
mod jobs;
mod log;
mod machine;
mod oom;
mod publish;
mod rootfs;
mod runtime;
mod serve;
mod stats;
mod sys;
mod task;
mod trace;

use std::io::Write as _;
use std::process::ExitCode;

use args::{Action, Args};

fn main() -> ExitCode {
    let result = Args::parse(std::env::args_os()).map_err(anyhow::Error::from).and_then(run);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd shows what a failed start or delete leaves on stderr.
            writeln!(std::io::stderr(), "{}: {error:#}", args::PROGRAM).ok();
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    match args.action {
        Action::Version => {
            let version = env!("CARGO_PKG_VERSION");
            writeln!(std::io::stdout(), "{}:\n  Version:  {version}", args.program)?;
            Ok(())
        }
        Action::Info => info::print(&args),
        Action::Start => bootstrap::start(&args),
        Action::Delete => cleanup::delete(&args),
    }
}
