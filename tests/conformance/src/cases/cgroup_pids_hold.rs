//! A container cannot have more processes than pids.limit.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/linux/resources/pids", json!({ "limit": 8 }));
    let out = bundle.sh("i=0; while [ $i -lt 20 ]; do sleep 1000 & i=$((i + 1)); done 2>/dev/null; echo forked");
    // The shell itself gives up at the first fork that fails, or goes on: it must not have come to twenty.
    match out {
        Ok(_) => {
            let out = bundle.sh("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do (sleep 1000 &) ; done; echo all")?;
            ensure!(!out.contains("all"), "twelve processes beside the first");
            Ok(())
        }
        Err(_) => Ok(()),
    }
}
