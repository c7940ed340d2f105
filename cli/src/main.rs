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

use crate::ui::Ui;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut ui = Ui::standard();
    let cli = match command::parse(&arguments, &mut ui) {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
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
        Err(problem) => {
            let code = problem.silent_code().unwrap_or_else(|| {
                ui.complain(&problem.to_string());
                problem.exit_code()
            });
            ExitCode::from(code)
        }
    }
}
