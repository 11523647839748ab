//! `dewar attach`.

use clap::Args;
use dewar_runtime::container::Status;
use dewar_runtime::control::Client;

use crate::attach::{Attachment, DEFAULT_DETACH_KEYS, Wishes, check_terminal, exit_code};
use crate::cli::{Globals, Verb};
use crate::terminal::DetachKeys;

#[derive(Debug, Args)]
pub struct Attach {
    /// Do not join the container's input
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the container, when it has no terminal
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true")]
    #[arg(action = clap::ArgAction::Set, value_name = "BOOL", value_parser = clap::builder::BoolishValueParser::new())]
    sig_proxy: bool,
    /// Keys that detach from the container's terminal
    #[arg(long, value_name = "KEYS", default_value = DEFAULT_DETACH_KEYS, value_parser = DetachKeys::parse)]
    detach_keys: DetachKeys,
    /// Container, by name or id
    container: String,
}

impl Verb for Attach {
    const NAME: &'static str = "attach";
    const ABOUT: &'static str = "Join the streams of a running container";
    const USAGE: &'static str = "[OPTIONS] CONTAINER";
    const EXAMPLES: &'static str = "  dewar attach shell      # Ctrl-P Ctrl-Q leaves it running";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let container = globals.runtime()?.containers().find(&self.container)?;
        match container.state()?.status {
            Status::Running => {}
            Status::Paused => anyhow::bail!("You cannot attach to a paused container, unpause it first"),
            _ => anyhow::bail!("You cannot attach to a stopped container, start it first"),
        }
        let stdin = container.config.open_stdin && !self.no_stdin;
        let terminal = container.config.terminal;
        check_terminal(stdin, terminal)?;
        let wishes = Wishes {
            stdin,
            terminal,
            pumped: true,
            detach_keys: self.detach_keys,
            proxy_signals: self.sig_proxy && !terminal,
        };
        let (attachment, streams) = Attachment::new(wishes)?;
        let mut client = Client::connect(&container)?;
        client.attach(streams)?;
        if let Some(size) = attachment.size() {
            client.resize(None, size)?;
        }
        let exit = attachment.run(&mut client, &container, None)?;
        Ok(exit_code(&exit))
    }
}
