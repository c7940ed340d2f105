//! ctr-rs: a client of containerd's gRPC services, with ctr's command names and output.
//! It knows only the public protocol and drives any containerd.

mod connection;
mod container;
mod content;
mod events;
mod image;
mod io;
mod manifest;
mod resource;
mod run;
mod snapshot;
mod spec;
mod table;
mod task;
mod transfer;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use connection::Client;

/// containerd client
#[derive(Parser)]
#[command(name = "ctr-rs", version, disable_help_subcommand = true)]
struct Arguments {
    /// address of containerd's gRPC server [$CONTAINERD_ADDRESS]
    #[arg(short, long)]
    address: Option<String>,
    /// namespace to use with commands [$CONTAINERD_NAMESPACE]
    #[arg(short, long)]
    namespace: Option<String>,
    /// total time for the command, such as 10s
    #[arg(long, value_parser = duration)]
    timeout: Option<Duration>,
    /// time for connecting
    #[arg(long, value_parser = duration)]
    connect_timeout: Option<Duration>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// print the client and server versions
    Version,
    /// manage images
    #[command(subcommand, visible_aliases = ["image", "i"])]
    Images(image::Command),
    /// run a container
    Run(Box<run::Run>),
    /// manage tasks
    #[command(subcommand, visible_aliases = ["t", "task"])]
    Tasks(task::Command),
    /// manage containers
    #[command(subcommand, visible_aliases = ["c", "container"])]
    Containers(container::Command),
    /// manage content
    #[command(subcommand)]
    Content(content::Command),
    /// manage snapshots
    #[command(visible_alias = "snapshot")]
    Snapshots(snapshot::Snapshots),
    /// display containerd events
    #[command(visible_alias = "event")]
    Events(events::Events),
    /// manage leases
    #[command(subcommand)]
    Leases(resource::Leases),
    /// manage namespaces
    #[command(subcommand, visible_aliases = ["namespace", "ns"])]
    Namespaces(resource::Namespaces),
    /// provides information about containerd plugins
    #[command(subcommand, visible_alias = "plugin")]
    Plugins(resource::Plugins),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(std::env::args_os().collect::<Vec<OsString>>())
    {
        Ok(arguments) => arguments,
        Err(error) => {
            let failed = error.use_stderr();
            let unknown = error.kind() == clap::error::ErrorKind::InvalidSubcommand;
            if let Some(verb) = error.get(clap::error::ContextKind::InvalidSubcommand)
                && unknown
            {
                // Compat: ctr's words and its code.
                writeln!(std::io::stderr(), "No help topic for '{verb}'").unwrap_or_default();
            }
            error.print().unwrap_or_default();
            return ExitCode::from(if unknown { 3 } else { u8::from(failed) });
        }
    };
    let mut out = std::io::stdout();
    match start(arguments, &mut out) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            writeln!(std::io::stderr(), "ctr: {error:#}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments, out: &mut dyn Write) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let address = arguments
        .address
        .or_else(|| variable("CONTAINERD_ADDRESS"))
        .unwrap_or_else(|| "/run/containerd/containerd.sock".to_owned());
    let namespace = arguments
        .namespace
        .or_else(|| variable(proto::namespace::ENVIRONMENT))
        .unwrap_or_else(|| proto::namespace::DEFAULT.to_owned());
    let within = arguments.timeout;
    let work = async {
        let client = Client::connect(&address, &namespace, arguments.connect_timeout).await?;
        dispatch(arguments.command, &client, out).await
    };
    let result = runtime.block_on(async {
        match within {
            None => work.await,
            Some(within) => {
                tokio::time::timeout(within, work).await.context("context deadline exceeded")?
            }
        }
    });
    // Threads that copy a terminal may still wait for it.
    runtime.shutdown_background();
    result
}

async fn dispatch(command: Command, client: &Client, out: &mut dyn Write) -> Result<u8> {
    match command {
        Command::Version => version(client, out).await?,
        Command::Images(command) => image::execute(command, client, out).await?,
        Command::Run(command) => return run::execute(*command, client, out).await,
        Command::Tasks(command) => return task::execute(command, client, out).await,
        Command::Containers(command) => container::execute(command, client, out).await?,
        Command::Content(command) => content::execute(command, client, out).await?,
        Command::Snapshots(command) => snapshot::execute(command, client, out).await?,
        Command::Events(command) => events::execute(command, client, out).await?,
        Command::Leases(command) => resource::leases(command, client, out).await?,
        Command::Namespaces(command) => resource::namespaces(command, client, out).await?,
        Command::Plugins(command) => resource::plugins(command, client, out).await?,
    }
    Ok(0)
}

async fn version(client: &Client, out: &mut dyn Write) -> Result<()> {
    let server = connection::answer(client.version().version(()).await)?;
    writeln!(out, "Client:")?;
    writeln!(out, "  Version:  {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  Revision: ")?;
    writeln!(out)?;
    writeln!(out, "Server:")?;
    writeln!(out, "  Version:  {}", server.version)?;
    writeln!(out, "  Revision: {}", server.revision)?;
    let introspection = connection::answer(client.introspection().server(()).await)?;
    writeln!(out, "  UUID: {}", introspection.uuid)?;
    Ok(())
}

/// `90`, `90s`, `2m`, `500ms`.
fn duration(text: &str) -> Result<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().with_context(|| format!("invalid duration {text:?}"))?;
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => bail!("invalid duration {text:?}"),
    };
    Duration::try_from_secs_f64(number * factor)
        .with_context(|| format!("invalid duration {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use proptest::prelude::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("1.5m").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert!(duration("x").is_err());
    }

    proptest! {
        #[test]
        fn a_duration_is_its_number_of_units(number in 0_u32..100_000, unit in 0_usize..5) {
            let (unit, factor) = [("ms", 1), ("s", 1000), ("", 1000), ("m", 60_000), ("h", 3_600_000)][unit];
            let wanted = Duration::from_millis(u64::from(number) * factor);
            let read = duration(&format!("{number}{unit}")).unwrap();
            prop_assert!(read.abs_diff(wanted) < Duration::from_micros(1), "{read:?}");
        }

        #[test]
        fn broken_durations_are_refused(text in "[-+.0-9]{0,4}(e[0-9]{1,4}|inf|nan)?[mshx]{0,2}") {
            drop(duration(&text));
        }
    }
}
