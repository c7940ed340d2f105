//! dockerd-rs: the Docker Engine API over containerd's gRPC services.
//!
//! `config` turns flags and `daemon.json` into a `Config`, `app` wires the parts together, `api`
//! speaks HTTP. Blobs belong to containerd, processes to its shims; the engine may be killed at
//! any time without touching a container.

mod api;
mod app;
mod apparmor;
mod config;
mod container;
mod containerd;
mod events;
mod exec;
mod image;
mod network;
mod store;
mod sys;
mod trace;
mod volume;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "failed to start daemon: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let Some(config) = config::Config::from_args(std::env::args_os())? else { return Ok(()) };
    config::start_logging(&config);
    idle_memory::share_one_arena();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .thread_stack_size(1 << 20)
        .thread_keep_alive(idle_memory::LULL)
        .on_thread_stop(idle_memory::give_back)
        .enable_all()
        .build()
        .context("start the reactor")?;
    let result = runtime.block_on(serve(config));
    runtime.shutdown_background();
    result
}

async fn serve(config: config::Config) -> anyhow::Result<()> {
    let pid_file = config.pid_file.clone();
    let _pid_file = sys::pidfile::PidFile::create(&pid_file)?;
    let signals = api::listen::Signals::catch().context("catch signals")?;
    let sockets = api::listen::bind(&config)?;
    let app = app::App::start(config).await?;
    let result = api::listen::serve(&app, sockets, signals).await;
    app.stop().await;
    result
}
