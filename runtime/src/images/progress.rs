//! What a load or a pull tells while it works.

use std::io::{self, Read};

use super::Digest;

/// Something that happened. Layers are named as their source names them: by the digest of the blob, or else by diff id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// What is about to be read, such as "Pulling from library/busybox".
    Message(&'a str),
    /// The store has it already.
    LayerExists {
        layer: &'a Digest,
    },
    /// Bytes of the source's form of the layer that were read and converted; 0 at the start.
    LayerAdvanced {
        layer: &'a Digest,
        done: u64,
        total: u64,
    },
    LayerDone {
        layer: &'a Digest,
    },
}

/// Called from whichever thread works; must return soon.
pub trait Progress: Sync {
    fn event(&self, event: Event<'_>);
}

/// Nobody is told.
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _event: Event<'_>) {}
}

/// How many bytes make another [`Event::LayerAdvanced`].
const STEP: u64 = 1 << 20;

/// Tells of what is read through it.
pub(super) struct Metered<'a, R> {
    inner: R,
    progress: &'a dyn Progress,
    layer: &'a Digest,
    total: u64,
    done: u64,
    told: u64,
}

impl<'a, R: Read> Metered<'a, R> {
    pub(super) fn new(inner: R, progress: &'a dyn Progress, layer: &'a Digest, total: u64) -> Self {
        progress.event(Event::LayerAdvanced { layer, done: 0, total });
        Self { inner, progress, layer, total, done: 0, told: 0 }
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.done = self.done.saturating_add(got as u64);
        if self.done.saturating_sub(self.told) >= STEP || (self.done == self.total && self.told < self.done) {
            self.told = self.done;
            self.progress.event(Event::LayerAdvanced { layer: self.layer, done: self.done, total: self.total });
        }
        Ok(got)
    }
}
