//! Seccomp: docker's default behaviour, and profiles that a user names.
//!
//! A profile is rules with conditions (`includes`, `excludes`) on the architecture, the container's capabilities and the
//! kernel's version; they are decided here, so that the guest gets the plain list of the OCI specification. The kernel
//! is the guest's. The default profile is written as such rules in `table`.

mod profile;
mod table;

use oci_spec::runtime::{Capabilities, LinuxSeccomp};

use super::SpecError;

/// The least kernel version that Dewar runs containers on.
const GUEST_KERNEL: (u32, u32) = (5, 4);
/// Go's names of what programs in the guest may be built for, as docker's profiles have them.
const GUEST_ARCHES: [&str; 1] = ["amd64"];

/// What docker does when no profile is named: everything that is not known to be harmless fails with EPERM.
#[must_use]
pub fn default_profile(capabilities: &Capabilities) -> LinuxSeccomp {
    table::profile().decide(capabilities)
}

/// A profile in docker's JSON or in that of the OCI specification's `linux.seccomp`.
///
/// # Errors
/// [`SpecError::Profile`] for other text, [`SpecError::ProfileRule`] for rules that contradict themselves.
pub fn profile(text: &str, capabilities: &Capabilities) -> Result<LinuxSeccomp, SpecError> {
    let profile: profile::Profile = serde_json::from_str(text).map_err(|source| SpecError::Profile { source })?;
    profile.check()?;
    Ok(profile.decide(capabilities))
}
