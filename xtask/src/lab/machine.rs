//! One boot of the lab: disks in, command line, output through, results back.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use dewar_rootfs::cpio::Archive;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::watch::{Bounds, Channel, Channels, End, Passing, Watched, watch};
use crate::packages;
use crate::places::Places;

/// What TCG cannot emulate is named, so that QEMU does not warn about it at each start.
const CPU: &str = "EPYC-Rome,+svm,+npt,-rdseed,-sha-ni,-rdpid,-fxsr-opt,-misalignsse,-3dnowprefetch,-osvw,-topoext,\
                   -perfctr-core,-clzero,-xsaveerptr,-wbnoinvd,-ibpb,-amd-stibp,-nrip-save,-xsavec,-xsaves";
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 oops=panic mitigations=off nokaslr tsc=reliable no_timer_check \
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
    pub bounds: Bounds,
    pub passing: Passing,
}

/// How a job ended.
#[derive(Debug)]
pub struct Ended {
    pub code: u8,
    /// What it wrote on standard output, which was passed on as it came.
    pub output: Vec<u8>,
}

/// A boot, which may have died before its job ended.
#[derive(Debug)]
pub struct Boot {
    /// The job's exit code, or why there is none: a clause, and the console's last lines.
    pub code: Result<u8, Death>,
    /// What the job wrote on standard output, which was passed on as it came.
    pub output: Vec<u8>,
}

/// Why a boot left no result.
#[derive(Debug)]
pub struct Death {
    pub end: End,
    pub console: String,
}

impl Death {
    /// One line, and below it the console's last ones.
    pub fn report(&self) -> String {
        format!("The lab {}; the last lines of its console:\n{}", self.end.reason(), self.console)
    }
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
    ///
    /// # Errors
    /// Also when the machine dies before its job ends.
    pub fn run(&self, job: &Job) -> Result<Ended> {
        if job.command.is_empty() {
            return self.shell(job);
        }
        let Boot { code, output } = self.boot(job)?;
        match code {
            Ok(code) => Ok(Ended { code, output }),
            Err(death) => bail!("{}", death.report()),
        }
    }

    /// The same, when a death of the machine is an answer.
    ///
    /// # Errors
    /// When the machine cannot be started, or its results not be read.
    pub fn boot(&self, job: &Job) -> Result<Boot> {
        let run = run_folder()?;
        let dir = run.path();
        let mut qemu = self.command(job, dir)?;
        let console = channel(&mut qemu, dir, "console")?;
        qemu.args(["-serial", "chardev:console", "-device", "virtio-serial-pci"]);
        let [out, err] = ["out", "err"].map(|name| {
            let channel = channel(&mut qemu, dir, name)?;
            qemu.args(["-device", &format!("virtserialport,chardev={name},name=lab.{name}")]);
            Ok::<_, anyhow::Error>(channel)
        });
        let channels = Channels { out: out?, err: err?, console };
        let Watched { end, output, console } = watch(&mut qemu, channels, job.bounds, &job.passing)?;
        let code = match end {
            End::Exited(_) => results(job, dir)?,
            _ => None,
        };
        Ok(Boot { code: code.ok_or_else(|| Death { end, console: console.tail() }), output })
    }

    fn shell(&self, job: &Job) -> Result<Ended> {
        let run = run_folder()?;
        let status = self.command(job, run.path())?.args(["-serial", "mon:stdio"]).status();
        let status = status.context("Failed to run QEMU")?;
        Ok(Ended { code: if status.success() { 0 } else { LAB_FAILED }, output: Vec::new() })
    }

    fn command(&self, job: &Job, dir: &Path) -> Result<Command> {
        let initrd = dir.join("initrd.cpio");
        self.write_initrd(&initrd)?;
        let exchange = dir.join("exchange.img");
        write_job(job, dir, &exchange)?;
        let mut qemu = Command::new(packages::find_tool("qemu-system-x86_64")?);
        // SAFETY: between fork and exec it does nothing but one prctl call.
        unsafe {
            qemu.pre_exec(|| set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into));
        }
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

fn run_folder() -> Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("dewar-lab").tempdir().context("Failed to make a folder")
}

/// A channel and QEMU's end of it, a character device of this name.
fn channel(qemu: &mut Command, dir: &Path, name: &str) -> Result<Channel> {
    let path = dir.join(name);
    let channel = Channel::new(&path)?;
    qemu.args(["-chardev", &format!("file,id={name},path={}", path.display())]);
    Ok(channel)
}

/// Takes /out back from the exchange disk; none when nothing was left on it.
fn results(job: &Job, dir: &Path) -> Result<Option<u8>> {
    let back = dir.join("back");
    fs::create_dir(&back)?;
    let mut exchange = File::open(dir.join("exchange.img"))?;
    exchange.rewind()?;
    let tar =
        Command::new("tar").arg("-C").arg(&back).arg("-xf").arg("-").stdin(exchange).stderr(Stdio::null()).status()?;
    let code = fs::read_to_string(back.join(".rc")).ok().and_then(|text| text.trim().parse::<u8>().ok());
    let (true, Some(code)) = (tar.success(), code) else { return Ok(None) };
    if let Some(out) = &job.out {
        fs::remove_file(back.join(".rc"))?;
        fs::create_dir_all(out)?;
        let status = Command::new("cp").arg("-a").arg(back.join(".")).arg(out).status()?;
        if !status.success() {
            bail!("Failed to copy the lab's results to {}", out.display());
        }
    }
    Ok(Some(code))
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
