//! `dewar run`.

use clap::Args;
use dewar_runtime::container::Container;
use dewar_runtime::control::{Client, Streams};

use super::create::create;
use crate::attach::{Attachment, DEFAULT_DETACH_KEYS, Wishes, check_terminal, exit_code};
use crate::cli::{Globals, Verb};
use crate::failure::of_new_container;
use crate::flags::ContainerFlags;
use crate::output;
use crate::terminal::DetachKeys;

#[derive(Debug, Args)]
pub struct Run {
    /// Print the id and leave the container running
    #[arg(short, long)]
    detach: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Pass signals on to the container, when it has no terminal
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true")]
    #[arg(action = clap::ArgAction::Set, value_name = "BOOL", value_parser = clap::builder::BoolishValueParser::new())]
    sig_proxy: bool,
    /// Keys that detach from the container's terminal
    #[arg(long, value_name = "KEYS", default_value = DEFAULT_DETACH_KEYS, value_parser = DetachKeys::parse)]
    detach_keys: DetachKeys,
    #[command(flatten)]
    flags: ContainerFlags,
}

impl Verb for Run {
    const NAME: &'static str = "run";
    const ABOUT: &'static str = "Make a container and run a command in it";
    const USAGE: &'static str = "[OPTIONS] IMAGE [COMMAND] [ARG...]";
    const EXAMPLES: &'static str = "  dewar run --rm busybox uname -r\n  dewar run --rm -it busybox sh\n  \
        echo hello | dewar run --rm -i busybox cat\n  dewar run -d --name web -m 256m --cpus 0.5 busybox sleep 1000";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        self.run_container(globals).map_err(|e| of_new_container(e, Self::NAME))
    }
}

impl Run {
    fn run_container(self, globals: &Globals) -> anyhow::Result<u8> {
        let flags = &self.flags;
        if !self.detach {
            check_terminal(flags.interactive, flags.tty)?;
        }
        let container = create(flags, self.rm, globals)?;
        if self.detach {
            start_or_remove(&container, Streams::default(), None, globals)?;
            output::line(&container.config.id)?;
            return Ok(0);
        }
        let wishes = Wishes {
            stdin: flags.interactive,
            terminal: flags.tty,
            pumped: false,
            detach_keys: self.detach_keys,
            proxy_signals: self.sig_proxy,
        };
        let (attachment, streams) = Attachment::new(wishes)?;
        let mut client = start_or_remove(&container, streams, attachment.size(), globals)?;
        globals.trace("command started");
        let exit = attachment.run(&mut client, &container, None)?;
        globals.trace("container ended");
        Ok(exit_code(&exit))
    }
}

/// Starts a fresh container. With `--rm` nothing of it stays when it cannot be started.
fn start_or_remove(
    container: &Container,
    streams: Streams,
    size: Option<dewar_protocol::WindowSize>,
    globals: &Globals,
) -> anyhow::Result<Client> {
    let runtime = globals.runtime()?;
    super::start_told(&runtime, container, streams, size).map_err(|error| {
        if container.config.auto_remove {
            // Its supervisor may have done so already; what the user must see is why it did not start.
            let _ = runtime.remove(container, true);
        }
        error.into()
    })
}
