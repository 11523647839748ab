//! `dewar start`.

use clap::Args;
use dewar_runtime::control::Streams;

use crate::attach::{Attachment, DEFAULT_DETACH_KEYS, Wishes, check_terminal, exit_code};
use crate::cli::{Globals, Verb};
use crate::failure::{for_each, with_code};
use crate::output;
use crate::terminal::DetachKeys;

#[derive(Debug, Args)]
pub struct Start {
    /// Join the container's output and wait for its end
    #[arg(short, long)]
    attach: bool,
    /// Join the container's input too
    #[arg(short, long)]
    interactive: bool,
    /// Keys that detach from the container's terminal
    #[arg(long, value_name = "KEYS", default_value = DEFAULT_DETACH_KEYS, value_parser = DetachKeys::parse)]
    detach_keys: DetachKeys,
    /// Containers, by name or id
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Start {
    const NAME: &'static str = "start";
    const ABOUT: &'static str = "Start containers that were made or have ended";
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";
    const EXAMPLES: &'static str = "  dewar start web\n  dewar start -ai shell";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let runtime = globals.runtime()?;
        if self.attach || self.interactive {
            anyhow::ensure!(self.containers.len() == 1, "you cannot start and attach multiple containers at once");
            return self.start_attached(globals).map_err(|e| with_code(e, 1));
        }
        Ok(for_each(&self.containers, |name| {
            let container = runtime.containers().find(name)?;
            // As docker: to start what runs already is no error.
            if !container.state()?.status.is_live() {
                super::start_told(&runtime, &container, Streams::default(), None)?;
            }
            Ok(output::line(name)?)
        }))
    }
}

impl Start {
    fn start_attached(self, globals: &Globals) -> anyhow::Result<u8> {
        let runtime = globals.runtime()?;
        let container = runtime.containers().find(self.containers.first().map_or("", String::as_str))?;
        let stdin = self.interactive && container.config.open_stdin;
        check_terminal(stdin, container.config.terminal)?;
        let wishes = Wishes {
            stdin,
            terminal: container.config.terminal,
            pumped: false,
            detach_keys: self.detach_keys,
            proxy_signals: true,
        };
        let (attachment, streams) = Attachment::new(wishes)?;
        let mut client = super::start_told(&runtime, &container, streams, attachment.size())?;
        let exit = attachment.run(&mut client, &container, None)?;
        Ok(exit_code(&exit))
    }
}
