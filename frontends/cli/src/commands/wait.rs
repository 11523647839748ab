//! `dewar wait`.

use clap::Args;
use dewar_runtime::ErrorKind;
use dewar_runtime::control::Client;

use crate::cli::{Globals, Verb};
use crate::failure::for_each;
use crate::output;

#[derive(Debug, Args)]
pub struct Wait {
    /// Containers, by name or id
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Wait {
    const NAME: &'static str = "wait";
    const ABOUT: &'static str = "Wait until containers have ended, and print their exit codes";
    const USAGE: &'static str = "CONTAINER [CONTAINER...]";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let containers = globals.runtime()?.containers();
        Ok(for_each(&self.containers, |name| {
            let container = containers.find(name)?;
            let state = container.state()?;
            let code = if state.status.is_live() {
                match Client::connect(&container).and_then(|mut client| client.wait(None)) {
                    Ok(exit) => exit.code,
                    // It ended in between, or its supervisor was killed.
                    Err(e) if matches!(e.kind(), ErrorKind::State | ErrorKind::Machine) => container.state()?.exit_code,
                    Err(e) => return Err(e.into()),
                }
            } else {
                state.exit_code
            };
            Ok(output::line(&code.to_string())?)
        }))
    }
}
