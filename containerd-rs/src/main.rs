//! containerd-rs: the supervisor. Serves containerd's gRPC API on a unix socket; see `README.md`.

mod app;
mod config;
mod content;
mod context;
mod diff;
mod error;
mod events;
mod filter;
mod grpc;
mod lease;
mod runtime;
mod snapshot;
mod store;
mod sys;
mod transfer;

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::app::App;
use crate::config::{Arguments, Command, Config, ConfigCommand};

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "containerd-rs: {error:#}"));
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(sentence) = arguments.stray() {
        anyhow::bail!(sentence);
    }
    if arguments.flags.version {
        writeln!(std::io::stdout(), "containerd-rs {VERSION_LINE}")?;
        return Ok(());
    }
    let config = match &arguments.command {
        Some(Command::Config { command }) => {
            let config = match command {
                ConfigCommand::Default => Config::default(),
                ConfigCommand::Dump => Config::load(&arguments.flags)?,
            };
            write!(std::io::stdout(), "{}", toml::to_string(&config)?)?;
            return Ok(());
        }
        None => Config::load(&arguments.flags)?,
    };
    start_log(&config)?;
    idle_memory::share_one_arena();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(1 << 20)
        .thread_keep_alive(idle_memory::LULL)
        .on_thread_stop(idle_memory::give_back)
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(serve(config, arguments.flags.pidfile.as_deref()))
}

/// Serves until SIGTERM or SIGINT; containers go on.
async fn serve(config: Config, pidfile: Option<&Path>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let app = App::open(config)?;
    let services = grpc::Services::start(&app)?;
    if let Some(path) = pidfile {
        write_pidfile(path)?;
    }
    let (end, failed) = (app.shutdown.clone(), app.store_failed.clone());
    let collector = tokio::spawn(app.collector.clone().serve(end.clone()));
    let snapshots = app.snapshots.clone();
    let recovery = tokio::spawn(async move { snapshots.recover().await });
    let signals = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!(signal = "terminated", "ending"),
            _ = interrupt.recv() => tracing::info!(signal = "interrupt", "ending"),
            () = failed.cancelled() => tracing::error!("ending, to be started again"),
        }
        end.cancel();
    });
    let served = services.serve(&app).await;
    app.shutdown.cancel();
    signals.abort();
    recovery.abort();
    if let Err(error) = collector.await {
        tracing::error!(%error, "garbage collector");
    }
    if let Some(path) = pidfile {
        drop(std::fs::remove_file(path));
    }
    served
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    // Ours at the wanted level; the protocol libraries speak up only when something is wrong.
    let level = config.level()?;
    let others = level.min(tracing::Level::WARN);
    let targets = Targets::new().with_default(others).with_target("containerd_rs", level);
    let log = tracing_subscriber::registry().with(targets);
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr);
    if config.debug.format == "json" {
        log.with(lines.json()).init();
    } else {
        log.with(lines).init();
    }
    Ok(())
}

fn write_pidfile(path: &Path) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("create {}", directory.display()))?;
    }
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, std::process::id().to_string())
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("write pid file {}", path.display()))
}

/// What clients of containerd are told: the API level, and that this is ours.
pub(crate) const VERSION: &str = concat!("v2.1.0+rs", env!("CARGO_PKG_VERSION"));
pub(crate) const VERSION_LINE: &str = VERSION;
/// Answered as the revision; there is no commit of containerd in here.
pub(crate) const REVISION: &str = concat!("containerd-rs-", env!("CARGO_PKG_VERSION"));
