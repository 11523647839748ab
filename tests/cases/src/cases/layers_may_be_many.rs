//! An image of forty-one layers runs, the uppermost one that has a name wins, and rewriting works.

use anyhow::{Result, ensure};

use crate::archive::{Layer, busybox_layer};
use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let mut layers = vec![busybox_layer(host)?];
    for i in 1..=40 {
        let layer = Layer::default().file(&format!("own/{i}"), 0o644, b"")?;
        let layer = layer.file("top", 0o644, format!("{i}\n").as_bytes())?;
        layers.push(layer.finish()?);
    }
    let image = host.load(&layers)?;
    let script = "ls /own | wc -l; cat /top; echo new > /top; cat /top; rm /own/1; ls /own | wc -l";
    let out = host.dewar(&["run", "--rm", &image, "sh", "-c", script]).finish()?.success()?;
    ensure!(out == "40\n40\nnew\n39\n", "{out}");
    host.dewar(&["rmi", &image]).finish()?.success()?;
    Ok(Outcome::Passed)
}
