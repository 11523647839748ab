//! Whiteouts and opaque directories hide what lower layers have, and only that.

use anyhow::{Result, ensure};

use crate::archive::{Layer, busybox_layer};
use crate::{Host, Outcome};

const SCRIPT: &str = "cd /d; ls; cat changed; echo -- opaque; ls opaque; echo -- again; ls again; cat again/own; \
    echo -- was-dir; cat was-dir; echo -- was-file; ls was-file; echo -- late; ls late; test ! -e /gone && echo gone; \
    rm -r opaque && mkdir opaque && ls -a opaque | wc -l";

const EXPECTED: &str = "again\nchanged\nkept\nlate\nopaque\nwas-dir\nwas-file\nsecond\n-- opaque\nnew\n-- again\nown\nthird\n\
    -- was-dir\na file\n-- was-file\nx\n-- late\nstays\ngone\n2\n";

pub fn run(host: &Host) -> Result<Outcome> {
    let first = Layer::default()
        .directory("d/", 0o755)?
        .file("d/kept", 0o644, b"")?
        .file("d/removed", 0o644, b"")?
        .file("d/changed", 0o644, b"first\n")?
        .file("d/opaque/old", 0o644, b"")?
        .file("d/opaque/deep/old", 0o644, b"")?
        .file("d/again/old", 0o644, b"")?
        .file("d/was-dir/x", 0o644, b"")?
        .file("d/was-file", 0o644, b"")?
        .file("d/late/old", 0o644, b"")?
        .file("gone/with/all", 0o644, b"")?;
    let second = Layer::default()
        .file("d/.wh.removed", 0o644, b"")?
        .file("d/changed", 0o644, b"second\n")?
        .directory("d/opaque/", 0o755)?
        .file("d/opaque/.wh..wh..opq", 0o644, b"")?
        .file("d/opaque/new", 0o644, b"")?
        .file("d/.wh.again", 0o644, b"")?
        .file("d/.wh.was-dir", 0o644, b"")?
        .file("d/was-dir", 0o644, b"a file\n")?
        .file("d/.wh.was-file", 0o644, b"")?
        .file("d/was-file/x", 0o644, b"")?
        // The mark comes after what the layer itself brings, which stays.
        .file("d/late/stays", 0o644, b"")?
        .file("d/late/.wh..wh..opq", 0o644, b"")?
        .file(".wh.gone", 0o644, b"")?;
    let third = Layer::default().file("d/again/own", 0o644, b"third\n")?;
    let layers = [busybox_layer(host)?, first.finish()?, second.finish()?, third.finish()?];
    let image = host.load(&layers)?;
    let out = host.dewar(&["run", "--rm", &image, "sh", "-c", SCRIPT]).finish()?.success()?;
    ensure!(out == EXPECTED, "{out}");
    host.dewar(&["rmi", &image]).finish()?.success()?;
    Ok(Outcome::Passed)
}
