//! `docker-rs`: the command line of a Docker engine, ours or the original.
//!
//! It speaks the Engine API (1.24 to 1.51) and nothing else. Arguments, exit codes and the output
//! that scripts read follow the stock client.

mod client;
mod command;
mod config;
mod error;
mod format;
mod terminal;
mod ui;

use std::process::ExitCode;

use clap::Parser;

use crate::error::CliError;
use crate::ui::Ui;

fn main() -> ExitCode {
    let arguments = command::normalise(std::env::args().collect());
    let mut ui = Ui::standard();
    let cli = match command::Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(problem) => return command::usage(&problem, &arguments, &mut ui),
    };
    let verb = cli.verb_name();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(problem) => {
            ui.complain(&format!("docker: start: {problem}"));
            return ExitCode::from(125);
        }
    };
    let outcome = runtime.block_on(command::run(cli, &mut ui));
    // A thread may still wait for a key; nothing is gained by waiting with it.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(problem) => report(&problem, verb, &mut ui),
    }
}

fn report(problem: &CliError, verb: &str, ui: &mut Ui) -> ExitCode {
    if problem.is_broken_pipe() {
        return ExitCode::SUCCESS;
    }
    let from_run = matches!(verb, "run" | "create");
    if from_run {
        ui.complain(&format!(
            "docker: {problem}\n\nRun 'docker {verb} --help' for more information"
        ));
    } else {
        ui.complain(&problem.to_string());
    }
    ExitCode::from(problem.exit_code(from_run))
}
