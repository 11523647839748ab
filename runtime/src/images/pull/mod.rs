//! Pulls images from registries.
//!
//! What is asked over the network is asked on a small tokio runtime that lives as long as one [`pull`]; layers are converted
//! on threads of their own, at most [`PARALLEL`] at a time, each of which waits for the bytes of one download. A download
//! goes as fast as its conversion: nothing is kept in between.
//!
//! A registry is trusted with nothing: a manifest is held to the digest that led to it, configuration and layers to the
//! manifest, the uncompressed layer to the configuration.
//!
//! Protocol: OCI distribution specification 1.1; credentials: docker's `config.json`; certificates: docker's `certs.d`.

mod base64;
mod credentials;
mod http;
mod login;
mod registry;
mod trust;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use oci_spec::image::{ImageIndex, ImageManifest};

use super::blob::{LayerBlob, MAX_JSON, digest, is_index, layers_of, read_json};
use super::erofs::Limits;
use super::platform::{self, Candidate};
use super::progress::{Event, Progress};
use super::store::{NewImage, Session};
use super::{Digest, Error, Image, Reference, Store, config};
use registry::Registry;

/// Layers that are downloaded at the same time.
const PARALLEL: usize = 3;

/// How deep indexes may lie in indexes.
const MAX_DEPTH: usize = 4;

#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Talk plain HTTP also to a registry that is not on this machine.
    pub plain_http: bool,
    /// The folder of docker's `config.json`; `None`: `$DOCKER_CONFIG`, or else `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// Folders of certificates by registry; `None`: where docker and podman look.
    pub certificates: Option<Vec<PathBuf>>,
    pub limits: Limits,
}

/// An image that was pulled.
#[derive(Debug)]
pub struct Pulled {
    pub image: Image,
    /// What the registry's reference led to: a manifest, or an index of several.
    pub digest: Digest,
    /// Whether the reference led to another image before, or to none.
    pub newer: bool,
}

/// Pulls the image that a reference leads to, for this machine's architecture.
///
/// # Errors
/// What the registry refused or got wrong; then nothing of it is in the store.
pub fn pull(
    store: &Store,
    reference: &Reference,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Pulled, Error> {
    let before = store.resolve(&reference.canonical()).ok().map(|image| image.id);
    let session = Session::begin(store, options.limits)?;
    let registry = Registry::new(reference, options)?;
    let version = reference.version().to_string();
    let version = version.trim_start_matches([':', '@']);
    progress.event(Event::Message(&format!("{version}: Pulling from {}", reference.familiar_repository())));
    let (top, bytes) = registry.manifest(reference)?;
    let bytes = choose(&registry, reference, bytes)?;
    let manifest: ImageManifest = read_json(&bytes, "manifest")?;
    let config_bytes = registry.blob(&digest(manifest.config())?, manifest.config().size())?;
    let config = config::parse(&config_bytes)?;
    platform::check(&config)?;
    let layers = layers_of(&manifest, config::diff_ids(&config)?)?;
    download(&registry, &session, &layers, progress)?;
    let references = vec![reference.clone(), reference.with_digest(top.clone())];
    let image = NewImage { config: config_bytes, manifest: Some(bytes), references };
    let image = session.commit(vec![image])?.pop().ok_or_else(|| Error::NotFound { name: reference.to_string() })?;
    Ok(Pulled { newer: before.as_ref() != Some(&image.id), image, digest: top })
}

/// Follows indexes to the manifest for this platform.
fn choose(registry: &Registry, reference: &Reference, mut bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Either {
        media_type: Option<String>,
        manifests: Option<serde_json::Value>,
    }
    for _ in 0..MAX_DEPTH {
        let either: Either = read_json(&bytes, "manifest")?;
        let index = either.media_type.as_deref().map_or(either.manifests.is_some(), is_index);
        if !index {
            return Ok(bytes);
        }
        let index: ImageIndex = read_json(&bytes, "index")?;
        let candidates: Vec<_> = index.manifests().iter().map(Candidate::of).collect();
        let chosen = index.manifests().get(platform::choose(&candidates)?);
        let chosen = chosen.ok_or_else(|| Error::Missing { name: "a manifest".to_owned() })?;
        (_, bytes) = registry.manifest(&reference.with_digest(digest(chosen)?))?;
    }
    Err(Error::Nonsense { what: "its indexes lie too deep in each other".to_owned() })
}

/// Downloads and converts what the store lacks. After the first error, no further layer is begun.
fn download(
    registry: &Registry,
    session: &Session<'_>,
    layers: &[LayerBlob],
    progress: &dyn Progress,
) -> Result<(), Error> {
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let work = || {
        while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
            // A layer that an image has twice is converted where it comes first.
            let first = layers.iter().find(|l| l.diff_id == layer.diff_id);
            if !first.is_some_and(|f| std::ptr::eq(f, layer)) {
                continue;
            }
            if let Err(error) = one(registry, session, layer, progress) {
                next.store(layers.len(), Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL.min(layers.len()) {
            scope.spawn(work);
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

fn one(registry: &Registry, session: &Session<'_>, layer: &LayerBlob, progress: &dyn Progress) -> Result<(), Error> {
    if !layer.is_wanted(session, progress)? {
        return Ok(());
    }
    let Some((digest, size)) = &layer.expected else {
        return Err(Error::Missing { name: layer.name.clone() });
    };
    let mut download = registry.download(digest, *size)?;
    let outcome = layer.convert(session, &mut download, *size, progress);
    download.check()?;
    outcome
}
