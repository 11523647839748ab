//! `dewar exec`.

use std::fs;

use anyhow::Context;
use clap::Args;
use dewar_protocol::{UserSpec, WindowSize};
use dewar_runtime::Error;
use dewar_runtime::container::{Container, Status};
use dewar_runtime::control::{Client, Streams};
use dewar_runtime::spec::{ExecOptions, parse};

use crate::attach::{Attachment, DEFAULT_DETACH_KEYS, Wishes, check_terminal, exit_code};
use crate::cli::{Globals, Verb};
use crate::failure::with_code;
use crate::terminal::DetachKeys;

#[derive(Debug, Args)]
pub struct Exec {
    /// Do not wait for the command
    #[arg(short, long)]
    detach: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Pass standard input on to the command
    #[arg(short, long)]
    interactive: bool,
    /// Set a variable; a bare NAME passes the caller's on
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = parse::env)]
    env: Vec<String>,
    /// Set variables from a file, one NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<std::path::PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as this user, by name or id
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Give the command all capabilities
    #[arg(long)]
    privileged: bool,
    /// Keys that detach from the command's terminal
    #[arg(long, value_name = "KEYS", default_value = DEFAULT_DETACH_KEYS, value_parser = DetachKeys::parse)]
    detach_keys: DetachKeys,
    /// Container, and the command to run in it
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "CONTAINER COMMAND [ARG]")]
    container_and_args: Vec<String>,
}

impl Verb for Exec {
    const NAME: &'static str = "exec";
    const ABOUT: &'static str = "Run another command in a running container";
    const USAGE: &'static str = "[OPTIONS] CONTAINER COMMAND [ARG...]";
    const EXAMPLES: &'static str = "  dewar exec -it web sh\n  dewar exec -u nobody -e A=1 web env";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        self.exec(globals).map_err(|e| with_code(e, 1))
    }
}

impl Exec {
    fn exec(self, globals: &Globals) -> anyhow::Result<u8> {
        let Some((name, args)) = self.container_and_args.split_first() else { anyhow::bail!("no container was given") };
        let container = globals.runtime()?.containers().find(name)?;
        match container.state()?.status {
            Status::Running => {}
            Status::Paused => anyhow::bail!("Container {name} is paused, unpause the container before exec"),
            _ => anyhow::bail!("container {} is not running", container.config.id),
        }
        if !self.detach {
            check_terminal(self.interactive, self.tty)?;
        }
        let process = self.process(&container, args)?;
        let user = self.user.clone().map_or_else(|| container.config.user.clone(), UserSpec::Lookup);
        let mut client = Client::connect(&container)?;
        if self.detach {
            client.exec(process, user, self.tty.then(WindowSize::default), Streams::default())?;
            return Ok(0);
        }
        let wishes = Wishes {
            stdin: self.interactive,
            terminal: self.tty,
            pumped: false,
            detach_keys: self.detach_keys,
            proxy_signals: true,
        };
        let (attachment, streams) = Attachment::new(wishes)?;
        let size = self.tty.then(|| attachment.size().unwrap_or_default());
        let exec = client.exec(process, user, size, streams)?;
        let exit = attachment.run(&mut client, &container, Some(&exec))?;
        Ok(exit_code(&exit))
    }

    /// The OCI process as JSON.
    fn process(&self, container: &Container, args: &[String]) -> anyhow::Result<Vec<u8>> {
        let path = container.dir.join("spec.json");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let spec = serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))?;
        let mut env = Vec::new();
        for path in &self.env_file {
            let content = fs::read(path).with_context(|| format!("cannot read the --env-file {}", path.display()))?;
            env.extend(parse::env_file(&content, |name| std::env::var(name).ok()).map_err(Error::from)?);
        }
        env.extend(self.env.iter().cloned());
        let options = ExecOptions {
            args: args.to_vec(),
            env,
            workdir: self.workdir.clone(),
            tty: self.tty,
            privileged: self.privileged,
        };
        let process = options.to_process(&spec).map_err(Error::from)?;
        serde_json::to_vec(&process).context("cannot encode the process")
    }
}
