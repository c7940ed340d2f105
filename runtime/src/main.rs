//! runc-rs: the OCI runtime command line, as runc defines it.
//!
//! One thread. `create`, `run` and `exec` go through three parts: [`spec`] decides everything
//! before the first clone, [`init`] is the straight list of steps on the child's side, the command
//! keeps the record ([`container`]) and speaks with the child (`init::handshake`).
//! What is left to others: the filter's code ([`seccomp`]) and the limits ([`cgroup`]).

mod args;
mod cgroup;
mod commands;
mod container;
mod foreground;
mod hooks;
mod init;
mod log;
mod protect;
mod seccomp;
mod spec;
mod sys;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use args::{Flag, FlagError, Order, Parsed};
use commands::Globals;
use log::{Format, Log};

const FLAGS: &[Flag] = &[
    ("debug", "", false),
    ("log", "", true),
    ("log-format", "", true),
    ("root", "", true),
    ("systemd-cgroup", "", false),
    ("rootless", "", true),
    ("criu", "", true),
    ("version", "v", false),
    ("help", "h", false),
];

const COMMANDS: [&str; 14] = [
    "create", "delete", "events", "exec", "features", "kill", "list", "pause", "ps", "resume",
    "run", "spec", "start", "update",
];

fn main() -> ExitCode {
    let arguments =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    match Parsed::new(arguments, FLAGS, Order::First) {
        Ok(parsed) => ExitCode::from(dispatch(&parsed)),
        Err(error) => {
            Log::default().fatal(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn dispatch(parsed: &Parsed) -> u8 {
    if parsed.is_set("version") {
        return shown(&version());
    }
    let Some((command, rest)) = parsed.words.split_first() else {
        return shown(&usage());
    };
    if parsed.is_set("help") || command == "help" || rest.iter().any(|word| word == "--help") {
        return shown(&usage());
    }
    let globals = match globals(parsed) {
        Ok(globals) => globals,
        Err(error) => {
            Log::default().fatal(&format!("{error:#}"));
            return 1;
        }
    };
    match execute(&globals, command, rest.to_vec()) {
        Ok(code) => code,
        Err(error) => {
            globals.log.fatal(&format!("{error:#}"));
            if error.downcast_ref::<FlagError>().is_some() {
                drop(io::stderr().write_all(usage().as_bytes()));
                return 1;
            }
            // Compat: runc's exec ends with 255 where its own work failed.
            if command == "exec" { 255 } else { 1 }
        }
    }
}

fn globals(parsed: &Parsed) -> anyhow::Result<Globals> {
    let format = match parsed.get("log-format") {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        // Compat: runc's sentence.
        Some(other) => anyhow::bail!("unknown log-format {other:?}"),
    };
    let path = parsed.get("log").filter(|path| !path.is_empty()).map(std::path::absolute);
    let path = path.transpose()?;
    let log = Log::new(path.as_deref(), format, parsed.is_set("debug")).map_err(|error| {
        let path = path.unwrap_or_default();
        anyhow::anyhow!("open {}: {}", path.display(), sys::errno_text(sys::errno_of(&error)))
    })?;
    Ok(Globals {
        root: std::path::absolute(parsed.get("root").unwrap_or(DEFAULT_ROOT))
            .unwrap_or_else(|_| PathBuf::from(DEFAULT_ROOT)),
        log,
        systemd_cgroup: parsed.is_set("systemd-cgroup"),
    })
}

const DEFAULT_ROOT: &str = "/run/runc-rs";

fn execute(globals: &Globals, command: &str, arguments: Vec<String>) -> anyhow::Result<u8> {
    globals.log.debug(&format!("{command} {arguments:?}"));
    if matches!(command, "create" | "run" | "exec") {
        protect::ensure(&globals.log)?;
    }
    match command {
        "create" => commands::create::run(globals, arguments),
        "delete" => commands::delete::run(globals, arguments),
        "events" => commands::events::run(globals, arguments),
        "exec" => commands::exec::run(globals, arguments),
        "features" => commands::features::run(),
        "kill" => commands::kill::run(globals, arguments),
        "list" => commands::list::run(globals, arguments),
        "pause" => commands::pause::run(globals, arguments),
        "ps" => commands::kill::ps(globals, arguments),
        "resume" => commands::pause::resume(globals, arguments),
        "run" => commands::run::run(globals, arguments),
        "spec" => commands::spec::run(arguments),
        "start" => commands::start::run(globals, arguments),
        "state" => commands::state::run(globals, arguments),
        "update" => commands::update::run(globals, arguments),
        "checkpoint" | "restore" => anyhow::bail!("not supported: {command}"),
        // Compat: podman matches this text to learn what is there.
        _ => anyhow::bail!("No help topic for '{command}'"),
    }
}

fn shown(text: &str) -> u8 {
    u8::from(io::stdout().write_all(text.as_bytes()).is_err())
}

/// Compat: engines read the `version`, `commit:` and `spec:` lines.
fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("runc-rs version {version}\ncommit: v{version}\nspec: {}\n", container::OCI_VERSION)
}

fn usage() -> String {
    format!(
        "NAME:\n   runc-rs - run containers according to the OCI runtime specification\n\n\
         USAGE:\n   runc-rs [global options] command [command options] [arguments...]\n\n\
         COMMANDS:\n   {} state\n\n\
         GLOBAL OPTIONS:\n   --root DIR  --log FILE  --log-format text|json  --debug  \
         --systemd-cgroup  --rootless auto|true|false  --version  --help\n",
        COMMANDS.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_has_the_lines_engines_read() {
        let text = version();
        assert!(text.starts_with("runc-rs version "));
        assert!(text.contains("\ncommit: ") && text.ends_with("\nspec: 1.3.0\n"));
    }
}
