//! `dewar rmi`.

use clap::Args;
use dewar_runtime::images::{Digest, Error as ImageError, Removed, Use};
use dewar_runtime::{Error, Runtime};

use crate::cli::{Globals, Verb};
use crate::failure::for_each;
use crate::output;

#[derive(Debug, Args)]
pub struct Rmi {
    /// Remove names of images that stopped containers use, and ids with several names
    #[arg(short, long)]
    force: bool,
    /// Images, by name or id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Verb for Rmi {
    const NAME: &'static str = "rmi";
    const ABOUT: &'static str = "Remove images";
    const USAGE: &'static str = "[OPTIONS] IMAGE [IMAGE...]";
    const EXAMPLES: &'static str = "  dewar rmi busybox:1";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let runtime = globals.runtime()?;
        let store = runtime.images()?;
        Ok(for_each(&self.images, |name| {
            let removed = store.remove(name, self.force, || uses(&runtime)).map_err(Error::from)?;
            for each in removed {
                output::line(&match each {
                    Removed::Untagged(reference) => format!("Untagged: {reference}"),
                    Removed::Deleted(id) => format!("Deleted: {id}"),
                })?;
            }
            Ok(())
        }))
    }
}

/// Which containers use which images.
fn uses(runtime: &Runtime) -> Result<Vec<Use>, ImageError> {
    let containers = runtime.containers().list().map_err(|e| ImageError::Damaged { what: e.chain() })?;
    let uses = containers.into_iter().filter_map(|container| {
        let image = Digest::parse(&container.config.image.id)?;
        let running = container.state().is_ok_and(|state| state.status.is_live());
        Some(Use { image, container: container.config.name, running })
    });
    Ok(uses.collect())
}
