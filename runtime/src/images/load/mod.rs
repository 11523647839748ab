//! Loads images from files: OCI layouts and docker archives, as a tar (also compressed), a folder, or a stream.
//!
//! An archive is hostile. Its members' names are keys of a table and never paths of the host; a folder is only looked into
//! beneath itself. Digests of blobs are checked where the format has them, diff ids always, and nothing appears in the store
//! before all of it was right.
//!
//! Formats: OCI image layout 1.1; docker image specification 1.2, "Combined Image JSON + Filesystem Changeset Format".

mod archive;
mod docker;
mod oci;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::digest::Hashing;
use super::erofs::Limits;
use super::progress::{Event, Metered, Progress};
use super::store::{NewImage, Session};
use super::{Digest, Error, Image, Store, config};
use archive::Archive;

/// Where an image comes from.
pub enum Source {
    /// A file or a folder.
    Path(PathBuf),
    /// Such as standard input; only archives.
    Stream(Box<dyn Read>),
}

/// The longest manifest, index or configuration that is taken into memory.
const MAX_JSON: u64 = 8 << 20;

/// A layer of an image that is being loaded.
struct LayerBlob {
    name: String,
    diff_id: Digest,
    /// Digest and size of the blob as it lies there, where the format says so.
    expected: Option<(Digest, u64)>,
}

/// Loads every image in the source, and gives them.
///
/// # Errors
/// What is wrong with the archive; then nothing of it is in the store.
pub fn load(store: &Store, source: Source, limits: Limits, progress: &dyn Progress) -> Result<Vec<Image>, Error> {
    let session = Session::begin(store, limits)?;
    let path = match &source {
        Source::Path(path) => path.clone(),
        Source::Stream(_) => PathBuf::from("standard input"),
    };
    let archive = Archive::open(source, &session)?;
    let images = if archive.has("oci-layout")? && archive.has("index.json")? {
        oci::load(&archive, &session, progress)?
    } else if archive.has("manifest.json")? {
        docker::load(&archive, &session, progress)?
    } else {
        return Err(Error::UnknownArchive { path });
    };
    session.commit(images)
}

fn read_json<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Json { what: format!("The image's {what}"), source })
}

/// Converts one layer, unless the store has it.
fn convert(archive: &Archive, session: &Session<'_>, layer: &LayerBlob, progress: &dyn Progress) -> Result<(), Error> {
    let shown = layer.expected.as_ref().map_or(&layer.diff_id, |(digest, _)| digest);
    if session.has(&layer.diff_id)? {
        progress.event(Event::LayerExists { layer: shown });
        return Ok(());
    }
    let blob = archive.blob(&layer.name)?;
    let total = blob.length();
    if let Some((_, size)) = &layer.expected
        && *size != total
    {
        return Err(Error::WrongSize { name: layer.name.clone(), expected: *size, found: total });
    }
    let mut hashing = Hashing::new(Metered::new(blob, progress, shown, total));
    let outcome = session.convert(&layer.diff_id, &mut hashing);
    if let Some((expected, _)) = &layer.expected {
        // A blob that is not what it should be explains whatever else went wrong with it.
        io::copy(&mut hashing, &mut io::sink()).map_err(Error::io("read", Path::new(&layer.name)))?;
        let (found, _) = hashing.finish();
        if found != *expected {
            return Err(Error::WrongDigest { name: layer.name.clone(), expected: expected.clone(), found });
        }
    }
    outcome?;
    progress.event(Event::LayerDone { layer: shown });
    Ok(())
}

#[cfg(test)]
mod tests;
