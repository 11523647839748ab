//! The OCI image layout: `index.json` leads by digests to manifests, and they to configurations and layers.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use super::archive::Archive;
use super::{NewImage, Progress, Session, config, convert};
use crate::images::blob::{digest, is_index, layers_of, read_json};
use crate::images::platform::{self, Candidate};
use crate::images::{Error, Reference};

/// Names of an image in an index: containerd's is whole, OCI's often only a tag.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// How deep indexes may lie in indexes.
const MAX_DEPTH: usize = 4;

pub(super) fn load(archive: &Archive, session: &Session<'_>, progress: &dyn Progress) -> Result<Vec<NewImage>, Error> {
    let index: ImageIndex = read_json(&archive.read("index.json")?, "index.json")?;
    let mut images = Vec::new();
    let mut others = Vec::new();
    for descriptor in index.manifests() {
        let manifest = match choose(archive, descriptor, 0) {
            Ok(bytes) => bytes,
            Err(Error::NoPlatform { present, .. }) => {
                others.push(present);
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut image = image(archive, session, manifest, progress)?;
        image.references.extend(reference(descriptor)?);
        images.push(image);
    }
    if !images.is_empty() {
        return Ok(images);
    }
    if others.is_empty() {
        return Err(Error::Nonsense { what: "its index.json names no image".to_owned() });
    }
    Err(Error::NoPlatform { wanted: platform::wanted(), present: others.join(", ") })
}

/// The manifest that a descriptor leads to, through indexes for several platforms.
fn choose(archive: &Archive, descriptor: &Descriptor, depth: usize) -> Result<Vec<u8>, Error> {
    let candidate = Candidate::of(descriptor);
    if !candidate.fits() {
        return Err(Error::NoPlatform { wanted: platform::wanted(), present: candidate.to_string() });
    }
    let bytes = archive.read_blob(&digest(descriptor)?, descriptor.size())?;
    if !is_index(descriptor.media_type().as_ref()) {
        return Ok(bytes);
    }
    if depth >= MAX_DEPTH {
        return Err(Error::Nonsense { what: "its indexes lie too deep in each other".to_owned() });
    }
    let index: ImageIndex = read_json(&bytes, "index")?;
    let candidates: Vec<_> = index.manifests().iter().map(Candidate::of).collect();
    let chosen = platform::choose(&candidates)?;
    let next = index.manifests().get(chosen).ok_or_else(|| Error::Missing { name: "a manifest".to_owned() })?;
    choose(archive, next, depth + 1)
}

fn image(archive: &Archive, session: &Session<'_>, bytes: Vec<u8>, progress: &dyn Progress) -> Result<NewImage, Error> {
    let manifest: ImageManifest = read_json(&bytes, "manifest")?;
    let config = archive.read_blob(&digest(manifest.config())?, manifest.config().size())?;
    let diff_ids = config::diff_ids(&config::parse(&config)?)?;
    for layer in layers_of(&manifest, diff_ids)? {
        convert(archive, session, &layer, progress)?;
    }
    Ok(NewImage { config, manifest: Some(bytes), references: vec![] })
}

/// The name that an index gives to an image. A tag alone names nothing: then the image is known by its id.
fn reference(descriptor: &Descriptor) -> Result<Option<Reference>, Error> {
    let Some(annotations) = descriptor.annotations() else { return Ok(None) };
    let name = NAMES.iter().find_map(|key| annotations.get(*key)).filter(|n| n.contains(['/', ':', '@']));
    name.map(|name| Reference::parse(name)).transpose()
}
