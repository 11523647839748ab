//! `diff` tells what a container changed, and `commit` makes an image of it.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let name = engine.host.name();
    engine.ok(&engine.run_args(&["--name", &name], &["sh", "-c", "echo new >/added; echo x >>/etc/group"]))?;
    let diff = engine.ok(&["diff", &name])?;
    for line in ["A /added", "C /etc/group"] {
        ensure!(diff.lines().any(|l| l == line), "no {line:?} in {diff}");
    }
    let image = format!("localhost/{name}");
    engine.ok(&["commit", &name, &image])?;
    let told = engine.ok(&["run", "--rm", "--network", "none", &image, "cat", "/added"])?;
    ensure!(told == "new", "{told}");
    engine.ok(&["rm", &name])?;
    engine.ok(&["rmi", &image])?;
    Ok(())
}
