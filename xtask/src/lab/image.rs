//! What the lab boots, made once: `root.img` (ext4), `vmlinux` (ELF) and `modules/` (what the initramfs loads).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::debian::{self, RELEASE};
use crate::packages;
use crate::places::Places;
use crate::step::{Outcome, Step};

/// Change it when the same inputs would give another image.
const RECIPE: &str = "1";
/// Sparse.
const ROOT_MIB: u64 = 6144;
/// Modules that the initramfs needs to reach the root disk, with what they depend on.
const EARLY_MODULES: [&str; 4] = ["virtio_pci", "nd_pmem", "virtio_pmem", "virtio_console"];

/// Builds the image unless it is in the cache; answers its folder.
pub fn build(step: &mut Step, places: &Places) -> Result<(PathBuf, Outcome)> {
    let list = places.root.join("tests/lab/packages.txt");
    let list = fs::read_to_string(&list).with_context(|| format!("Failed to read {}", list.display()))?;
    let names: Vec<&str> = list.lines().filter(|l| !l.starts_with('#')).flat_map(str::split_whitespace).collect();
    let inputs = [RECIPE, RELEASE, &names.join(" ")].concat();
    debian::folder(places, "lab", &inputs, |work| bootstrap(step, work, &names))
}

fn bootstrap(step: &mut Step, work: &Path, names: &[&str]) -> Result<()> {
    let root = work.join("root");
    let mut mmdebstrap = debian::mmdebstrap(names);
    mmdebstrap.arg(RELEASE).arg(&root);
    step.command_with_progress(&mut mmdebstrap, |line| Some(line.chars().take(60).collect()))?;
    let bzimage = add_kernel(step, work, &root)?;
    extract_kernel(&bzimage, &work.join("vmlinux"))?;
    configure(&root)?;
    early_modules(&root, &work.join("modules"))?;
    fs::copy(root.join("bin/busybox"), work.join("busybox")).context("Failed to copy the lab's busybox")?;
    let image = work.join("root.img");
    let mut mke2fs = Command::new(packages::find_tool("mke2fs")?);
    mke2fs.args(["-q", "-t", "ext4", "-F", "-m", "0", "-O", "^has_journal"]);
    mke2fs.args(["-E", "lazy_itable_init=1", "-d"]).arg(&root).arg(&image).arg(format!("{ROOT_MIB}M"));
    step.command(&mut mke2fs)?;
    fs::remove_dir_all(&root).with_context(|| format!("Failed to remove {}", root.display()))
}

/// Unpacks Debian's cloud kernel into the root: unpacked, not installed, so that no initramfs generator runs.
fn add_kernel(step: &mut Step, work: &Path, root: &Path) -> Result<PathBuf> {
    let output = Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let name = text.lines().find_map(|l| l.trim().strip_prefix("Depends: ").filter(|n| n.starts_with("linux-image-")));
    let name = name.context("No kernel for the lab: `apt-get update`, then again")?;
    let packages = work.join("kernel");
    fs::create_dir_all(&packages)?;
    step.command(Command::new("apt-get").args(["download", "-q", name]).current_dir(&packages))?;
    let package = fs::read_dir(&packages)?.next().context("apt-get downloaded nothing")??.path();
    let unpacked = packages.join("unpacked");
    step.command(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
    let modules = only_entry(&unpacked.join("lib/modules"))?;
    let version = modules.file_name().context("The kernel has no version")?.to_owned();
    let target = root.join("usr/lib/modules");
    fs::create_dir_all(&target)?;
    step.command(Command::new("cp").arg("-a").arg(&modules).arg(&target))?;
    // Without their debug information and signatures modules load faster, which counts under emulation.
    let find = Command::new("find").arg(target.join(&version)).args(["-name", "*.ko", "-print0"]).output()?;
    for batch in find.stdout.split(|b| *b == 0).filter(|p| !p.is_empty()).collect::<Vec<_>>().chunks(500) {
        use std::os::unix::ffi::OsStrExt;
        step.command(Command::new("strip").arg("-d").args(batch.iter().map(|p| OsStr::from_bytes(p))))?;
    }
    step.command(Command::new(packages::find_tool("depmod")?).arg("-b").arg(root).arg(&version))?;
    let kernel = unpacked.join("boot").join(format!("vmlinuz-{}", version.to_string_lossy()));
    let bzimage = work.join("bzImage");
    fs::rename(&kernel, &bzimage).with_context(|| format!("Failed to move {}", kernel.display()))?;
    fs::remove_dir_all(&packages)?;
    Ok(bzimage)
}

fn only_entry(dir: &Path) -> Result<PathBuf> {
    Ok(fs::read_dir(dir)?.next().with_context(|| format!("{} is empty", dir.display()))??.path())
}

/// Takes the ELF out of a bzImage (Documentation/x86/boot.rst: setup_sects, payload_offset, payload_length), so that no
/// boot has to decompress it under emulation.
fn extract_kernel(bzimage: &Path, target: &Path) -> Result<()> {
    let image = fs::read(bzimage).with_context(|| format!("Failed to read {}", bzimage.display()))?;
    let number = |at: usize| -> Option<usize> {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    ensure!(image.get(0x202..0x206) == Some(b"HdrS"), "{} is not a bzImage", bzimage.display());
    let sectors = image.get(0x1f1).copied().filter(|n| *n > 0).unwrap_or(4);
    let place = || Some(((usize::from(sectors) + 1) * 512 + number(0x248)?, number(0x24c)?));
    let (start, length) = place().context("The kernel's boot header is truncated")?;
    let payload = image.get(start..start + length).context("The kernel's payload is truncated")?;
    // The kernel's build appends the unpacked size: xz complains about it and is told to stop before, lz4 would take it
    // for a block.
    let (tool, flags, payload) = if payload.starts_with(b"\xfd7zXZ\0") {
        ("xz", ["-dc", "--single-stream"], payload)
    } else if payload.starts_with(b"\x02\x21\x4c\x18") {
        ("lz4", ["-dc", "-q"], payload.get(..payload.len() - 4).unwrap_or_default())
    } else {
        bail!("The lab's kernel is compressed neither with xz nor with lz4");
    };
    let packed = target.with_extension("packed");
    fs::write(&packed, payload)?;
    let (reader, out) = (File::open(&packed)?, File::create(target)?);
    let mut unpack = Command::new(tool);
    unpack.args(flags).stdin(reader).stdout(out).stderr(Stdio::null());
    // Its exit code tells little about a truncated tail: the result is checked.
    unpack.status().with_context(|| format!("Failed to run {tool}"))?;
    fs::remove_file(&packed)?;
    let mut magic = [0; 4];
    File::open(target)?.read_exact(&mut magic).context("The lab's kernel does not unpack")?;
    if magic != *b"\x7fELF" {
        bail!("The lab's kernel does not unpack to an ELF");
    }
    Ok(())
}

fn configure(root: &Path) -> Result<()> {
    let write = |path: &str, text: &str| -> Result<()> {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("a relative path")?)?;
        let _ = fs::remove_file(&path);
        fs::write(&path, text).with_context(|| format!("Failed to write {}", path.display()))
    };
    write("etc/hostname", "lab\n")?;
    write("etc/hosts", "127.0.0.1 localhost lab\n::1 localhost\n")?;
    write("etc/resolv.conf", "")?;
    write(
        "etc/containers/containers.conf",
        "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"crun\"\n[containers]\nlog_driver = \"k8s-file\"\n",
    )?;
    write("etc/containers/policy.json", "{ \"default\": [ { \"type\": \"insecureAcceptAnything\" } ] }\n")?;
    for dir in ["mnt", "out", "opt/dewar"] {
        fs::create_dir_all(root.join(dir))?;
    }
    Ok(())
}

/// Copies the early modules in loading order; `list` names them.
fn early_modules(root: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target)?;
    let version = only_entry(&root.join("usr/lib/modules"))?;
    let version = version.file_name().context("The lab has no modules")?.to_owned();
    let modprobe = packages::find_tool("modprobe")?;
    let mut list: Vec<String> = Vec::new();
    for module in EARLY_MODULES {
        let output = Command::new(&modprobe)
            .arg("-d")
            .arg(root)
            .arg("-S")
            .arg(&version)
            .args(["--show-depends", module])
            .output()?;
        ensure!(output.status.success(), "modprobe does not know {module} in the lab's kernel");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for path in text.lines().filter_map(|l| l.strip_prefix("insmod ")).map(|l| Path::new(l.trim())) {
            let name = path.file_name().context("a module without a name")?.to_string_lossy().into_owned();
            if !list.contains(&name) {
                fs::copy(path, target.join(&name)).with_context(|| format!("Failed to copy {}", path.display()))?;
                list.push(name);
            }
        }
    }
    list.push(String::new());
    fs::write(target.join("list"), list.join("\n")).context("Failed to write the list of modules")
}
