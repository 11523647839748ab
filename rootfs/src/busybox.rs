//! The default image: Debian's static busybox with a link for each applet and the few files programs look for.

use std::collections::BTreeSet;
use std::io::{self, Write};

use crate::oci::{self, Entry, ImageConfig};

const PASSWD: &str = include_str!("../busybox/passwd");
const GROUP: &str = include_str!("../busybox/group");
/// Directories and their permissions, parents first.
const DIRS: [(&str, u32); 13] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("sbin", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
];
const VAR_DIRS: [(&str, u32); 3] = [("var/spool", 0o755), ("var/tmp", 0o1777), ("var/www", 0o755)];

/// Writes the image archive, named `busybox:latest`.
///
/// `binary` is a static busybox, `applets` its own `--list-full` (one path a line), `mtime` the time that all files and
/// the image carry, in seconds since the epoch.
pub fn write<W: Write>(binary: &[u8], applets: &str, mtime: u64, out: W) -> io::Result<W> {
    let layer = oci::layer(&entries(binary, applets), mtime)?;
    let config = ImageConfig {
        name: "busybox:latest".to_owned(),
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
        cmd: vec!["sh".to_owned()],
        created: mtime,
        history: "busybox-static, a link per applet, /etc".to_owned(),
    };
    oci::write_archive(&config, &[layer], out)
}

fn entries(binary: &[u8], applets: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = DIRS.iter().chain(&VAR_DIRS).map(|&(path, mode)| Entry::dir(path, mode)).collect();
    entries.push(Entry::file("bin/busybox", 0o755, binary));
    entries.push(Entry::file("etc/passwd", 0o644, PASSWD));
    entries.push(Entry::file("etc/group", 0o644, GROUP));
    // Sorted and once each: the list is what a program printed, not something to rely on.
    let links: BTreeSet<&str> = applets.lines().map(str::trim).filter(|path| is_applet_path(path)).collect();
    entries.extend(links.into_iter().map(|path| Entry::symlink(path, "/bin/busybox")));
    entries
}

/// A link goes only where a directory of ours is; `linuxrc` and the like are left out.
fn is_applet_path(path: &str) -> bool {
    let Some((dir, name)) = path.rsplit_once('/') else { return false };
    matches!(dir, "bin" | "sbin" | "usr/bin" | "usr/sbin") && !name.is_empty() && path != "bin/busybox"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::EntryKind;

    #[test]
    fn links_are_made_for_applets_in_known_directories_only() {
        let entries = entries(b"elf", "bin/sh\nusr/bin/awk\nlinuxrc\nbin/busybox\n../bin/x\nusr/bin/awk\n");
        let links: Vec<&str> = entries
            .iter()
            .filter(|entry| matches!(entry.kind, EntryKind::Symlink(_)))
            .map(|entry| entry.path.as_str())
            .collect();
        assert_eq!(links, ["bin/sh", "usr/bin/awk"]);
    }

    #[test]
    fn parents_come_before_children() {
        let entries = entries(b"elf", "usr/sbin/chroot");
        let position = |path: &str| entries.iter().position(|entry| entry.path == path).unwrap();
        for entry in &entries {
            if let Some((parent, _)) = entry.path.rsplit_once('/') {
                assert!(position(parent) < position(&entry.path), "{} before {parent}", entry.path);
            }
        }
    }

    #[test]
    fn the_user_files_are_well_formed() {
        assert!(PASSWD.lines().all(|line| line.split(':').count() == 7));
        assert!(GROUP.lines().all(|line| line.split(':').count() == 4));
    }
}
