//! The commands, one file a family, and how an argument vector becomes one of them.

mod arguments;
mod attach;
mod container;
mod create;
mod exec;
mod flags;
mod health;
mod image;
mod inspect;
mod limits;
mod list;
mod logs;
mod mount;
mod network;
mod options;
mod progress;
mod prune;
mod run;
mod session;
mod system;
mod update;
mod volume;

use clap::{CommandFactory, Parser, Subcommand};

use self::arguments::Reading;
use crate::client::Client;
use crate::config::Config;
use crate::error::CliError;
use crate::terminal::DetachKeys;
use crate::ui::Ui;

/// Docker's command line over the Engine API.
#[derive(Debug, Parser)]
#[command(
    name = "docker",
    disable_help_subcommand = true,
    override_usage = "docker [OPTIONS] COMMAND",
    after_help = "By kind, with more commands: container, image, network, system, volume"
)]
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
    #[arg(short = 'l', long = "log-level", default_value = "info")]
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
    /// Update configuration of one or more containers
    Update(update::Update),
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
    Attach(attach::Attach),
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
    /// Display detailed information on one or more containers
    #[command(hide = true)]
    ContainerInspect(inspect::Containers),
    /// Remove all stopped containers
    #[command(hide = true)]
    ContainerPrune(prune::Containers),
    /// Display detailed information on one or more images
    #[command(hide = true)]
    ImageInspect(inspect::Others),
    /// Remove unused images
    #[command(hide = true)]
    ImagePrune(prune::Images),
    /// Display detailed information on one or more networks
    #[command(hide = true)]
    NetworkInspect(inspect::Networks),
    /// List networks
    #[command(hide = true)]
    NetworkLs(network::Ls),
    /// Remove all unused networks
    #[command(hide = true)]
    NetworkPrune(prune::Networks),
    /// Create a volume
    #[command(hide = true)]
    VolumeCreate(volume::Create),
    /// Display detailed information on one or more volumes
    #[command(hide = true)]
    VolumeInspect(inspect::Others),
    /// List volumes
    #[command(hide = true)]
    VolumeLs(volume::Ls),
    /// Remove unused local volumes
    #[command(hide = true)]
    VolumePrune(prune::Volumes),
    /// Remove one or more volumes
    #[command(hide = true)]
    VolumeRm(volume::Remove),
}

/// What every command has at hand.
pub(crate) struct Context<'a> {
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) ui: &'a mut Ui,
}

impl Context<'_> {
    /// The keys that end a session: those given, or those of the configuration.
    fn detach_keys(&self, given: &str) -> Result<(String, DetachKeys), CliError> {
        let keys = if given.is_empty() { self.config.detach_keys.as_str() } else { given };
        Ok((keys.to_owned(), DetachKeys::parse(keys)?))
    }
}

/// Runs the command; the result is the exit code.
pub(crate) async fn run(cli: Cli, ui: &mut Ui) -> Result<u8, CliError> {
    if !["debug", "info", "warn", "error", "fatal"].contains(&cli.log_level.as_str()) {
        return Err(CliError::Usage(format!("Unable to parse logging level: {}", cli.log_level)));
    }
    let directory = cli.config.or_else(|| std::env::var("DOCKER_CONFIG").ok());
    let (config, warning) = Config::load(directory.as_deref());
    warning.into_iter().for_each(|warning| ui.complain(&warning));
    // A flag counts before DOCKER_HOST, which counts before everything else.
    let addressed =
        cli.host.is_some() || (cli.context.is_none() && std::env::var_os("DOCKER_HOST").is_some());
    let context = cli
        .context
        .or_else(|| std::env::var("DOCKER_CONTEXT").ok())
        .unwrap_or_else(|| config.current_context.clone());
    if !addressed && !matches!(context.as_str(), "" | "default") {
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
        (Verb::Info(info), Err(problem)) => return info.without_server(ui, problem),
        (Verb::Run(_), Err(problem @ (CliError::Connect { .. } | CliError::Denied { .. }))) => {
            return Err(problem.with_help("run"));
        }
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
        Verb::Update(update) => update.run(context).await,
        Verb::ContainerInspect(inspect) => inspect.run(context).await,
        Verb::ContainerPrune(prune) => prune.run(context).await,
        Verb::ImageInspect(inspect) => inspect.run("image", context).await,
        Verb::ImagePrune(prune) => prune.run(context).await,
        Verb::NetworkInspect(inspect) => inspect.run(context).await,
        Verb::NetworkLs(ls) => ls.run(context).await,
        Verb::NetworkPrune(prune) => prune.run(context).await,
        Verb::VolumeCreate(create) => create.run(context).await,
        Verb::VolumeInspect(inspect) => inspect.run("volume", context).await,
        Verb::VolumeLs(ls) => ls.run(context).await,
        Verb::VolumePrune(prune) => prune.run(context).await,
        Verb::VolumeRm(remove) => remove.run(context).await,
    }
}

/// All commands and their flags.
pub(crate) fn grammar() -> clap::Command {
    let root = Cli::command();
    let verbs: Vec<String> =
        root.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    verbs.into_iter().fold(root, |root, verb| {
        let usage = arguments::usage_of(&verb);
        root.mut_subcommand(verb, |command| command.override_usage(usage))
    })
}

/// Reads the argument vector; what is not a command has been answered already, with an exit code.
pub(crate) fn parse(typed: &[String], ui: &mut Ui) -> Result<Cli, u8> {
    let grammar = grammar();
    match arguments::read(typed, &grammar) {
        Reading::Command { canonical, path } => Cli::try_parse_from(&canonical)
            .map_err(|problem| wrong(&problem, &path, &canonical, &grammar, ui)),
        Reading::Help(words) => Err(help(&words, grammar, ui)),
        Reading::Nothing(group) => {
            let text = match group {
                Some(group) => arguments::group_help(&group),
                None => grammar.clone().render_help().to_string(),
            };
            ui.complain(text.trim_end());
            Err(0)
        }
        Reading::Version => {
            drop(ui.say(&format!("Docker version {}, build docker-rs", env!("CARGO_PKG_VERSION"))));
            Err(0)
        }
        Reading::Mistake { text, code } => {
            ui.complain(&text);
            Err(code)
        }
    }
}

/// A value that its flag could not read.
fn wrong(
    problem: &clap::Error,
    path: &str,
    canonical: &[String],
    grammar: &clap::Command,
    ui: &mut Ui,
) -> u8 {
    use clap::error::{ContextKind, ContextValue};
    let text = |kind| match problem.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let long = text(ContextKind::InvalidArg).split(' ').next().unwrap_or_default();
    let verb = canonical.iter().skip(1).find(|word| !word.starts_with("--"));
    let command = verb.and_then(|verb| grammar.find_subcommand(verb));
    let flag = command.into_iter().chain([grammar]).find_map(|command| {
        command
            .get_arguments()
            .find(|flag| flag.get_long().is_some_and(|name| long.strip_prefix("--") == Some(name)))
            .map(|flag| (command, flag))
    });
    let (Some((command, flag)), Some(why)) = (flag, std::error::Error::source(problem)) else {
        ui.complain(problem.to_string().trim_end());
        return 125;
    };
    let line = arguments::wrong_value(flag, text(ContextKind::InvalidValue), &why.to_string());
    if let Reading::Mistake { text, code } =
        arguments::flag_mistake(&line, path, command.get_name())
    {
        ui.complain(&text);
        return code;
    }
    125
}

fn help(words: &[String], mut grammar: clap::Command, ui: &mut Ui) -> u8 {
    let text = match words.first() {
        None => grammar.render_help().to_string(),
        Some(group) if arguments::is_group(group) => arguments::group_help(group),
        Some(word) => match grammar.find_subcommand_mut(word) {
            Some(command) => command.render_help().to_string(),
            None => {
                ui.complain(&format!("unknown help topic: {}", words.join(" ")));
                return 1;
            }
        },
    };
    drop(ui.say(text.trim_end()));
    0
}

/// Runs `act` for each name, as the stock client does: print the name when it worked, the error
/// when not, and go on. Answers the names for which it failed.
async fn try_each<F>(
    names: &[String],
    context: &mut Context<'_>,
    act: F,
) -> Result<Vec<String>, CliError>
where
    F: AsyncFn(&Client, &str) -> Result<(), CliError>,
{
    let mut failed = Vec::new();
    for name in names {
        match act(&context.client, name).await {
            Ok(()) => context.ui.say(name)?,
            Err(problem) => {
                context.ui.complain(&problem.to_string());
                failed.push(name.clone());
            }
        }
    }
    Ok(failed)
}

/// The same; the exit code is 1 if one failed.
async fn each<F>(names: &[String], context: &mut Context<'_>, act: F) -> Result<u8, CliError>
where
    F: AsyncFn(&Client, &str) -> Result<(), CliError>,
{
    Ok(u8::from(!try_each(names, context, act).await?.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_follows_the_image_belongs_to_the_container() {
        let mut ui = Ui::standard();
        let cli = parse(&words("docker run -it --rm busybox sh -c -it --rm --help"), &mut ui);
        let Ok(Cli { verb: Verb::Run(run), .. }) = cli else { panic!("not run") };
        assert_eq!(run.create.rest, words("busybox sh -c -it --rm --help"));
        assert!(run.create.flags.interactive && run.create.flags.tty && run.create.flags.remove);
    }

    #[test]
    fn the_definitions_of_the_commands_are_sound() {
        grammar().debug_assert();
    }
}
