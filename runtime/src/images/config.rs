//! Reads image configurations, which come from outside.

use oci_spec::image::ImageConfiguration;

use super::{Digest, Error};

/// Overlayfs takes no more lower layers than this.
const MAX_LAYERS: usize = 500;

pub(super) fn parse(bytes: &[u8]) -> Result<ImageConfiguration, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Json { what: "The image's configuration".to_owned(), source })
}

pub(super) fn diff_ids(config: &ImageConfiguration) -> Result<Vec<Digest>, Error> {
    let texts = config.rootfs().diff_ids();
    if texts.len() > MAX_LAYERS {
        return Err(Error::Nonsense { what: format!("it has {} layers; {MAX_LAYERS} are possible", texts.len()) });
    }
    let parse = |text: &String| {
        Digest::parse(text)
            .ok_or_else(|| Error::Nonsense { what: format!("its layer {text:?} is not named by a sha256 digest") })
    };
    texts.iter().map(parse).collect()
}
