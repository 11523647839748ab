//! `dewar pull`, and the pulling of an image that `run` or `create` lacks.

use clap::Args;
use dewar_runtime::images::{Image, Progress, PullOptions, Reference, Silent, Store, abandon, pull as pull_image};
use dewar_runtime::{Error, ErrorKind, ResultExt};

use crate::cli::{Globals, Verb};
use crate::output;
use crate::output::progress::Bars;
use crate::signals::Orderly;

#[derive(Debug, Args)]
pub struct Pull {
    /// No progress
    #[arg(short, long)]
    quiet: bool,
    /// Talk plain HTTP also to a registry that is not on this machine
    #[arg(long)]
    plain_http: bool,
    /// Image to pull
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

impl Verb for Pull {
    const NAME: &'static str = "pull";
    const ABOUT: &'static str = "Pull an image from a registry";
    const USAGE: &'static str = "[OPTIONS] NAME[:TAG|@DIGEST]";
    const EXAMPLES: &'static str = "  dewar pull busybox\n  dewar pull localhost:5000/busybox:1";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let _orderly = Orderly::begin(abandon).context(|| "Cannot block signals".into())?;
        let store = globals.runtime()?.images()?;
        let reference = Reference::parse(&self.name).map_err(Error::from)?;
        let bars = Bars::default();
        let progress: &dyn Progress = if self.quiet { &Silent } else { &bars };
        let options = PullOptions { plain_http: self.plain_http, ..PullOptions::default() };
        let pulled = pull_image(&store, &reference, &options, progress).map_err(Error::from)?;
        bars.finish();
        if !self.quiet {
            output::line(&format!("Digest: {}", pulled.digest))?;
            let what = if pulled.newer { "Downloaded newer image for" } else { "Image is up to date for" };
            output::line(&format!("Status: {what} {reference}"))?;
        }
        output::line(&reference.canonical())?;
        Ok(0)
    }
}

/// Pulls for a container that is about to be made. Progress goes to standard error: the output is the container's.
pub fn pull_missing(store: &Store, name: &str) -> Result<Image, Error> {
    let reference = Reference::parse(name).map_err(Error::from)?;
    let orderly = Orderly::begin(abandon).context(|| "Cannot block signals".into())?;
    let bars = Bars::default();
    let pulled = pull_image(store, &reference, &PullOptions::default(), &bars);
    bars.finish();
    drop(orderly);
    let pulled = pulled.map_err(Error::from);
    // What an image or a registry has wrong is no question of how the command is used.
    let kind = pulled.as_ref().err().map(|error| match error.kind() {
        ErrorKind::Invalid => ErrorKind::Internal,
        kind => kind,
    });
    match (pulled, kind) {
        (Err(error), Some(kind)) => Err(error).kind(kind, || {
            format!(
                "Cannot pull {reference} (load it from a file with 'dewar load -i FILE' if no registry is in reach)"
            )
        }),
        (pulled, _) => Ok(pulled?.image),
    }
}
