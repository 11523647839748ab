//! The `dewar` command: docker's verbs, flags, output and exit codes, for containers that run in microVMs of their own.
//!
//! No logic of containers is here: arguments become [`dewar_runtime`] calls and their answers become text. What is here is
//! the terminal: raw mode, its size, signals, and the keys that detach.

mod attach;
mod cli;
mod commands;
mod failure;
mod flags;
mod output;
mod signals;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => failure::report(&error),
    }
}
