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

use std::io::Read;
use std::path::PathBuf;

use super::blob::LayerBlob;
use super::erofs::Limits;
use super::progress::Progress;
use super::store::{NewImage, Session};
use super::{Error, Image, Store, config};
use archive::Archive;

/// Where an image comes from.
pub enum Source {
    /// A file or a folder.
    Path(PathBuf),
    /// Such as standard input; only archives.
    Stream(Box<dyn Read>),
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

/// Converts one layer, unless the store has it.
fn convert(archive: &Archive, session: &Session<'_>, layer: &LayerBlob, progress: &dyn Progress) -> Result<(), Error> {
    if !layer.is_wanted(session, progress)? {
        return Ok(());
    }
    let blob = archive.blob(&layer.name)?;
    let total = blob.length();
    layer.convert(session, blob, total, progress)
}

#[cfg(test)]
mod tests;
