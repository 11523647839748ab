//! The `dewar-oci` command: runc's verbs, flags, output and exit codes, for bundles whose containers run in microVMs.
//!
//! No logic of containers is here: arguments become [`dewar_runtime::oci`] calls and their answers become text.

mod cli;
mod commands;
mod exec;
mod log;
mod output;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let log = match log::Log::new(&cli) {
        Ok(log) => log,
        Err(error) => {
            let path = cli.log.unwrap_or_default();
            eprintln!("dewar-oci: cannot open the log file {}: {error}", path.display());
            return ExitCode::from(1);
        }
    };
    // As runc: what runs in a container may end with 1.
    let failure = if matches!(cli.command, Some(cli::Command::Exec(_))) { 255 } else { 1 };
    match commands::run(cli, &log) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.error(&error.chain());
            ExitCode::from(failure)
        }
    }
}
