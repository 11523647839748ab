//! `features` is the specification's document of what the runtime knows.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    host.needs_verb("features")?;
    let text = host.runtime(&["features"])?.success()?;
    let features: Value = serde_json::from_str(&text)?;
    ensure!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string(), "{text}");
    let has = |pointer: &str, word: &str| {
        features.pointer(pointer).and_then(Value::as_array).is_some_and(|list| list.iter().any(|entry| entry == word))
    };
    ensure!(has("/hooks", "createRuntime") && has("/mountOptions", "ro"), "{text}");
    ensure!(has("/linux/namespaces", "pid") && has("/linux/capabilities", "CAP_KILL"), "{text}");
    Ok(())
}
