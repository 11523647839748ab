//! Little that becomes much when it is decompressed: what is nothing but zeros costs no disk as a layer, and what has to be
//! stored ends at the disk's limit with a sentence; nothing of it stays.

use std::io::Read;

use anyhow::{Result, ensure};
use flate2::Compression;
use flate2::read::GzEncoder;
use tar::EntryType;

use crate::archive::{Layout, digest_of, header};
use crate::{Host, Mounted, Outcome, files_below};

const SIZE: u64 = 32 << 20;

pub fn run(host: &Host) -> Result<Outcome> {
    let Some(disk) = Mounted::tmpfs("20m")? else {
        return Ok(Outcome::Skipped("only root can mount a small filesystem".into()));
    };
    let host = host.with_root(disk.path());
    host.dewar(&["load", "-q"]).finish()?.exits(1)?;
    let before = files_below(disk.path());
    let layer = || -> Result<_> {
        let mut header = header(0o644)?;
        header.set_path("zeros")?;
        header.set_entry_type(EntryType::Regular);
        header.set_size(SIZE);
        header.set_cksum();
        let end = std::io::repeat(0).take(1024);
        Ok(std::io::Cursor::new(header.as_bytes().to_vec()).chain(std::io::repeat(0).take(SIZE)).chain(end))
    };
    let mut bomb = Vec::new();
    GzEncoder::new(layer()?, Compression::fast()).read_to_end(&mut bomb)?;
    let layout = Layout::with_diff_ids("bomb:case", &[bomb.clone()], vec![digest_of(layer()?)?])?;
    host.dewar(&["load", "-q"]).input(layout.to_tar()?).finish()?.success()?;
    let on_disk = disk.used()?;
    ensure!(on_disk < 8 << 20, "{SIZE} zero bytes cost {on_disk}");
    host.dewar(&["rmi", "bomb:case"]).finish()?.success()?;

    // An archive that is compressed as a whole is stored on its way, zeros or not.
    host.dewar(&["load", "-q"]).input(bomb).finish()?.exits(1)?.complains("No space is left")?;
    let left: Vec<_> = files_below(disk.path()).into_keys().filter(|path| !before.contains_key(path)).collect();
    ensure!(left.iter().all(|path| path.ends_with("images.json")), "files are left: {left:?}");
    Ok(Outcome::Passed)
}
