//! A kind of namespace that is listed twice is refused.

use anyhow::Result;
use serde_json::json;

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.push("/linux/namespaces", json!({ "type": "uts" }));
    let (finished, _container) = bundle.try_create(&[])?;
    if finished.code == 0 {
        return skip("the runtime takes it, though the specification asks for an error");
    }
    finished.fails().map(drop)
}
