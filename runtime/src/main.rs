//! runc-rs: the OCI runtime command line, as runc defines it.
//!
//! One thread. `create`, `run` and `exec` go through three parts: [`spec`] decides everything
//! before the first clone, [`init`] is the straight list of steps on the child's side, the command
//! keeps the record ([`container`]) and speaks with the child (`init::handshake`).
//! What is left to others: the filter's code ([`seccomp`]) and the limits ([`cgroup`]).

// What the runtime does on the host names paths as it likes; what `init` does may not, nor what `sys`
// does for it: see clippy.toml.
mod args;
#[allow(clippy::disallowed_methods, reason = "of the host")]
mod cgroup;
#[allow(clippy::disallowed_methods, reason = "of the host")]
mod commands;
#[allow(clippy::disallowed_methods, reason = "of the host")]
mod container;
#[allow(clippy::disallowed_methods, reason = "of the host")]
mod criu;
#[allow(clippy::disallowed_methods, reason = "of the host")]
mod foreground;
#[cfg(test)]
mod foreign;
#[allow(clippy::disallowed_methods, reason = "of the host")]
mod hooks;
#[cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests"))]
mod init;
#[allow(clippy::disallowed_methods, reason = "of the host")]
mod log;
#[allow(clippy::disallowed_methods, reason = "of the host")]
mod notify;
#[allow(clippy::disallowed_methods, reason = "of the host")]
mod protect;
#[allow(clippy::disallowed_methods, reason = "of the host")]
mod resctrl;
#[allow(clippy::disallowed_methods, reason = "of the host")]
mod rootless;
mod seccomp;
#[allow(clippy::disallowed_methods, reason = "of the host")]
mod spec;
#[cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests"))]
mod sys;
#[allow(clippy::disallowed_methods, reason = "of the host")]
mod trace;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use args::{Flag, FlagError, Order, Parsed};
use cgroup::Driver;
use commands::{Globals, Usage, help};
use log::{Format, Level, Log};
use trace::Timings;

/// Not in the tests, which have threads.
#[cfg(not(test))]
#[global_allocator]
static MEMORY: sys::memory::Memory = sys::memory::Memory::new();

const FLAGS: &[Flag] = &[
    ("debug", "", false),
    ("log", "", true),
    ("log-format", "", true),
    ("log-level", "", true),
    ("root", "", true),
    ("systemd-cgroup", "", false),
    ("cgroup-manager", "", true),
    ("rootless", "", true),
    ("timings", "", false),
    ("criu", "", true),
    ("version", "v", false),
    ("help", "h", false),
];

fn main() -> ExitCode {
    // Before anything of ours is open: what `--preserve-fds` may hand on.
    let inherited = sys::process::count_open_from(3);
    let started = trace_log::now();
    let arguments =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    match Parsed::new(arguments, FLAGS, Order::First) {
        Ok(parsed) => ExitCode::from(dispatch(&parsed, inherited, started)),
        Err(error) => {
            // Compat: runc puts the point here, and a colon for a command's flags.
            shown(&format!("Incorrect Usage. {error}\n\n{}", overview()));
            Log::default().fatal(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn dispatch(parsed: &Parsed, inherited: u32, started: u64) -> u8 {
    if parsed.is_set("version") {
        return shown(&version());
    }
    let Some((command, rest)) = parsed.words.split_first() else {
        return shown(&overview());
    };
    if parsed.is_set("help") || matches!(command.as_str(), "help" | "h") {
        let page =
            rest.first().filter(|_| !parsed.is_set("help")).and_then(|name| help::page(name));
        return shown(&page.unwrap_or_else(overview));
    }
    let globals = match globals(parsed, inherited, started) {
        Ok(globals) => globals,
        Err(error) => {
            Log::default().fatal(&format!("{error:#}"));
            return 1;
        }
    };
    let outcome = execute(&globals, command, rest.to_vec());
    // Whoever reads it asked for it; there is nobody to tell of a closed stream.
    io::stderr().write_all(globals.timings.to_string().as_bytes()).unwrap_or_default();
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let page = help::page(command).unwrap_or_else(overview);
            match error.downcast_ref::<FlagError>() {
                Some(FlagError::Help) => return shown(&page),
                Some(wrong) => {
                    shown(&format!("Incorrect Usage: {wrong}\n\n{page}"));
                }
                None if error.is::<Usage>() => {
                    shown(&format!("Incorrect Usage.\n\n{page}"));
                }
                None => {}
            }
            globals.log.fatal(&format!("{error:#}"));
            // Compat: runc's numbers. Its exec ends with 255 where its own work failed.
            match command.as_str() {
                _ if error.is::<FlagError>() || error.is::<Usage>() => 1,
                _ if error.is::<UnknownCommand>() => 3,
                "exec" => 255,
                _ => 1,
            }
        }
    }
}

fn globals(parsed: &Parsed, inherited: u32, started: u64) -> anyhow::Result<Globals> {
    let format = match parsed.get("log-format") {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        // Compat: runc's sentence.
        Some(other) => anyhow::bail!("invalid log-format: {other}"),
    };
    let level = match parsed.get("log-level") {
        _ if parsed.is_set("debug") => Level::Debug,
        Some("debug") => Level::Debug,
        None | Some("warning") => Level::Warning,
        Some("error") => Level::Error,
        Some(other) => anyhow::bail!("invalid log-level: {other}"),
    };
    let target = parsed.get("log").unwrap_or_default();
    let log = Log::new(target, format, level).map_err(|(path, error)| {
        anyhow::anyhow!("open {path}: {}", sys::errno_text(sys::errno_of(&error)))
    })?;
    let cgroup_driver = match parsed.get("cgroup-manager") {
        None if parsed.is_set("systemd-cgroup") => Driver::Systemd,
        None | Some("cgroupfs") => Driver::Cgroupfs,
        Some("systemd") => Driver::Systemd,
        Some("disabled") => Driver::Disabled,
        Some(other) => anyhow::bail!("unknown cgroup manager specified: {other}"),
    };
    let root = match parsed.get("root") {
        Some(root) => std::path::absolute(root).unwrap_or_else(|_| PathBuf::from(root)),
        None => rootless::root_of_user()?.unwrap_or_else(|| PathBuf::from(DEFAULT_ROOT)),
    };
    Ok(Globals {
        root,
        root_given: parsed.get("root").is_some(),
        rootless: rootless::choice(parsed.get("rootless"))?,
        log,
        cgroup_driver,
        inherited,
        started,
        timings: Timings::new(parsed.is_set("timings")),
    })
}

const DEFAULT_ROOT: &str = "/run/runc-rs";

fn execute(globals: &Globals, command: &str, arguments: Vec<String>) -> anyhow::Result<u8> {
    if matches!(command, "create" | "run" | "exec" | "mounts") {
        protect::ensure(&globals.log)?;
    }
    // What the caller left open is for no hook.
    sys::process::close_on_exec_from(3)?;
    globals.log.debug(&format!("{command} {arguments:?}"));
    match command {
        "checkpoint" => commands::checkpoint::run(globals, arguments),
        "create" => commands::create::run(globals, arguments),
        "delete" => commands::delete::run(globals, arguments),
        "events" => commands::events::run(globals, arguments),
        "exec" => commands::exec::run(globals, arguments),
        "explain" => commands::explain::run(globals, arguments),
        "features" => commands::features::run(arguments),
        "kill" => commands::kill::run(globals, arguments),
        "list" => commands::list::run(globals, arguments),
        "mounts" => commands::mounts::run(globals, arguments),
        "pause" => commands::pause::run(globals, arguments),
        "ps" => commands::kill::ps(globals, arguments),
        "restore" => commands::restore::run(globals, arguments),
        "resume" => commands::pause::resume(globals, arguments),
        "run" => commands::run::run(globals, arguments),
        "spec" => commands::spec::run(arguments),
        "start" => commands::start::run(globals, arguments),
        "state" => commands::state::run(globals, arguments),
        "update" => commands::update::run(globals, arguments),
        // Compat: podman matches this text to learn what is there.
        _ => Err(UnknownCommand(command.to_owned()).into()),
    }
}

fn shown(text: &str) -> u8 {
    u8::from(io::stdout().write_all(text.as_bytes()).is_err())
}

/// Compat: engines read the `version`, `commit:` and `spec:` lines.
fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let name = help::name();
    format!("{name} version {version}\ncommit: v{version}\nspec: {}\n", container::OCI_VERSION)
}

fn overview() -> String {
    help::overview(&version(), FLAGS)
}

#[derive(Debug, thiserror::Error)]
#[error("No help topic for '{0}'")]
struct UnknownCommand(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_has_the_lines_engines_read() {
        let text = version();
        assert!(text.starts_with(&format!("{} version ", help::name())));
        assert!(text.contains("\ncommit: ") && text.ends_with("\nspec: 1.3.0\n"));
    }
}
