//! What archives and registries have in common: manifests that lead to blobs.

use std::io::{self, Read};
use std::path::Path;

use oci_spec::image::{Descriptor, ImageManifest};

use super::digest::Hashing;
use super::erofs::LayerError;
use super::progress::{Event, Metered, Progress};
use super::store::Session;
use super::{Digest, Error};

/// The longest manifest, index or configuration that is taken into memory.
pub(super) const MAX_JSON: u64 = 8 << 20;

pub(super) fn read_json<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Json { what: format!("The image's {what}"), source })
}

pub(super) fn digest(descriptor: &Descriptor) -> Result<Digest, Error> {
    let text = descriptor.digest().to_string();
    Digest::parse(&text).ok_or(Error::Unsupported { what: format!("the digest {text}") })
}

pub(super) fn is_index(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

/// Where an OCI layout keeps a blob.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A layer on its way into the store.
pub(super) struct LayerBlob {
    pub(super) name: String,
    pub(super) diff_id: Digest,
    /// Digest and size of the blob as it lies there, where the source says so.
    pub(super) expected: Option<(Digest, u64)>,
}

/// The layers of a manifest, whose configuration has these diff ids.
pub(super) fn layers_of(manifest: &ImageManifest, diff_ids: Vec<Digest>) -> Result<Vec<LayerBlob>, Error> {
    let layers = manifest.layers();
    if diff_ids.len() != layers.len() {
        let what = format!("its manifest has {} layers, its configuration {}", layers.len(), diff_ids.len());
        return Err(Error::Nonsense { what });
    }
    let layers = layers.iter().zip(diff_ids).map(|(layer, diff_id)| {
        let digest = digest(layer)?;
        Ok(LayerBlob { name: blob_name(&digest), diff_id, expected: Some((digest, layer.size())) })
    });
    layers.collect()
}

impl LayerBlob {
    /// Whether the layer is not in the store yet.
    pub(super) fn is_wanted(&self, session: &Session<'_>, progress: &dyn Progress) -> Result<bool, Error> {
        let present = session.has(&self.diff_id)?;
        if present {
            progress.event(Event::LayerExists { layer: self.shown() });
        }
        Ok(!present)
    }

    /// Converts the layer from its blob, of which `total` bytes are there.
    pub(super) fn convert<R: Read>(
        &self,
        session: &Session<'_>,
        blob: R,
        total: u64,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let name = || self.name.clone();
        if let Some((_, size)) = self.expected
            && size != total
        {
            return Err(Error::WrongSize { name: name(), expected: size, found: total });
        }
        let bounded = blob.take(total.saturating_add(1));
        let mut hashing = Hashing::new(Metered::new(bounded, progress, self.shown(), total));
        let outcome = session.convert(&self.diff_id, &mut hashing);
        if let (Some((expected, size)), true) = (&self.expected, may_be_damage(&outcome)) {
            // A blob that is not what it should be explains whatever else went wrong with it.
            let rest = io::copy(&mut hashing, &mut io::sink());
            let (found, length) = hashing.finish();
            if length < *size {
                rest.map_err(Error::io("read", Path::new(&self.name)))?;
            }
            if length != *size {
                return Err(Error::WrongSize { name: name(), expected: *size, found: length });
            }
            if found != *expected {
                return Err(Error::WrongDigest { name: name(), expected: expected.clone(), found });
            }
        }
        outcome?;
        progress.event(Event::LayerDone { layer: self.shown() });
        Ok(())
    }

    /// What the layer is called to those who wait for it.
    fn shown(&self) -> &Digest {
        self.expected.as_ref().map_or(&self.diff_id, |(digest, _)| digest)
    }
}

/// Whether it is worth it to read the rest of the blob: not when the disk is full or the layer too large.
fn may_be_damage(outcome: &Result<(), Error>) -> bool {
    matches!(
        outcome,
        Ok(())
            | Err(Error::WrongDigest { .. })
            | Err(Error::Layer { source: LayerError::Archive { .. } | LayerError::Entry { .. }, .. })
    )
}
