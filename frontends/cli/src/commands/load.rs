//! `dewar load`.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use dewar_runtime::Error;
use dewar_runtime::images::{Limits, Progress, Silent, Source, abandon, load};

use crate::cli::{Globals, Verb};
use crate::output;
use crate::output::progress::Bars;
use crate::signals::Orderly;

#[derive(Debug, Args)]
pub struct Load {
    /// Archive or folder to read, instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

impl Verb for Load {
    const NAME: &'static str = "load";
    const ABOUT: &'static str = "Load images from an archive or a folder (docker's format or an OCI layout)";
    const USAGE: &'static str = "[OPTIONS]";
    const EXAMPLES: &'static str = "  dewar load -i busybox.tar\n  docker save busybox | dewar load";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let source = match self.input {
            Some(path) => Source::Path(path),
            None if io::stdin().is_terminal() => {
                anyhow::bail!(
                    "requested load from stdin, but stdin is empty: give --input FILE or redirect standard input"
                )
            }
            None => Source::Stream(Box::new(io::stdin())),
        };
        let _orderly = Orderly::begin(abandon).context("cannot block signals")?;
        let store = globals.runtime()?.images()?;
        let bars = Bars::default();
        let progress: &dyn Progress = if self.quiet { &Silent } else { &bars };
        let images = load(&store, source, Limits::default(), progress).map_err(Error::from);
        bars.finish();
        for image in images? {
            if image.references.is_empty() {
                output::line(&format!("Loaded image ID: {}", image.id))?;
            }
            for reference in &image.references {
                output::line(&format!("Loaded image: {reference}"))?;
            }
        }
        Ok(0)
    }
}
