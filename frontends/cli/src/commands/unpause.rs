//! `dewar unpause`.

use clap::Args;
use dewar_runtime::control::Client;

use crate::cli::{Globals, Verb};
use crate::failure::for_each;
use crate::output;

#[derive(Debug, Args)]
pub struct Unpause {
    /// Containers, by name or id
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Unpause {
    const NAME: &'static str = "unpause";
    const ABOUT: &'static str = "Let paused containers go on";
    const USAGE: &'static str = "CONTAINER [CONTAINER...]";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let containers = globals.runtime()?.containers();
        Ok(for_each(&self.containers, |name| {
            let container = containers.find(name)?;
            // Puts right first what a killed supervisor may have left.
            container.state()?;
            Client::connect(&container)?.unpause()?;
            Ok(output::line(name)?)
        }))
    }
}
