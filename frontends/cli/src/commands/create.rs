//! `dewar create`, and the making of a container for `run`.

use std::fs::OpenOptions;
use std::io::Write;

use anyhow::Context;
use clap::Args;
use dewar_protocol::UserSpec;
use dewar_runtime::container::{Container, new_id};
use dewar_runtime::images::{Image, Store};
use dewar_runtime::spec::{parse, random_name};
use dewar_runtime::{CreateOptions, Error, ErrorKind, Runtime, host_files, machine_memory_mib, machine_vcpus};

use super::pull;
use crate::cli::{Globals, Verb};
use crate::failure::{is_not_found, of_new_container};
use crate::flags::{ContainerFlags, PullPolicy};
use crate::output;

/// How often a generated name may be taken.
const NAME_ATTEMPTS: usize = 20;
const NANO: f64 = 1e9;

#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    flags: ContainerFlags,
}

impl Verb for Create {
    const NAME: &'static str = "create";
    const ABOUT: &'static str = "Make a container without starting it";
    const USAGE: &'static str = "[OPTIONS] IMAGE [COMMAND] [ARG...]";
    const EXAMPLES: &'static str = "  dewar create --name web -m 256m busybox httpd -f\n  dewar start web";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let container = create(&self.flags, false, globals).map_err(|e| of_new_container(e, Self::NAME))?;
        output::line(&container.config.id)?;
        Ok(0)
    }
}

/// Makes a container; pulls its image when that is wanted.
pub fn create(flags: &ContainerFlags, auto_remove: bool, globals: &Globals) -> anyhow::Result<Container> {
    let mut options = flags.options()?;
    if let Some(name) = &flags.name {
        parse::container_name(name).map_err(Error::from)?;
    }
    let engine = flags.engine()?;
    let kernel = flags.kernel.as_ref().map(std::path::absolute).transpose().context("cannot resolve --kernel")?;
    let runtime = globals.runtime()?;
    let store = runtime.images()?;
    // Nobody removes the image before it is on record that a container uses it.
    let mut pin = store.pin().map_err(Error::from)?;
    let image = match find_image(&store, flags)? {
        Some(image) => image,
        None => {
            drop(pin);
            if flags.pull == PullPolicy::Missing {
                eprintln!("Unable to find image '{}' locally", flags.image());
            }
            let pulled = pull::pull_missing(&store, flags.image())?;
            pin = store.pin().map_err(Error::from)?;
            pulled
        }
    };
    globals.trace("image found");
    if let Some(config) = image.config.config() {
        options.merge_image(config);
    }
    let stop_signal = options.stop_signal().map_err(Error::from)?;
    let cpuset = flags.cpus_named().map_err(Error::from)?;
    let id = new_id();
    let spec = options.to_spec(&id).map_err(Error::from)?;
    let request = |name: String| -> anyhow::Result<CreateOptions> {
        #[expect(clippy::cast_precision_loss, reason = "at most 32 CPUs in billionths")]
        let cpus = (options.nano_cpus > 0).then_some(options.nano_cpus as f64 / NANO);
        Ok(CreateOptions {
            id: id.clone(),
            name,
            image_name: flags.image().to_owned(),
            spec: serde_json::to_vec(&spec).context("cannot encode the specification")?,
            command: options.command().map_err(Error::from)?,
            user: UserSpec::Lookup(options.user.clone().unwrap_or_default()),
            files: host_files(&options.hostname(&id)),
            engine,
            kernel: kernel.clone(),
            vcpus: machine_vcpus(cpus, cpuset),
            memory_mib: machine_memory_mib((options.memory > 0).then_some(options.memory)),
            writable: flags.writable(),
            terminal: options.tty,
            open_stdin: options.interactive,
            init: options.init,
            labels: options.labels.clone(),
            stop_signal,
            stop_timeout: flags.stop_timeout,
            auto_remove,
        })
    };
    let container = match &flags.name {
        Some(name) => runtime.create(&image, request(name.trim_start_matches('/').to_owned())?)?,
        None => create_with_any_name(&runtime, &image, request)?,
    };
    drop(pin);
    globals.trace("container made");
    if let Err(error) = write_cidfile(flags, &container) {
        runtime.remove(&container, false)?;
        return Err(error);
    }
    Ok(container)
}

/// The image as it is in the store; `None` when it is to be pulled.
fn find_image(store: &Store, flags: &ContainerFlags) -> anyhow::Result<Option<Image>> {
    if flags.pull == PullPolicy::Always {
        return Ok(None);
    }
    match store.resolve(flags.image()) {
        Ok(image) => Ok(Some(image)),
        Err(error) => {
            let error = anyhow::Error::from(Error::from(error));
            if flags.pull == PullPolicy::Missing && is_not_found(&error) { Ok(None) } else { Err(error) }
        }
    }
}

fn create_with_any_name(
    runtime: &Runtime,
    image: &Image,
    request: impl Fn(String) -> anyhow::Result<CreateOptions>,
) -> anyhow::Result<Container> {
    let mut attempt = 1;
    loop {
        match runtime.create(image, request(random_name())?) {
            Err(error) if error.kind() == ErrorKind::Conflict && attempt < NAME_ATTEMPTS => attempt += 1,
            other => return Ok(other?),
        }
    }
}

fn write_cidfile(flags: &ContainerFlags, container: &Container) -> anyhow::Result<()> {
    let Some(path) = &flags.cidfile else { return Ok(()) };
    let write =
        || OpenOptions::new().write(true).create_new(true).open(path)?.write_all(container.config.id.as_bytes());
    write().with_context(|| format!("cannot write the container id to {}", path.display()))
}
