//! `dewar kill`.

use anyhow::Context;
use clap::Args;
use dewar_runtime::control::Client;
use dewar_runtime::spec::parse;

use crate::cli::{Globals, Verb};
use crate::failure::for_each;
use crate::output;

#[derive(Debug, Args)]
pub struct Kill {
    /// Signal to send
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = parse::signal)]
    signal: i32,
    /// Containers, by name or id
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Kill {
    const NAME: &'static str = "kill";
    const ABOUT: &'static str = "Send a signal to containers";
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static str = "  dewar kill web\n  dewar kill -s HUP web";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let containers = globals.runtime()?.containers();
        Ok(for_each(&self.containers, |name| {
            let container = containers.find(name)?;
            let cannot = || format!("cannot kill container {name}");
            if !container.state()?.status.is_live() {
                anyhow::bail!("{}: container {} is not running", cannot(), container.config.id);
            }
            Client::connect(&container).and_then(|mut c| c.signal(None, self.signal)).with_context(cannot)?;
            Ok(output::line(name)?)
        }))
    }
}
