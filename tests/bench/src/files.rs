//! Work on files that users' programs do: many small ones made and looked at, one large one read and written.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::stopwatch::{ms, now_ns, time};

/// Small amounts: where instructions are counted, each request over virtio-fs takes some milliseconds of true time.
pub const WORKS: [&str; 6] =
    ["untar of 100", "stat storm of 100", "sequential write", "sequential read", "random write", "random read"];
const FOLDERS: usize = 10;
const FILES: usize = 10;
const SMALL: usize = 4096;
const LARGE_MIB: usize = 16;
const MIB: usize = 1 << 20;
const PIECES: u64 = 100;

/// Lays out an archive and a large file.
pub fn prepare(dir: &Path) -> Result<()> {
    let source = dir.join("source");
    for folder in 0..FOLDERS {
        let folder = source.join(folder.to_string());
        fs::create_dir_all(&folder).context("cannot make a folder")?;
        for file in 0..FILES {
            fs::write(folder.join(file.to_string()), [b'x'; SMALL]).context("cannot write a file")?;
        }
    }
    time(Command::new("tar").arg("-cf").arg(dir.join("archive")).arg("-C").arg(&source).arg("."))?;
    fs::write(dir.join("large"), vec![b'x'; LARGE_MIB * MIB]).context("cannot write a file")
}

/// Does one kind of work below a prepared directory; answers milliseconds.
pub fn work(name: &str, dir: &Path) -> Result<f64> {
    let large = dir.join("large");
    let out = dir.join("out");
    if name.starts_with("untar") {
        match fs::remove_dir_all(&out) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                bail!("cannot remove {}: {error}", out.display())
            }
            _ => fs::create_dir(&out).context("cannot make a folder")?,
        }
    }
    let began = now_ns();
    match name {
        "untar of 100" => {
            time(Command::new("/bin/busybox").arg("tar").arg("-xf").arg(dir.join("archive")).arg("-C").arg(&out))?;
        }
        "stat storm of 100" => look_at_all(&dir.join("source"))?,
        "sequential write" => {
            let mut file = File::create(dir.join("written"))?;
            let piece = vec![b'y'; MIB];
            (0..LARGE_MIB).try_for_each(|_| file.write_all(&piece))?;
        }
        "sequential read" => {
            let mut file = File::open(&large)?;
            let mut piece = vec![0; MIB];
            while file.read(&mut piece)? > 0 {}
        }
        "random write" => {
            let file = OpenOptions::new().write(true).open(&large)?;
            places().try_for_each(|at| file.write_all_at(&[b'z'; SMALL], at))?;
        }
        "random read" => {
            let file = File::open(&large)?;
            let mut piece = [0; SMALL];
            places().try_for_each(|at| file.read_exact_at(&mut piece, at))?;
        }
        _ => bail!("no such work: {name:?}"),
    }
    Ok(ms(began, now_ns()))
}

fn look_at_all(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if fs::symlink_metadata(&path)?.is_dir() {
            look_at_all(&path)?;
        }
    }
    Ok(())
}

/// The same places in the large file each time, in no order (a linear congruential sequence).
fn places() -> impl Iterator<Item = u64> {
    let blocks = (LARGE_MIB * MIB / SMALL) as u64;
    (0..PIECES).scan(1_u64, move |state, _| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some((*state >> 33) % blocks * SMALL as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_works_are_done() {
        let dir = tempfile::tempdir().expect("a folder");
        prepare(dir.path()).expect("prepared");
        for name in WORKS.iter().filter(|name| !name.starts_with("untar")) {
            assert!(work(name, dir.path()).expect("done") > 0.0);
        }
        assert_eq!(fs::metadata(dir.path().join("written")).expect("written").len(), (LARGE_MIB * MIB) as u64);
        assert!(work("nothing", dir.path()).is_err());
    }
}
