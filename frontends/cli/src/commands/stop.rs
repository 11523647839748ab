//! `dewar stop`.

use clap::Args;
use dewar_runtime::ErrorKind;
use dewar_runtime::control::Client;
use dewar_runtime::spec::parse;

use crate::cli::{Globals, Verb};
use crate::failure::for_each;
use crate::output;

#[derive(Debug, Args)]
pub struct Stop {
    /// Seconds to wait before killing the container
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    time: Option<u32>,
    /// Signal to send first
    #[arg(short, long, value_name = "SIGNAL", value_parser = parse::signal)]
    signal: Option<i32>,
    /// Containers, by name or id
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Stop {
    const NAME: &'static str = "stop";
    const ABOUT: &'static str = "Ask containers to end, and kill those that do not";
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static str = "  dewar stop web\n  dewar stop -t 60 database";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let containers = globals.runtime()?.containers();
        Ok(for_each(&self.containers, |name| {
            let container = containers.find(name)?;
            if container.state()?.status.is_live() {
                let stopped = Client::connect(&container).and_then(|mut client| client.stop(self.signal, self.time));
                // It may have ended by itself in between.
                stopped.map(drop).or_else(|e| if e.kind() == ErrorKind::State { Ok(()) } else { Err(e) })?;
            }
            Ok(output::line(name)?)
        }))
    }
}
