//! Layers that GNU tar packed, converted, and read back by others: the kernel's EROFS and `fsck.erofs --extract`. What they
//! show must be what GNU tar itself extracts. A part whose oracle is missing on this machine prints why it was skipped.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dewar_runtime::images::erofs::{Limits, convert};
use rustix::fs::{CWD, FileType, Mode};

/// Everything that must be equal for one name.
#[derive(Debug, PartialEq)]
struct Seen {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, i64),
    device: u64,
    links: u64,
    size: u64,
    content: Vec<u8>,
    xattrs: BTreeMap<OsString, Vec<u8>>,
    /// The first name of the same inode.
    same_as: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("Cannot run {program}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?}: {} {text}", output.status);
    Ok(())
}

fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|p| std::env::split_paths(&p).any(|d| d.join(program).exists()));
    if !found {
        eprintln!("skipped in part: {program} is not installed");
    }
    found
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

fn xattrs(path: &Path) -> Result<BTreeMap<OsString, Vec<u8>>> {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice())?;
    let mut found = BTreeMap::new();
    for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let name = OsString::from_vec(name.to_vec());
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(path, name.as_os_str(), value.as_mut_slice())?;
        value.truncate(length);
        found.insert(name, value);
    }
    Ok(found)
}

/// All names below `root`, with what the kernel says of them.
fn scan(root: &Path) -> Result<BTreeMap<PathBuf, Seen>> {
    let mut seen = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path)?;
        let name = path.strip_prefix(root)?.to_path_buf();
        let content = match meta.file_type() {
            t if t.is_symlink() => fs::read_link(&path)?.into_os_string().into_vec(),
            t if t.is_file() => digest(&path)?,
            t if t.is_dir() => {
                for entry in fs::read_dir(&path)? {
                    todo.push(entry?.path());
                }
                Vec::new()
            }
            _ => Vec::new(),
        };
        let directory = meta.is_dir();
        inodes.entry(meta.ino()).or_insert_with(Vec::new).push(name.clone());
        let one = Seen {
            mode: meta.mode(),
            uid: meta.uid(),
            gid: meta.gid(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            device: meta.rdev(),
            // The host's file systems count and measure directories each in their own way.
            links: if directory { 0 } else { meta.nlink() },
            size: if directory { 0 } else { meta.len() },
            content,
            xattrs: xattrs(&path)?,
            same_as: PathBuf::new(),
        };
        seen.insert(name, one);
    }
    for names in inodes.values() {
        let first = names.iter().min().context("An inode has a name")?;
        for name in names {
            seen.get_mut(name).context("Every name was seen")?.same_as = first.clone();
        }
    }
    Ok(seen)
}

/// A digest that passes over holes, so that huge sparse files take no time.
fn digest(path: &Path) -> Result<Vec<u8>> {
    use sha2::{Digest, Sha256};
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut position = 0;
    while position < length {
        // Not every file system knows where its holes are; then all is data.
        position = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(position)).unwrap_or(length);
        let got = file.read_at(&mut buffer, position)?;
        for (index, block) in buffer[..got].chunks(4096).enumerate() {
            if block.iter().any(|b| *b != 0) {
                hash.update((position + 4096 * index as u64).to_le_bytes());
                hash.update(block);
            }
        }
        position += got as u64;
    }
    Ok(hash.finalize().to_vec())
}

fn compare(expected: &BTreeMap<PathBuf, Seen>, found: &BTreeMap<PathBuf, Seen>) {
    for (name, one) in expected {
        assert_eq!(found.get(name), Some(one), "{}", name.display());
    }
    assert_eq!(found.len(), expected.len(), "there are names too many");
}

/// Something of each kind. As root also devices, owners and attributes that only root may set.
fn populate(root: &Path) -> Result<()> {
    fs::write(root.join("empty"), b"")?;
    for size in [1, 100, 2048, 2049, 4095, 4096, 4097, 6000, 8192, 70_000, 3_000_000] {
        let content: Vec<u8> = (0..size).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect();
        fs::write(root.join(format!("size-{size}")), content)?;
    }
    fs::write(root.join("zeros"), vec![0; 300_000])?;
    let mut mixed = vec![0u8; 1 << 20];
    mixed[0] = 1;
    mixed[500_000] = 2;
    mixed[600_000] = 3;
    mixed.extend_from_slice(b"tail");
    fs::write(root.join("mixed"), mixed)?;
    for (name, length) in [("sparse", 10_000_000), ("huge", 5u64 << 40), ("hole-only", 1 << 30)] {
        let file = File::create(root.join(name))?;
        file.set_len(length)?;
        if name != "hole-only" {
            file.write_at(b"middle", length / 2 + 77)?;
            file.write_at(b"end", length - 3)?;
        }
    }
    symlink("size-100", root.join("link"))?;
    symlink("/x".repeat(2000), root.join("long-link"))?;
    fs::hard_link(root.join("size-6000"), root.join("hard"))?;
    fs::hard_link(root.join("link"), root.join("hard-to-symlink"))?;
    rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
    let many = root.join("many");
    fs::create_dir(&many)?;
    for index in 0..3000 {
        fs::write(many.join(format!("{index:x}-{}", "n".repeat(index % 200))), index.to_string())?;
    }
    for odd in ["!", "-", ".hidden", "..two", "é", "a b\nc"] {
        fs::write(many.join(odd), odd)?;
    }
    let mut deep = root.join("deep");
    for _ in 0..12 {
        deep = deep.join("d".repeat(255));
    }
    fs::create_dir_all(&deep)?;
    fs::write(deep.join("bottom"), b"x")?;
    let big = vec![b'v'; 3000];
    for name in ["user.small", "user.big", "user.newline"] {
        let value = if name == "user.big" { big.as_slice() } else { b"a\nb=\0c" };
        if let Err(error) = rustix::fs::setxattr(root.join("size-2048"), name, value, rustix::fs::XattrFlags::empty()) {
            eprintln!("skipped in part: {name} cannot be set here: {error}");
        }
    }
    if rustix::process::geteuid().is_root() { populate_as_root(root) } else { Ok(()) }
}

fn populate_as_root(root: &Path) -> Result<()> {
    let device = |major, minor| rustix::fs::makedev(major, minor);
    for (name, kind, number) in [
        ("char", FileType::CharacterDevice, device(1, 3)),
        ("block", FileType::BlockDevice, device(8, 300)),
        ("whiteout", FileType::CharacterDevice, 0),
    ] {
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o640), number)
            .with_context(|| format!("Cannot make {name}"))?;
    }
    std::os::unix::fs::chown(root.join("size-100"), Some(70_000), Some(100_000))?;
    run("chmod", &["6755", utf8(&root.join("size-4096"))])?;
    run("chmod", &["1777", utf8(&root.join("many"))])?;
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(root.join("size-4097"), "security.capability", &capability, flags)?;
    rustix::fs::setxattr(root.join("deep"), "trusted.note", b"kept", flags)?;
    // version 2; user::rw-, user:1000:r--, group::r--, mask::r--, other::r--
    let mut acl = vec![2, 0, 0, 0];
    for (tag, rights, id) in
        [(1u16, 6u16, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 4, u32::MAX)]
    {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&rights.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    if let Err(error) = rustix::fs::setxattr(root.join("size-1"), "system.posix_acl_access", &acl, flags) {
        eprintln!("skipped in part: ACLs cannot be set here: {error}");
    }
    Ok(())
}

/// Mounts the image, or says why that cannot be.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: &Path) -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped in part: only root can mount");
            return Ok(None);
        }
        if !fs::read_to_string("/proc/filesystems")?.contains("erofs") {
            eprintln!("skipped in part: this kernel has no EROFS");
            return Ok(None);
        }
        if !Path::new("/dev/loop-control").exists() {
            eprintln!("skipped in part: there are no loop devices");
            return Ok(None);
        }
        fs::create_dir(at)?;
        run("mount", &["-t", "erofs", "-o", "loop,ro", utf8(image), utf8(at)])?;
        Ok(Some(Self(at.to_path_buf())))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[utf8(&self.0)]).expect("the test's own mount can be unmounted");
    }
}

fn check(format: &[&str]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (source, expected) = (dir.path().join("source"), dir.path().join("expected"));
    fs::create_dir(&source)?;
    fs::create_dir(&expected)?;
    populate(&source)?;
    let (tar, image) = (dir.path().join("layer.tar"), dir.path().join("layer.erofs"));
    let xattrs = ["--xattrs", "--xattrs-include=*"];
    let pack = ["-C", utf8(&source), "-cSf", utf8(&tar), "."];
    run("tar", &[format, xattrs.as_slice(), pack.as_slice()].concat())?;
    let unpack = ["-C", utf8(&expected), "-xpSf", utf8(&tar), "--numeric-owner"];
    run("tar", &[xattrs.as_slice(), unpack.as_slice()].concat())?;
    let expected = scan(&expected)?;
    convert(File::open(&tar)?, File::create(&image)?, &image, Limits::default())?;

    if let Some(mounted) = Mounted::new(&image, &dir.path().join("mount"))? {
        compare(&expected, &scan(&mounted.0)?);
    }
    if have("fsck.erofs") {
        run("fsck.erofs", &[utf8(&image)])?;
    }
    Ok(())
}

#[test]
fn gnu_archives_read_back_equal() {
    check(&["--format=gnu"]).unwrap();
}

#[test]
fn pax_archives_with_sparse_1_0_read_back_equal() {
    check(&["--format=posix", "--sparse-version=1.0"]).unwrap();
}

#[test]
fn pax_archives_with_sparse_0_1_read_back_equal() {
    check(&["--format=posix", "--sparse-version=0.1"]).unwrap();
}

#[test]
fn pax_archives_with_sparse_0_0_read_back_equal() {
    check(&["--format=posix", "--sparse-version=0.0"]).unwrap();
}

/// Without the kernel: contents of everything that is not sparse, as `fsck.erofs` extracts them.
#[test]
fn fsck_extracts_the_same_contents() {
    if !have("fsck.erofs") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    populate(&source).unwrap();
    // erofs-utils 1.5 leaves holes out when it extracts, so that what follows them moves.
    for name in ["huge", "hole-only", "sparse", "mixed", "zeros"] {
        fs::remove_file(source.join(name)).unwrap();
    }
    let (tar, image, out) = (dir.path().join("l.tar"), dir.path().join("l.erofs"), dir.path().join("out"));
    run("tar", &["-C", utf8(&source), "-cSf", utf8(&tar), "."]).unwrap();
    convert(File::open(&tar).unwrap(), File::create(&image).unwrap(), &image, Limits::default()).unwrap();
    run("fsck.erofs", &[&format!("--extract={}", utf8(&out)), utf8(&image)]).unwrap();
    let (expected, found) = (scan(&source).unwrap(), scan(&out).unwrap());
    assert_eq!(found.len(), expected.len());
    for (name, one) in expected {
        assert_eq!((&found[&name].content, found[&name].size), (&one.content, one.size), "{}", name.display());
    }
}
