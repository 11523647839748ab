//! A full disk under the store is said to be full, by `load`, `pull`, `run` and `create`; what was there before still works, and nothing half
//! made stays.

use std::fs;

use anyhow::{Result, ensure};
use dewar_test_registry::{Content, Server};

use crate::archive::{Layer, Layout, busybox_layer};
use crate::{Host, Mounted, Outcome, files_below};

pub fn run(host: &Host) -> Result<Outcome> {
    let Some(disk) = Mounted::tmpfs("16m")? else {
        return Ok(Outcome::Skipped("only root can mount a small filesystem".into()));
    };
    let host = host.with_root(disk.path());
    let image = host.load(&[busybox_layer(&host)?])?;
    let before = files_below(disk.path());

    // Bytes that no file system can leave out.
    let noise: Vec<u8> = (0u32..6 << 20).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let layer = Layer::default().file("large", 0o644, &noise)?.finish()?;
    let archive = Layout::new("large:case", std::slice::from_ref(&layer))?.to_tar()?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("large.tar").display().to_string();
    fs::write(&path, &archive)?;
    host.dewar(&["load", "-q"]).input(archive).finish()?.exits(1)?.complains("No space is left")?;
    host.dewar(&["load", "-q", "-i", &path]).finish()?.exits(1)?.complains("No space is left")?;
    let server = {
        let mut content = Content::default();
        content.image("large", "1", &[layer]);
        content.image("small", "1", &[busybox_layer(&host)?, Layer::default().file("own", 0o644, b"own")?.finish()?]);
        Server::start(None, move |request| content.answer(request))?
    };
    let name = format!("{}/large:1", server.address());
    host.dewar(&["pull", "-q", &name]).finish()?.exits(1)?.complains("No space is left")?;
    for verb in ["run", "create"] {
        host.dewar(&[verb, &name, "true"]).finish()?.exits(125)?.complains("No space is left")?;
    }
    ensure!(files_below(disk.path()) == before, "files are left: {:?}", files_below(disk.path()));

    fills_up_at_every_step(&host, &disk, &format!("{}/small:1", server.address()))?;

    let filler = disk.path().join("filler");
    // It fills what is left: that it cannot be written whole is the purpose.
    let full = fs::write(&filler, vec![0x5a; 32 << 20]);
    ensure!(full.is_err(), "the disk took 32 MiB");
    for verb in ["run", "create"] {
        host.dewar(&[verb, &image, "true"]).finish()?.exits(125)?.complains("o space")?;
        host.nothing_left()?;
    }
    fs::remove_file(&filler)?;
    host.dewar(&["run", "--rm", &image, "true"]).finish()?.success()?;
    host.nothing_left()?;
    Ok(Outcome::Passed)
}

/// Of an image that is here but for a small layer, every file in turn is the one for which there is no room.
fn fills_up_at_every_step(host: &Host, disk: &Mounted, name: &str) -> Result<()> {
    const PAGE: u64 = 4096;
    const SIZE: u64 = 16 << 20;
    let filler = disk.path().join("filler");
    let before = files_below(disk.path());
    for pages in 0..32 {
        fs::write(&filler, vec![0x5a; usize::try_from(SIZE - disk.used()? - pages * PAGE)?])?;
        let pulled = host.dewar(&["pull", "-q", name]).finish()?;
        fs::remove_file(&filler)?;
        if pulled.code == 0 {
            ensure!(pages > 2, "only {pages} pulls found the disk full");
            host.dewar(&["rmi", name]).finish()?.success()?;
            ensure!(files_below(disk.path()) == before, "{:?}", files_below(disk.path()));
            return Ok(());
        }
        pulled.exits(1)?.complains("No space is left")?;
        ensure!(files_below(disk.path()) == before, "with {pages} pages: {:?}", files_below(disk.path()));
    }
    anyhow::bail!("a pull needs more than 32 pages")
}
