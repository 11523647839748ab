//! Hard links, owners, modes, device nodes, pipes, long names, holes, attributes: as the layer has them, so the container.

use anyhow::{Result, ensure};
use tar::EntryType;

use crate::archive::{Layer, busybox_layer, header};
use crate::{Host, Outcome};

/// `security.capability`, version 2, effective: permitted CAP_CHOWN alone.
const CAP_CHOWN: [u8; 20] = [1, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const SCRIPT: &str = "cd /k; stat -c '%n %h' one two; cmp one two && cat one; \
    stat -c '%a %u:%g %Y' owned; stat -c '%a' setuid sticky; stat -c '%F %t:%T' null disk; stat -c '%F' pipe; \
    readlink dangling; cat link; ls deep* | wc -c; cat $(echo deep*)/n*; \
    stat -c '%s' holes; tail -c 4 holes; head -c 5000000 holes | md5sum; echo x > /dev/null";

pub fn run(host: &Host) -> Result<Outcome> {
    let long = "n".repeat(250);
    let deep = format!("k/deep{}", "p".repeat(200));
    let mut owned = header(0o640)?;
    owned.set_uid(70_000);
    owned.set_gid(80_000);
    let mut holes = vec![0u8; 12 << 20];
    holes.extend_from_slice(b"end\n");
    let layer = Layer::default()
        .file("k/one", 0o644, b"one\n")?
        .hard_link("k/two", "k/one")?
        .entry(EntryType::Regular, "k/owned", owned, b"")?
        .file("k/setuid", 0o6755, b"")?
        .directory("k/sticky", 0o1777)?
        .device(EntryType::Char, "k/null", (1, 3))?
        .device(EntryType::Block, "k/disk", (254, 70_000))?
        .device(EntryType::Fifo, "k/pipe", (0, 0))?
        .symlink("k/dangling", "/nowhere/at/all")?
        .symlink("k/link", "one")?
        .file(&format!("{deep}/{long}"), 0o644, b"deep\n")?
        .file("k/holes", 0o644, &holes)?;
    let image = host.load(&[busybox_layer(host)?, layer.finish()?])?;
    let out = host.dewar(&["run", "--rm", &image, "sh", "-c", SCRIPT]).finish()?.success()?;
    let expected = "one 2\ntwo 2\none\n640 70000:80000 1700000000\n6755\n1777\n\
        character special file 1:3\nblock special file fe:11170\nfifo\n/nowhere/at/all\none\n251\ndeep\n12582916\nend\n";
    // The last line is what md5sum says of five million zero bytes.
    ensure!(out.strip_prefix(expected) == Some("8649ae5a732bc808f228677b27a1e9b6  -\n"), "{out}");
    host.dewar(&["rmi", &image]).finish()?.success()?;
    attributes_count(host)?;
    Ok(Outcome::Passed)
}

/// A file capability is an extended attribute that shows in what a program may do.
fn attributes_count(host: &Host) -> Result<()> {
    let base = busybox_layer(host)?;
    let mut program = Vec::new();
    for entry in tar::Archive::new(base.as_slice()).entries()? {
        let mut entry = entry?;
        if entry.size() > program.len() as u64 {
            program.clear();
            std::io::Read::read_to_end(&mut entry, &mut program)?;
        }
    }
    let layer = Layer::default().xattr("security.capability", &CAP_CHOWN)?.file("cap/busybox", 0o755, &program)?;
    let image = host.load(&[base, layer.finish()?])?;
    let script = "/cap/busybox grep CapEff /proc/self/status; grep CapEff /proc/self/status";
    let out = host.dewar(&["run", "--rm", "-u", "1000", &image, "sh", "-c", script]).finish()?.success()?;
    ensure!(out == "CapEff:\t0000000000000001\nCapEff:\t0000000000000000\n", "{out}");
    host.dewar(&["rmi", &image]).finish()?.success()?;
    Ok(())
}
