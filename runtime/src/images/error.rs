//! What can go wrong with images, and which kind of error that is to a front end.

use std::io;
use std::path::{Path, PathBuf};

use super::Digest;
use super::erofs::LayerError;
use super::tarball::TarError;
use crate::ErrorKind;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("Invalid image reference {reference:?}: {problem}")]
    InvalidReference { reference: String, problem: &'static str },
    #[error("No such image: {name}; load or pull it first")]
    NotFound { name: String },
    #[error("Several images have an id that starts with {prefix}; give more of it")]
    Ambiguous { prefix: String },
    #[error(
        "Cannot remove the image {image}: the {state} container {container} uses it; remove the container first",
        state = if *running { "running" } else { "stopped" }
    )]
    InUse { image: String, container: String, running: bool },
    #[error("Cannot remove the image {image} by its id: several repositories refer to it; remove by name, or force it")]
    ManyReferences { image: String },
    #[error("Cannot {doing} {path}", path = path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("No space is left to {doing} {path}; free some or choose another root directory", path = path.display())]
    NoSpace {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("The image store is damaged: {what}; remove the image and load or pull it again")]
    Damaged { what: String },
    #[error("{what} is not valid JSON of its kind")]
    Json {
        what: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} is neither an OCI layout nor a docker archive: it has no index.json and no manifest.json", path = path.display())]
    UnknownArchive { path: PathBuf },
    #[error("Cannot read the image archive {path}", path = path.display())]
    Archive {
        path: PathBuf,
        #[source]
        source: TarError,
    },
    #[error("The image archive is larger than {limit} bytes when decompressed")]
    ArchiveTooLarge { limit: u64 },
    #[error("The image is incomplete: {name} is missing")]
    Missing { name: String },
    #[error("The image is damaged or truncated: {name} has the digest {found} instead of {expected}")]
    WrongDigest { name: String, expected: Digest, found: Digest },
    #[error("The image is damaged or truncated: {name} has {found} bytes instead of {expected}")]
    WrongSize { name: String, expected: u64, found: u64 },
    #[error("The image makes no sense: {what}")]
    Nonsense { what: String },
    #[error("{what} is not supported")]
    Unsupported { what: String },
    #[error("The image has no variant for {wanted}; there is: {present}")]
    NoPlatform { wanted: String, present: String },
    #[error("Cannot convert the layer {layer}")]
    Layer {
        layer: Digest,
        #[source]
        source: LayerError,
    },
    #[error("Cannot {doing} {reference}")]
    Registry {
        doing: &'static str,
        reference: String,
        #[source]
        source: io::Error,
    },
    #[error("Cannot {doing} {reference}: the registry answers {status}{complaint}")]
    Answer { doing: &'static str, reference: String, status: String, complaint: String },
    #[error(
        "The registry {registry} says that it was asked too often; try again {after}, or log in for a higher limit"
    )]
    TooOften { registry: String, after: String },
    #[error("The registry {registry} makes no sense: {problem}")]
    Strange { registry: String, problem: String },
    #[error(
        "The certificate of the registry {registry} is not trusted: {problem}; where it is right, put its authority's \
         certificate into /etc/docker/certs.d/{registry}/ca.crt"
    )]
    Untrusted { registry: String, problem: String },
    #[error("{path} is not a certificate or key in the form of PEM", path = path.display())]
    Certificate { path: PathBuf },
    #[error("The registry does not have {reference}, or does not show it without a login")]
    NotInRegistry { reference: String },
    #[error("The registry does not let us pull {reference}; log in with docker, whose credentials are used")]
    Denied { reference: String },
    #[error("Cannot get the credentials for {registry}: {problem}")]
    Credentials { registry: String, problem: String },
}

impl Error {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.to_path_buf();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { doing, path, source },
                _ => Self::Io { doing, path, source },
            }
        }
    }

    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::NotInRegistry { .. } => ErrorKind::NotFound,
            Self::InUse { .. } | Self::ManyReferences { .. } => ErrorKind::Conflict,
            Self::Unsupported { .. } | Self::NoPlatform { .. } => ErrorKind::Unsupported,
            Self::Io { .. }
            | Self::NoSpace { .. }
            | Self::Damaged { .. }
            | Self::Registry { .. }
            | Self::Answer { .. }
            | Self::TooOften { .. } => ErrorKind::Internal,
            _ => ErrorKind::Invalid,
        }
    }
}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let kind = error.kind();
        // Its own sentence is the message already: only what lies below it is the cause.
        match error {
            Error::Io { source, .. } | Error::NoSpace { source, .. } | Error::Registry { source, .. } => {
                Self::with(kind, message, source)
            }
            Error::Json { source, .. } => Self::with(kind, message, source),
            Error::Archive { source, .. } => Self::with(kind, message, source),
            Error::Layer { source, .. } => Self::with(kind, message, source),
            _ => Self::new(kind, message),
        }
    }
}
