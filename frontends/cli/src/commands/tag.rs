//! `dewar tag`.

use clap::Args;
use dewar_runtime::Error;

use crate::cli::{Globals, Verb};

#[derive(Debug, Args)]
pub struct Tag {
    /// Image, by name or id
    source: String,
    /// Its further name
    target: String,
}

impl Verb for Tag {
    const NAME: &'static str = "tag";
    const ABOUT: &'static str = "Give an image another name";
    const USAGE: &'static str = "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]";
    const EXAMPLES: &'static str = "  dewar tag busybox localhost:5000/busybox:1";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        globals.runtime()?.images()?.tag(&self.source, &self.target).map_err(Error::from)?;
        Ok(0)
    }
}
