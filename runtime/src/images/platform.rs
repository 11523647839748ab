//! Which of an image's variants runs here.

use std::fmt;

use oci_spec::image::{Descriptor, ImageConfiguration};

use super::Error;

const OS: &str = "linux";
/// The guest's architecture is the host's: there is no emulation of another one.
const ARCHITECTURE: &str = "amd64";

/// A variant that is on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate(Option<String>);

impl Candidate {
    fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let variant = variant.filter(|v| !v.is_empty()).map(|v| format!("/{v}")).unwrap_or_default();
        Self(Some(format!("{os}/{architecture}{variant}")))
    }

    pub(super) fn of(descriptor: &Descriptor) -> Self {
        descriptor.platform().as_ref().map_or_else(Self::unknown, |p| {
            Self::new(&p.os().to_string(), &p.architecture().to_string(), p.variant().as_deref())
        })
    }

    /// One that does not say what it is for.
    fn unknown() -> Self {
        Self(None)
    }

    /// Whether it runs here; true if it does not say.
    pub(super) fn fits(&self) -> bool {
        self.0.as_ref().is_none_or(|p| *p == wanted() || *p == format!("{}/v1", wanted()))
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("an unnamed platform"))
    }
}

pub(super) fn wanted() -> String {
    format!("{OS}/{ARCHITECTURE}")
}

/// Refuses an image that says of itself that it is for another platform.
pub(super) fn check(config: &ImageConfiguration) -> Result<(), Error> {
    let own = Candidate::new(&config.os().to_string(), &config.architecture().to_string(), None);
    if own.fits() { Ok(()) } else { Err(Error::NoPlatform { wanted: wanted(), present: own.to_string() }) }
}

/// The place of the best variant.
pub(super) fn choose(candidates: &[Candidate]) -> Result<usize, Error> {
    let named = candidates.iter().position(|c| c.0.is_some() && c.fits());
    named.or_else(|| candidates.iter().position(Candidate::fits)).ok_or_else(|| {
        let present = candidates.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Error::NoPlatform { wanted: wanted(), present }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variant_for_this_machine_is_taken() {
        let arm = Candidate::new("linux", "arm64", Some("v8"));
        let here = Candidate::new("linux", "amd64", None);
        // Build attestations are listed like platforms.
        let attestation = Candidate::new("unknown", "unknown", None);
        assert_eq!(choose(&[arm.clone(), attestation.clone(), here]).unwrap(), 2);
        assert_eq!(choose(&[arm.clone(), Candidate::unknown()]).unwrap(), 1);
        let Err(Error::NoPlatform { present, .. }) = choose(&[arm, attestation]) else { panic!() };
        assert_eq!(present, "linux/arm64/v8, unknown/unknown");
    }
}
