//! One boot of the lab: disks in, command line, output through, results back.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};
use dewar_rootfs::cpio::Archive;
use rustix::fs::{CWD, FileType, Mode};

use crate::packages;
use crate::places::Places;

/// What TCG cannot emulate is named, so that QEMU does not warn about it at each start.
const CPU: &str = "EPYC-Rome,+svm,+npt,-rdseed,-sha-ni,-rdpid,-fxsr-opt,-misalignsse,-3dnowprefetch,-osvw,-topoext,\
                   -perfctr-core,-clzero,-xsaveerptr,-wbnoinvd,-ibpb,-amd-stibp,-nrip-save,-xsavec,-xsaves";
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check \
                       random.trust_cpu=on audit=0";
/// Sparse; the job goes in and the results come back.
const EXCHANGE_MIB: u64 = 512;
const MIB: u64 = 1 << 20;
/// Exit code when the lab itself failed.
const LAB_FAILED: u8 = 125;

/// A host folder in the lab, read-only.
#[derive(Debug, Clone)]
pub struct Disk {
    pub from: PathBuf,
    /// Absolute path in the lab.
    pub at: String,
}

/// What is to be run.
#[derive(Debug)]
pub struct Job {
    pub deterministic: bool,
    pub smp: u32,
    pub memory_mib: u32,
    pub disks: Vec<Disk>,
    /// Host files that appear, executable, in /run/lab under their own names.
    pub files: Vec<PathBuf>,
    /// `K=V`.
    pub env: Vec<String>,
    /// Empty: a shell on this terminal.
    pub command: Vec<OsString>,
    /// Where /out lands.
    pub out: Option<PathBuf>,
}

/// How a job ended.
#[derive(Debug)]
pub struct Ended {
    pub code: u8,
    /// What it wrote on standard output, which was passed on as it came.
    pub output: Vec<u8>,
}

/// The image and the scripts to boot.
#[derive(Debug)]
pub struct Lab {
    image: PathBuf,
    scripts: PathBuf,
}

impl Lab {
    pub fn new(places: &Places, image: PathBuf) -> Self {
        Self { image, scripts: places.root.join("tests/lab") }
    }

    /// Boots, runs the job with its output passed through, and answers how it ended.
    pub fn run(&self, job: &Job) -> Result<Ended> {
        let run = tempfile::Builder::new().prefix("dewar-lab").tempdir().context("Failed to make a folder")?;
        let dir = run.path();
        let mut qemu = self.command(job, dir)?;
        if job.command.is_empty() {
            let status = qemu.args(["-serial", "mon:stdio"]).status().context("Failed to run QEMU")?;
            return Ok(Ended { code: if status.success() { 0 } else { LAB_FAILED }, output: Vec::new() });
        }
        let console = dir.join("console");
        qemu.args(["-serial", &format!("file:{}", console.display()), "-device", "virtio-serial-pci"]);
        let out = channel(&mut qemu, dir, "out", Box::new(io::stdout()))?;
        let err = channel(&mut qemu, dir, "err", Box::new(io::stderr()))?;
        let status = qemu.stdin(Stdio::null()).status().context("Failed to run QEMU")?;
        if !status.success() {
            // Before QEMU opens them the fifos have no writer and their readers would wait for ever.
            bail!("QEMU failed ({status})");
        }
        let output = out.join().map_err(|_| anyhow!("A thread panicked"))?;
        err.join().map_err(|_| anyhow!("A thread panicked"))?;
        Ok(Ended { code: results(job, dir, &console)?, output })
    }

    fn command(&self, job: &Job, dir: &Path) -> Result<Command> {
        let initrd = dir.join("initrd.cpio");
        self.write_initrd(&initrd)?;
        let exchange = dir.join("exchange.img");
        write_job(job, dir, &exchange)?;
        let mut qemu = Command::new(packages::find_tool("qemu-system-x86_64")?);
        qemu.args(["-nodefaults", "-display", "none", "-no-reboot", "-M", "q35,hpet=off,smm=off", "-cpu", CPU]);
        let memory = job.memory_mib;
        qemu.args(["-m", &format!("{memory}M,maxmem={}M,slots=1", memory + 65536)]);
        if job.deterministic {
            qemu.args(["-smp", "1", "-accel", "tcg,thread=single,tb-size=512", "-icount", "shift=0,sleep=off"]);
        } else {
            qemu.args(["-smp", &job.smp.to_string(), "-accel", "tcg,thread=multi,tb-size=512"]);
        }
        qemu.arg("-kernel").arg(self.image.join("vmlinux")).arg("-initrd").arg(&initrd).args(["-append", CMDLINE]);
        add_disk(&mut qemu, 0, &self.image.join("root.img"), false)?;
        add_disk(&mut qemu, 1, &exchange, true)?;
        for (index, disk) in job.disks.iter().enumerate() {
            let image = dir.join(format!("disk{index}.img"));
            make_disk(&disk.from, &image)?;
            add_disk(&mut qemu, index + 2, &image, false)?;
        }
        Ok(qemu)
    }

    fn write_initrd(&self, target: &Path) -> Result<()> {
        let read = |path: PathBuf| fs::read(&path).with_context(|| format!("Failed to read {}", path.display()));
        let file = File::create(target).with_context(|| format!("Failed to create {}", target.display()))?;
        let mut archive = Archive::new(BufWriter::new(file));
        for name in ["bin", "mod", "proc", "sys", "dev", "new"] {
            archive.dir(name, 0o755)?;
        }
        archive.char_device("dev/console", 0o600, (5, 1))?;
        archive.file("bin/busybox", 0o755, &read(self.image.join("busybox"))?)?;
        archive.file("init", 0o755, &read(self.scripts.join("initrd-init.sh"))?)?;
        archive.file("main.sh", 0o755, &read(self.scripts.join("main.sh"))?)?;
        let list = read(self.image.join("modules/list"))?;
        for name in String::from_utf8_lossy(&list).lines() {
            archive.file(&format!("mod/{name}"), 0o644, &read(self.image.join("modules").join(name))?)?;
        }
        archive.file("mod/list", 0o644, &list)?;
        archive.finish()?.into_inner().map(|_| ()).context("Failed to write the lab's initramfs")
    }
}

/// A virtio-pmem device: reads are memory accesses, so no run waits for the host's disk. A private mapping is
/// copy-on-write for nothing.
fn add_disk(qemu: &mut Command, index: usize, image: &Path, shared: bool) -> Result<()> {
    let size = fs::metadata(image).with_context(|| format!("Failed to look at {}", image.display()))?.len();
    let mib = size.div_ceil(2 * MIB) * 2;
    let share = if shared { "on" } else { "off" };
    let path = image.display();
    qemu.args(["-object", &format!("memory-backend-file,id=m{index},mem-path={path},size={mib}M,share={share}")]);
    qemu.args(["-device", &format!("virtio-pmem-pci,memdev=m{index},id=p{index}")]);
    Ok(())
}

/// Packs a folder into an ext4 image (which, unlike others, keeps holes).
fn make_disk(from: &Path, image: &Path) -> Result<()> {
    let bytes = allocated(from).with_context(|| format!("Failed to measure {}", from.display()))?;
    let mib = (bytes / MIB * 5 / 4 + 32).next_multiple_of(2);
    let output = Command::new(packages::find_tool("mke2fs")?)
        .args(["-q", "-t", "ext4", "-F", "-m", "0", "-O", "^has_journal", "-d"])
        .arg(from)
        .arg(image)
        .arg(format!("{mib}M"))
        .output()
        .context("Failed to run mke2fs")?;
    if !output.status.success() {
        bail!("Failed to pack {}: {}", from.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn allocated(path: &Path) -> io::Result<u64> {
    let meta = fs::symlink_metadata(path)?;
    let mut bytes = meta.blocks() * 512 + 4096;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += allocated(&entry?.path())?;
        }
    }
    Ok(bytes)
}

/// The exchange disk: a tar with the job, its environment, its disks' places and its files.
fn write_job(job: &Job, dir: &Path, exchange: &Path) -> Result<()> {
    let files = dir.join("in");
    fs::create_dir(&files)?;
    let mut env = String::new();
    for pair in &job.env {
        let (key, value) = pair.split_once('=').with_context(|| format!("--env {pair} is not K=V"))?;
        env.push_str(&format!("export {key}={}\n", String::from_utf8_lossy(&quote(value.as_bytes()))));
    }
    fs::write(files.join("env"), env)?;
    let places: String = job.disks.iter().enumerate().map(|(i, d)| format!("{} {}\n", i + 2, d.at)).collect();
    fs::write(files.join("disks"), places)?;
    if !job.command.is_empty() {
        let mut line = b"exec".to_vec();
        for word in &job.command {
            line.push(b' ');
            line.extend_from_slice(&quote(word.as_bytes()));
        }
        line.push(b'\n');
        fs::write(files.join("job"), line)?;
    }
    for file in &job.files {
        let name = file.file_name().with_context(|| format!("{} has no name", file.display()))?;
        fs::copy(file, files.join(name)).with_context(|| format!("Failed to copy {}", file.display()))?;
    }
    let tar = Command::new("tar").arg("-C").arg(&files).arg("-cf").arg(exchange).arg(".").status()?;
    if !tar.success() {
        bail!("Failed to pack the lab's job");
    }
    File::options().write(true).open(exchange)?.set_len(EXCHANGE_MIB * MIB).context("Failed to size a disk")
}

/// For a shell: in single quotes, with those inside escaped.
fn quote(word: &[u8]) -> Vec<u8> {
    let mut out = vec![b'\''];
    for byte in word {
        match byte {
            b'\'' => out.extend_from_slice(b"'\\''"),
            other => out.push(*other),
        }
    }
    out.push(b'\'');
    out
}

/// A byte channel out of the lab: a virtio port whose host side is a fifo (QEMU's own stdio hangs a port up when input
/// ends). The thread answers what came, after having passed it on.
fn channel(qemu: &mut Command, dir: &Path, name: &str, mut sink: Box<dyn Write + Send>) -> Result<JoinHandle<Vec<u8>>> {
    let path = dir.join(name);
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).context("Failed to make a fifo")?;
    qemu.args(["-chardev", &format!("file,id={name},path={}", path.display())]);
    qemu.args(["-device", &format!("virtserialport,chardev={name},name=lab.{name}")]);
    Ok(std::thread::spawn(move || {
        let mut all = Vec::new();
        let Ok(mut fifo) = File::open(path) else { return all };
        let mut buffer = [0; 65536];
        while let Ok(n @ 1..) = fifo.read(&mut buffer) {
            let bytes = buffer.get(..n).unwrap_or_default();
            all.extend_from_slice(bytes);
            // Whoever reads this may have gone; the lab's run ends all the same.
            let _ = sink.write_all(bytes).and_then(|()| sink.flush());
        }
        all
    }))
}

/// Takes /out back from the exchange disk.
fn results(job: &Job, dir: &Path, console: &Path) -> Result<u8> {
    let back = dir.join("back");
    fs::create_dir(&back)?;
    let mut exchange = File::open(dir.join("exchange.img"))?;
    exchange.rewind()?;
    let tar =
        Command::new("tar").arg("-C").arg(&back).arg("-xf").arg("-").stdin(exchange).stderr(Stdio::null()).status()?;
    let code = fs::read_to_string(back.join(".rc")).ok().and_then(|text| text.trim().parse::<u8>().ok());
    let (true, Some(code)) = (tar.success(), code) else {
        let text = fs::read(console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        bail!("The lab ended without a result; its console:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
    };
    if let Some(out) = &job.out {
        fs::remove_file(back.join(".rc"))?;
        fs::create_dir_all(out)?;
        let status = Command::new("cp").arg("-a").arg(back.join(".")).arg(out).status()?;
        if !status.success() {
            bail!("Failed to copy the lab's results to {}", out.display());
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for word in ["plain", "two words", "it's", "$HOME `x` \"y\" \\ \n", ""] {
            let line = [b"printf %s ".as_slice(), &quote(word.as_bytes())].concat();
            let output = Command::new("sh").arg("-c").arg(std::ffi::OsStr::from_bytes(&line)).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), word);
        }
    }

    #[test]
    fn a_folder_s_size_counts_what_is_allocated() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        fs::write(dir.path().join("data"), vec![1; 100_000]).unwrap();
        let bytes = allocated(dir.path()).unwrap();
        assert!((100_000..1 << 20).contains(&bytes), "{bytes}");
    }
}
