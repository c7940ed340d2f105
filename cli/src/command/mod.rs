//! The commands, one file a family, and how an argument vector becomes one of them.

mod container;
mod create;
mod exec;
mod flags;
mod image;
mod inspect;
mod list;
mod logs;
mod run;
mod session;
mod system;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::client::Client;
use crate::config::Config;
use crate::error::CliError;
use crate::ui::Ui;

/// Docker's command line over the Engine API.
#[derive(Debug, Parser)]
#[command(name = "docker", version = concat!(env!("CARGO_PKG_VERSION"), ", docker-rs"), disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Daemon socket to connect to
    #[arg(short = 'H', long = "host", global = false, value_name = "HOST")]
    host: Option<String>,
    /// Location of client config files
    #[arg(long, value_name = "DIR")]
    config: Option<String>,
    /// Name of the context to use
    #[arg(short = 'c', long, value_name = "NAME")]
    context: Option<String>,
    /// Enable debug mode
    #[arg(short = 'D', long)]
    debug: bool,
    /// Set the logging level
    #[arg(short = 'l', long = "log-level", default_value = "info", value_parser = ["debug", "info", "warn", "error", "fatal"])]
    log_level: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create and run a new container from an image
    Run(run::Run),
    /// Create a new container
    Create(create::Create),
    /// Start one or more stopped containers
    Start(container::Start),
    /// Stop one or more running containers
    Stop(container::Stop),
    /// Restart one or more containers
    Restart(container::Stop),
    /// Kill one or more running containers
    Kill(container::Kill),
    /// Block until one or more containers stop, then print their exit codes
    Wait(container::Names),
    /// Pause all processes within one or more containers
    Pause(container::Names),
    /// Unpause all processes within one or more containers
    Unpause(container::Names),
    /// Rename a container
    Rename(container::Rename),
    /// Remove one or more containers
    Rm(container::Remove),
    /// Display the running processes of a container
    Top(container::Top),
    /// List port mappings for the container
    Port(container::Port),
    /// List containers
    Ps(list::Ps),
    /// Fetch the logs of a container
    Logs(logs::Logs),
    /// Execute a command in a running container
    Exec(exec::Exec),
    /// Attach local standard input, output, and error streams to a running container
    Attach(exec::Attach),
    /// Return low-level information on Docker objects
    Inspect(inspect::Inspect),
    /// List images
    Images(list::Images),
    /// Download an image from a registry
    Pull(image::Pull),
    /// Load an image from a tar archive or STDIN
    Load(image::Load),
    /// Import the contents from a tarball to create a filesystem image
    Import(image::Import),
    /// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
    Tag(image::Tag),
    /// Remove one or more images
    Rmi(image::Remove),
    /// Get real time events from the server
    Events(system::Events),
    /// Show the Docker version information
    Version(system::Version),
    /// Display system-wide information
    Info(system::Info),
}

impl Cli {
    /// The command as typed.
    pub(crate) fn verb_name(&self) -> &'static str {
        match self.verb {
            Verb::Run(_) => "run",
            Verb::Create(_) => "create",
            _ => "",
        }
    }
}

/// What every command has at hand.
pub(crate) struct Context<'a> {
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) ui: &'a mut Ui,
}

/// Runs the command; the result is the exit code.
pub(crate) async fn run(cli: Cli, ui: &mut Ui) -> Result<u8, CliError> {
    let directory = cli.config.or_else(|| std::env::var("DOCKER_CONFIG").ok());
    let config = Config::load(directory.as_deref())?;
    let context = cli
        .context
        .or_else(|| std::env::var("DOCKER_CONTEXT").ok())
        .unwrap_or_else(|| config.current_context.clone());
    let elsewhere = !matches!(context.as_str(), "" | "default");
    if elsewhere && cli.host.is_none() && std::env::var_os("DOCKER_HOST").is_none() {
        return Err(CliError::Usage(format!(
            "not supported: context {context:?}; give the engine's address with -H"
        )));
    }
    if std::env::var_os("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty()) {
        return Err(CliError::Usage("not supported: TLS (DOCKER_TLS_VERIFY is set)".into()));
    }
    let client = match (&cli.verb, Client::connect(cli.host.as_deref()).await) {
        (_, Ok(client)) => client,
        (Verb::Version(version), Err(problem)) => return version.without_server(ui, problem),
        (_, Err(problem)) => return Err(problem),
    };
    let mut context = Context { client, config, ui };
    let context = &mut context;
    match cli.verb {
        Verb::Run(run) => run.run(context).await,
        Verb::Create(create) => create.run(context).await,
        Verb::Start(start) => start.run(context).await,
        Verb::Stop(stop) => stop.run(context, "stop").await,
        Verb::Restart(restart) => restart.run(context, "restart").await,
        Verb::Kill(kill) => kill.run(context).await,
        Verb::Wait(names) => names.wait(context).await,
        Verb::Pause(names) => names.act(context, "pause").await,
        Verb::Unpause(names) => names.act(context, "unpause").await,
        Verb::Rename(rename) => rename.run(context).await,
        Verb::Rm(remove) => remove.run(context).await,
        Verb::Top(top) => top.run(context).await,
        Verb::Port(port) => port.run(context).await,
        Verb::Ps(ps) => ps.run(context).await,
        Verb::Logs(logs) => logs.run(context).await,
        Verb::Exec(exec) => exec.run(context).await,
        Verb::Attach(attach) => attach.run(context).await,
        Verb::Inspect(inspect) => inspect.run(context).await,
        Verb::Images(images) => images.run(context).await,
        Verb::Pull(pull) => pull.run(context).await,
        Verb::Load(load) => load.run(context).await,
        Verb::Import(import) => import.run(context).await,
        Verb::Tag(tag) => tag.run(context).await,
        Verb::Rmi(remove) => remove.run(context).await,
        Verb::Events(events) => events.run(context).await,
        Verb::Version(version) => version.run(context).await,
        Verb::Info(info) => info.run(context).await,
    }
}

/// Brings an argument vector into the one form the parser knows: `container ls` is `ps`, and
/// `--rm=true` is `--rm`.
pub(crate) fn normalise(arguments: Vec<String>) -> Vec<String> {
    const SWITCHES: [&str; 20] = [
        "rm",
        "interactive",
        "tty",
        "detach",
        "privileged",
        "init",
        "quiet",
        "all",
        "force",
        "read-only",
        "publish-all",
        "no-trunc",
        "size",
        "latest",
        "follow",
        "timestamps",
        "details",
        "attach",
        "volumes",
        "sig-proxy",
    ];
    let mut out = Vec::with_capacity(arguments.len());
    let mut switches = true;
    for argument in arguments {
        if argument == "--" {
            switches = false;
        }
        let switch = argument
            .strip_prefix("--")
            .and_then(|rest| rest.split_once('='))
            .filter(|(name, _)| switches && SWITCHES.contains(name));
        match switch {
            Some((name, "true" | "1" | "t" | "T" | "TRUE" | "True")) if name != "sig-proxy" => {
                out.push(format!("--{name}"));
            }
            Some((name, "false" | "0" | "f" | "F" | "FALSE" | "False")) if name != "sig-proxy" => {}
            _ => out.push(argument),
        }
    }
    let Some(at) = verb_position(&out) else { return out };
    let (Some(group), Some(verb)) = (out.get(at), out.get(at + 1)) else { return out };
    let plain = match (group.as_str(), verb.as_str()) {
        ("container", "ls" | "list" | "ps") => "ps",
        ("image", "ls" | "list") => "images",
        ("image", "rm" | "remove") => "rmi",
        ("system", "info") => "info",
        ("system", "events") => "events",
        ("container" | "image", other) => other,
        _ => return out,
    }
    .to_owned();
    out.splice(at..at + 2, [plain]);
    out
}

/// Where the command stands, behind the global options.
fn verb_position(arguments: &[String]) -> Option<usize> {
    let mut at = 1;
    while let Some(argument) = arguments.get(at) {
        match argument.as_str() {
            "-H" | "--host" | "--config" | "-c" | "--context" | "-l" | "--log-level" => at += 2,
            other if other.starts_with('-') => at += 1,
            _ => return Some(at),
        }
    }
    None
}

/// Tells a mistake in the arguments, with Docker's exit codes.
pub(crate) fn usage(problem: &clap::Error, arguments: &[String], ui: &mut Ui) -> ExitCode {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    match problem.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            drop(ui.say(problem.to_string().trim_end()));
            return ExitCode::SUCCESS;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            ui.complain(problem.to_string().trim_end());
            return ExitCode::from(1);
        }
        _ => {}
    }
    let dash = arguments.iter().find(|argument| argument.starts_with(['–', '—']));
    if let Some(dash) = dash {
        ui.complain(&format!(
            "docker: {dash:?} begins with a long dash, as word processors make them; type a plain \"-\""
        ));
        return ExitCode::from(125);
    }
    if problem.kind() == ErrorKind::InvalidSubcommand {
        let typed = match problem.get(ContextKind::InvalidSubcommand) {
            Some(ContextValue::String(typed)) => typed.clone(),
            _ => String::new(),
        };
        let mut text = format!("docker: unknown command: docker {typed}\n");
        if let Some(ContextValue::Strings(near)) = problem.get(ContextKind::SuggestedSubcommand)
            && let Some(near) = near.first()
        {
            text.push_str(&format!("\nDid you mean: docker {near}?\n"));
        }
        text.push_str("\nRun 'docker --help' for more information");
        ui.complain(&text);
        return ExitCode::from(1);
    }
    let text = problem.to_string();
    ui.complain(&format!("docker: {}", text.trim_start_matches("error: ").trim_end()));
    ExitCode::from(125)
}

/// Runs `act` for each name, as the stock client does: print the name when it worked, the error
/// when not, go on, and end with 1 if one failed.
async fn each<F>(
    names: &[String],
    ui_names: bool,
    context: &mut Context<'_>,
    act: F,
) -> Result<u8, CliError>
where
    F: AsyncFn(&Client, &str) -> Result<(), CliError>,
{
    let mut failed = false;
    for name in names {
        match act(&context.client, name).await {
            Ok(()) if ui_names => context.ui.say(name)?,
            Ok(()) => {}
            Err(problem) => {
                context.ui.complain(&problem.to_string());
                failed = true;
            }
        }
    }
    Ok(u8::from(failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn command_groups_are_the_short_commands() {
        for (typed, meant) in [
            ("docker container ls -a", "docker ps -a"),
            ("docker -H unix:///x image rm y", "docker -H unix:///x rmi y"),
            ("docker container run busybox image ls", "docker run busybox image ls"),
            ("docker run --rm=true --init=false x", "docker run --rm x"),
        ] {
            assert_eq!(normalise(words(typed)), words(meant), "{typed}");
        }
    }

    #[test]
    fn what_follows_the_image_belongs_to_the_container() {
        let cli = Cli::try_parse_from(words("docker run -it --rm busybox sh -c -it --rm --help"))
            .unwrap();
        let Verb::Run(run) = cli.verb else { panic!("not run") };
        assert_eq!(run.create.rest, words("busybox sh -c -it --rm --help"));
        assert!(run.create.flags.interactive && run.create.flags.tty && run.create.flags.remove);
    }

    #[test]
    fn an_unknown_option_before_the_image_is_an_error() {
        assert!(Cli::try_parse_from(words("docker run --nonsense busybox")).is_err());
    }
}
