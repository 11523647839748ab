//! `dewar rm`.

use clap::Args;

use crate::cli::{Globals, Verb};
use crate::failure::{for_each, is_not_found, print};
use crate::output;

#[derive(Debug, Args)]
pub struct Rm {
    /// Kill the container first when it runs
    #[arg(short, long)]
    force: bool,
    /// Containers, by name or id
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Rm {
    const NAME: &'static str = "rm";
    const ABOUT: &'static str = "Remove containers";
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static str = "  dewar rm web\n  dewar rm -f $(dewar ps -aq)";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let runtime = globals.runtime()?;
        Ok(for_each(&self.containers, |name| {
            let container = match runtime.containers().find(name).map_err(anyhow::Error::from) {
                Ok(container) => container,
                // As docker: what is gone is what was wanted, but it is said.
                Err(error) if self.force && is_not_found(&error) => {
                    print(&error);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            runtime.remove(&container, self.force)?;
            Ok(output::line(name)?)
        }))
    }
}
