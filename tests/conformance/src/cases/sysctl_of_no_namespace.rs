//! A sysctl of a namespace that the container has not, and the host name, which has a field of its own, are errors.

use anyhow::Result;
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/linux/sysctl", json!({ "kernel.hostname": "other" })).is_refused()?;
    bundle.set("/linux/sysctl", json!({ "net.ipv4.ip_default_ttl": "77" }));
    bundle.set("/linux/namespaces", json!([{ "type": "mount" }, { "type": "pid" }, { "type": "uts" }]));
    bundle.is_refused().map(drop)
}
