//! Changed limits in a container's files.

use std::fs;
use std::path::Path;

use oci_spec::runtime::{LinuxResources, Spec};
use serde_json::Value;

use super::Container;
use crate::{Error, ErrorKind, ResultExt};

impl Container {
    /// The OCI configuration that its next start hands to the guest.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn spec(&self) -> Result<Spec, Error> {
        let path = self.dir.join("spec.json");
        let text = fs::read(&path).context(|| format!("Cannot read {}", path.display()))?;
        serde_json::from_slice(&text).context(|| format!("Cannot read {}", path.display()))
    }

    /// Lays `changes`, the JSON of parts of OCI `linux.resources`, over those of its configuration. The caller holds the
    /// container's lock.
    ///
    /// # Errors
    /// When the files cannot be read or written, and [`ErrorKind::Invalid`] when the changes are no resources.
    pub(crate) fn change_limits(&self, changes: &[u8]) -> Result<(), Error> {
        let foreign = || "The limits are not resources of the OCI runtime specification".to_owned();
        serde_json::from_slice::<LinuxResources>(changes).kind(ErrorKind::Invalid, foreign)?;
        let changes: Value = serde_json::from_slice(changes).kind(ErrorKind::Invalid, foreign)?;
        let path = self.dir.join("spec.json");
        let text = fs::read(&path).context(|| format!("Cannot read {}", path.display()))?;
        let mut spec: Value = serde_json::from_slice(&text).context(|| format!("Cannot read {}", path.display()))?;
        lay_over(&mut spec, serde_json::json!({"linux": {"resources": changes}}));
        let bytes = serde_json::to_vec(&spec).context(|| "Cannot encode the specification".into())?;
        replace(&path, &bytes)
    }

    /// Replaces the size of the machine that its next start makes. The caller holds the container's lock.
    pub(crate) fn resize_machine(&mut self, vcpus: u8, memory_mib: u64) -> Result<(), Error> {
        (self.config.vcpus, self.config.memory_mib) = (vcpus, memory_mib);
        let bytes = serde_json::to_vec(&self.config).context(|| "Cannot encode a container's configuration".into())?;
        replace(&self.dir.join("config.json"), &bytes)
    }
}

/// A file is always whole: the old or the new one.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let fresh = path.with_extension("json.new");
    fs::write(&fresh, bytes)
        .and_then(|()| fs::rename(&fresh, path))
        .inspect_err(|_| drop(fs::remove_file(&fresh)))
        .context(|| format!("Cannot write {}", path.display()))
}

/// Objects are merged, anything else replaced.
fn lay_over(base: &mut Value, changes: Value) {
    match (base, changes) {
        (Value::Object(base), Value::Object(changes)) => {
            for (key, change) in changes {
                lay_over(base.entry(key).or_insert(Value::Null), change);
            }
        }
        (base, changes) => *base = changes,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_are_laid_over_the_whole() {
        let mut base = json!({"a": 1, "linux": {"resources": {"memory": {"limit": 1, "swap": 2}, "list": [1, 2]}}});
        lay_over(
            &mut base,
            json!({"linux": {"resources": {"memory": {"limit": 5}, "list": [3], "pids": {"limit": 7}}}}),
        );
        let expected = json!({"memory": {"limit": 5, "swap": 2}, "list": [3], "pids": {"limit": 7}});
        assert_eq!(base, json!({"a": 1, "linux": {"resources": expected}}));
    }
}
